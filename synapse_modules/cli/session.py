"""`govctl login`, `logout` and `status`."""

from __future__ import annotations

import contextlib
import getpass
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synapse_modules.cli.app import remote
from synapse_modules.cli.client import NotLoggedIn
from synapse_modules.cli.output import moment
from synapse_modules.core.errors import Denied, GovernanceError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synapse_modules.cli.app import App
    from synapse_modules.cli.client import Client

__all__ = ["login", "logout", "status"]


@click.command()
@click.argument("user")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="Read the password from FILE, or from standard input with `-`, instead of asking for it.",
)
@remote
def login(app: App, user: str, password_file: Path | None) -> None:
    """Log in as USER with a password and keep the login for later commands.

    The token is kept in a file that nobody else can read; the password is not kept.
    """
    password = _password(user, password_file)
    with app.connect(None) as client:
        kept = client.log_in(user, password, f"govctl on {socket.gethostname()}")
    earlier = app.logins.get(app.server)
    app.logins.keep(app.server, kept)
    if earlier is not None:
        _end(app, earlier.access_token)
    if app.output.as_json:
        app.output.document({"server": app.server, "user_id": kept.user_id, "device_id": kept.device_id})
    app.output.line(f"logged in to {app.server} as {kept.user_id}")


@click.command()
@remote
def logout(app: App) -> None:
    """Make the kept login worthless and forget it."""
    kept = app.logins.get(app.server)
    if kept is None:
        raise NotLoggedIn("no login is kept", where=app.server)
    _end(app, kept.access_token)
    app.logins.forget(app.server)
    if app.output.as_json:
        app.output.document({"server": app.server, "user_id": kept.user_id})
    app.output.line(f"logged out of {app.server}: {kept.user_id}")


@click.command()
@remote
def status(app: App) -> None:
    """Show what runs at the server, and who you are there. Exit status 1 if governance is not in force."""
    facts = _facts(app)
    if app.output.as_json:
        app.output.document(facts)
    for line in _lines(facts):
        app.output.line(line)
    if not facts["governance"]:
        raise NotFound("loads no governance module", where=app.server)


def _facts(app: App) -> dict[str, Any]:
    with app.connect(app.token()) as client:
        versions = client.matrix("GET", "/_matrix/client/versions")
        facts: dict[str, Any] = {"server": app.server, "matrix": versions["versions"][-1]}
        facts["user"] = _if_permitted(lambda: client.matrix("GET", "/_matrix/client/v3/account/whoami")["user_id"])
        facts["governance"] = _governance(client)
        if "audit" in facts["governance"]:
            facts["audit"] = _if_permitted(lambda: client.get("/audit/status"))
        return facts


def _governance(client: Client) -> list[str]:
    """The features that the server offers, from the paths it documents; none if it documents nothing."""
    with contextlib.suppress(NotFound):
        return sorted({path.strip("/").split("/")[0] for path in client.get("/openapi.json")["paths"]})
    return []


def _if_permitted(read: Any) -> Any:
    try:
        return read()
    except (Denied, NotLoggedIn) as error:
        return {"not shown": error.problem}


def _lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Facts for people, a line for each; those that belong together below one another."""
    for name, value in facts.items():
        label = indent + name.removesuffix("_ms").replace("_", " ")
        if name == "processes":
            yield label
            yield from (f"{indent}  {_process(each)}" for each in value)
        elif value and isinstance(value, dict):
            yield label
            yield from _lines(value, indent + "  ")
        else:
            yield f"{label:<17}{moment(value) if name.endswith('_ms') else _words(value)}"


def _process(found: Mapping[str, Any]) -> str:
    """A process of the homeserver: what it runs, when it last showed itself, and what is wrong with it."""
    state = "records" if found["recording"] else "does not record"
    parts = [f"{found['process']:<15}{state}", f"last seen {moment(found['seen_ms'])}"]
    if found["product_version"]:
        parts.append(f"version {found['product_version']}")
    if found["modules"]:
        parts.append(" ".join(found["modules"]))
    return ", ".join([*parts, *([f"PROBLEM: {found['problem']}"] if found["problem"] else [])])


def _words(value: object) -> str:
    if isinstance(value, list | dict):
        return ", ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)


def _password(user: str, file: Path | None) -> str:
    if file is not None and str(file) != "-":
        try:
            return file.read_text(encoding="utf-8").strip("\r\n")
        except OSError as error:
            raise GovernanceError(f"cannot be read: {error.strerror}", where=str(file)) from None
    if file is None and sys.stdin.isatty():
        return getpass.getpass(f"Password of {user}: ")
    return sys.stdin.readline().strip("\r\n")


def _end(app: App, token: str) -> None:
    """End a login; one that the server has forgotten has ended already."""
    with app.connect(token) as client, contextlib.suppress(NotLoggedIn):
        client.log_out()
