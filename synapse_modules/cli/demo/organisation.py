"""The demo organisation: six people, three rooms and one legal hold, made through the homeserver's own APIs.

Every step first looks whether it was done already, so that a run that was interrupted is completed by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synapse_modules.cli.client import Client, Refused, segment
from synapse_modules.cli.demo.folder import SERVER_NAME
from synapse_modules.core.errors import GovernanceError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["ACCOUNTS", "HOLD_CASE", "ROOMS", "Account", "Organisation", "Room", "user_id"]

HOLD_CASE = "LIT-7"


@dataclass(frozen=True, slots=True)
class Account:
    """A person of the demo. ``may`` says in words what the demo's policy lets them do."""

    name: str
    title: str
    may: str


@dataclass(frozen=True, slots=True)
class Room:
    """A room of the demo, its first member its creator, with messages as ``(sender, text)``."""

    alias: str
    name: str
    members: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]
    public: bool = False
    held: bool = False


ACCOUNTS = (
    Account("security", "security officer", "decides who may do what"),
    Account("helpdesk", "help desk", "explains decisions, invites externals"),
    Account("compliance", "compliance officer", "audit log, retention, legal holds"),
    Account("alice", "employee", "opens rooms, invites colleagues"),
    Account("bob", "employee", "opens rooms, invites colleagues"),
    Account("guest", "external guest", "talks in rooms that are not regulated, opens none"),
)

ROOMS = (
    Room(
        alias="lobby",
        name="Lobby",
        public=True,
        members=("alice", "bob", "guest", "helpdesk"),
        messages=(("alice", "Welcome to the demo."), ("guest", "Glad to be here.")),
    ),
    Room(
        alias="regulated-trading",
        name="Regulated trading desk",
        members=("alice", "bob", "compliance"),
        messages=(("bob", "Order 4711 is confirmed."), ("alice", "Noted, the contract follows.")),
    ),
    Room(
        alias="project-falcon",
        name="Project Falcon",
        members=("bob", "alice", "compliance"),
        messages=(("bob", "The prototype failed its test."), ("alice", "Who knows about it?"), ("bob", "Nobody yet.")),
        held=True,
    ),
)


def user_id(account: str) -> str:
    """The Matrix id of an account of the demo."""
    return f"@{account}:{SERVER_NAME}"


@dataclass
class Organisation:
    """The people of the demo on one homeserver, each with a client of their own once they have logged in.

    Args:
        server: address of the homeserver. registration_secret: lets us register accounts. passwords: by account.
    """

    server: str
    registration_secret: str
    passwords: Mapping[str, str]
    _clients: dict[str, Client] = field(default_factory=dict, init=False, repr=False)

    def close(self) -> None:
        """Log everybody out."""
        for client in self._clients.values():
            with client, contextlib.suppress(GovernanceError):  # a homeserver that has ended knows no logins
                client.log_out()
        self._clients.clear()

    def found(self, report: Callable[[str], object] = str) -> dict[str, str]:
        """Make whatever is missing and return the rooms' ids by alias.

        Args:
            report: told each step, in words.

        Raises:
            GovernanceError: the homeserver refuses something the demo needs.
        """
        for account in ACCOUNTS:
            report(f"account {account.name}")
            self.register(account.name, account.title)
        rooms = {}
        for room in ROOMS:
            report(f"room {room.name}")
            rooms[room.alias] = self.open_room(room)
        for room in ROOMS:
            if room.held:
                report(f"legal hold on {room.name}")
                self.hold(rooms[room.alias], f"Everything about {room.name} is evidence.")
        return rooms

    def as_user(self, account: str) -> Client:
        """A client that is logged in as ``account``."""
        if account not in self._clients:
            client = Client(self.server)
            client.log_in(account, self.passwords[account], "demo")
            self._clients[account] = client
        return self._clients[account]

    def register(self, account: str, title: str) -> None:
        """Register ``account`` by the shared secret, unless it exists."""
        with Client(self.server) as client:
            nonce = client.matrix("GET", "/_synapse/admin/v1/register")["nonce"]
            words = (nonce, account, self.passwords[account], "notadmin")
            mac = hmac.new(self.registration_secret.encode(), "\0".join(words).encode(), hashlib.sha1).hexdigest()
            body = {
                "nonce": nonce,
                "username": account,
                "displayname": f"{account.capitalize()} ({title})",
                "password": self.passwords[account],
                "admin": False,
                "inhibit_login": True,
                "mac": mac,
            }
            try:
                client.matrix("POST", "/_synapse/admin/v1/register", body=body)
            except Refused as error:
                if error.errcode != "M_USER_IN_USE":
                    raise

    def open_room(self, room: Room) -> str:
        """The id of ``room``, made with its members and messages unless its alias exists.

        The alias comes last: a room that has one is complete.
        """
        creator, *others = room.members
        alias = f"/_matrix/client/v3/directory/room/{segment(f'#{room.alias}:{SERVER_NAME}')}"
        with contextlib.suppress(NotFound):
            return str(self.as_user(creator).matrix("GET", alias)["room_id"])
        room_id = self.create(creator, room.name, public=room.public)
        for member in others:
            self.join(member, room_id, invited_by=None if room.public else creator)
        for sender, text in room.messages:
            self.say(sender, room_id, text)
        self.as_user(creator).matrix("PUT", alias, body={"room_id": room_id})
        return room_id

    def create(self, creator: str, name: str, *, public: bool = False) -> str:
        """Create a room called ``name`` and return its id."""
        kind = {"preset": "public_chat", "visibility": "public"} if public else {"preset": "private_chat"}
        body = {"name": name, **kind}
        return str(self.as_user(creator).matrix("POST", "/_matrix/client/v3/createRoom", body=body)["room_id"])

    def join(self, member: str, room_id: str, *, invited_by: str | None) -> None:
        """Let ``member`` join, after an invitation where one is needed."""
        path = f"/_matrix/client/v3/rooms/{segment(room_id)}"
        if invited_by is not None:
            self.as_user(invited_by).matrix("POST", f"{path}/invite", body={"user_id": user_id(member)})
        self.as_user(member).matrix("POST", f"{path}/join", body={})

    def say(self, sender: str, room_id: str, text: str) -> None:
        """Send one message."""
        client = self.as_user(sender)
        path = f"/_matrix/client/v3/rooms/{segment(room_id)}/send/m.room.message/{secrets.token_hex(8)}"
        client.matrix("PUT", path, body={"msgtype": "m.text", "body": text})

    def hold(self, room_id: str, reason: str) -> None:
        """Place ``room_id`` under hold as the compliance officer, unless it is."""
        officer = self.as_user("compliance")
        if room_id in _held_rooms(officer.pages("/holds", "holds", limit=None)):
            return
        body = {"kind": "room", "subject": room_id, "case_id": HOLD_CASE, "reason": reason}
        officer.post("/holds", body)


def _held_rooms(holds: Iterable[Mapping[str, Any]]) -> set[str]:
    return {hold["subject"] for hold in holds if hold["kind"] == "room" and hold.get("released_ms") is None}
