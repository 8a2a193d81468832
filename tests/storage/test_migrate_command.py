"""`govctl migrate` on databases that Synapse has made, on both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from synapse_modules.audit.config import log_location
from synapse_modules.cli.homeserver_yaml import read_homeserver_yaml
from synapse_modules.cli.migrate import migrate
from synapse_modules.storage import migrations
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import SchemaMismatch, available, require_current
from tests.support.templates import postgres_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_modules.core.ports import Transaction
    from tests.support.postgres import Postgres

MODULES = [{"module": f"synapse_modules.plugin.{name}Module"} for name in ("Rbac", "Audit", "Retention")]


@pytest.fixture
def settings(synapse_database: Database, tmp_path: Path) -> Path:
    """A homeserver.yaml with all three modules, on a database that Synapse has made."""
    return _write(tmp_path / "homeserver.yaml", synapse_database)


@pytest.fixture
def log(settings: Path) -> Iterator[Database]:
    """The audit log's database, as the product finds it."""
    found = read_homeserver_yaml([settings])
    assert found.audit is not None
    database = Database(log_location(found.audit, found.database))
    yield database
    database.close()


def _write(path: Path, database: Database, modules: list[dict[str, Any]] = MODULES) -> Path:
    name = "sqlite3" if database.location.dialect is Dialect.SQLITE else "psycopg2"
    section = {"name": name, "args": {**database.location.arguments, "cp_min": 1, "cp_max": 2}}
    path.write_text(json.dumps({"server_name": "x", "database": section, "modules": modules}))
    return path


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(migrate, [str(each) for each in arguments])


def _lines(word: str, database: Database) -> list[str]:
    dialect = database.location.dialect
    return [
        f"  {word} {step.version:04d} {step.name}" for part in migrations.PARTS for step in available(part, dialect)
    ]


def test_each_migration_applied_is_named_and_the_second_time_there_is_none(settings: Path, log: Database) -> None:
    first = _run("-c", settings)
    assert (first.exit_code, first.stderr) == (0, "")
    assert [line for line in first.stdout.splitlines() if line.startswith("  ")] == _lines("applied", log)
    assert f"audit: {log.location}" in first.stdout.splitlines()

    second = _run("-c", settings)
    assert second.exit_code == 0
    assert second.stdout.count("up to date") == 2
    assert "  applied" not in second.stdout


def test_afterwards_the_code_accepts_both_schemas(settings: Path, synapse_database: Database, log: Database) -> None:
    with pytest.raises(SchemaMismatch, match=r"Run `govctl migrate`"):
        require_current(synapse_database, "homeserver")
    assert _run("-c", settings).exit_code == 0
    require_current(synapse_database, "homeserver")
    require_current(log, "audit")


def test_a_check_shows_what_is_pending_and_changes_nothing(
    settings: Path, synapse_database: Database, log: Database
) -> None:
    for _ in range(2):
        result = _run("-c", settings, "--check")
        assert (result.exit_code, result.stderr) == (1, "")
        assert [line for line in result.stdout.splitlines() if line.startswith("  ")] == _lines("pending", log)
    assert not migrations.has_table(synapse_database, migrations.LEDGERS[synapse_database.dialect])
    if log.location.dialect is Dialect.SQLITE:
        assert not Path(log.location.arguments["database"]).exists()


def test_a_check_of_what_is_up_to_date_is_content(settings: Path) -> None:
    _run("-c", settings)
    result = _run("-c", settings, "--check")
    assert result.exit_code == 0
    assert result.stdout.count("up to date") == 2


def test_scripts_get_one_document(settings: Path, log: Database) -> None:
    pending = json.loads(_run("-c", settings, "--check", "--json").stdout)["databases"]
    applied = json.loads(_run("-c", settings, "--json").stdout)["databases"]
    expected = [{"version": step.version, "name": step.name} for step in available("audit", log.location.dialect)]
    assert pending[1] == {"part": "audit", "database": str(log.location), "applied": [], "pending": expected}
    assert applied[1] == {"part": "audit", "database": str(log.location), "applied": expected, "pending": []}


def test_without_the_audit_module_there_is_no_log_to_migrate(tmp_path: Path, synapse_database: Database) -> None:
    settings = _write(tmp_path / "homeserver.yaml", synapse_database, MODULES[:1])
    result = _run("-c", settings)
    assert result.exit_code == 0
    assert "AuditModule is not among the modules" in result.stderr
    assert [each["part"] for each in json.loads(_run("-c", settings, "--json").stdout)["databases"]] == ["homeserver"]


def test_a_newer_schema_is_one_clear_line_and_left_alone(settings: Path, synapse_database: Database) -> None:
    _run("-c", settings)

    ledger = migrations.LEDGERS[synapse_database.dialect]

    def pretend(transaction: Transaction) -> None:
        transaction.execute(f"UPDATE {ledger} SET version = 9999 WHERE part = 'homeserver' AND version = 1")

    synapse_database.run(pretend)
    for arguments in ([], ["--check"]):
        result = _run("-c", settings, *arguments)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert "the homeserver schema has version 9999, newer than this code's" in line
        assert "Start a release at least as new as the one that migrated the database" in line


def test_a_database_that_synapse_never_saw_is_refused_and_left_alone(tmp_path: Path, empty_database: Database) -> None:
    empty_database.run(lambda _: None)
    settings = _write(tmp_path / "homeserver.yaml", empty_database)
    result = _run("-c", settings)
    assert result.exit_code == 1
    assert f"{empty_database.location}: Synapse has no tables there" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not migrations.has_table(empty_database, migrations.LEDGERS[empty_database.dialect])


def test_a_role_that_may_not_create_tables_is_one_clear_line(tmp_path: Path, postgres: Postgres) -> None:
    name = postgres.create_database(template=postgres_template(postgres))
    arguments = {**postgres.connection_arguments(name), "user": "governance_reader"}
    settings = _write(tmp_path / "homeserver.yaml", Database(DatabaseLocation(Dialect.POSTGRES, arguments)))
    postgres.execute("CREATE ROLE governance_reader LOGIN")
    try:
        result = _run("-c", settings)
    finally:
        postgres.execute("DROP ROLE governance_reader")
        postgres.drop_database(name)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"PostgreSQL database {name}" in line
    assert "permission denied for schema public" in line
    assert "Nothing was changed" in line
