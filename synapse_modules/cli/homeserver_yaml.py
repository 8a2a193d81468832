"""Synapse's own settings, as far as commands that work locally need them, read the way Synapse reads them.

Later files replace whole top-level sections of earlier ones; of a folder, every ``*.yaml`` file counts, in the order of
their names; an empty file counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from synapse_modules.audit.config import AuditConfig
from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import GovernanceError, InvalidInput
from synapse_modules.storage.database import DatabaseLocation
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["HomeserverYaml", "audit_settings", "read_homeserver_yaml", "settings_option"]

_AUDIT_MODULE = "synapse_modules.plugin.AuditModule"
_ENGINES = {"sqlite3": Dialect.SQLITE, "psycopg2": Dialect.POSTGRES}


@dataclass(frozen=True, slots=True)
class HomeserverYaml:
    """What the settings say about databases.

    Attributes:
        server_name: the homeserver's name, where it is said.
        database: where Synapse's main database is.
        audit: the settings of the audit log; None where ``AuditModule`` is not loaded.
    """

    server_name: str | None
    database: DatabaseLocation
    audit: AuditConfig | None


settings_option = click.option(
    "-c",
    "--config",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Synapse's homeserver.yaml, or a folder of such files; several times, as Synapse is started.",
)
"""The option of every command that works on the databases that Synapse's settings name."""


def audit_settings(settings: HomeserverYaml, files: Sequence[Path]) -> AuditConfig:
    """The settings of the audit log, for a command that needs one.

    Raises:
        GovernanceError: there are none.
    """
    if settings.audit is None:
        raise GovernanceError("AuditModule is not among the modules", where=str(files[0]))
    return settings.audit


def read_homeserver_yaml(paths: Sequence[Path]) -> HomeserverYaml:
    """Read Synapse's settings from files and folders.

    Raises:
        GovernanceError: a file cannot be read.
        InvalidInput: it is no YAML, names no database, or sets up the audit log wrongly.
    """
    settings: dict[str, Any] = {}
    for file in _files(paths):
        settings |= _section(file)
    where = ", ".join(map(str, paths))
    return HomeserverYaml(
        settings.get("server_name"), _database(settings, where), _audit(settings.get("modules"), where)
    )


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.suffix == ".yaml" and each.is_file())
        else:
            yield path


def _section(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise GovernanceError(f"cannot be read: {error.strerror}", where=str(file)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Not the error's own text: it quotes the line, and a password may stand there.
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        raise GovernanceError("is not YAML", where=place) from None
    if found is not None and not isinstance(found, dict):
        raise GovernanceError("is not a mapping of settings", where=str(file), advice="Is this Synapse's file?")
    return found or {}


def _database(settings: Mapping[str, Any], where: str) -> DatabaseLocation:
    if settings.get("database_path"):
        return _sqlite(settings["database_path"], f"{where}:database_path")
    section, path = _database_section(settings, where)
    if not isinstance(section, dict):
        raise InvalidInput(path, type(section).__name__, "a mapping with the keys name and args")
    arguments = section.get("args") or {}
    if not isinstance(arguments, dict):
        raise InvalidInput(f"{path}.args", type(arguments).__name__, "a mapping")
    engine = _ENGINES.get(section.get("name", "sqlite3"))
    if engine is None:
        raise InvalidInput(f"{path}.name", section["name"], "sqlite3 or psycopg2")
    if engine is Dialect.SQLITE:
        return _sqlite(arguments.get("database"), f"{path}.args.database")
    # What begins with cp_ is for Synapse's own pool, not for the driver.
    return DatabaseLocation(engine, {key: value for key, value in arguments.items() if not key.startswith("cp_")})


def _database_section(settings: Mapping[str, Any], where: str) -> tuple[Any, str]:
    """The section of the database that holds Synapse's main data store, and its path."""
    if settings.get("database"):
        return settings["database"], f"{where}:database"
    several = settings.get("databases")
    for name, section in several.items() if isinstance(several, dict) else ():
        if isinstance(section, dict) and "main" in (section.get("data_stores") or ["main"]):
            return section, f"{where}:databases.{name}"
    raise GovernanceError(
        "has no `database` section", where=where, advice="Give all files that Synapse is started with"
    )


def _sqlite(path: Any, where: str) -> DatabaseLocation:
    if not isinstance(path, str) or path == ":memory:":
        raise InvalidInput(where, path, "the path of a file")
    return DatabaseLocation(Dialect.SQLITE, {"database": path})


def _audit(modules: Any, where: str) -> AuditConfig | None:
    for number, entry in enumerate(modules if isinstance(modules, list) else ()):
        if isinstance(entry, dict) and entry.get("module") == _AUDIT_MODULE:
            return parse_document(AuditConfig, entry.get("config") or {}, f"{where}:modules[{number}].config")
    return None
