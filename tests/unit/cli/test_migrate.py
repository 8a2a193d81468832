"""`govctl migrate` refuses in one line, before it changes anything."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from synapse_modules.cli.migrate import migrate
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "homeserver.yaml"


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(migrate, [str(each) for each in arguments])


def _one_line(result: Result) -> str:
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_the_settings_must_be_named() -> None:
    result = _run()
    assert result.exit_code == 2
    assert "--config" in result.output


def test_a_file_that_does_not_exist_is_one_clear_line(file: Path) -> None:
    assert _one_line(_run("-c", file)) == f"govctl: {file}: cannot be read: No such file or directory."


def test_settings_without_a_database_are_one_clear_line(file: Path) -> None:
    file.write_text("server_name: x\n")
    assert "has no `database` section" in _one_line(_run("-c", file))


def test_nobody_at_the_address_is_one_clear_line_with_the_place_and_without_the_password(file: Path) -> None:
    port = free_port()
    arguments = {"host": "127.0.0.1", "port": port, "dbname": "synapse", "user": "u", "password": "swordfish"}
    file.write_text(json.dumps({"database": {"name": "psycopg2", "args": arguments}}))
    result = _run("-c", file)
    line = _one_line(result)
    assert f"PostgreSQL database synapse at 127.0.0.1:{port}: cannot connect" in line
    assert "refused" in line
    assert "swordfish" not in result.output


def test_an_argument_that_the_driver_does_not_know_is_one_clear_line(file: Path) -> None:
    arguments = {"host": "127.0.0.1", "databse": "synapse", "password": "swordfish"}
    file.write_text(json.dumps({"database": {"name": "psycopg2", "args": arguments}}))
    result = _run("-c", file)
    assert 'invalid connection option "databse"' in _one_line(result)
    assert "swordfish" not in result.output


def test_a_base_install_has_no_driver_and_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    file.write_text(json.dumps({"database": {"name": "psycopg2", "args": {"dbname": "synapse"}}}))
    line = _one_line(_run("-c", file))
    assert "PostgreSQL database synapse: there is no PostgreSQL driver here" in line
    assert "Run this where Synapse is installed, or install psycopg2-binary" in line


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_sqlite_file_that_is_not_there_is_not_made(file: Path, tmp_path: Path, check: list[str]) -> None:
    database = tmp_path / "homeserver.db"
    file.write_text(json.dumps({"database": {"name": "sqlite3", "args": {"database": str(database)}}}))
    line = _one_line(_run("-c", file, *check))
    assert f"SQLite database {database}: Synapse has no tables there. Start Synapse on it once" in line
    assert not database.exists()


def test_a_file_that_is_no_database_is_one_clear_line(file: Path, tmp_path: Path) -> None:
    database = tmp_path / "homeserver.db"
    database.write_text("a letter to a friend, long enough not to be taken for an empty database file\n" * 20)
    file.write_text(json.dumps({"database": {"name": "sqlite3", "args": {"database": str(database)}}}))
    assert "file is not a database" in _one_line(_run("-c", file))


def test_in_json_mode_an_error_is_one_object(file: Path) -> None:
    result = _run("-c", file, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["where"] == str(file)
