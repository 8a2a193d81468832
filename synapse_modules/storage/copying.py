"""Copies the tables of a SQLite file into another database with the same schema, all of them or nothing."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from synapse_modules.core.errors import Conflict, GovernanceError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from synapse_modules.core.ports import Rows, Transaction
    from synapse_modules.storage.database import Database

__all__ = ["copy_tables", "require_unused"]

_PAGE = 1_000


def require_unused(path: Path) -> None:
    """Refuse a SQLite file that another process has open, and leave all that belongs to it in the file itself.

    Raises:
        NotFound: there is no such file. Conflict: some process has it open. GovernanceError: it is no database.
    """
    if not path.is_file():
        raise NotFound("there is no such file", where=str(path))
    connection = sqlite3.connect(path, timeout=0)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")  # only the one connection of a database can leave WAL
    except sqlite3.OperationalError as error:
        raise Conflict(f"is in use: {error}", where=str(path), advice="Stop Synapse first") from error
    except sqlite3.DatabaseError as error:
        raise GovernanceError(f"cannot be read: {error}", where=str(path)) from error
    finally:
        connection.close()


def copy_tables(source: Database, target: Database, names: str) -> Mapping[str, int]:
    """Copy every row of each table of the SQLite database ``source`` whose name matches ``names``, a GLOB pattern.

    Both have the same schema; nobody can write to ``source`` meanwhile. Returns how many rows each table has.

    Raises:
        Conflict: one of the tables in ``target`` is not empty; nothing was copied.
        GovernanceError: not everything arrived; nothing was copied.
    """
    where = str(target.location)
    return source.run(lambda reading: target.run(lambda writing: _copy_all(reading, writing, names, where)))


def _copy_all(source: Transaction, target: Transaction, names: str, where: str) -> dict[str, int]:
    source.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB ? ORDER BY name", (names,))
    tables = [name for (name,) in source.fetchall()]
    for table in tables:
        if _count(target, table):
            raise Conflict(f"the table {table} is not empty", where=where, advice="Copy into an empty database only")
    for table in tables:
        _copy(source, target, table)
    counts = {table: _count(source, table) for table in tables}
    short = [table for table in tables if _count(target, table) != counts[table]]
    if short:
        raise GovernanceError(f"not everything arrived in {', '.join(short)}; nothing was copied", where=where)
    return counts


def _copy(source: Transaction, target: Transaction, table: str) -> None:
    source.execute("SELECT name FROM pragma_table_info(?) ORDER BY cid", (table,))
    columns = [name for (name,) in source.fetchall()]
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    for page in _pages(source, table, columns):
        target.executemany(insert, page)


def _pages(source: Transaction, table: str, columns: Sequence[str]) -> Iterator[Rows]:
    """The rows of a table, some at a time."""
    select = f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {_PAGE}"
    last: int = -(2**63)
    while True:
        source.execute(select, (last,))
        rows = source.fetchall()
        if not rows:
            return
        last = rows[-1][0]
        yield [row[1:] for row in rows]


def _count(transaction: Transaction, table: str) -> int:
    transaction.execute(f"SELECT COUNT(*) FROM {table}")
    row = transaction.fetchone()
    return int(row[0]) if row else 0
