"""The statements of docs/operator.md, run on a real PostgreSQL: the log's own database, its owner and its writer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg2
import pytest
from click.testing import CliRunner

from synapse_modules.audit.maintenance_store import may_change
from synapse_modules.cli.migrate import migrate
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import require_current
from tests.support.guides import LOG_DATABASE, LOG_MAINTENANCE, LOG_OWNER, LOG_WRITER, log_database, log_section
from tests.support.templates import postgres_template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synapse_modules.core.ports import Transaction
    from tests.support.postgres import Postgres


@pytest.fixture
def log(postgres: Postgres) -> Iterator[str]:
    """The log's database and roles, made as the guide says; its name."""
    with log_database(postgres):
        yield LOG_DATABASE


@pytest.fixture
def homeserver(postgres: Postgres) -> Iterator[str]:
    """Synapse's own database; its name."""
    name = postgres.create_database(template=postgres_template(postgres))
    yield name
    postgres.drop_database(name)


def _settings(path: Path, postgres: Postgres, user: str, **more: object) -> Path:
    config = {"signing_key_path": "x", "database": log_section(postgres, user)}
    modules = [{"module": "synapse_modules.plugin.AuditModule", "config": config}]
    path.write_text(json.dumps({"modules": modules, **more}))
    return path


def _connect(postgres: Postgres, user: str) -> Database:
    arguments = {**postgres.connection_arguments(LOG_DATABASE), "user": user}
    return Database(DatabaseLocation(Dialect.POSTGRES, arguments))


def test_the_owner_migrates_and_the_writer_may_read_and_add_only(
    postgres: Postgres, homeserver: str, log: str, tmp_path: Path
) -> None:
    own = {"name": "psycopg2", "args": postgres.connection_arguments(homeserver)}
    settings = _settings(tmp_path / "homeserver.yaml", postgres, LOG_WRITER, database=own)
    owner = _settings(tmp_path / "owner.yaml", postgres, LOG_OWNER)

    refused = CliRunner().invoke(migrate, ["-c", str(settings)])
    assert refused.exit_code == 1
    assert f"PostgreSQL database {log}" in refused.stderr
    assert "permission denied for schema public" in refused.stderr

    done = CliRunner().invoke(migrate, ["-c", str(settings), "-c", str(owner)])
    assert done.exit_code == 0, done.stderr

    database = _connect(postgres, LOG_WRITER)
    require_current(database, "audit")
    database.run(_add)
    for statement in ("DELETE FROM governance_audit_keys", "UPDATE governance_audit_keys SET from_ms = 2"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            database.run(lambda transaction, sql=statement: transaction.execute(sql))  # type: ignore[misc]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        database.run(lambda transaction: transaction.execute("DROP TABLE governance_audit_keys"))
    database.close()


def test_migrating_gives_the_roles_their_rights(postgres: Postgres, homeserver: str, log: str, tmp_path: Path) -> None:
    own = {"name": "psycopg2", "args": postgres.connection_arguments(homeserver)}
    settings = _settings(tmp_path / "homeserver.yaml", postgres, LOG_WRITER, database=own)
    owner = _settings(tmp_path / "owner.yaml", postgres, LOG_OWNER)
    roles = ["--writer", LOG_WRITER, "--maintenance", LOG_MAINTENANCE]
    for _ in range(2):
        done = CliRunner().invoke(migrate, ["-c", str(settings), "-c", str(owner), *roles])
        assert done.exit_code == 0, done.stderr
        assert f"{LOG_MAINTENANCE} has the rights of audit_maintenance" in done.stdout
    writer, maintenance = _connect(postgres, LOG_WRITER), _connect(postgres, LOG_MAINTENANCE)
    require_current(writer, "audit")
    asked = [database.run(may_change, read_only=True) for database in (writer, maintenance)]
    assert (asked, log) == ([False, True], LOG_DATABASE)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        writer.run(lambda transaction: transaction.execute("INSERT INTO governance_audit_floors VALUES ('x', 1, 1)"))
    writer.close()
    maintenance.close()


def test_rights_are_not_given_in_the_homeservers_own_database(
    postgres: Postgres, homeserver: str, tmp_path: Path
) -> None:
    own = {"name": "psycopg2", "args": postgres.connection_arguments(homeserver)}
    modules = [{"module": "synapse_modules.plugin.AuditModule", "config": {"signing_key_path": "x"}}]
    settings = tmp_path / "homeserver.yaml"
    settings.write_text(json.dumps({"modules": modules, "database": own}))
    refused = CliRunner().invoke(migrate, ["-c", str(settings), "--writer", "synapse"])
    assert refused.exit_code == 1
    assert "are for an audit log with a database of its own" in refused.stderr
    checked = CliRunner().invoke(migrate, ["-c", str(settings), "--check", "--writer", "synapse"])
    assert checked.exit_code == 2


def _add(transaction: Transaction) -> None:
    transaction.execute("INSERT INTO governance_audit_keys (verifier_key, from_ms) VALUES ('key', 1)")
    transaction.execute("SELECT from_ms FROM governance_audit_keys")
    assert transaction.fetchall() == [(1,)]
