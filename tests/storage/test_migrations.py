"""The migration runner, with made-up migrations, on both engines."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.core.clock import SystemClock
from synapse_modules.storage import migrations
from synapse_modules.storage.database import Database
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import LEDGERS, SchemaMismatch, available, migrate, pending, require_current

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.core.ports import Rows, Transaction

PART = "homeserver"
TEA = "CREATE TABLE governance_tea (id $IDENTITY, leaf $BYTES NOT NULL);\n"
CAKE = "CREATE TABLE governance_cake (name TEXT PRIMARY KEY);\nINSERT INTO governance_cake VALUES ('5 % ; sponge?');\n"


@pytest.fixture
def schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the part's migrations, with one in it; tests add and change files."""
    folder = tmp_path / "schema" / PART
    folder.mkdir(parents=True)
    (folder / "0001_tea.sql").write_text(TEA)
    monkeypatch.setattr(migrations, "SCHEMA", tmp_path / "schema")
    return folder


def _rows(database: Database, sql: str) -> Rows:
    def read(transaction: Transaction) -> Rows:
        transaction.execute(sql)
        return transaction.fetchall()

    return database.run(read)


def _ledger(database: Database) -> str:
    return LEDGERS[database.dialect]


def _names(found: list[Any]) -> list[str]:
    return [migration.name for migration in found]


def test_migrations_are_applied_in_order_and_written_into_the_ledger(empty_database: Database, schema: Path) -> None:
    (schema / "0002_cake.sql").write_text(CAKE)
    assert _names(migrate(empty_database, PART, SystemClock())) == ["tea", "cake"]
    assert _rows(empty_database, "SELECT name FROM governance_cake") == [("5 % ; sponge?",)]
    ledger = _rows(empty_database, f"SELECT part, version, name FROM {_ledger(empty_database)} ORDER BY version")
    assert ledger == [(PART, 1, "tea"), (PART, 2, "cake")]


def test_migrating_again_changes_nothing(empty_database: Database, schema: Path) -> None:
    del schema
    migrate(empty_database, PART, SystemClock())
    before = _rows(empty_database, f"SELECT * FROM {_ledger(empty_database)}")
    assert migrate(empty_database, PART, SystemClock()) == []
    assert _rows(empty_database, f"SELECT * FROM {_ledger(empty_database)}") == before


def test_a_newer_release_applies_only_what_is_new(empty_database: Database, schema: Path) -> None:
    migrate(empty_database, PART, SystemClock())
    (schema / "0002_cake.sql").write_text(CAKE)
    assert _names(pending(empty_database, PART)) == ["cake"]
    assert _names(migrate(empty_database, PART, SystemClock())) == ["cake"]


def test_looking_for_pending_migrations_changes_nothing(empty_database: Database, schema: Path) -> None:
    del schema
    assert _names(pending(empty_database, PART)) == ["tea"]
    assert _names(pending(empty_database, PART)) == ["tea"]


def test_many_processes_that_migrate_at_once_apply_each_migration_once(empty_database: Database, schema: Path) -> None:
    (schema / "0002_cake.sql").write_text(CAKE)
    together = threading.Barrier(6)

    def start(_number: int) -> list[str]:
        database = Database(empty_database.location)  # a connection of its own, as another process would have
        together.wait()
        try:
            return _names(migrate(database, PART, SystemClock()))
        finally:
            database.close()

    with ThreadPoolExecutor(6) as pool:
        applied = [name for names in pool.map(start, range(6)) for name in names]
    assert sorted(applied) == ["cake", "tea"]


def test_a_migration_that_fails_leaves_nothing_behind(empty_database: Database, schema: Path) -> None:
    (schema / "0002_broken.sql").write_text(
        "CREATE TABLE governance_cake (name TEXT);\nINSERT INTO nowhere VALUES (1);\n"
    )
    with pytest.raises(Exception, match="nowhere"):
        migrate(empty_database, PART, SystemClock())
    assert _names(pending(empty_database, PART)) == ["tea", "broken"]
    (schema / "0002_broken.sql").write_text(CAKE)
    assert _names(migrate(empty_database, PART, SystemClock())) == ["tea", "broken"]


def test_an_older_schema_is_refused_with_what_to_run(empty_database: Database, schema: Path) -> None:
    migrate(empty_database, PART, SystemClock())
    (schema / "0002_cake.sql").write_text(CAKE)
    with pytest.raises(SchemaMismatch, match=r"older than this code, missing 0002_cake\. Run `govctl migrate`"):
        require_current(empty_database, PART)
    migrate(empty_database, PART, SystemClock())
    require_current(empty_database, PART)


def test_a_database_that_was_never_migrated_is_refused_with_what_to_run(empty_database: Database, schema: Path) -> None:
    del schema
    with pytest.raises(SchemaMismatch, match=r"missing 0001_tea\. Run `govctl migrate`"):
        require_current(empty_database, PART)


@pytest.mark.parametrize("act", [migrate, pending, require_current])
def test_a_newer_schema_is_refused_and_left_alone(empty_database: Database, schema: Path, act: Any) -> None:
    (schema / "0002_cake.sql").write_text(CAKE)
    migrate(empty_database, PART, SystemClock())
    (schema / "0002_cake.sql").unlink()
    arguments = (empty_database, PART, SystemClock()) if act is migrate else (empty_database, PART)
    with pytest.raises(SchemaMismatch, match="has version 2, newer than this code's 1"):
        act(*arguments)


@pytest.mark.parametrize("act", [migrate, pending, require_current])
def test_a_migration_that_was_edited_after_its_release_is_refused(
    empty_database: Database, schema: Path, act: Any
) -> None:
    migrate(empty_database, PART, SystemClock())
    (schema / "0001_tea.sql").write_text(TEA.replace("leaf", "leaves"))
    arguments = (empty_database, PART, SystemClock()) if act is migrate else (empty_database, PART)
    with pytest.raises(SchemaMismatch, match="migration 0001 of the homeserver schema was edited"):
        act(*arguments)


def test_a_release_has_one_checksum_for_both_engines_which_covers_both_texts(schema: Path) -> None:
    (schema / "0002_cake.sqlite.sql").write_text(CAKE)
    (schema / "0002_cake.postgres.sql").write_text(CAKE + "-- for PostgreSQL\n")

    def checksums(dialect: Dialect) -> list[str]:
        return [migration.checksum for migration in available(PART, dialect)]

    sqlite, postgres = map(checksums, Dialect)
    assert sqlite == postgres
    (schema / "0002_cake.postgres.sql").write_text(CAKE)
    assert checksums(Dialect.SQLITE) == checksums(Dialect.POSTGRES) != sqlite


def test_parts_do_not_know_of_one_another(empty_database: Database, schema: Path) -> None:
    other = schema.parent / "audit"
    other.mkdir()
    (other / "0001_cake.sql").write_text(CAKE)
    migrate(empty_database, PART, SystemClock())
    assert _names(pending(empty_database, "audit")) == ["cake"]
    migrate(empty_database, "audit", SystemClock())
    require_current(empty_database, PART)


def test_a_triggers_body_with_semicolons_is_one_statement(empty_database: Database, schema: Path) -> None:
    (schema / "0002_trigger.sqlite.sql").write_text(
        "-- a comment; with a semicolon\n"
        "CREATE TABLE governance_log (text TEXT);\n"
        "CREATE TRIGGER governance_no_tea BEFORE DELETE ON governance_tea BEGIN\n"
        "    INSERT INTO governance_log VALUES ('first; statement');\n"
        "    SELECT RAISE(ABORT, 'no');\n"
        "END;\n"
    )
    (schema / "0002_trigger.postgres.sql").write_text(
        "CREATE TABLE governance_log (text TEXT);\n"
        "CREATE FUNCTION governance_no_tea() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n    INSERT INTO governance_log VALUES ('first; statement');\n    RAISE EXCEPTION 'no';\nEND $$;\n"
        "CREATE TRIGGER governance_no_tea BEFORE DELETE ON governance_tea\n"
        "    FOR EACH ROW EXECUTE FUNCTION governance_no_tea();\n"
    )
    assert _names(migrate(empty_database, PART, SystemClock())) == ["tea", "trigger"]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_each_engine_gets_its_own_file_where_there_is_one(schema: Path, dialect: Dialect) -> None:
    (schema / "0002_own.sqlite.sql").write_text("-- sqlite")
    (schema / "0002_own.postgres.sql").write_text("-- postgres")
    assert [(found.version, found.name) for found in available(PART, dialect)] == [(1, "tea"), (2, "own")]
    assert available(PART, dialect)[1].sql == f"-- {dialect}"


@pytest.mark.parametrize("name", ["0003_gap.sql", "0001_twice.sql"])
def test_a_gap_or_a_number_twice_means_a_damaged_installation(schema: Path, name: str) -> None:
    (schema / name).write_text(CAKE)
    with pytest.raises(SchemaMismatch, match=r"expected 1, 2, 3 and so on\. Install the release again"):
        available(PART, Dialect.SQLITE)
