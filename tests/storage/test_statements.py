"""Every statement can be prepared on both engines: its tables and columns are there, and its syntax is right."""

from __future__ import annotations

import functools
import importlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import synapse_modules
from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import PARTS, migrate
from synapse_modules.storage.statements import Statement, StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

ROOT = Path(synapse_modules.__file__).parent


@pytest.fixture
def database(synapse_database: Database) -> Database:
    """Synapse's schema and all of ours in one database."""
    for part in PARTS:
        migrate(synapse_database, part, SystemClock())
    return synapse_database


def all_statements() -> list[tuple[str, Statement]]:
    """Every statement, with the name of its home."""
    for path in ROOT.rglob("*.py"):
        if "= StatementHome(" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(["synapse_modules", *path.relative_to(ROOT).with_suffix("").parts]))
    homes = [home for home in StatementHome.homes if home.database in PARTS]
    return [(home.name, statement) for home in homes for statement in home.statements]


def prepare(transaction: Transaction, statement: Statement) -> None:
    """Let the engine parse and plan ``statement``, without running it."""
    text = statement.text(transaction.dialect)
    if transaction.dialect == Dialect.SQLITE:
        transaction.execute(f"EXPLAIN {text}", [None] * text.count("?"))
        transaction.fetchall()
        return
    numbers = itertools.count(1)
    numbered = "".join(f"${next(numbers)}" if char == "?" else char for char in text)
    transaction.execute(f"PREPARE governance_probe AS {numbered}")
    transaction.execute("DEALLOCATE governance_probe")


def test_every_statement_can_be_prepared(database: Database) -> None:
    statements = all_statements()
    assert len(statements) > 50
    refused = []
    for home, statement in statements:
        try:
            database.run(functools.partial(prepare, statement=statement))
        except Exception as error:  # noqa: BLE001  whatever the engine says belongs into the list
            refused.append(f"{home}: {statement.name}: {error}")
    assert refused == []


def test_a_wrong_statement_is_found(database: Database) -> None:
    home = StatementHome("tests", database="none")
    wrong = home.add("wrong", "SELECT nothing FROM governance_audit_records WHERE writer = ?")
    with pytest.raises(Exception, match="nothing"):
        database.run(lambda transaction: prepare(transaction, wrong))


def test_no_two_statements_of_a_home_and_no_two_homes_share_a_name() -> None:
    statements = all_statements()
    names = [(home, statement.name) for home, statement in statements]
    assert sorted(names) == sorted(set(names))
