"""`govctl audit port`: bring the audit log of a homeserver that was on SQLite to PostgreSQL."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synapse_modules.audit.config import log_location
from synapse_modules.cli.app import local
from synapse_modules.cli.homeserver_yaml import audit_settings, read_homeserver_yaml, settings_option
from synapse_modules.core.errors import Conflict, GovernanceError
from synapse_modules.storage.copying import copy_tables, require_unused
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import require_current

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.cli.app import App

__all__ = ["port"]

_TABLES = "governance_audit_*"
_ENTRIES = "governance_audit_entries"
_PORTED = ".ported"


@click.command("port")
@settings_option
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    help="The log's SQLite file, governance-audit.db beside the homeserver's unless AuditModule says otherwise.",
)
@local
def port(app: App, files: tuple[Path, ...], file: Path) -> None:
    """Bring the audit log from its SQLite file to the database where the settings have it now.

    Stop Synapse first, and run `govctl migrate` there. Everything is copied in one transaction into empty tables; then
    the file gets the ending .ported, so that nobody goes on with it. The signing key stays what it is.
    """
    target = _target(files, file)
    ported = file.with_name(file.name + _PORTED)
    if ported.exists():
        raise Conflict("was ported before", where=str(ported), advice="Put it aside, if that was another log")
    require_unused(file)
    counts = _copy(DatabaseLocation(Dialect.SQLITE, {"database": str(file)}), target)
    file.rename(ported)
    if app.output.as_json:
        app.output.document({"database": str(target), "rows": dict(counts), "file": str(ported)})
    app.output.line(f"{counts[_ENTRIES]} entries are in {target}", style="green")
    app.output.line(f"  what they were copied from is now {ported}")
    app.output.line("  give AuditModule the same origin and the same signing_key_path as before")


def _target(files: tuple[Path, ...], file: Path) -> DatabaseLocation:
    """Where the log is to be.

    Raises:
        GovernanceError: nowhere, or where it is already.
    """
    settings = read_homeserver_yaml(files)
    audit = audit_settings(settings, files)
    target = log_location(audit, settings.database)
    if target.dialect is Dialect.SQLITE and Path(target.arguments["database"]).resolve() == file.resolve():
        raise GovernanceError(
            f"is where the audit log is according to {files[0]}",
            where=str(file),
            advice="Name the settings with the new database",
        )
    return target


def _copy(source: DatabaseLocation, target: DatabaseLocation) -> Mapping[str, int]:
    with contextlib.closing(Database(source)) as old, contextlib.closing(Database(target)) as new:
        require_current(old, "audit")
        require_current(new, "audit")
        return copy_tables(old, new, _TABLES)
