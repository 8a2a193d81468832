from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.intake import Intake, Ticket
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import Unavailable
from tests.support.audit_log import faulty, make_record, rows, write_locked
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_modules.audit.record import Record
    from synapse_modules.storage.database import Database


@pytest.fixture
def make_intake(log: Database) -> Iterator[Callable[..., Intake]]:
    """Starts intakes on the log; they end with the test."""
    made: list[Intake] = []

    def make(capacity: int = 10_000) -> Intake:
        intake = Intake(log, "main", system_random, capacity=capacity)
        made.append(intake)
        intake.start()
        return intake

    yield make
    for intake in made:
        intake.close(make_record("end"), 5)


@pytest.fixture
def intake(make_intake: Callable[..., Intake]) -> Intake:
    """A running intake."""
    return make_intake()


def submit(intake: Intake, record: Record) -> tuple[Ticket, Future[None]]:
    """Queue ``record``; the future tells how it ended."""
    ended: Future[None] = Future()

    def done(error: Exception | None) -> None:
        ended.set_exception(error) if error else ended.set_result(None)

    ticket = intake.submit(record, done)
    assert ticket is not None
    return ticket, ended


def nobody(error: Exception | None) -> None:
    """Who does not want to know how it ended."""
    del error


def acknowledged(intake: Intake, *records: Record) -> list[Ticket]:
    """Queue ``records`` and wait until each is durable."""
    sent = [submit(intake, record) for record in records]
    for _, ended in sent:
        ended.result(20)
    return [ticket for ticket, _ in sent]


def stored(log: Database) -> dict[tuple[str, int], bytes]:
    """The leaves that are recorded, by writer and number."""
    found = rows(log, "SELECT writer, wseq, leaf FROM governance_audit_records ORDER BY writer, wseq")
    return {(writer, number): leaf for writer, number, leaf in found}


def test_an_acknowledged_record_stands_in_the_database_under_the_next_number(intake: Intake, log: Database) -> None:
    first, second = make_record("first"), make_record("second")
    (ticket,) = acknowledged(intake, first)
    acknowledged(intake, second)
    assert stored(log) == {(intake.writer, 0): first.leaf, (intake.writer, 1): second.leaf}
    assert ticket.place == (intake.writer, 0)


def test_what_comes_in_during_a_commit_goes_together_into_the_next(
    make_intake: Callable[..., Intake], log: Database
) -> None:
    with faulty(log) as faults:
        intake = make_intake()
        with write_locked(log):
            first = submit(intake, make_record())
            wait_until(lambda: len(intake) == 0, what="the first record is on its way")
            later = [submit(intake, make_record()) for _ in range(250)]
        for _, ended in [first, *later]:
            ended.result(20)
        assert faults.commits == 2
    assert [number for _, number in stored(log)] == list(range(251))


def test_many_threads_that_record_at_once_lose_nothing_and_leave_no_gap(intake: Intake, log: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = [[make_record(f"{thread}-{number}") for number in range(100)] for thread in range(8)]
        list(pool.map(lambda batch: acknowledged(intake, *batch), batches))
    assert [number for _, number in stored(log)] == list(range(800))
    assert set(stored(log).values()) == {record.leaf for batch in batches for record in batch}


@pytest.mark.parametrize("lost", [{1}, {1, 2}, {1, 2, 3}])
def test_a_commit_whose_acknowledgement_was_lost_leaves_one_row(
    make_intake: Callable[..., Intake], log: Database, lost: set[int]
) -> None:
    record = make_record()
    with faulty(log) as faults:
        faults.lose = lost
        intake = make_intake()
        (ticket,) = acknowledged(intake, record)
        acknowledged(intake, make_record())
    assert stored(log)[intake.writer, 0] == record.leaf
    assert ticket.place == (intake.writer, 0)
    assert list(stored(log)) == [(intake.writer, 0), (intake.writer, 1)]


def test_a_lost_acknowledgement_before_an_outage_leaves_one_row_of_each_record(
    make_intake: Callable[..., Intake], log: Database
) -> None:
    acknowledged(make_intake(), make_record("known", key="k"))
    again, plain = make_record("again", key="k"), make_record("plain")
    with faulty(log) as faults:
        intake = make_intake()
        # The insert meets the key; a read finds that out; the second insert, without it, is the commit that is lost.
        faults.lose, faults.refuse_after = {2}, 2
        with write_locked(log):
            taken = submit(intake, make_record())
            wait_until(lambda: len(intake) == 0, what="the first record is on its way")
            faults.commits = -1  # of that one, which goes first
            sent = [submit(intake, again), submit(intake, plain)]
        wait_until(lambda: intake.problem, what="the intake notices that nobody answers")
        faults.refusing = False
        for _, ended in [taken, *sent]:
            ended.result(20)
    assert sorted(number for writer, number in stored(log) if writer == intake.writer) == [0, 1]
    assert stored(log)[intake.writer, 1] == plain.leaf
    assert intake.problem is None


def test_records_wait_through_an_outage_and_are_stored_after_it(
    make_intake: Callable[..., Intake], log: Database
) -> None:
    with faulty(log) as faults:
        intake = make_intake()
        faults.refusing = True
        _, ended = submit(intake, make_record())
        wait_until(lambda: "cannot connect" in str(intake.problem), what="the intake notices the outage")
        assert not ended.done()
        faults.refusing = False
        ended.result(20)
    assert len(stored(log)) == 1


def test_a_key_is_recorded_once_within_a_batch_and_over_all_writers(
    make_intake: Callable[..., Intake], log: Database
) -> None:
    one, other = make_intake(), make_intake()
    with write_locked(log):
        sent = [
            submit(intake, make_record(f"{intake.writer}-{number}", key=f"key-{number % 3}"))
            for number in range(30)
            for intake in (one, other)
        ]
    for _, ended in sent:
        ended.result(20)
    keys = rows(log, "SELECT dedupe_key FROM governance_audit_records ORDER BY dedupe_key")
    assert keys == [("key-0",), ("key-1",), ("key-2",)]


def test_a_full_queue_takes_nothing_until_there_is_room(make_intake: Callable[..., Intake], log: Database) -> None:
    intake = make_intake(capacity=3)
    with write_locked(log):
        first = submit(intake, make_record())
        wait_until(lambda: len(intake) == 0, what="the first record is on its way")
        waiting = [submit(intake, make_record()) for _ in range(3)]
        assert intake.submit(make_record(), nobody) is None
    for _, ended in [first, *waiting]:
        ended.result(20)
    acknowledged(intake, make_record())
    assert len(stored(log)) == 5


def test_a_record_that_is_withdrawn_in_time_is_never_stored_and_makes_room(
    make_intake: Callable[..., Intake], log: Database
) -> None:
    intake = make_intake(capacity=1)
    with write_locked(log):
        _, first = submit(intake, make_record())
        wait_until(lambda: len(intake) == 0, what="the first record is on its way")
        ticket, unwanted = submit(intake, make_record("unwanted"))
        intake.withdraw(ticket)
        _, second = submit(intake, make_record())
    first.result(20)
    second.result(20)
    assert [number for _, number in stored(log)] == [0, 1]
    assert not unwanted.done()


def test_a_record_that_is_withdrawn_during_an_outage_is_not_stored_after_it(
    make_intake: Callable[..., Intake], log: Database
) -> None:
    with faulty(log) as faults:
        intake = make_intake()
        faults.refusing = True
        ticket, _ = submit(intake, make_record("unwanted"))
        wait_until(lambda: intake.problem, what="the intake notices the outage")
        intake.withdraw(ticket)
        faults.refusing = False
        acknowledged(intake, make_record("wanted"))
    assert len(stored(log)) == 1


def test_a_record_that_no_database_takes_does_not_keep_the_others_out(intake: Intake, log: Database) -> None:
    broken = dataclasses.replace(make_record(), time_ms=2**70)
    with write_locked(log):
        _, first = submit(intake, make_record())
        wait_until(lambda: len(intake) == 0, what="the first record is on its way")
        sent = [submit(intake, record) for record in (make_record("a"), broken, make_record("b"))]
    first.result(20)
    sent[0][1].result(20)
    sent[2][1].result(20)
    with pytest.raises(Unavailable, match="cannot be stored"):
        sent[1][1].result(20)
    assert [number for _, number in stored(log)] == [0, 1, 2]


def test_closing_stores_what_waits_and_then_the_record_that_ends_the_writer(intake: Intake, log: Database) -> None:
    waiting = [make_record(str(number)) for number in range(20)]
    with write_locked(log):
        for record in waiting:
            submit(intake, record)
        closer = threading.Thread(target=intake.close, args=(make_record("end"), 20))
        closer.start()
    closer.join(20)
    ends = rows(log, "SELECT wseq, closes FROM governance_audit_records ORDER BY wseq")
    assert ends == [*((number, 0) for number in range(20)), (20, 1)]
    with pytest.raises(Unavailable, match="this process is stopping"):
        intake.submit(make_record(), nobody)


def test_closing_does_not_wait_for_a_database_that_does_not_answer(
    make_intake: Callable[..., Intake], log: Database
) -> None:
    with faulty(log) as faults:
        intake = make_intake()
        faults.refusing = True
        _, ended = submit(intake, make_record())
        wait_until(lambda: intake.problem, what="the intake notices the outage")
        assert intake.close(make_record("end"), 10) is False
        with pytest.raises(Unavailable):
            ended.result(0)


def test_a_process_that_was_taken_for_dead_goes_on_under_another_name(intake: Intake, log: Database) -> None:
    acknowledged(intake, make_record())
    name = intake.writer
    log.run(lambda transaction: store.insert_records(transaction, name, 1, [make_record("end")], closes=True))
    after = make_record("after")
    acknowledged(intake, after)
    assert intake.writer != name
    assert intake.writer.startswith("main:")
    assert stored(log)[intake.writer, 0] == after.leaf
    assert len(stored(log)) == 3
