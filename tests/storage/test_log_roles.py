"""The roles of an audit log with a database of its own, on a real PostgreSQL: what each can do, and what it cannot."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import psycopg2
import pytest

from scripts import write_docs
from synapse_modules.audit import maintenance_store, store
from synapse_modules.core.errors import GovernanceError
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import require_current
from synapse_modules.storage.roles import Duty, give_rights, script
from synapse_modules.storage.statements import Statement, StatementHome
from tests.storage.test_statements import all_statements
from tests.support.audit_log import make_record, naive_root, rows, sequencer_of
from tests.support.log_roles import RoledLog, roled_log
from tests.support.maintained_log import prune, run_erasure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from synapse_modules.core.ports import Transaction
    from tests.support.postgres import Postgres

MAINTENANCE_HOMES = {"audit.maintenance"}
TABLES = sorted(write_docs.tables("audit"))
CHANGES = ("UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} ADD x INTEGER")


@pytest.fixture
def log(postgres: Postgres) -> Iterator[RoledLog]:
    with roled_log(postgres) as made:
        yield made


def _refused(database: Database, sql: str) -> bool:
    """Whether the engine refuses ``sql`` for want of a right."""
    try:
        database.run(lambda transaction: transaction.execute(sql))
    except psycopg2.errors.InsufficientPrivilege:
        return True
    return False


def _explain(transaction: Transaction, statement: Statement) -> None:
    """Let PostgreSQL check the rights that ``statement`` needs, without running it."""
    text = statement.text(transaction.dialect)
    transaction.execute(f"EXPLAIN {text}", [None] * text.count("?"))


def _refused_among(database: Database, statements: Sequence[tuple[str, Statement]]) -> list[str]:
    refused = []
    for home, statement in statements:
        try:
            database.run(functools.partial(_explain, statement=statement))
        except psycopg2.errors.InsufficientPrivilege as error:
            refused.append(f"{home}: {statement.name}: {error}")
    return refused


def _statements_of_the_log(*, maintenance: bool) -> list[tuple[str, Statement]]:
    homes = {home.name for home in StatementHome.homes if home.database == "audit"}
    wanted = homes & MAINTENANCE_HOMES if maintenance else homes - MAINTENANCE_HOMES
    return [(home, statement) for home, statement in all_statements() if home in wanted]


def _column(table: str) -> str:
    return write_docs.tables("audit")[table][1][0]


def test_the_everyday_role_may_run_every_statement_but_those_of_maintenance(log: RoledLog) -> None:
    all_statements()
    statements = _statements_of_the_log(maintenance=False)
    assert len(statements) > 30
    assert _refused_among(log.writer, statements) == []
    require_current(log.writer, "audit")


@pytest.mark.parametrize("table", TABLES)
def test_the_everyday_role_can_change_nothing(log: RoledLog, table: str) -> None:
    column = _column(table)
    refused = [_refused(log.writer, change.format(table, column, column)) for change in CHANGES]
    assert refused == [True] * len(CHANGES)


@pytest.mark.parametrize(
    "table", ["governance_audit_prunings", "governance_audit_floors", "governance_audit_pruned_keys"]
)
def test_the_everyday_role_cannot_say_that_something_was_pruned(log: RoledLog, table: str) -> None:
    columns = write_docs.tables("audit")[table][1]
    assert _refused(
        log.writer, f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(['NULL'] * len(columns))})"
    )


def test_the_everyday_role_records_orders_and_signs(log: RoledLog) -> None:
    _fill(log.writer, 600)
    assert naive_root(log.writer)[0] == 600


def test_the_maintenance_role_may_run_the_statements_of_maintenance(log: RoledLog) -> None:
    all_statements()
    statements = _statements_of_the_log(maintenance=True)
    assert len(statements) > 15
    assert _refused_among(log.maintenance, statements) == []


@pytest.mark.parametrize("table", TABLES)
def test_the_maintenance_role_can_alter_nothing_that_is_hashed_or_signed(log: RoledLog, table: str) -> None:
    changes = [change for change in CHANGES if not change.startswith(("UPDATE", "DELETE"))]
    assert [_refused(log.maintenance, change.format(table)) for change in changes] == [True] * len(changes)
    erasable = {"actor", "target", "address", "disclosures"}
    for column in set(write_docs.tables("audit")[table][1]) - erasable - {"wseq"}:
        assert _refused(log.maintenance, f"UPDATE {table} SET {column} = {column}"), column
    if table.removeprefix("governance_audit_") not in {"records", "entries", "floors", "spans", "words"}:
        assert _refused(log.maintenance, f"DELETE FROM {table}")


def test_the_maintenance_role_erases_and_prunes_and_the_everyday_role_goes_on(log: RoledLog) -> None:
    _fill(log.writer, 600)
    root = naive_root(log.writer)
    assert run_erasure(log.maintenance, "@0:synapse.test")[0].entries == 1
    assert naive_root(log.writer) == root
    assert prune(log.maintenance, 512)[-1].left == 0
    _fill(log.writer, 3)
    assert rows(log.writer, "SELECT MIN(idx), MAX(idx) FROM governance_audit_entries") == [(512, 604)]
    newest = log.writer.run(store.checkpoint)
    assert newest is not None
    assert newest.size == 605  # two of them the records of what was done


def test_a_role_is_asked_whether_it_may_change_the_log(log: RoledLog) -> None:
    asked = [each.run(maintenance_store.may_change) for each in (log.owner, log.maintenance, log.writer)]
    assert asked == [True, True, False]
    _fill(log.writer, 1)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run_erasure(log.writer, "@0:synapse.test")


def test_rights_can_be_given_again_and_take_back_what_is_too_much(log: RoledLog) -> None:
    writer = log.writer.location.arguments["user"]
    log.owner.run(lambda transaction: transaction.execute(f"GRANT ALL ON governance_audit_records TO {writer}"))
    assert not _refused(log.writer, "UPDATE governance_audit_records SET leaf = leaf")
    give_rights(log.owner, Duty.WRITER, writer)
    assert _refused(log.writer, "UPDATE governance_audit_records SET leaf = leaf")


@pytest.mark.parametrize("duty", Duty)
def test_every_table_of_the_log_is_in_the_scripts(duty: Duty) -> None:
    revoked = script(duty, "x").partition("FROM")[0]
    assert sorted(re.findall(r"governance_audit_\w+", revoked)) == TABLES


def test_a_role_that_does_not_exist_and_an_engine_without_roles_are_refused_in_words(
    log: RoledLog, tmp_path: Path
) -> None:
    with pytest.raises(GovernanceError, match='role "nobody" does not exist'):
        give_rights(log.owner, Duty.WRITER, "nobody")
    with pytest.raises(GovernanceError, match='role "x" FROM y" does not exist'):
        give_rights(log.owner, Duty.WRITER, 'x" FROM y')
    sqlite = Database(DatabaseLocation(Dialect.SQLITE, {"database": str(tmp_path / "x.db")}))
    with pytest.raises(GovernanceError, match="SQLite knows no roles"):
        give_rights(sqlite, Duty.WRITER, "nobody")


def _fill(database: Database, count: int) -> None:
    """Record ``count`` more records as process ``main`` and seal them."""
    first = database.run(lambda transaction: store.next_wseq(transaction, "main:1"))
    records = [make_record(str(number)) for number in range(count)]
    database.run(lambda transaction: store.insert_records(transaction, "main:1", first, records))
    sequencer = sequencer_of(database)
    while sequencer.run_cycle():
        pass
