"""The smoke scenario: one story through every module, told by a Matrix client and by govctl as a user would type it.

Each step returns what was seen, or raises what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import yaml

from synapse_modules.cli.demo.organisation import ACCOUNTS, user_id
from synapse_modules.cli.demo.players import Player, Refusal, refusal
from synapse_modules.core.errors import GovernanceError
from synapse_modules.core.yaml_documents import load_yaml

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from typing import Self

    from synapse_modules.cli.demo.folder import DataFolder

__all__ = ["STRANGER", "Scenario", "Step"]

STRANGER = "stranger"
"""An account that no binding of the demo's policy names."""

_CASE = "SMOKE-1"
_GOVCTL_S = 120.0


class Step:
    """One line of the scenario: a title, and what has to happen."""

    def __init__(self, title: str, play: Callable[[], Awaitable[str]]) -> None:
        self.title = title
        self.play = play


class Scenario:
    """The story on one homeserver, as an asynchronous context that ends every client.

    Args:
        address: of the homeserver. folder: its data, where scratch files go too.
        passwords: by account. rooms: ids by alias.
    """

    def __init__(
        self, address: str, folder: DataFolder, passwords: Mapping[str, str], rooms: Mapping[str, str]
    ) -> None:
        self._address = address
        self._folder = folder
        self._passwords = passwords
        self._falcon = rooms["project-falcon"]
        self._regulated = rooms["regulated-trading"]
        self._heron = ""
        self._kestrel = ""
        self._people: dict[str, Player] = {}
        self._clients = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for account in (account.name for account in ACCOUNTS):
            player = Player(self._address, user_id(account))
            self._people[account] = await self._clients.enter_async_context(player)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clients.aclose()

    def steps(self) -> list[Step]:
        """The story, in order. Later steps need what earlier ones made."""
        return [
            Step("everybody logs in, with matrix-nio and with govctl", self.log_in),
            Step("an account without any role may not log in", self.stranger),
            Step("alice, an employee, opens rooms and writes into them", self.employee_opens_rooms),
            Step("the guest may not open a room", self.guest_opens_room),
            Step("alice may not invite the external guest", self.employee_invites_guest),
            Step("the help desk may, and the guest joins and answers", self.help_desk_invites_guest),
            Step("the guest may not enter the regulated room", self.guest_enters_regulated),
            Step("govctl explains why", self.explain),
            Step("a new policy silences bob, without a restart", self.silence_bob),
            Step("the old policy lets bob speak again", self.let_bob_speak),
            Step("alice may not read the audit log", self.employee_exports),
            Step("the compliance officer places a room under legal hold", self.place_hold),
            Step("new retention rules make messages of projects due at once", self.shorten_retention),
            Step("a run deletes what is due, and the hold stops it for the rooms under hold", self.purge),
            Step("the audit log is searched for what was denied", self.search),
            Step("the audit log is exported", self.export),
            Step("the bundle is verified offline", self.verify),
            Step("the bundle with one byte changed is refused", self.verify_changed),
        ]

    # ------------------------------------------------------------------ access

    async def log_in(self) -> str:
        """Every demo account by nio, the officers by govctl as well."""
        for account, player in self._people.items():
            await player.log_in(self._passwords[account])
        for account in ("security", "helpdesk", "compliance", "alice"):
            password = str(self._folder.password_file(account))
            await self._govctl(account, "login", account, "--password-file", password)
        return f"{len(self._people)} people"

    async def stranger(self) -> str:
        """Somebody whom the policy does not know."""
        async with Player(self._address, user_id(STRANGER)) as player:
            return _quoted(await refusal(player.log_in(self._passwords[STRANGER])))

    async def employee_opens_rooms(self) -> str:
        """Two rooms of the class that retention will empty."""
        alice = self._people["alice"]
        self._heron = await alice.create_room("Project Heron")
        self._kestrel = await alice.create_room("Project Kestrel")
        for room in (self._heron, self._kestrel):
            for text in ("first", "second", "third"):
                await alice.say(room, text)
        return f"Project Heron is {self._heron}"

    async def guest_opens_room(self) -> str:
        """Role `guest` denies it."""
        return _quoted(await refusal(self._people["guest"].create_room("Guests only")))

    async def employee_invites_guest(self) -> str:
        """Employees invite employees."""
        return _quoted(await refusal(self._people["alice"].invite(self._heron, user_id("guest"))))

    async def help_desk_invites_guest(self) -> str:
        """The same invitation by somebody with another role."""
        await self._people["alice"].invite(self._heron, user_id("helpdesk"))
        await self._people["helpdesk"].join(self._heron)
        await self._people["helpdesk"].invite(self._heron, user_id("guest"))
        guest = self._people["guest"]
        await guest.join(self._heron)
        await guest.say(self._heron, "thank you")
        return f"the guest reads {len(await guest.reads(self._heron))} messages"

    async def guest_enters_regulated(self) -> str:
        """Role `outsider` denies it, in rooms of class `regulated`."""
        return _quoted(await refusal(self._people["guest"].join(self._regulated)))

    async def explain(self) -> str:
        """The same decision as the server makes, with its reasons."""
        answer = await self._govctl_json(
            "helpdesk", "rbac", "explain", user_id("guest"), "room.join", "--room", self._regulated
        )
        if answer["allowed"]:
            raise GovernanceError(f"it says allowed: {answer}")
        return str(answer["rule"])

    async def silence_bob(self) -> str:
        """Apply a policy that denies bob to send, and wait until it is in force."""
        policy = load_yaml(self._folder.policy.read_text(encoding="utf-8"), "policy.yaml")
        policy["roles"]["silenced"] = {"deny": ["message.send"]}
        policy["bindings"].append({"role": "silenced", "user": user_id("bob"), "scope": "server"})
        changed = self._folder.path / "policy-silent.yaml"
        changed.write_text(yaml.safe_dump(policy), encoding="utf-8")
        await self._govctl("security", "rbac", "apply", "--yes", str(changed))
        return _quoted(await refusal(self._people["bob"].say(self._falcon, "may I?")))

    async def let_bob_speak(self) -> str:
        """Apply the demo's policy again."""
        await self._govctl("security", "rbac", "apply", "--yes", str(self._folder.policy))
        await self._people["bob"].say(self._falcon, "thank you")
        return "bob says: thank you"

    # ------------------------------------------------------------------ retention

    async def place_hold(self) -> str:
        """On Project Kestrel; Project Falcon is under hold since the demo was made."""
        hold = await self._govctl_json(
            "compliance", "hold", "create", "--room", self._kestrel, "--case", _CASE, "--reason", "Evidence"
        )
        return f"hold {hold['hold_id']} on Project Kestrel, case {_CASE}"

    async def shorten_retention(self) -> str:
        """Everything in projects older than a second is due."""
        rules = load_yaml(self._folder.retention.read_text(encoding="utf-8"), "retention.yaml")
        for rule in rules["rules"]:
            if rule["class"] == "project":
                rule["delete_after"] = "1s"
        changed = self._folder.path / "retention-short.yaml"
        changed.write_text(yaml.safe_dump(rules), encoding="utf-8")
        await self._govctl("compliance", "retention", "rules", "apply", "--yes", str(changed))
        await asyncio.sleep(1.0)
        return "class project: 1s"

    async def purge(self) -> str:
        """Messages of Project Heron are gone, those of Falcon and Kestrel all stay."""
        alice = self._people["alice"]
        before = {room: await alice.reads(room) for room in (self._heron, self._kestrel, self._falcon)}
        await self._govctl_json("compliance", "retention", "run", "--yes")
        after = {room: await alice.reads(room) for room in before}
        for room in (self._kestrel, self._falcon):
            if after[room] != before[room]:
                raise GovernanceError(f"{room} is under hold and lost messages: {before[room]} became {after[room]}")
        if "first" in after[self._heron]:
            raise GovernanceError(f"{self._heron} kept what was due: {after[self._heron]}")
        record = await self._govctl_json(
            "compliance", "audit", "search", "--case", _CASE, "--action", "retention.purge", "--room", self._heron
        )
        if not record["entries"]:
            raise GovernanceError(f"the purge of {self._heron} is not on record")
        gone = len(before[self._heron]) - len(after[self._heron])
        return f"Project Heron lost {gone} of {len(before[self._heron])} messages, the held rooms none; it is on record"

    # ------------------------------------------------------------------ audit

    async def employee_exports(self) -> str:
        """Role `employee` has no permission of the audit log."""
        return await self._govctl(
            "alice", "audit", "search", "--case", _CASE, status=1, says="denied: None of your roles lets you search"
        )

    async def search(self) -> str:
        """The guest's refusals are on record, with the rule."""
        found = await self._govctl_json(
            "compliance", "audit", "search", "--case", _CASE, "--actor", user_id("guest"), "--outcome", "denied"
        )
        if not found["entries"]:
            raise GovernanceError("no refusal of the guest is on record")
        return f"{len(found['entries'])} refusals of the guest"

    async def export(self) -> str:
        """One file with everything, which the next steps take as an auditor would."""
        done = await self._govctl_json("compliance", "audit", "export", "--case", _CASE, "--out", str(self._bundle))
        return f"{done['entries']} entries, {self._bundle.stat().st_size} bytes"

    async def verify(self) -> str:
        """Whole and genuine."""
        return await self._govctl("compliance", "verify", str(self._bundle))

    async def verify_changed(self) -> str:
        """One bit of one byte in the middle of the file."""
        content = bytearray(self._bundle.read_bytes())
        content[len(content) // 2] ^= 1
        changed = self._bundle.with_name("changed.jsonl")
        changed.write_bytes(content)
        return await self._govctl("compliance", "verify", str(changed), status=1, says="NOT GENUINE")

    # ------------------------------------------------------------------ inside

    @property
    def _bundle(self) -> Path:
        return self._folder.path / "evidence.jsonl"

    async def _govctl_json(self, account: str, *arguments: str) -> Any:
        return json.loads(await self._govctl(account, *arguments, "--json"))

    async def _govctl(self, account: str, *arguments: str, status: int = 0, says: str = "") -> str:
        """Run govctl with the login of ``account`` and return what it says, on one line if it is not JSON.

        Raises:
            GovernanceError: its exit status is not ``status``, or it does not say ``says``.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "synapse_modules.cli", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=self._environment(account),
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), _GOVCTL_S)
        said = output.decode(errors="replace").strip()
        if process.returncode != status or says not in said:
            expected = f"{status} and {says!r}" if says else str(status)
            raise GovernanceError(
                f"`govctl {' '.join(arguments)}` ended with {process.returncode}, not {expected}: {said}"
            )
        return said

    def _environment(self, account: str) -> dict[str, str]:
        """Nobody's settings but the scenario's own, and a login file for each account."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GOVCTL_")}
        home = str(self._folder.path / "govctl" / account)
        return inherited | {"GOVCTL_SERVER": self._address, "GOVCTL_HOME": home}


def _quoted(refused: Refusal) -> str:
    return f"{refused.errcode}: {refused.problem}"
