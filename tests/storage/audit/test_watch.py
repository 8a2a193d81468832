"""What the process that orders the log watches: silent processes, quiet intervals and lost records, on both engines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.presence import Presence
from synapse_modules.audit.problems import report_problem
from synapse_modules.audit.signs import is_quiet, newest_signs
from synapse_modules.audit.watch import Watch
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent
from tests.support.anchored_log import HandTime
from tests.support.audit_log import RECORDER, HandClock, execute, make_record, rows, sequencer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.storage.database import Database

INTERVAL_MS = 3_600_000


class Watched:
    """A log that is watched while time is moved by hand; what the watch records is stored at once.

    Attributes:
        full: whether there is no room for a record.
    """

    def __init__(self, log: Database, *expected: str) -> None:
        self.log = log
        self.clock = HandClock()
        self.time = HandTime()
        self.full = False
        self.fails = False
        self._written: dict[str, int] = {}
        self._expected = expected
        self._sequencer = sequencer_of(log, self.clock)
        self.watch = self._new_watch()

    def _new_watch(self) -> Watch:
        def presence() -> Presence:
            return Presence(self._expected, "1.0", ("AuditModule",), 54)

        return Watch(self.log, "synapse.test", self.clock, self._leave, presence, INTERVAL_MS, self.time)

    def restart(self) -> None:
        """A new process watches."""
        self.watch = self._new_watch()

    def event(self, process: str, event: AuditEvent) -> None:
        """Record ``event`` in the name of ``process``."""
        number = self._written.get(process, 0)
        record = RECORDER.record(event, self.clock.now_ms())
        self.log.run(lambda transaction: store.insert_records(transaction, f"{process}:1", number, [record]))
        self._written[process] = number + 1

    def beat(self, process: str, action: Action = Action.AUDIT_HEARTBEAT, **details: Any) -> None:
        """Leave a sign of ``process``."""
        given = {"writer": f"{process}:1", "product_version": "1.0", "modules": ["AuditModule"], **details}
        self.event(process, AuditEvent(action, details=given))

    def turn(self, seconds: float = 1.0) -> dict[str, str]:
        """Let time pass and take a turn; what is wrong then."""
        self.time.seconds += seconds
        self.clock.ms += int(seconds * 1000)
        while self._sequencer.run_cycle():
            pass
        self.watch.run_cycle(self._sequencer.gaps)
        return {source: text for source, text in self.watch.problems().items() if text is not None}

    def a_minute(self) -> dict[str, str]:
        """Let a minute pass in which only the main process shows itself; what is wrong then."""
        for _ in range(60):
            self.beat("main")
            self.turn()
        return self.turn(0)

    def recorded(self, action: Action) -> list[dict[str, Any]]:
        """The details of all records of ``action``."""
        found = rows(
            self.log,
            "SELECT leaf FROM governance_audit_records WHERE action = ? ORDER BY writer, wseq",
            (action.value,),
        )
        return [json.loads(leaf)["details"] for (leaf,) in found]

    def _leave(self, event: AuditEvent, ended: Callable[[Exception | None], None]) -> bool:
        check_event(event)
        if self.full:
            return False
        if self.fails:
            ended(OSError("the disk is full"))
            return True
        known = rows(self.log, "SELECT 1 FROM governance_audit_records WHERE dedupe_key = ?", (event.key,))
        if not known:
            self.event("watcher", event)
        ended(None)
        return True


# ------------------------------------------------------------------------------------------------------- processes


def test_a_worker_without_the_module_is_a_problem_and_one_record(log: Database) -> None:
    watched = Watched(log, "main", "worker1")
    problems = watched.a_minute()
    assert list(problems) == ["process worker1"]
    assert "is AuditModule missing there" in problems["process worker1"]
    assert watched.recorded(Action.AUDIT_GAP) == [{"process": "worker1"}]


def test_a_worker_that_falls_silent_is_noticed_and_so_is_its_return(log: Database) -> None:
    watched = Watched(log, "main")
    watched.beat("worker7")
    assert list(watched.a_minute()) == ["process worker7"]
    watched.beat("worker7")
    assert watched.turn() == {}
    assert [gap["process"] for gap in watched.recorded(Action.AUDIT_GAP)] == ["worker7"]


def test_a_silence_has_one_record_even_when_another_process_takes_over_the_watch(log: Database) -> None:
    watched = Watched(log, "main")
    watched.beat("worker7")
    for _ in range(2):
        assert list(watched.a_minute()) == ["process worker7"], "the log remembers who was there"
        watched.restart()
    assert len(watched.recorded(Action.AUDIT_GAP)) == 1


def test_a_log_that_stands_still_makes_nobody_silent(log: Database) -> None:
    watched = Watched(log, "main")
    watched.beat("main")
    assert watched.turn() == {}
    watched.time.seconds += 600
    watched.watch.stand_still()
    assert watched.turn() == {}
    assert watched.turn(600) == {}, "one long turn is no silence either"


def test_a_worker_of_another_version_or_with_other_modules_is_a_problem_at_once(log: Database) -> None:
    watched = Watched(log, "main")
    watched.beat("main")
    watched.beat("worker1", product_version="0.9")
    watched.beat("worker2", modules=[])
    problems = watched.turn()
    assert "it runs version 0.9" in problems["process worker1"]
    assert problems["process worker2"] == "it has not loaded AuditModule"
    assert watched.recorded(Action.AUDIT_GAP) == []


def test_a_problem_that_an_earlier_watch_left_open_ends(log: Database) -> None:
    log.run(lambda transaction: report_problem(transaction, "process worker9", "it is silent", 5))
    watched = Watched(log, "main")
    watched.beat("main")
    watched.turn()
    assert watched.watch.problems() == {"process main": None, "process worker9": None}


@pytest.mark.parametrize("how", ["full", "fails"])
def test_a_record_that_cannot_be_made_is_made_later(log: Database, how: str) -> None:
    watched = Watched(log, "main", "worker1")
    setattr(watched, how, True)
    watched.a_minute()
    assert watched.recorded(Action.AUDIT_GAP) == []
    setattr(watched, how, False)
    watched.turn()
    assert watched.recorded(Action.AUDIT_GAP) == [{"process": "worker1"}]


def test_signs_are_the_newest_of_each_kind_in_the_order_of_the_log(log: Database) -> None:
    watched = Watched(log)
    watched.beat("main", Action.AUDIT_START)
    for number in range(5):
        watched.beat("main", records=number, unrecorded=0)
    watched.event("main", AuditEvent(Action.AUDIT_SEARCH))
    watched.event("main", AuditEvent(Action.AUDIT_STOP, Outcome.FAILURE, details={"writer": "main:1", "records": 6}))
    watched.turn()
    found = log.run(lambda transaction: newest_signs(transaction, -1, 2))
    assert [(each.index, each.alive, each.records) for each in found] == [
        (0, True, None),
        (4, True, 3),
        (5, True, 4),
        (7, False, 6),
    ]
    assert (found[0].process, found[0].version, found[0].modules) == ("main", "1.0", ("AuditModule",))
    assert [each.index for each in log.run(lambda transaction: newest_signs(transaction, 4, 9))] == [5, 7]


@pytest.mark.parametrize(
    "leaf", [b"", b"{}", b"[]", b"\xff", b'{"details":7}', b'{"details":{"writer":7,"modules":"x"}}']
)
def test_what_somebody_edited_is_no_sign(log: Database, leaf: bytes) -> None:
    watched = Watched(log, "main")
    watched.beat("main")
    watched.turn()
    execute(log, "UPDATE governance_audit_records SET leaf = ?", (leaf,))
    (found,) = log.run(lambda transaction: newest_signs(transaction, -1, 9))
    assert (found.process, found.version, found.modules) == ("", None, None)


# ------------------------------------------------------------------------------------------------------------ quiet


def test_an_hour_without_anything_but_heartbeats_is_on_record(log: Database) -> None:
    watched = Watched(log, "main")
    watched.event("main", AuditEvent(Action.AUTH_LOGIN, actor="@alice:synapse.test"))
    watched.beat("main")
    watched.turn()
    began_ms = watched.clock.ms
    for _ in range(121):
        watched.beat("main")
        watched.turn(60)
    first, second = watched.recorded(Action.AUDIT_QUIET)
    assert first == {"since_ms": began_ms, "until_ms": began_ms + INTERVAL_MS, "begin": 2, "tree_size": 62}
    assert second["since_ms"] == first["until_ms"]
    assert second["begin"] == first["tree_size"]


def test_an_hour_in_which_something_happened_is_not_quiet(log: Database) -> None:
    watched = Watched(log, "main")
    for minute in range(118):
        watched.beat("main")
        if minute in (0, 58):
            watched.event("main", AuditEvent(Action.AUTH_LOGIN, actor="@alice:synapse.test"))
        watched.turn(60)
    assert watched.recorded(Action.AUDIT_QUIET) == []
    for _ in range(3):
        watched.turn(60)
    (quiet,) = watched.recorded(Action.AUDIT_QUIET)
    assert log.run(lambda transaction: is_quiet(transaction, quiet["begin"]))


def test_a_clock_that_is_set_back_does_not_make_an_interval_quiet(log: Database) -> None:
    watched = Watched(log, "main")
    watched.turn()
    watched.clock.ms -= 10 * INTERVAL_MS
    for _ in range(59):
        watched.turn(60)
    assert watched.recorded(Action.AUDIT_QUIET) == []


# ------------------------------------------------------------------------------------------------------------- gaps


def test_records_that_were_deleted_before_they_had_an_index_are_on_record_once(log: Database) -> None:
    watched = Watched(log, "main")
    watched.beat("main")
    watched.turn()
    records = [make_record(f"user{number}") for number in range(5)]
    log.run(lambda transaction: store.insert_records(transaction, "worker1:1", 0, records))
    execute(log, "DELETE FROM governance_audit_records WHERE writer = 'worker1:1' AND wseq = 2")
    watched.turn()
    watched.turn()
    watched.restart()
    watched.turn()
    assert watched.recorded(Action.AUDIT_GAP) == [{"writer": "worker1:1"}]
