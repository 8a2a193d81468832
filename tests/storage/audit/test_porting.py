"""`govctl audit port`: a log from its SQLite file to another database, on both engines."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from synapse_modules.audit import store
from synapse_modules.cli.main import govctl
from synapse_modules.storage.database import Database, DatabaseLocation, connect
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import available
from tests.support.audit_log import execute, naive_root, rows, sequencer_of
from tests.support.filled_log import FilledLog, sample_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a log with 700 entries, and 5 records that have no place yet."""
    path = tmp_path / "governance-audit.db"
    with _opened(path) as database:
        filled = FilledLog(database)
        filled.fill(sample_events(700))
        filled.write(sample_events(5))
    return path


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Database]:
    with contextlib.closing(Database(DatabaseLocation(Dialect.SQLITE, {"database": str(path)}))) as database:
        yield database


def _settings(folder: Path, log: Database) -> Path:
    name = "sqlite3" if log.location.dialect is Dialect.SQLITE else "psycopg2"
    config = {"database": {"name": name, "args": dict(log.location.arguments)}, "signing_key_path": "key"}
    homeserver = {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}}
    module = {"module": "synapse_modules.plugin.AuditModule", "config": config}
    path = folder / "homeserver.yaml"
    path.write_text(json.dumps({"server_name": "synapse.test", "database": homeserver, "modules": [module]}))
    return path


def _port(settings: Path, file: Path) -> Result:
    return CliRunner().invoke(govctl, ["audit", "port", "-c", str(settings), "--from", str(file)])


def _tables(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of the log."""
    names = (
        rows(database, "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'governance_audit_%'")
        if database.location.dialect is Dialect.SQLITE
        else rows(database, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'governance_audit_%'")
    )
    return {name: sorted(rows(database, f"SELECT * FROM {name}"), key=repr) for (name,) in names}


def test_every_row_of_every_table_arrives_and_the_log_goes_on(file: Path, log: Database, tmp_path: Path) -> None:
    with _opened(file) as source:
        before = _tables(source)
    done = _port(_settings(tmp_path, log), file)

    assert (done.exit_code, done.stderr) == (0, "")
    assert "700 entries are in" in done.stdout
    assert _tables(log) == before
    assert len(before["governance_audit_tiles"]) > 1
    sequencer = sequencer_of(log)
    assert sequencer.run_cycle() == 5
    signed = log.run(store.checkpoint)
    assert signed is not None
    assert (signed.size, signed.root) == naive_root(log)
    assert signed.size == 705


def test_the_file_is_set_aside_so_that_nobody_goes_on_with_it(file: Path, log: Database, tmp_path: Path) -> None:
    _port(_settings(tmp_path, log), file)
    assert not file.exists()
    assert sorted(each.name for each in tmp_path.glob("governance-audit.db*")) == ["governance-audit.db.ported"]
    again = _port(_settings(tmp_path, log), file)
    assert again.exit_code == 1
    assert "governance-audit.db.ported: was ported before" in again.stderr


def test_a_log_that_has_something_in_it_is_not_written_over(file: Path, log: Database, tmp_path: Path) -> None:
    execute(log, "INSERT INTO governance_audit_keys (verifier_key, from_ms) VALUES ('another', 1)")
    before = _tables(log)
    refused = _port(_settings(tmp_path, log), file)
    assert refused.exit_code == 1
    assert "the table governance_audit_keys is not empty" in refused.stderr
    assert file.exists()
    assert _tables(log) == before


def test_what_fails_halfway_leaves_nothing_behind(file: Path, log: Database, tmp_path: Path) -> None:
    execute(log, "ALTER TABLE governance_audit_tiles RENAME COLUMN hashes TO lost")
    before = _tables(log)
    assert _port(_settings(tmp_path, log), file).exit_code == 1
    assert _tables(log) == before
    assert file.exists()


def test_a_file_that_somebody_has_open_is_not_ported(file: Path, log: Database, tmp_path: Path) -> None:
    with contextlib.closing(connect(DatabaseLocation(Dialect.SQLITE, {"database": str(file)}))) as connection:
        connection.execute("SELECT COUNT(*) FROM governance_audit_records").fetchall()
        refused = _port(_settings(tmp_path, log), file)
    assert refused.exit_code == 1
    assert "is in use" in refused.stderr
    assert "Stop Synapse first" in refused.stderr
    assert _tables(log)["governance_audit_records"] == []


def test_a_schema_of_another_release_is_refused(file: Path, log: Database, tmp_path: Path) -> None:
    with _opened(file) as source:
        last = len(available("audit", Dialect.SQLITE))
        execute(source, f"DELETE FROM governance_schema_sqlite WHERE version = {last}")
    refused = _port(_settings(tmp_path, log), file)
    assert refused.exit_code == 1
    assert "older than this code" in refused.stderr


@pytest.mark.parametrize("name", ["nowhere.db", "text.db"])
def test_what_is_no_log_is_one_clear_line(log: Database, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.db").write_text("no database at all " * 100)
    refused = _port(_settings(tmp_path, log), tmp_path / name)
    assert refused.exit_code == 1
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "nowhere.db").exists()


@pytest.mark.parametrize("engine", [Dialect.SQLITE], ids=str)
def test_the_file_where_the_log_is_now_is_not_ported_onto_itself(file: Path, log: Database, tmp_path: Path) -> None:
    del log
    with _opened(file) as database:
        settings = _settings(tmp_path, database)
    refused = _port(settings, file)
    assert refused.exit_code == 1
    assert "is where the audit log is according to" in refused.stderr
