from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.outbox import OutboxDrain, leave_in_outbox, number_on
from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.database import CursorTransaction, Database, DatabaseLocation, connect
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.support.audit_log import make_record, rows
from tests.support.templates import postgres_template
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse_modules.audit.record import Record
    from synapse_modules.core.ports import Transaction
    from tests.support.postgres import Postgres


@pytest.fixture
def drain(homeserver: Database, log: Database) -> OutboxDrain:
    """The drain between the two databases."""
    return OutboxDrain(homeserver, log)


def leave(homeserver: Database, *records: Record) -> None:
    """Leave ``records`` in one transaction."""

    def work(transaction: Transaction) -> None:
        for record in records:
            leave_in_outbox(transaction, record)

    homeserver.run(work)


def in_log(log: Database) -> list[tuple[int, bytes]]:
    """Numbers and leaves of what the drain has copied."""
    found = rows(
        log,
        "SELECT wseq, leaf FROM governance_audit_records WHERE writer = ? ORDER BY wseq",
        (store.OUTBOX_WRITER,),
    )
    return [(number, leaf) for number, leaf in found]


def left(homeserver: Database) -> int:
    """How many records wait."""
    return int(rows(homeserver, "SELECT COUNT(*) FROM governance_audit_outbox")[0][0])


def test_records_are_copied_into_the_log_and_then_deleted(
    drain: OutboxDrain, homeserver: Database, log: Database
) -> None:
    first, second = make_record("first"), make_record("second", key="k")
    leave(homeserver, first, second)
    assert drain.run_cycle() == 2
    assert in_log(log) == [(0, first.leaf), (1, second.leaf)]
    assert left(homeserver) == 0
    assert drain.run_cycle() == 0
    stored = rows(log, "SELECT actor, dedupe_key, disclosures, time_ms FROM governance_audit_records ORDER BY wseq")
    assert stored[1] == (second.actor, "k", second.disclosures, second.time_ms)
    assert stored[0][:2] == (first.actor, f"outbox:{first.record_id}")


def test_a_change_that_is_rolled_back_leaves_no_record(drain: OutboxDrain, homeserver: Database, log: Database) -> None:
    def change(transaction: Transaction) -> None:
        leave_in_outbox(transaction, make_record())
        raise LookupError("the change was refused")

    with pytest.raises(LookupError):
        homeserver.run(change)
    assert drain.run_cycle() == 0
    assert in_log(log) == []


def test_a_copy_that_is_made_again_after_a_crash_adds_nothing(
    drain: OutboxDrain, homeserver: Database, log: Database
) -> None:
    leave(homeserver, make_record(), make_record(key="k"))
    drain.copy(drain.waiting())  # and the process is killed before it deletes
    leave(homeserver, make_record("later"))
    assert drain.run_cycle() == 3
    assert [number for number, _ in in_log(log)] == [0, 1, 2]
    assert left(homeserver) == 0


def test_a_change_that_is_recorded_twice_under_one_key_is_in_the_log_once(
    drain: OutboxDrain, homeserver: Database, log: Database
) -> None:
    first = make_record(key="k")
    leave(homeserver, first, make_record(key="k"))
    drain.run_cycle()
    leave(homeserver, make_record(key="k"))
    drain.run_cycle()
    assert in_log(log) == [(0, first.leaf)]
    assert left(homeserver) == 0


def test_records_that_came_with_their_numbers_are_followed_by_higher_ones(
    homeserver: Database, log: Database, drain: OutboxDrain
) -> None:
    ported, new = [make_record(str(number)) for number in range(3)], make_record("new")

    def port(transaction: Transaction) -> None:
        sql = "INSERT INTO governance_audit_outbox (id, record_id, leaf, disclosures) VALUES (?, ?, ?, ?)"
        for number, record in enumerate(ported):
            transaction.execute(sql, (number + 1, record.record_id, record.leaf, record.disclosures))

    homeserver.run(port)
    for _ in range(2):
        homeserver.run(number_on)
    leave(homeserver, new)
    assert rows(homeserver, "SELECT MAX(id) FROM governance_audit_outbox") == [(4,)]
    drain.run_cycle()
    assert [leaf for _, leaf in in_log(log)] == [record.leaf for record in (*ported, new)]


def test_of_two_drains_at_once_one_gives_way_and_each_record_is_copied_once(
    homeserver: Database, log: Database
) -> None:
    leave(homeserver, *(make_record(str(number)) for number in range(300)))

    def drain(_number: int) -> None:
        own = OutboxDrain(homeserver, log)
        wait_until(lambda: own.run_cycle() == 0 and left(homeserver) == 0, what="the outbox is empty")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(drain, range(4)))
    assert [number for number, _ in in_log(log)] == list(range(300))


def test_a_transaction_that_commits_late_is_not_overlooked(postgres: Postgres) -> None:
    """On PostgreSQL alone: on SQLite no two transactions write at once."""
    name = postgres.create_database(template=postgres_template(postgres))
    database = Database(DatabaseLocation(Dialect.POSTGRES, postgres.connection_arguments(name)))
    migrate(database, "homeserver", SystemClock())
    migrate(database, "audit", SystemClock())
    drain = OutboxDrain(database, database)
    late, early = make_record("late"), make_record("early")
    with contextlib.closing(connect(database.location)) as connection:
        leave_in_outbox(CursorTransaction(connection.cursor(), Dialect.POSTGRES), late)
        leave(database, early)
        assert drain.run_cycle() == 1
        assert in_log(database) == [(0, early.leaf)]
        connection.commit()
    assert drain.run_cycle() == 1
    assert in_log(database) == [(0, early.leaf), (1, late.leaf)]
    database.close()
    postgres.drop_database(name)
