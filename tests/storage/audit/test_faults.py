"""What may happen to a log beside a kill: each is done to a real database. What must come of it: docs/audit.md."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synapse_modules.audit import store
from synapse_modules.audit.export import TreeDamaged
from synapse_modules.audit.intake import Intake
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.record import MAX_LEAF_BYTES
from synapse_modules.audit.search import EntryFilter, find
from synapse_modules.audit.verify import BundleInvalid, verify_bundle
from synapse_modules.core.actions import Action
from synapse_modules.core.clock import SystemClock, system_random
from synapse_modules.core.errors import InvalidInput, Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.support.audit_log import KEY, RECORDER, HandClock, execute, make_record, naive_root, rows, sequencer_of
from tests.support.cutting_proxy import CuttingProxy
from tests.support.filled_log import FilledLog, sample_events
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synapse_modules.audit.record import Record
    from synapse_modules.audit.sequencer import Sequencer
    from synapse_modules.core.ports import Transaction
    from tests.support.postgres import Postgres

_RECORDS = "governance_audit_records"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


class Callers:
    """Those who wait for their records."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._answers = threading.Semaphore(0)
        self.sent: list[Record] = []
        self.errors: list[Exception] = []

    def send(self, count: int) -> None:
        """Leave ``count`` records."""
        for _ in range(count):
            self.sent.append(make_record())
            assert self._intake.submit(self.sent[-1], self._answered) is not None

    def wait(self, count: int) -> None:
        """Return when ``count`` more of them have their answer."""
        for _ in range(count):
            assert self._answers.acquire(timeout=60)

    def _answered(self, error: Exception | None) -> None:
        if error is not None:
            self.errors.append(error)
        self._answers.release()


@contextmanager
def recording(database: Database) -> Iterator[tuple[Intake, Callers]]:
    """A running intake, and those who wait for it."""
    intake = Intake(database, "main", system_random, batch=10)
    intake.start()
    yield intake, Callers(intake)
    intake.close(make_record("end"), 10)


def stored_once(database: Database, records: Sequence[Record]) -> bool:
    """Whether each of ``records`` stands in the log exactly once."""
    leaves = [leaf for (leaf,) in rows(database, "SELECT leaf FROM governance_audit_records")]
    return all(leaves.count(record.leaf) == 1 for record in records)


# -------------------------------------------------------------------------------------------------- lost answers


def through(proxy: CuttingProxy, database: Database) -> Database:
    """The same database over ``proxy``; ``sslmode`` because it looks for the COMMIT."""
    changes = {"port": proxy.port, "sslmode": "disable", "gssencmode": "disable"}
    return Database(DatabaseLocation(database.location.dialect, {**database.location.arguments, **changes}))


@pytest.fixture
def postgres_log(postgres: Postgres) -> Iterator[Database]:
    """An empty log on PostgreSQL."""
    name = postgres.create_database()
    database = Database(DatabaseLocation(Dialect.POSTGRES, postgres.connection_arguments(name)))
    migrate(database, "audit", SystemClock())
    yield database
    database.close()
    postgres.drop_database(name)


def test_records_whose_commit_was_answered_by_a_broken_connection_stand_once(postgres_log: Database) -> None:
    with CuttingProxy(postgres_log.location.arguments["port"], lambda number: number % 3 == 0) as proxy:
        with recording(through(proxy, postgres_log)) as (_, callers):
            callers.send(300)
            callers.wait(300)
        assert proxy.lost > 5
    assert callers.errors == []
    assert stored_once(postgres_log, callers.sent)


def test_a_sequencer_that_never_hears_whether_it_committed_gives_every_index_once(postgres_log: Database) -> None:
    with CuttingProxy(postgres_log.location.arguments["port"], lambda number: number % 3 == 0) as proxy:
        sequencer = sequencer_of(through(proxy, postgres_log))
        for number in range(20):
            records = [make_record() for _ in range(7)]
            postgres_log.run(lambda transaction, at=7 * number, new=records: _insert(transaction, at, new))  # type: ignore[misc]  # bound as defaults, because the loop goes on
            _cycle(sequencer)
        for _ in range(5):
            _cycle(sequencer)
        assert proxy.lost > 5
    signed = postgres_log.run(store.checkpoint)
    assert signed is not None
    assert (signed.size, signed.root) == naive_root(postgres_log)
    assert signed.size == 140
    assert sequencer.damage is None


def _cycle(sequencer: Sequencer) -> None:
    with contextlib.suppress(Unavailable):  # lost three times in a row: the next cycle looks what stands there
        sequencer.run_cycle()


def _insert(transaction: Transaction, first: int, records: list[Record]) -> None:
    store.insert_records(transaction, "main:1", first, records)


# ----------------------------------------------------------------------------------------------------- full disk


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A file system of 24 MB."""
    with small_disk(24) as disk:
        yield disk


@pytest.fixture
def log_on_disk(engine: Dialect, disk: SmallDisk, request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty log whose data lie on the small disk."""
    if engine is Dialect.SQLITE:
        database = Database(DatabaseLocation(engine, {"database": str(disk.folder / "audit.db")}))
        migrate(database, "audit", SystemClock())
        yield database
        database.close()
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    folder = disk.folder / "tablespace"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    cluster.own(folder)
    cluster.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
    cluster.execute("CREATE DATABASE on_small_disk TABLESPACE small")
    database = Database(DatabaseLocation(engine, cluster.connection_arguments("on_small_disk")))
    migrate(database, "audit", SystemClock())
    yield database
    database.close()
    cluster.drop_database("on_small_disk")
    cluster.execute("DROP TABLESPACE small")


def test_a_full_disk_keeps_callers_waiting_with_one_alarm_and_when_there_is_room_all_is_stored_once(
    log_on_disk: Database, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "synapse_modules.audit.intake")
    with recording(log_on_disk) as (intake, callers):
        callers.send(50)
        callers.wait(50)
        disk.fill()
        callers.send(2000)
        wait_until(lambda: intake.problem, what="the intake notices that there is no room")
        assert any(word in str(intake.problem) for word in ("full", "No space left"))
        disk.free()
        callers.wait(2000)
        assert intake.problem is None
    assert callers.errors == []
    assert stored_once(log_on_disk, callers.sent)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    sequencer = sequencer_of(log_on_disk)
    while sequencer.run_cycle():
        pass
    assert naive_root(log_on_disk)[0] == 2051


# ------------------------------------------------------------------------------------------------------- clocks


def test_clocks_that_jump_change_neither_the_order_nor_what_is_ordered(log: Database) -> None:
    clock = HandClock()
    sequencer = sequencer_of(log, clock)
    jumps = [0, -30 * DAY_MS, 400 * DAY_MS, -400 * DAY_MS, 5]
    for number, jump in enumerate(jumps):
        clock.ms += jump
        record = make_record(f"user{number}", now_ms=clock.ms)
        log.run(lambda transaction, at=number, new=record: _insert(transaction, at, [new]))  # type: ignore[misc]  # bound as defaults, because the loop goes on
        assert sequencer.run_cycle() == 1
    found = log.run(lambda transaction: find(transaction, EntryFilter(), 10)).entries
    assert [entry.actor for entry in found] == [f"@user{number}:synapse.test" for number in (4, 3, 2, 1, 0)]


def test_a_writer_whose_clock_is_days_behind_is_found_within_the_hour(log: Database) -> None:
    clock = HandClock()
    sequencer = sequencer_of(log, clock)
    sequencer.run_cycle()
    late = make_record(now_ms=clock.ms - 3 * DAY_MS)
    log.run(lambda transaction: store.insert_records(transaction, "worker:1", 0, [late]))
    assert sequencer.run_cycle() == 0
    clock.ms += HOUR_MS + 1
    assert sequencer.run_cycle() == 1


# ---------------------------------------------------------------------------------------------- what is in a record


def verify(log: FilledLog) -> int:
    """Export all and verify it as an auditor does; how many entries there are."""
    return verify_bundle(io.BytesIO(log.export()), KnownKeys([KEY.verifier])).entries


def largest_event() -> AuditEvent:
    """An event whose record is just as large as any may be."""
    event = AuditEvent(Action.CONFIG_CHANGE, details={"after": ""})
    room = MAX_LEAF_BYTES - len(RECORDER.record(event, HandClock().ms).leaf)
    return replace(event, details={"after": "x" * room})


def test_records_of_the_largest_size_are_recorded_sealed_exported_and_verified(log: Database) -> None:
    filled = FilledLog(log)
    with pytest.raises(InvalidInput, match="at most 60000 bytes"):
        RECORDER.record(replace(largest_event(), details={"after": "x" * MAX_LEAF_BYTES}), 0)
    filled.fill([largest_event()] * 300)
    assert {len(leaf) for (leaf,) in rows(log, "SELECT leaf FROM governance_audit_records")} == {MAX_LEAF_BYTES}
    assert verify(filled) == 300


HOSTILE = st.text(st.characters(codec=None), min_size=1, max_size=40) | st.sampled_from(
    ["\x00", "\ud800", "=1+1", "'; DROP TABLE governance_audit_records; --", "%s %(x)s ?", "\r\n\u2028\u202e", "${x}"]
)


def test_hostile_text_in_any_field_is_recorded_found_exported_and_verified(log: Database) -> None:
    filled = FilledLog(log)
    count = 0

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(actor=HOSTILE, room=HOSTILE, reason=HOSTILE, detail=HOSTILE)
    def record(actor: str, room: str, reason: str, detail: str) -> None:
        nonlocal count
        event = AuditEvent(
            Action.ACCESS_DENIED,
            actor=actor,
            target=detail,
            address=reason,
            user_agent=room,
            device_id=actor,
            room_id=room,
            reason=reason,
            rule=detail,
            case_id=actor,
            details={"permission": detail, "nested": [{detail: reason}]}
            if detail.isascii()
            else {"permission": detail},
        )
        filled.fill([event])
        count += 1
        (newest,) = log.run(lambda transaction: find(transaction, EntryFilter(), 1)).entries
        wanted = EntryFilter(actor=newest.actor, room=newest.room, begin=count - 1)
        assert log.run(lambda transaction: find(transaction, wanted, 1)).entries == [newest]

    record()
    assert verify(filled) == count


# ------------------------------------------------------------------------------------------ what somebody may do


@pytest.mark.parametrize(
    "mischief",
    [
        [f"UPDATE {_RECORDS} SET leaf = (SELECT leaf FROM {_RECORDS} WHERE wseq = 7) WHERE wseq = 41"],
        [f"UPDATE {_RECORDS} SET disclosures = (SELECT disclosures FROM {_RECORDS} WHERE wseq = 1) WHERE wseq = 40"],
        ["UPDATE governance_audit_entries SET wseq = -wseq WHERE wseq IN (500, 541)",
         "UPDATE governance_audit_entries SET wseq = 1041 + wseq WHERE wseq < 0"],
        ["DELETE FROM governance_audit_records WHERE wseq = 41"],
        ["DELETE FROM governance_audit_entries WHERE idx = 41"],
        ["DELETE FROM governance_audit_entries WHERE idx >= 550"],
        ["DELETE FROM governance_audit_records WHERE wseq >= 550"],
    ],
    ids=["edited", "person edited", "swapped", "record dropped", "index dropped", "indexes cut", "records cut"],
)  # fmt: skip
def test_whatever_is_done_to_sealed_entries_is_found_by_verification(log: Database, mischief: list[str]) -> None:
    filled = FilledLog(log)
    filled.fill(sample_events(600))
    assert verify(filled) == 600
    for statement in mischief:
        execute(log, statement)
    with pytest.raises((BundleInvalid, TreeDamaged)):
        verify(filled)
