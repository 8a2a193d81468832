"""Rules, holds and runs as they are stored, with their audit records in the same transactions."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings

from synapse_modules.core.errors import Conflict, NotFound
from synapse_modules.retention import holds, runs
from synapse_modules.retention.holds import TRIGGERS, HoldStore
from synapse_modules.retention.model import Author, Hold, HoldKind, Run, RunState
from synapse_modules.retention.rules import KEEP_EVERYTHING, Rule, Rules, changes_in_words
from synapse_modules.retention.runs import STALE_MS, Intent, RunStore
from synapse_modules.retention.store import RuleStore, StoredRules
from tests.support.synapse_tables import Recorder, Runner, execute, query
from tests.unit.retention.histories import RULES

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from synapse_modules.storage.database import Database

_Result = TypeVar("_Result")

NOW = 1_700_000_000_000
OLIVIA = Author("@olivia:x", "TEACUP", "198.51.100.7", "govctl/1")


class _BrokenSink(Recorder):
    """Takes nothing."""

    def record_in(self, *_: Any) -> None:
        raise RuntimeError("the audit log is broken")


@pytest.fixture
def runner(database: Database) -> Runner:
    return Runner(database)


def do(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    return asyncio.run(coroutine)


# ----------------------------------------------------------------------------------------------------- rules


def test_a_new_database_has_no_rules_and_keeps_everything(runner: Runner) -> None:
    assert do(RuleStore(runner, Recorder()).read()) == StoredRules(0, KEEP_EVERYTHING)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(new=RULES)
def test_rules_are_read_as_they_were_applied_with_a_version_for_each_difference(runner: Runner, new: Rules) -> None:
    store = RuleStore(runner, Recorder())
    before = do(store.read())
    applied = do(store.apply(new, expected_version=before.version, author=OLIVIA, now_ms=NOW))
    after = do(store.read())
    assert applied.changes == changes_in_words(before.rules, new)
    if applied.changes or not before.version:
        assert after == StoredRules(before.version + 1, new, NOW, "@olivia:x")
    else:
        assert after == before


def test_every_version_that_was_in_force_is_kept(database: Database, runner: Runner) -> None:
    store = RuleStore(runner, Recorder())
    for version, duration in enumerate(("1d", "2d", "3d")):
        new = Rules((), Rule(None, duration))
        do(store.apply(new, expected_version=version, author=OLIVIA, now_ms=NOW))
    found = query(database, "SELECT version FROM governance_retention_rules ORDER BY version")
    assert found == [(1,), (2,), (3,)]


def test_of_many_authors_at_once_one_is_heard(runner: Runner) -> None:
    store = RuleStore(runner, Recorder())

    def apply(number: int) -> bool:
        try:
            do(store.apply(Rules((), Rule(None, f"{number}d")), expected_version=0, author=OLIVIA, now_ms=NOW))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(apply, range(1, 5))) == [False, False, False, True]


def test_without_its_record_no_change_of_rules_and_no_hold_is_made(database: Database, runner: Runner) -> None:
    rules, store = RuleStore(runner, _BrokenSink()), HoldStore(runner, _BrokenSink())
    with pytest.raises(RuntimeError):
        do(rules.apply(Rules((), Rule(None, "1d")), expected_version=0, author=OLIVIA, now_ms=NOW))
    with pytest.raises(RuntimeError):
        do(store.create(_hold("h1"), OLIVIA))
    assert do(rules.read()).version == 0
    assert query(database, "SELECT * FROM governance_holds") == []


# ----------------------------------------------------------------------------------------------------- holds


def _hold(hold_id: str, kind: HoldKind = HoldKind.ROOM, subject: str = "!held:x", created_ms: int = NOW) -> Hold:
    return Hold(hold_id, kind, subject, "CASE", "@olivia:x", "Evidence", created_ms)


def test_the_triggers_that_a_hold_asks_for_are_those_that_the_schema_makes(runner: Runner) -> None:
    found = do(runner.run("triggers", lambda tx: {row[0] for row in holds._TRIGGERS.rows(tx)}))
    assert found == TRIGGERS[runner.dialect]


def test_holds_come_in_the_order_of_their_placing(runner: Runner) -> None:
    store = HoldStore(runner, Recorder())
    placed = [_hold("h3", created_ms=NOW), _hold("h1", created_ms=NOW + 1), _hold("h2", created_ms=NOW + 1)]
    for each in placed:
        assert do(store.create(each, OLIVIA)) == each
    assert do(store.page(after=(-1, ""), limit=2)) == placed[:2]
    assert do(store.page(after=(NOW + 1, "h1"), limit=2)) == placed[2:]
    assert do(runner.run("holds", holds.holds_on_rooms)) == {"!held:x": ("h3", "h1", "h2")}
    assert do(runner.run("holds", lambda tx: holds.holds_on_room(tx, "!free:x"))) == ()


def test_a_released_hold_stays_as_a_record_and_holds_nothing(runner: Runner) -> None:
    store = HoldStore(runner, Recorder())
    do(store.create(_hold("h1"), OLIVIA))
    released = do(store.release("h1", reason="Over", author=OLIVIA, now_ms=NOW + 5))
    assert released == _hold("h1")._replace(released_ms=NOW + 5, released_by="@olivia:x", release_reason="Over")
    assert do(store.get("h1")) == released
    assert do(runner.run("holds", holds.holds_on_rooms)) == {}
    with pytest.raises(Conflict, match="released before"):
        do(store.release("h1", reason="Over", author=OLIVIA, now_ms=NOW + 6))


def test_a_hold_on_somebody_who_is_only_a_member_of_a_room_is_taken(database: Database, runner: Runner) -> None:
    execute(
        database,
        "INSERT INTO room_memberships (event_id, user_id, sender, room_id, membership, event_stream_ordering) "
        "VALUES ('$held0', '@remote:y', '@remote:y', '!held:x', 'join', 1)",
    )
    store = HoldStore(runner, Recorder())
    for subject in ("@ada:x", "@remote:y"):
        do(store.create(_hold(subject, HoldKind.USER, subject), OLIVIA))
    with pytest.raises(NotFound, match="knows no user @remote:z"):
        do(store.create(_hold("h", HoldKind.USER, "@remote:z"), OLIVIA))


# ------------------------------------------------------------------------------------------------------ runs

INTENT = Intent("r1", "!held:x", "project", "class:project", NOW - 1_000, 4, 0)


def _run(run_id: str = "r1", started_ms: int = NOW) -> Run:
    return Run(run_id, RunState.RUNNING, 1, started_ms, "@olivia:x")


def _announce(runner: Runner, store: RunStore, intent: Intent) -> None:
    do(runner.run("announce", lambda tx: store.announce(tx, intent, NOW)))


def test_of_many_runs_at_once_one_begins(runner: Runner) -> None:
    store = RunStore(runner, Recorder())

    def begin(number: int) -> bool:
        try:
            do(store.begin(_run(f"r{number}")))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(begin, range(4))) == [False, False, False, True]


@pytest.mark.parametrize(("later_ms", "begins"), [(STALE_MS, False), (STALE_MS + 1, True), (-STALE_MS - 1, True)])
def test_a_run_keeps_the_lock_while_its_heartbeat_is_young(runner: Runner, later_ms: int, begins: bool) -> None:
    store = RunStore(runner, Recorder())
    do(store.begin(_run()))
    if begins:
        do(store.begin(_run("r2", NOW + later_ms)))
        with pytest.raises(Conflict, match="taken for dead"):
            do(store.beat("r1", NOW + later_ms))
        with pytest.raises(Conflict, match="taken for dead"):
            _announce(runner, store, INTENT)
        return
    with pytest.raises(Conflict, match="run r1 is going on"):
        do(store.begin(_run("r2", NOW + later_ms)))


def test_a_run_sums_up_its_rooms_and_is_recorded_when_it_ends(database: Database, runner: Runner) -> None:
    store = RunStore(runner, Recorder())
    do(store.begin(_run()))
    do(store.planned("r1", 2))
    for room, left in (("!held:x", 1), ("!free:x", 0)):
        intent = INTENT._replace(room_id=room)
        _announce(runner, store, intent)
        do(store.settle(intent, left=left, problem="why" if left else None, author=OLIVIA, now_ms=NOW))
    do(store.finish("r1", RunState.DONE, author=OLIVIA, now_ms=NOW + 9, copies_dropped=3))

    run = do(store.get("r1"))
    assert run == _run()._replace(
        state=RunState.DONE, ended_ms=NOW + 9, rooms_planned=2, rooms_done=2, due=8, deleted=7, copies_dropped=3,
        problems=1,
    )  # fmt: skip
    assert not run.succeeded
    assert do(store.last_start_ms()) == NOW
    records = Recorder.in_outbox(database)
    assert [(each["room_id"], each["outcome"], each["details"]["deleted"]) for each in records] == [
        ("!held:x", "failure", 3),
        ("!free:x", "success", 4),
        (None, "failure", 7),
    ]


def test_nothing_is_recorded_twice(database: Database, runner: Runner) -> None:
    store = RunStore(runner, Recorder())
    do(store.begin(_run()))
    _announce(runner, store, INTENT)
    for _ in range(2):
        do(store.settle(INTENT, left=0, problem=None, author=OLIVIA, now_ms=NOW))
        do(store.finish("r1", RunState.DONE, author=OLIVIA, now_ms=NOW))
    assert len(Recorder.in_outbox(database)) == 2
    assert do(store.get("r1")).deleted == 4


def test_a_record_never_claims_more_than_was_due(database: Database, runner: Runner) -> None:
    store = RunStore(runner, Recorder())
    do(store.begin(_run()))
    _announce(runner, store, INTENT)
    do(store.settle(INTENT, left=9, problem=None, author=OLIVIA, now_ms=NOW))
    (record,) = Recorder.in_outbox(database)
    assert (record["details"]["due"], record["details"]["deleted"], record["outcome"]) == (4, 0, "failure")


def test_a_run_without_a_heartbeat_is_found_with_what_it_announced(runner: Runner) -> None:
    store = RunStore(runner, Recorder())
    do(store.begin(_run()))
    _announce(runner, store, INTENT)
    assert do(store.abandoned(NOW + STALE_MS)) == []
    assert do(store.abandoned(NOW + STALE_MS + 1)) == [(_run(), [INTENT])]
    do(store.begin(_run("r2", NOW + STALE_MS + 1)))
    assert do(store.abandoned(NOW + STALE_MS + 1)) == [(_run(), [INTENT])]


def test_a_run_that_has_ended_frees_the_lock(runner: Runner) -> None:
    store = RunStore(runner, Recorder())
    do(store.begin(_run()))
    do(store.finish("r1", RunState.FAILED, author=OLIVIA, now_ms=NOW, problem="why"))
    do(store.begin(_run("r2", NOW + 1)))
    assert do(store.get("r1")).problem == "why"
    with pytest.raises(NotFound, match="no run r3"):
        do(store.get("r3"))


def test_a_heartbeat_is_much_shorter_than_what_counts_as_dead() -> None:
    assert runs.HEARTBEAT_MS * 5 <= STALE_MS
