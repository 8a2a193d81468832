"""`govctl migrate`: bring the schema of the product's tables up to date, or show what is pending."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synapse_modules.audit.config import log_location
from synapse_modules.cli.app import local
from synapse_modules.cli.homeserver_yaml import read_homeserver_yaml, settings_option
from synapse_modules.core.clock import SystemClock
from synapse_modules.core.errors import GovernanceError
from synapse_modules.storage import migrations
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.roles import Duty, give_rights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synapse_modules.cli.app import App
    from synapse_modules.cli.homeserver_yaml import HomeserverYaml
    from synapse_modules.storage.migrations import Migration

__all__ = ["migrate"]

_SYNAPSE_TABLE = "schema_version"


@click.command()
@settings_option
@click.option("--writer", metavar="ROLE", help="Give the processes' PostgreSQL role its rights to the audit log.")
@click.option("--maintenance", metavar="ROLE", help="Give the role that erases and prunes its rights to the audit log.")
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 if anything is pending.")
@local
def migrate(app: App, files: tuple[Path, ...], writer: str | None, maintenance: str | None, check: bool) -> int:
    """Bring the schema up to date in the homeserver's database and in the audit log's.

    Run it with the new release before Synapse starts with it. It may run while the homeserver does, and twice.
    """
    roles = {duty: role for duty, role in ((Duty.WRITER, writer), (Duty.MAINTENANCE, maintenance)) if role is not None}
    if check and roles:
        raise click.UsageError("--check changes nothing: leave out --writer and --maintenance")
    places = _places(read_homeserver_yaml(files))
    done = [_bring_up(app, part, location, check=check) for part, location in places.items()]
    if roles:
        _give_rights(app, places, roles)
    if app.output.as_json:
        app.output.document({"databases": done})
    if "audit" not in places:
        app.output.note("AuditModule is not among the modules: there is no audit log to bring up to date")
    return 1 if any(each["pending"] for each in done) else 0


def _places(settings: HomeserverYaml) -> dict[str, DatabaseLocation]:
    """Where each part of the schema belongs."""
    places = {"homeserver": settings.database}
    if settings.audit is not None:
        places["audit"] = log_location(settings.audit, settings.database)
    return places


def _bring_up(app: App, part: str, location: DatabaseLocation, *, check: bool) -> dict[str, Any]:
    app.output.line(f"{part}: {location}", style="bold")
    if check and part == "audit" and _missing_file(location):
        steps = migrations.available(part, location.dialect)  # looking must not make the file
    else:
        with _opened(location) as database:
            _require_synapse(part, database)
            steps = migrations.pending(database, part) if check else migrations.migrate(database, part, SystemClock())
    _show(app, steps, "pending" if check else "applied")
    named = [{"version": step.version, "name": step.name} for step in steps]
    return {"part": part, "database": str(location)} | (
        {"applied": [], "pending": named} if check else {"applied": named, "pending": []}
    )


def _give_rights(app: App, places: Mapping[str, DatabaseLocation], roles: Mapping[Duty, str]) -> None:
    """Give roles their rights in the audit log's own database.

    Raises:
        GovernanceError: there is no log, or it has no database of its own, where the role owns Synapse's tables too.
    """
    location = places.get("audit")
    if location is None or location == places["homeserver"]:
        raise GovernanceError(
            "--writer and --maintenance are for an audit log with a database of its own",
            advice="Give AuditModule a database, as the operator's guide describes",
        )
    with _opened(location) as database:
        for duty, role in roles.items():
            give_rights(database, duty, role)
            app.output.line(f"  {role} has the rights of {duty.value}", style="green")


def _show(app: App, steps: list[Migration], what: str) -> None:
    for step in steps:
        app.output.line(f"  {what} {step.version:04d} {step.name}", style="yellow" if what == "pending" else "green")
    if not steps:
        app.output.line("  up to date")


@contextlib.contextmanager
def _opened(location: DatabaseLocation) -> Iterator[Database]:
    database = Database(location)
    with contextlib.closing(database):
        yield database


def _require_synapse(part: str, database: Database) -> None:
    """Refuse to put tables beside Synapse's where Synapse has none: that is some other database, or too early."""
    if part != "homeserver":
        return
    if _missing_file(database.location) or not migrations.has_table(database, _SYNAPSE_TABLE):
        raise GovernanceError(
            "Synapse has no tables there",
            where=str(database.location),
            advice="Start Synapse on it once, or correct its `database` section",
        )


def _missing_file(location: DatabaseLocation) -> bool:
    return location.dialect is Dialect.SQLITE and not Path(location.arguments["database"]).exists()
