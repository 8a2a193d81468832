"""The product's own connections, on both engines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from synapse_modules.core.errors import Unavailable
from synapse_modules.storage import database as database_module
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.support.audit_log import execute, faulty, rows
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.core.ports import Transaction


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A database with one table."""
    execute(empty_database, "CREATE TABLE governance_tea (cup INTEGER)")
    return empty_database


def test_a_transaction_that_raises_leaves_nothing_behind(database: Database) -> None:
    def spill(transaction: Transaction) -> None:
        transaction.execute("INSERT INTO governance_tea VALUES (1)")
        raise LookupError("no saucer")

    with pytest.raises(LookupError):
        database.run(spill)
    assert rows(database, "SELECT * FROM governance_tea") == []


def test_a_broken_connection_is_replaced_and_the_transaction_repeated(database: Database) -> None:
    with faulty(database) as faults:
        rows(database, "SELECT 1")
        faults.lose = {2}
        assert rows(database, "SELECT COUNT(*) FROM governance_tea") == [(0,)]
        assert faults.commits == 3


def test_a_database_that_does_not_come_back_is_unavailable(database: Database) -> None:
    with faulty(database) as faults:
        rows(database, "SELECT 1")
        faults.refusing = True
        with pytest.raises(Unavailable, match="cannot connect"):
            rows(database, "SELECT 1")
        faults.refusing = False
        assert rows(database, "SELECT 1") == [(1,)]


def test_nobody_behind_the_port_is_unavailable_and_no_password_is_shown() -> None:
    arguments = {"host": "127.0.0.1", "port": free_port(), "dbname": "tea", "password": "darjeeling"}
    database = Database(DatabaseLocation(Dialect.POSTGRES, arguments))
    with pytest.raises(Unavailable, match="cannot connect") as caught:
        rows(database, "SELECT 1")
    assert "darjeeling" not in str(caught.value)


def test_two_processes_never_share_a_connection(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = database_module.connect

    def counting(location: DatabaseLocation) -> object:
        opened.append(os.getpid())
        return real(location)

    monkeypatch.setattr(database_module, "connect", counting)
    rows(database, "SELECT 1")
    before = len(opened)
    child = os.fork()
    if not child:
        try:
            rows(database, "SELECT 1")
        finally:
            os._exit(7 if opened[-1] == os.getpid() else 1)  # whatever happens, this copy of the test run ends here
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert rows(database, "SELECT 1") == [(1,)]
    assert len(opened) == before + 1


@pytest.mark.parametrize("engine", [Dialect.SQLITE], ids=str)
def test_a_file_that_is_made_is_its_owners_alone_whatever_the_umask(tmp_path: Path, engine: Dialect) -> None:
    database = Database(DatabaseLocation(engine, {"database": str(tmp_path / "new.db")}))
    before = os.umask(0)
    try:
        execute(database, "CREATE TABLE governance_tea (cup INTEGER)")
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
        database.close()
    assert modes == {"new.db": 0o600, "new.db-wal": 0o600, "new.db-shm": 0o600}
