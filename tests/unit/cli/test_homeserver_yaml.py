"""Synapse's settings as `govctl migrate` reads them: the way Synapse does, and every mistake in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.cli.homeserver_yaml import read_homeserver_yaml
from synapse_modules.core.errors import GovernanceError
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from pathlib import Path

SQLITE = "database: {name: sqlite3, args: {database: /data/homeserver.db}}\n"
POSTGRES = """\
database:
  name: psycopg2
  args: {user: synapse, password: swordfish, dbname: synapse, host: db.internal, port: 5432, cp_min: 5, cp_max: 10}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "homeserver.yaml"


def test_arguments_of_synapses_pool_are_not_for_the_driver(file: Path) -> None:
    file.write_text(POSTGRES)
    location = read_homeserver_yaml([file]).database
    assert location.dialect is Dialect.POSTGRES
    assert location.arguments == {
        "user": "synapse", "password": "swordfish", "dbname": "synapse", "host": "db.internal", "port": 5432,
    }  # fmt: skip


def test_a_place_is_named_without_its_password(file: Path) -> None:
    file.write_text(POSTGRES)
    location = read_homeserver_yaml([file]).database
    assert str(location) == "PostgreSQL database synapse at db.internal:5432"
    assert "swordfish" not in f"{location}{location!r}"


def test_a_later_file_replaces_whole_sections_of_an_earlier_one(file: Path, tmp_path: Path) -> None:
    file.write_text(POSTGRES)
    (tmp_path / "other.yaml").write_text(SQLITE)
    location = read_homeserver_yaml([file, tmp_path / "other.yaml"]).database
    assert (location.dialect, location.arguments) == (Dialect.SQLITE, {"database": "/data/homeserver.db"})


def test_of_a_folder_every_yaml_file_counts_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "20-database.yaml").write_text(SQLITE)
    (tmp_path / "10-database.yaml").write_text(POSTGRES)
    (tmp_path / "30-empty.yaml").write_text("# nothing\n")
    (tmp_path / "40-database.yaml.old").write_text(POSTGRES)
    assert read_homeserver_yaml([tmp_path]).database.dialect is Dialect.SQLITE


def test_a_database_path_stands_for_sqlite(file: Path) -> None:
    file.write_text("database_path: /data/homeserver.db\n")
    assert read_homeserver_yaml([file]).database.arguments == {"database": "/data/homeserver.db"}


def test_of_several_databases_the_one_with_the_main_store_counts(file: Path) -> None:
    file.write_text(
        "databases:\n"
        "  state: {name: sqlite3, data_stores: [state], args: {database: /data/state.db}}\n"
        "  all: {name: sqlite3, args: {database: /data/main.db}}\n"
    )
    assert read_homeserver_yaml([file]).database.arguments == {"database": "/data/main.db"}


def test_yaml_that_synapse_accepts_is_accepted(file: Path) -> None:
    file.write_text(f"x: &anchor {{a: 1}}\ny: *anchor\nno: 1\n{SQLITE}")
    assert read_homeserver_yaml([file]).database.dialect is Dialect.SQLITE


def test_the_audit_logs_settings_are_found_among_the_modules(file: Path) -> None:
    file.write_text(
        f"{SQLITE}modules:\n  - module: some.other.Module\n  - module: synapse_modules.plugin.AuditModule\n"
    )
    assert read_homeserver_yaml([file]).audit is not None
    file.write_text(f"{SQLITE}modules: [{{module: some.other.Module, config: {{}}}}]\n")
    assert read_homeserver_yaml([file]).audit is None


MISTAKES = {
    "no database": ("server_name: x\n", "has no `database` section. Give all files that Synapse is started with"),
    "only a state database": (
        "databases: {state: {name: sqlite3, data_stores: [state], args: {database: x}}}\n",
        "has no `database` section",
    ),
    "a database in memory": (
        "database: {name: sqlite3, args: {database: ':memory:'}}\n",
        "database.args.database: found ':memory:', expected the path of a file",
    ),
    "no path": ("database: {name: sqlite3}\n", "database.args.database: found None, expected the path of a file"),
    "an unknown engine": ("database: {name: mysql}\n", "database.name: found 'mysql', expected sqlite3 or psycopg2"),
    "a section that is text": ("database: postgres://u:swordfish@h/d\n", "database: found 'str', expected a mapping"),
    "arguments that are text": (
        "database: {name: psycopg2, args: password=swordfish}\n",
        "database.args: found 'str', expected a mapping",
    ),
    "a list": ("- database\n", "is not a mapping of settings"),
    "no YAML": ("database:\n  password: {swordfish\n", "homeserver.yaml:3:1: is not YAML"),
    "a key the audit log does not know": (
        f"{SQLITE}modules: [{{module: synapse_modules.plugin.AuditModule, config: {{databse: x}}}}]\n",
        r"modules\[0\].config:databse: found 'databse', expected one of .*Did you mean 'database'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_no_secret(file: Path, name: str) -> None:
    text, expected = MISTAKES[name]
    file.write_text(text)
    with pytest.raises(GovernanceError, match=expected) as caught:
        read_homeserver_yaml([file])
    assert str(file) in str(caught.value)
    assert "swordfish" not in str(caught.value)


def test_a_file_that_is_missing_or_unreadable_is_named(tmp_path: Path) -> None:
    with pytest.raises(GovernanceError, match=r"nowhere\.yaml: cannot be read: No such file or directory"):
        read_homeserver_yaml([tmp_path / "nowhere.yaml"])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GovernanceError, match=r"binary\.yaml: is not YAML"):
        read_homeserver_yaml([tmp_path / "binary.yaml"])
