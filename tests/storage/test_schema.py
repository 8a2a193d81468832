"""The schema is the sum of its migrations: the same tables on both engines, and those that the reference describes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import pytest

from scripts import write_docs
from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import LEDGERS, PARTS, available, migrate
from tests.support.templates import copy_sqlite_template, postgres_template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synapse_modules.core.ports import Rows, Transaction
    from tests.support.postgres import Postgres

SQLITE_COLUMNS = """
    SELECT t.name, c.name, c."notnull" OR c.pk > 0, c.pk FROM sqlite_master t JOIN pragma_table_info(t.name) c
    WHERE t.type = 'table' AND t.name LIKE 'governance_%' ORDER BY t.name, c.cid
"""
POSTGRES_COLUMNS = """
    SELECT c.table_name, c.column_name, c.is_nullable = 'NO',
        COALESCE(array_position(i.indkey::int2[], a.attnum) - array_lower(i.indkey::int2[], 1) + 1, 0)
    FROM information_schema.columns c
    JOIN pg_attribute a ON a.attrelid = c.table_name::regclass AND a.attname = c.column_name
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE c.table_schema = 'public' AND c.table_name LIKE 'governance_%'
    ORDER BY c.table_name, c.ordinal_position
"""
SQLITE_INDEXES = """
    SELECT tbl_name, name FROM sqlite_master WHERE type = 'index' AND name LIKE 'governance_%' ORDER BY name
"""
POSTGRES_INDEXES = """
    SELECT tablename, indexname FROM pg_indexes
    WHERE schemaname = 'public' AND tablename LIKE 'governance_%'
        AND indexname NOT IN (SELECT conname FROM pg_constraint)
    ORDER BY indexname
"""


class Column(NamedTuple):
    """One column; ``key`` is its place in the primary key, 0 for none."""

    name: str
    required: bool
    key: int


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """Synapse's SQLite database, migrated by all parts."""
    copy_sqlite_template(tmp_path / "homeserver.db")
    yield from _migrated(DatabaseLocation(Dialect.SQLITE, {"database": str(tmp_path / "homeserver.db")}))


@pytest.fixture
def postgresql(postgres: Postgres) -> Iterator[Database]:
    """Synapse's PostgreSQL database, migrated by all parts."""
    name = postgres.create_database(template=postgres_template(postgres))
    yield from _migrated(DatabaseLocation(Dialect.POSTGRES, postgres.connection_arguments(name)))
    postgres.drop_database(name)


def _migrated(location: DatabaseLocation) -> Iterator[Database]:
    database = Database(location)
    for part in PARTS:
        migrate(database, part, SystemClock())
    yield database
    database.close()


def _rows(database: Database, sqlite: str, postgres: str) -> Rows:
    sql = sqlite if database.location.dialect is Dialect.SQLITE else postgres

    def read(transaction: Transaction) -> Rows:
        transaction.execute(sql)
        return transaction.fetchall()

    return database.run(read)


def _tables(database: Database) -> dict[str, list[Column]]:
    found: defaultdict[str, list[Column]] = defaultdict(list)
    for table, name, required, key in _rows(database, SQLITE_COLUMNS, POSTGRES_COLUMNS):
        found[table].append(Column(name, bool(required), int(key)))
    ledger = [column.name for column in found.pop(LEDGERS[database.dialect])]
    assert ledger == ["part", "version", "name", "checksum", "applied_ms"]
    return dict(found)


def test_both_engines_have_the_same_tables_columns_and_keys(sqlite: Database, postgresql: Database) -> None:
    assert _tables(sqlite) == _tables(postgresql)


def test_both_engines_have_the_same_indexes(sqlite: Database, postgresql: Database) -> None:
    found = _rows(sqlite, SQLITE_INDEXES, POSTGRES_INDEXES)
    assert found
    assert found == _rows(postgresql, SQLITE_INDEXES, POSTGRES_INDEXES)


def test_the_tables_are_those_that_the_reference_describes(sqlite: Database) -> None:
    described = {name: columns for part in PARTS for name, (_, columns) in write_docs.tables(part).items()}
    found = {name: [column.name for column in columns] for name, columns in _tables(sqlite).items()}
    assert found == described


@pytest.mark.parametrize("part", PARTS)
def test_both_engines_have_the_same_migrations(part: str) -> None:
    sqlite, postgres = (
        [(step.version, step.name, step.checksum) for step in available(part, dialect)] for dialect in Dialect
    )
    assert sqlite
    assert sqlite == postgres


def test_the_engines_ledgers_are_apart_so_that_porting_copies_neither() -> None:
    assert len(set(LEDGERS.values())) == len(Dialect)


def test_every_table_has_a_primary_key(sqlite: Database) -> None:
    assert [name for name, columns in _tables(sqlite).items() if not any(column.key for column in columns)] == []
