"""The daily check: what has no record is found by its name, recorded, and said so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import event_check, event_source, store
from synapse_modules.audit.event_check import EventCheck
from synapse_modules.audit.event_cursor import Cursors, Gap
from synapse_modules.audit.follower import EVENTS_STREAM, Follower
from synapse_modules.audit.recorded_keys import key_hash
from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from synapse_modules.storage.dialect import Dialect
from tests.support.audit_log import RECORDER, HandClock, execute, rows, sequencer_of
from tests.support.event_tables import EventTables

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

BEGIN = {"master": 10, "backfill/master": -1}
DAY_MS = 86_400_000


class Here:
    """A homeserver's event tables, a log, a follower that has begun, and a check."""

    def __init__(self, homeserver: Database, log: Database) -> None:
        self.tables = EventTables(homeserver)
        self.log = log
        self.clock = HandClock()
        self.follower = Follower(homeserver, log, RECORDER, self.clock)
        self.follower.run_cycle(BEGIN)
        self.check = self.another_check()

    def another_check(self) -> EventCheck:
        """As a process that has just started has it."""
        return EventCheck(self.tables.database, self.log, RECORDER, self.clock)

    def follow(self, live: int, imported: int = -1) -> None:
        """Follow all events up to there."""
        positions = {"master": live, "backfill/master": imported}
        while not self.follower.caught_up(positions) or self.cursors().gaps:
            self.follower.run_cycle(positions)

    def cursors(self) -> Cursors:
        """How far events were followed."""
        _, text = self.log.run(lambda transaction: store.cursor(transaction, EVENTS_STREAM))
        return Cursors.parse(text or "")

    def set_cursors(self, cursors: Cursors) -> None:
        """Let the log believe that it has followed events like that."""

        def work(transaction: Transaction) -> None:
            generation, _ = store.cursor(transaction, EVENTS_STREAM)
            store.advance_cursor(transaction, EVENTS_STREAM, generation, cursors.text())

        self.log.run(work)

    def skip(self, live: int, imported: int = 1) -> None:
        """Move the cursors over what was not read."""
        here = self.cursors()
        self.set_cursors(Cursors(here.begin, {"master": live, "backfill/master": imported}))

    def a_day_later(self, check: EventCheck | None = None) -> int:
        """Let the next pass go through to its end; how many records were missing."""
        self.clock.ms += DAY_MS
        return self.all_of_it(check)

    def all_of_it(self, check: EventCheck | None = None) -> int:
        """Let the pass that is under way go through to its end."""
        return sum((check or self.check).run_cycle() for _ in range(40))

    def keys(self) -> list[str]:
        """The keys of events that are recorded, in order."""
        sql = "SELECT dedupe_key FROM governance_audit_records WHERE dedupe_key LIKE '$%' ORDER BY wseq"
        return [key for (key,) in rows(self.log, sql)]

    def gaps(self) -> list[dict[str, Any]]:
        """What ``audit.gap`` records say."""
        sql = "SELECT leaf FROM governance_audit_records WHERE action = 'audit.gap' ORDER BY wseq"
        found = [json.loads(leaf)["details"] for (leaf,) in rows(self.log, sql)]
        for details in found:
            check_details(Action.AUDIT_GAP, details)
        return found


@pytest.fixture
def here(homeserver: Database, log: Database) -> Here:
    """An empty homeserver whose events are followed."""
    return Here(homeserver, log)


def test_where_every_event_has_its_record_nothing_is_made(here: Here) -> None:
    here.tables.add_many(range(11, 31))
    here.tables.add(31, kind="m.room.member", state_key="@alice:synapse.test", content={"membership": "join"})
    here.tables.add(-2)
    here.follow(31, -2)
    before = here.keys()
    assert [here.all_of_it(), here.a_day_later(), here.a_day_later()] == [0, 0, 0]
    assert (here.keys(), here.gaps()) == (before, [])


def test_events_that_the_cursors_passed_without_a_record_are_recorded_and_reported(here: Here) -> None:
    here.tables.add(11)
    here.follow(11)
    here.all_of_it()
    here.tables.add_many(range(12, 15))
    here.tables.add(-2)
    here.skip(14, imported=2)
    here.tables.add(15)
    here.follow(15, -2)
    assert here.keys() == ["$11", "$15"]

    assert here.a_day_later() == 4
    assert here.keys() == ["$11", "$15", "$12", "$13", "$14", "$-2"]
    moment = 1_700_000_000_001
    common = {"writer": "events", "since_ms": moment, "until_ms": moment}
    assert here.gaps() == [{"records": 3, **common}, {"records": 1, **common}]
    assert here.a_day_later() == 0


def test_what_was_found_gets_its_place_in_the_log_after_the_record_that_says_so(here: Here) -> None:
    here.tables.add_many(range(11, 14))
    here.skip(13)
    here.all_of_it()
    sequencer = sequencer_of(here.log)
    assert sequencer.run_cycle() == 5
    placed = rows(here.log, "SELECT action FROM governance_audit_entries ORDER BY idx")
    assert [action for (action,) in placed] == ["audit.start", "audit.gap", *["message.send"] * 3]


def test_an_included_outlier_without_a_record_is_found_and_an_outlier_is_none(here: Here) -> None:
    here.tables.add(11, event_id="$included", outlier=True)
    here.tables.include(13, "$included")
    here.tables.add(12, event_id="$outlier", outlier=True)
    here.tables.add(14, event_id="$member", kind="m.room.member", state_key="@a:x", outlier=True)
    here.skip(14)
    assert here.all_of_it() == 1
    assert here.keys() == ["$included"]


def test_every_event_is_looked_at_in_two_passes_and_then_no_more(here: Here) -> None:
    here.tables.add_many(range(11, 14))
    here.follow(13)
    here.all_of_it()
    execute(here.log, "DELETE FROM governance_audit_records WHERE dedupe_key = '$12'")
    assert here.a_day_later() == 1, "the second pass looks again"
    execute(here.log, "DELETE FROM governance_audit_records WHERE dedupe_key = '$12'")
    assert here.a_day_later() == 0


def test_pages_follow_one_another_and_a_killed_process_goes_on_where_it_was(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_check, "_PAGE", 10)
    here.tables.add_many(range(11, 61))
    here.skip(60)
    assert [here.another_check().run_cycle() for _ in range(6)] == [10, 10, 10, 10, 10, 0]
    assert here.keys() == [f"${number}" for number in range(11, 61)]


def test_nothing_is_read_until_a_day_is_over(here: Here) -> None:
    here.all_of_it()
    here.tables.add(11)
    here.skip(11)
    here.clock.ms += DAY_MS - 1
    assert here.all_of_it() == here.all_of_it(here.another_check()) == 0
    here.clock.ms += 1
    assert here.all_of_it() == 1


def test_a_clock_that_was_set_back_does_not_put_the_check_off_for_ever(here: Here) -> None:
    here.all_of_it()
    here.tables.add(11)
    here.skip(11)
    here.clock.ms -= 100 * DAY_MS
    assert here.all_of_it() == 1


def test_an_id_that_is_still_looked_for_is_left_to_the_follower(here: Here) -> None:
    here.tables.add_many(range(11, 14))
    begin = here.cursors().begin
    here.set_cursors(Cursors(begin, {"master": 13, "backfill/master": 1}, (Gap("", 12, 12, horizon=2**40),)))
    assert here.all_of_it() == 2
    assert here.keys() == ["$11", "$13"]


def test_what_was_pruned_is_not_missing(here: Here) -> None:
    here.tables.add(11)
    here.follow(11)
    execute(here.log, "DELETE FROM governance_audit_records WHERE dedupe_key = '$11'")
    execute(here.log, "INSERT INTO governance_audit_pruned_keys (key_hash) VALUES (?)", (key_hash("$11"),))
    assert here.all_of_it() == 0


def test_after_the_database_was_set_back_what_comes_anew_is_not_missing(here: Here) -> None:
    here.tables.add_many(range(11, 21))
    here.follow(20)
    here.check.run_cycle()
    here.tables.execute("DELETE FROM events WHERE stream_ordering > 15")
    here.tables.execute("DELETE FROM event_json")
    here.clock.ms += DAY_MS
    here.follower.run_cycle({"master": 15, "backfill/master": -1})
    here.tables.add(16, event_id="$new")
    assert here.all_of_it() == 0
    here.follow(16)
    assert here.a_day_later() == 0
    assert here.keys()[-1] == "$new"


def test_of_two_checks_at_once_one_gives_way(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.tables.add_many(range(11, 14))
    here.skip(13)
    other = here.another_check()
    page = event_source.names

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(event_source, "names", page)
        assert other.run_cycle() == 3
        return page(*arguments)

    monkeypatch.setattr(event_source, "names", meanwhile)
    assert here.check.run_cycle() == 0
    assert here.all_of_it() == 0
    assert here.keys() == ["$11", "$12", "$13"]
    assert len(here.gaps()) == 1


def test_before_following_has_begun_there_is_nothing_to_check(homeserver: Database, log: Database) -> None:
    assert EventCheck(homeserver, log, RECORDER, HandClock()).run_cycle() == 0


@pytest.mark.parametrize("engine", [Dialect.POSTGRES], ids=str, indirect=True)
def test_a_writer_that_is_new_holds_the_check_back_until_it_was_read(here: Here) -> None:
    here.tables.add(11, writer="worker1")
    here.follower.run_cycle({"master": 12, "worker1": 12, "backfill/master": -1})
    assert here.all_of_it() == 0
    assert here.keys() == []
