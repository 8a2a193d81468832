"""`govctl dev`: the demo organisation for people to play with."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_modules.cli.app import DEFAULT_SERVER
from synapse_modules.cli.demo.folder import DataFolder, find_demo_configuration
from synapse_modules.cli.demo.organisation import ACCOUNTS, HOLD_CASE, ROOMS, Organisation, user_id
from synapse_modules.cli.demo.server import Server, require_free_port, require_server_packages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synapse_modules.cli.output import Output

__all__ = ["run"]


def run(output: Output, data: Path, port: int) -> None:
    """Serve the demo from the folder ``data`` on ``port`` until Ctrl-C or SIGTERM.

    Raises:
        GovernanceError: it cannot start, or Synapse ends by itself.
    """
    require_server_packages()
    folder = DataFolder(data, find_demo_configuration())
    folder.claim()
    require_free_port(port)
    folder.prepare(port)
    passwords = folder.passwords(account.name for account in ACCOUNTS)
    with _until_interrupted(), _serving(output, folder, port) as server:
        rooms = _organisation(output, server.address, folder, passwords)
        _introduce(output, server.address, folder, passwords, rooms)
        server.wait()
    output.line("stopped; the data is kept: start again to go on, `make clean-run` to forget it")


@contextlib.contextmanager
def _serving(output: Output, folder: DataFolder, port: int) -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        with output.task("starting Synapse") as task:
            server = stack.enter_context(Server(folder, port, on_wait=task.advance))
        yield server


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the block in order; they are how one stops it, not a failure.

    SIGINT is set too: whatever a script starts in the background inherits that it is ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        yield


def _organisation(output: Output, address: str, folder: DataFolder, passwords: Mapping[str, str]) -> dict[str, str]:
    """The demo's rooms by alias; made the first time."""
    known = folder.recall("organisation")
    if known:
        return known
    organisation = Organisation(address, folder.registration_secret, passwords)
    with output.task("making the demo organisation", total=None) as task, contextlib.closing(organisation):
        rooms = organisation.found(lambda step: task.advance(title=f"making the demo organisation: {step}"))
    folder.remember("organisation", rooms)
    return rooms


def _introduce(
    output: Output, address: str, folder: DataFolder, passwords: Mapping[str, str], rooms: Mapping[str, str]
) -> None:
    output.line(f"Synapse with role-based access control, audit log and retention: {address}", style="bold")
    output.line(f"Log in there with any Matrix client. Data and log: {_relative(folder.path)}/")
    output.line()
    output.table(
        ("account", "password", "who", "what the policy lets them do"),
        [(user_id(account.name), passwords[account.name], account.title, account.may) for account in ACCOUNTS],
    )
    output.line()
    kinds = {"lobby": "public", "regulated-trading": "regulated, closed to externals"}
    output.table(
        ("room", "id", "kind"),
        [(room.name, rooms[room.alias], kinds.get(room.alias, f"under legal hold {HOLD_CASE}")) for room in ROOMS],
    )
    output.line()
    output.line("Three things to try, in another terminal:", style="bold")
    for number, (title, commands) in enumerate(_to_try(address, folder), start=1):
        output.line(f"{number}. {title}")
        for command in commands:
            output.line(f"   {command}", style="cyan")
    output.line()
    output.line("Ctrl-C stops it.")
    if output.as_json:
        accounts = [{"user_id": user_id(name), "password": password} for name, password in passwords.items()]
        output.document({"server": address, "data": str(folder.path), "accounts": accounts, "rooms": dict(rooms)})


def _to_try(address: str, folder: DataFolder) -> list[tuple[str, list[str]]]:
    """Commands that work as they stand, from the folder that `govctl dev` was started in."""
    server = "" if address == DEFAULT_SERVER else f" --server {address}"
    home = shlex.quote(_relative(folder.path))
    govctl = shlex.quote(_program())

    def log_in(account: str) -> str:
        return f"{govctl} login {account} --password-file {home}/passwords/{account}{server}"

    return [
        (
            "As the security officer: why may the guest not open a room?",
            [log_in("security"), f"{govctl} rbac explain {user_id('guest')} room.create{server}"],
        ),
        (
            "As the compliance officer: what would retention delete, and what does the hold keep?",
            [log_in("compliance"), f"{govctl} retention simulate{server}", f"{govctl} hold list{server}"],
        ),
        (
            "Still as the compliance officer: take the evidence away and check it without the server.",
            [
                f"{govctl} audit export --case DEMO-1 --out {home}/evidence.jsonl{server}",
                f"{govctl} verify {home}/evidence.jsonl",
            ],
        ),
    ]


def _program() -> str:
    """How the user called us, shortened where that still works."""
    called = Path(sys.argv[0])
    if shutil.which(called.name) == str(called):
        return called.name
    return _relative(called.absolute())


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
