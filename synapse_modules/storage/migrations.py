"""Schema migrations with a ledger of their own, the same on both engines.

Files are ``schema/<part>/NNNN_<name>.sql``; where the dialects differ, ``NNNN_<name>.sqlite.sql`` and
``NNNN_<name>.postgres.sql`` stand in for it. A part is a database: ``homeserver`` (Synapse's own, where our tables
stand beside Synapse's) and ``audit``. A migration that has been released is never edited: its checksum is in the
ledger, and covers the texts for both dialects.

The ledger says what was done to one database, so each dialect has its own: Synapse's way from SQLite to PostgreSQL
copies every table that is in both, and would write over it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from synapse_modules.core.errors import GovernanceError
from synapse_modules.storage.dialect import Dialect, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synapse_modules.core.clock import Clock
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = [
    "LEDGERS",
    "PARTS",
    "Migration",
    "SchemaMismatch",
    "available",
    "has_table",
    "migrate",
    "pending",
    "require_current",
]

PARTS = ("homeserver", "audit")
LEDGERS: Mapping[str, str] = {Dialect.SQLITE: "governance_schema_sqlite", Dialect.POSTGRES: "governance_schema"}
"""By dialect, the table that says what was applied."""

SCHEMA = resources.files("synapse_modules.storage") / "schema"
_LOCK_KEY = 0x676F7665726E  # "govern": the advisory lock under which one process migrates

_LEDGER = """
CREATE TABLE IF NOT EXISTS {ledger} (
    part TEXT NOT NULL,
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_ms BIGINT NOT NULL,
    PRIMARY KEY (part, version)
)
"""


class SchemaMismatch(GovernanceError):
    """The database's schema is not the one this code was written for."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of a schema.

    Attributes:
        part: the database it belongs to. version: its number, from 1, without gaps. name: what it does.
        sql: the script for one dialect. checksum: hexadecimal SHA-256 of the released texts, the same for both.
    """

    part: str
    version: int
    name: str
    sql: str
    checksum: str


def available(part: str, dialect: Dialect) -> list[Migration]:
    """All migrations of ``part`` for ``dialect``, in order.

    Raises:
        SchemaMismatch: their numbers are not 1, 2, 3 and so on: this installation is damaged.
    """
    found = []
    for name, texts in sorted(_released(part).items()):
        number, _, what = name.partition("_")
        text = texts.get(dialect) or texts.get(None)
        if text is not None:
            found.append(Migration(part, int(number), what, render(text, dialect), _checksum(texts)))
    numbers = [migration.version for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise SchemaMismatch(
            f"the migrations of the {part} schema are numbered {numbers}, expected 1, 2, 3 and so on",
            advice="Install the release again",
        )
    return found


def _released(part: str) -> dict[str, dict[Dialect | None, str]]:
    """The texts of each migration, by its number and name and by the dialect that it is for; None is for both."""
    found: dict[str, dict[Dialect | None, str]] = {}
    for file in (SCHEMA / part).iterdir():
        name, _, suffix = file.name.removesuffix(".sql").partition(".")
        if file.name.endswith(".sql"):
            dialect = Dialect(suffix) if suffix else None
            found.setdefault(name, {})[dialect] = file.read_text(encoding="utf-8")
    return found


def _checksum(texts: Mapping[Dialect | None, str]) -> str:
    """Identity of what was released, before anything in it was rendered."""
    named = sorted((dialect or "", text) for dialect, text in texts.items())
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def pending(database: Database, part: str) -> list[Migration]:
    """The migrations that ``database`` still needs; changes nothing.

    Raises:
        SchemaMismatch: an applied migration differs from the released text, or the schema is newer than this code.
    """
    with _explained(database, f"the {part} schema"):
        return database.run(lambda transaction: _pending_in(transaction, part), read_only=True)


def has_table(database: Database, name: str) -> bool:
    """Whether ``database`` has a table called ``name``, ours or another's.

    Raises:
        SchemaMismatch: the engine does not let us look.
    """
    with _explained(database, f"the table {name}"):
        return database.run(lambda transaction: _has_table(transaction, name), read_only=True)


def require_current(database: Database, part: str) -> None:
    """Refuse to go on with a schema that is older or newer than this code.

    Raises:
        SchemaMismatch: with the command that mends it.
    """
    missing = pending(database, part)
    if missing:
        names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in missing)
        raise SchemaMismatch(
            f"the {part} schema is older than this code, missing {names}",
            where=str(database.location),
            advice="Run `govctl migrate` with this release, then start again",
        )


def migrate(database: Database, part: str, clock: Clock) -> list[Migration]:
    """Apply what is missing, all in one transaction, and return it. Safe to run from several processes at once.

    Raises:
        SchemaMismatch: as :func:`pending` says, or the engine refuses a step; nothing was changed then.
    """

    def work(transaction: Transaction) -> list[Migration]:
        _lock(transaction)
        transaction.execute(_LEDGER.format(ledger=LEDGERS[transaction.dialect]))
        missing = _pending_in(transaction, part)
        for migration in missing:
            _apply(transaction, migration, clock.now_ms())
        return missing

    with _explained(database, f"the {part} schema"):
        return database.run(work)


def _lock(transaction: Transaction) -> None:
    # SQLite's BEGIN IMMEDIATE is the lock already.
    if transaction.dialect == Dialect.POSTGRES:
        transaction.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK_KEY,))


def _apply(transaction: Transaction, migration: Migration, now_ms: int) -> None:
    for statement in _statements(migration.sql, transaction.dialect):
        transaction.execute(statement)
    ledger = LEDGERS[transaction.dialect]
    transaction.execute(
        f"INSERT INTO {ledger} (part, version, name, checksum, applied_ms) VALUES (?, ?, ?, ?, ?)",
        (migration.part, migration.version, migration.name, migration.checksum, now_ms),
    )


def _statements(script: str, dialect: str) -> Iterator[str]:
    """Split a script. PostgreSQL runs several statements at once; SQLite's own parser tells where each ends."""
    if dialect == Dialect.POSTGRES:
        yield script
        return
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def _pending_in(transaction: Transaction, part: str) -> list[Migration]:
    released = available(part, Dialect(transaction.dialect))
    applied = _applied(transaction, part)
    _check_history(part, released, applied)
    return [migration for migration in released if migration.version not in applied]


def _applied(transaction: Transaction, part: str) -> dict[int, str]:
    ledger = LEDGERS[transaction.dialect]
    if not _has_table(transaction, ledger):
        return {}
    transaction.execute(f"SELECT version, checksum FROM {ledger} WHERE part = ?", (part,))
    return dict(transaction.fetchall())


def _has_table(transaction: Transaction, name: str) -> bool:
    if transaction.dialect == Dialect.POSTGRES:
        transaction.execute("SELECT to_regclass(?)", (name,))
    else:
        transaction.execute("SELECT (SELECT name FROM sqlite_master WHERE name = ?)", (name,))
    row = transaction.fetchone()
    return row is not None and row[0] is not None


@contextlib.contextmanager
def _explained(database: Database, what: str) -> Iterator[None]:
    """Turn what the engine refuses, for want of a right or of a table, into one line; transient failures pass."""
    try:
        yield
    except Exception as error:
        if "DatabaseError" not in {base.__name__ for base in type(error).__mro__}:
            raise
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SchemaMismatch(
            f"{what} cannot be read or brought up to date: {cause}",
            where=str(database.location),
            advice="Nothing was changed. The database role must own the product's tables and may have to create some",
        ) from error


def _check_history(part: str, released: list[Migration], applied: dict[int, str]) -> None:
    known = {migration.version: migration.checksum for migration in released}
    newer = sorted(set(applied) - set(known))
    if newer:
        raise SchemaMismatch(
            f"the {part} schema has version {newer[-1]}, newer than this code's {max(known, default=0)}",
            advice="Start a release at least as new as the one that migrated the database",
        )
    edited = [version for version, checksum in applied.items() if known[version] != checksum]
    if edited:
        raise SchemaMismatch(
            f"migration {edited[0]:04d} of the {part} schema was edited after it had been applied",
            advice="Install an unmodified release",
        )
