from __future__ import annotations

import json
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import event_lanes, store
from synapse_modules.audit.event_cursor import MAX_GAPS, Cursors, Gap
from synapse_modules.audit.follower import EVENTS_STREAM, Follower
from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Unavailable
from synapse_modules.storage.dialect import Dialect
from tests.support.audit_log import RECORDER, HandClock, faulty, rows
from tests.support.event_tables import EventTables, OpenTransaction, add_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

BEGIN = {"master": 10, "backfill/master": -1}
postgres_only = pytest.mark.parametrize("engine", [Dialect.POSTGRES], ids=str, indirect=True)


@pytest.fixture
def tables(homeserver: Database) -> EventTables:
    """Synapse's event tables, with one event from before following began."""
    tables = EventTables(homeserver)
    tables.add(5)
    return tables


@pytest.fixture
def follower(tables: EventTables, log: Database) -> Follower:
    """A follower that has begun."""
    follower = follower_of(tables.database, log)
    assert follower.run_cycle(BEGIN) == 1
    return follower


@pytest.fixture
def open_transaction(homeserver: Database) -> Iterator[Callable[[], OpenTransaction]]:
    """Opens transactions on the homeserver's database."""
    opened: list[OpenTransaction] = []

    def start() -> OpenTransaction:
        opened.append(OpenTransaction(homeserver))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def follower_of(homeserver: Database, log: Database) -> Follower:
    """A follower, as a process that has just started has it."""
    return Follower(homeserver, log, RECORDER, HandClock())


def keys(log: Database) -> list[str]:
    """The keys of what is recorded, in order; numbers are checked to have no gap."""
    found = rows(log, "SELECT wseq, dedupe_key FROM governance_audit_records WHERE writer = 'events' ORDER BY wseq")
    assert [number for number, _ in found] == list(range(len(found)))
    return [key for _, key in found if key is not None]


def recorded(log: Database) -> list[tuple[str, str, str | None, str | None, dict[str, Any]]]:
    """What is recorded of events: action, outcome, actor, target, details."""
    found = rows(
        log,
        "SELECT action, outcome, actor, target, leaf FROM governance_audit_records"
        " WHERE writer = 'events' AND wseq > 0 ORDER BY wseq",
    )
    leaves = [(*columns, json.loads(leaf)["details"]) for *columns, leaf in found]
    for action, *_, details in leaves:
        check_details(Action(action), details)
    return leaves


def cursors(log: Database) -> Cursors:
    """How far events have been followed."""
    _, text = log.run(lambda transaction: store.cursor(transaction, EVENTS_STREAM))
    assert text is not None
    return Cursors.parse(text)


def follow(follower: Follower, positions: dict[str, int]) -> int:
    """Run cycles until the log has caught up; returns how many records were made."""
    made = 0
    for _ in range(100):
        if follower.caught_up(positions):
            return made
        made += follower.run_cycle(positions)
    raise AssertionError("the log does not catch up")


def settle(follower: Follower, log: Database, positions: dict[str, int]) -> None:
    """Run cycles until no id up to ``positions`` is looked for any more."""
    follow(follower, positions)
    for _ in range(100):
        if not cursors(log).gaps:
            return
        follower.run_cycle(positions)
    raise AssertionError("there are still gaps")


# --------------------------------------------------------------------------------------------------- beginning


def test_following_begins_at_the_present_position_and_says_where(tables: EventTables, log: Database) -> None:
    follower = follower_of(tables.database, log)
    assert not follower.caught_up(BEGIN)
    assert follower.run_cycle(BEGIN) == 1
    assert follower.caught_up(BEGIN)
    ((action, leaf),) = rows(log, "SELECT action, leaf FROM governance_audit_records")
    details = json.loads(leaf)["details"]
    assert action == "audit.start"
    assert details == {"writer": "events", "positions": [["backfill/master", -1], ["master", 10]]}
    check_details(Action.AUDIT_START, details)


def test_what_was_sent_before_is_not_imported(follower: Follower, tables: EventTables, log: Database) -> None:
    tables.add(11)
    follow(follower, {"master": 11, "backfill/master": -1})
    assert keys(log) == ["$11"]


# --------------------------------------------------------------------------------------------------- following


def test_events_are_copied_in_order_up_to_the_position_and_once(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add_many(range(11, 15))
    assert not follower.caught_up({"master": 13})
    assert follower.run_cycle({"master": 13}) == 3
    assert follower.caught_up({"master": 13})
    assert follower.run_cycle({"master": 13}) == 0
    assert keys(log) == ["$11", "$12", "$13"]
    assert follower_of(tables.database, log).run_cycle({"master": 14}) == 1
    assert keys(log) == ["$11", "$12", "$13", "$14"]


def test_who_asks_for_less_than_was_followed_is_not_kept_waiting(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add_many(range(11, 15))
    follow(follower, {"master": 14})
    assert follower.caught_up({"master": 12})
    assert cursors(log).reached["master"] == 14


def test_a_cycle_that_finds_nothing_new_writes_nothing(follower: Follower, tables: EventTables, log: Database) -> None:
    tables.add(11)
    follow(follower, {"master": 11})
    before = rows(log, "SELECT COUNT(*) FROM governance_audit_cursors")
    for _ in range(3):
        assert follower.run_cycle({"master": 11}) == 0
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_cursors") == before


def test_it_tells_how_far_it_is_behind_each_writer(follower: Follower, tables: EventTables) -> None:
    tables.add(11)
    positions = {**BEGIN, "master": 11}
    follower.run_cycle(positions)
    assert follower.behind(positions) == dict.fromkeys(BEGIN, 0)
    assert follower.behind({**positions, "master": 30}) == {**dict.fromkeys(BEGIN, 0), "master": 19}


def test_many_events_are_copied_page_by_page(follower: Follower, tables: EventTables, log: Database) -> None:
    tables.add_many(range(11, 1211))
    assert [follower.run_cycle({"master": 1210}) for _ in range(4)] == [500, 500, 200, 0]
    assert keys(log) == [f"${number}" for number in range(11, 1211)]


def test_each_writer_is_followed_to_its_own_position(tables: EventTables, log: Database) -> None:
    follower = follower_of(tables.database, log)
    follower.run_cycle({"worker1": 10, "worker2": 10})
    for ordering in range(11, 19):
        tables.add(ordering, writer="worker1" if ordering % 2 else "worker2")
    follow(follower, {"worker1": 17, "worker2": 10})
    assert keys(log) == ["$11", "$13", "$15", "$17"]
    follow(follower, {"worker1": 17, "worker2": 16})
    assert keys(log) == ["$11", "$13", "$15", "$17", "$12", "$14", "$16"]


def test_an_event_without_a_writer_is_the_main_processs(follower: Follower, tables: EventTables, log: Database) -> None:
    tables.add(11, writer=None)
    follow(follower, {"master": 11})
    assert keys(log) == ["$11"]


def test_a_writer_that_is_new_is_followed_from_where_following_began(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add(12)
    follow(follower, {"master": 12})
    tables.add(7, writer="worker1")
    tables.add(11, writer="worker1")
    follow(follower, {"master": 12, "worker1": 12})
    assert keys(log) == ["$12", "$11"]


def test_the_ids_that_nobody_has_of_years_make_no_gaps_when_a_writer_is_new(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    last = 12 + 3 * MAX_GAPS
    for ordering in range(12, last, 3):
        tables.add(ordering)
    settle(follower, log, {"master": last})
    tables.add(13, writer="worker1")
    tables.add(last + 2, writer="worker1")
    positions = {"master": last, "worker1": last + 4}

    follower.run_cycle(positions)
    while not follower.caught_up(positions):
        follower.run_cycle(positions)
        assert not any(gap.coarse or gap.first <= last for gap in cursors(log).gaps)
    assert keys(log)[-2:] == ["$13", f"${last + 2}"]
    assert cursors(log).newcomers == {}


@postgres_only
def test_what_a_new_writer_had_under_way_when_it_was_seen_is_waited_for(
    follower: Follower, tables: EventTables, log: Database, open_transaction: Callable[[], OpenTransaction]
) -> None:
    tables.add(30)
    settle(follower, log, {"master": 30})
    late = open_transaction()
    add_event(late.transaction, 20, writer="worker1")
    tables.add(21, writer="worker1")
    positions = {"master": 30, "worker1": 30}
    for _ in range(3):
        follower.run_cycle(positions)
        assert not follower.unfinished, "to look again at once would be in vain"
    assert keys(log) == ["$30"]
    assert not follower.caught_up(positions)
    tables.add(31)
    follower.run_cycle({"master": 31, "worker1": 30})
    assert keys(log) == ["$30", "$31"], "nobody else waits for it"

    late.commit()
    assert follow(follower, {"master": 31, "worker1": 30}) == 2
    assert keys(log) == ["$30", "$31", "$20", "$21"]


@postgres_only
def test_a_new_writer_whose_position_falls_back_is_read_no_further(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add(20, writer="worker1")
    tables.add(28, writer="worker1")
    follower.run_cycle({"master": 10, "worker1": 30})
    assert follow(follower, {"master": 10, "worker1": 25}) == 1
    assert keys(log) == ["$20"]
    assert follow(follower, {"master": 10, "worker1": 30}) == 1
    assert keys(log) == ["$20", "$28"]


def test_a_page_without_a_record_leaves_the_cycle_unfinished(
    follower: Follower, tables: EventTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_lanes, "_PAGE", 10)
    tables.add_many(range(11, 41), outlier=True)
    tables.add(41)
    made: list[int] = []
    while not made or follower.unfinished:
        made.append(follower.run_cycle({"master": 41}))
    assert made == [0, 0, 0, 1]
    assert follower.caught_up({"master": 41})
    assert follower.run_cycle({"master": 41}) == 0
    assert not follower.unfinished


def test_a_writer_that_is_configured_no_longer_is_followed_to_its_end(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add(11)
    tables.add(12, writer="worker1")
    follow(follower, {"worker1": 12})
    assert keys(log) == ["$11", "$12"]


def test_a_jump_of_the_ids_is_no_obstacle(follower: Follower, tables: EventTables, log: Database) -> None:
    last = 10**12
    tables.add(last)
    assert follower.run_cycle({"master": last}) == 1
    assert keys(log) == [f"${last}"]


def test_stretches_without_an_event_of_a_writer_are_passed_in_one_cycle(
    follower: Follower, tables: EventTables, log: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_lanes, "_IDS", 10)
    follower.run_cycle({"master": 10, "worker1": 10})
    tables.add_many(range(11, 200))
    tables.add(200, writer="worker1")
    assert follower.run_cycle({"master": 10, "worker1": 200}) == 1
    assert follow(follower, {"master": 200, "worker1": 200}) == 189
    assert keys(log) == ["$200", *(f"${number}" for number in range(11, 200))]


# ------------------------------------------------------------------------------------- what is read of an event


def test_a_membership_is_compared_with_the_one_that_it_replaces(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    def member(ordering: int, membership: str, sender: str, before: int | None) -> None:
        unsigned = {} if before is None else {"replaces_state": f"${before}"}
        content = {"membership": membership, "reason": "secret"}
        tables.add(ordering, None, "m.room.member", content=content, unsigned=unsigned, state_key="@b:x", sender=sender)

    member(11, "invite", "@a:x", None)
    member(12, "join", "@b:x", 11)
    member(13, "join", "@b:x", 12)
    member(14, "ban", "@a:x", 13)
    member(15, "leave", "@a:x", 14)
    member(16, "leave", "@a:x", 404)
    follow(follower, {"master": 16})
    assert [
        (action, actor, target, facts["before"], facts["after"]) for action, _, actor, target, facts in recorded(log)
    ] == [
        ("room.invite", "@a:x", "@b:x", None, "invite"),
        ("room.join", "@b:x", "@b:x", "invite", "join"),
        ("room.ban", "@a:x", "@b:x", "join", "ban"),
        ("room.unban", "@a:x", "@b:x", "ban", "leave"),
        ("room.kick", "@a:x", "@b:x", None, "leave"),
    ]


def test_relations_and_redactions_are_read_from_synapses_own_tables(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add(11, sender="@bob:synapse.test")
    tables.add(12, None, "m.reaction")
    tables.execute(
        "INSERT INTO event_relations (event_id, relates_to_id, relation_type) VALUES ('$12', '$11', 'm.annotation')"
    )
    tables.add(13, None, "m.room.redaction")
    tables.execute("INSERT INTO redactions (event_id, redacts) VALUES ('$13', '$11')")
    tables.add(14, None, "m.room.redaction", room_id="!elsewhere")
    tables.execute("INSERT INTO redactions (event_id, redacts) VALUES ('$14', '$11')")
    follow(follower, {"master": 14})
    _, reaction, redaction, stray = recorded(log)
    assert (reaction[4]["relation"], reaction[4]["related"]) == ("m.annotation", "$11")
    assert (redaction[0], redaction[3], redaction[4]["redacts"]) == ("message.redact", "@bob:synapse.test", "$11")
    assert stray[3] is None, "an event of another room is not the redaction's to name"


def test_the_content_of_a_message_is_looked_at_only_if_it_was_redacted_already(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$5"}}
    tables.add(11, content=edit)
    tables.add(12, content=edit)
    tables.add(13, None, "m.room.redaction")
    tables.execute("INSERT INTO redactions (event_id, redacts) VALUES ('$13', '$12')")
    follow(follower, {"master": 13})
    assert [action for action, *_ in recorded(log)] == ["message.send", "message.edit", "message.redact"]


def test_rejected_and_soft_failed_events_are_recorded_as_denied(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add(11, rejection="auth_error")
    tables.add(12, metadata={"soft_failed": True})
    follow(follower, {"master": 12})
    assert [(outcome, facts["arrival"]) for _, outcome, *_, facts in recorded(log)] == [
        ("denied", "rejected"),
        ("denied", "soft_failed"),
    ]


def test_an_outlier_is_recorded_when_it_is_one_no_longer(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    outlier = tables.add(11, outlier=True)
    tables.add(12)
    follow(follower, {"master": 12})
    assert keys(log) == ["$12"]
    tables.include(13, outlier, writer="worker1")
    follow(follower, {"master": 13, "worker1": 10})
    assert keys(log) == ["$12"], "it is the other writer's to announce"
    follow(follower, {"master": 13, "worker1": 13})
    assert keys(log) == ["$12", "$11"]


def test_what_was_included_before_it_was_passed_is_recorded_once(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.include(12, tables.add(11, outlier=True))
    follow(follower, {"master": 12})
    assert keys(log) == ["$11"]


def test_included_outliers_that_were_deleted_since_end_no_page_early(
    follower: Follower, tables: EventTables, log: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_lanes, "_PAGE", 3)
    for ordering in range(11, 17):
        tables.include(ordering, "$deleted")
    tables.add_many(range(17, 20))
    follow(follower, {"master": 19})
    assert keys(log) == ["$17", "$18", "$19"]


def test_imported_history_is_followed_downwards_and_says_so(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add(-1)
    tables.add(11)
    tables.add_many(range(-4, -1))
    follow(follower, {"master": 11, "backfill/master": -3})
    assert keys(log) == ["$11", "$-2", "$-3"]
    assert [facts.get("arrival") for *_, facts in recorded(log)] == [None, "backfilled", "backfilled"]
    follow(follower, {"master": 11, "backfill/master": -4})
    assert keys(log)[-1] == "$-4"


def test_no_row_is_too_strange(follower: Follower, tables: EventTables, log: Database) -> None:
    tables.add(11, None, "m.room.member", state_key="@b:x", content={"membership": ["dance"]})
    tables.add(12, "$" + "é" * 254, "see you at eight", sender="nobody", room_id="?" * 255)
    tables.add(13, None, "m.room.create", state_key="")
    tables.execute(
        "UPDATE event_json SET json = ?, internal_metadata = ? WHERE event_id = ?", "[" * 50_000, "no", "$13"
    )
    tables.add(14)
    tables.execute("DELETE FROM event_json WHERE event_id = ?", "$14")
    tables.execute(
        "UPDATE events SET sender = NULL, received_ts = NULL, origin_server_ts = ? WHERE event_id = ?", 2**62, "$14"
    )
    assert follower.run_cycle({"master": 14}) == 4
    assert len(keys(log)) == 4


# -------------------------------------------------------------------------------------------- crashes, rivals


def test_a_failed_commit_leaves_neither_records_nor_cursor(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add_many(range(11, 14))
    with faulty(log) as faults:
        faults.refuse_after = 1  # the cursor is read; the page is not written
        with pytest.raises(Unavailable):
            follower.run_cycle({"master": 13})
    assert keys(log) == []
    assert cursors(log).reached["master"] == 10
    assert follower.run_cycle({"master": 13}) == 3


def test_a_commit_whose_acknowledgement_was_lost_is_not_made_twice(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add_many(range(11, 14))
    with faulty(log) as faults:
        faults.lose = {2}
        follower.run_cycle({"master": 13})
        follow(follower, {"master": 13})
    assert keys(log) == ["$11", "$12", "$13"]


def test_of_two_followers_that_read_the_same_one_loses(
    follower: Follower, tables: EventTables, log: Database, caplog: pytest.LogCaptureFixture
) -> None:
    class Overtaken:
        """The homeserver's database, read by another follower just before."""

        def run(self, function: Any, *, read_only: bool = False) -> Any:
            assert follower.run_cycle({"master": 13}) == 3
            return tables.database.run(function, read_only=read_only)

    tables.add_many(range(11, 14))
    with caplog.at_level(logging.INFO):
        assert follower_of(Overtaken(), log).run_cycle({"master": 13}) == 0  # type: ignore[arg-type]  # all it needs
    assert "another process follows the events too" in caplog.text
    assert keys(log) == ["$11", "$12", "$13"]


def test_followers_that_run_side_by_side_neither_lose_nor_double(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    del follower
    tables.add_many(range(11, 1511))
    with ThreadPoolExecutor(3) as pool:
        rivals = [follower_of(tables.database, log) for _ in range(3)]
        assert sum(pool.map(lambda rival: follow(rival, {"master": 1510}), rivals)) == 1500
    assert sorted(keys(log)) == sorted(f"${number}" for number in range(11, 1511))


def test_a_position_that_falls_back_doubles_nothing(
    follower: Follower, tables: EventTables, log: Database, caplog: pytest.LogCaptureFixture
) -> None:
    tables.add_many(range(11, 21))
    follow(follower, {"master": 20})
    with caplog.at_level(logging.INFO):
        assert follower.run_cycle({"master": 15}) == 0
    assert "read again: master" in caplog.text
    tables.add(21)
    assert follow(follower, {"master": 21}) == 1
    assert keys(log) == [f"${number}" for number in range(11, 22)]


def test_after_the_database_was_set_back_the_same_ids_are_other_events(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add_many(range(11, 21))
    follow(follower, {"master": 20})
    tables.execute("DELETE FROM events WHERE stream_ordering > 15")
    follower.run_cycle({"master": 15})
    for ordering in range(16, 19):
        tables.add(ordering, f"$other{ordering}")
    follow(follower, {"master": 18})
    assert keys(log)[10:] == ["$other16", "$other17", "$other18"]


# ------------------------------------------------------------------------------------------------- late commits


@postgres_only
def test_what_was_committed_after_its_id_was_passed_is_found(
    follower: Follower, tables: EventTables, log: Database, open_transaction: Callable[[], OpenTransaction]
) -> None:
    late = open_transaction()
    add_event(late.transaction, 12)
    tables.add(11)
    tables.add(13)
    follow(follower, {"master": 13})
    assert keys(log) == ["$11", "$13"]
    assert [gap[:3] for gap in cursors(log).gaps] == [("", 12, 12)]

    late.commit()
    assert not follower_of(tables.database, log).caught_up({"master": 13})
    assert follow(follower, {"master": 13}) == 1
    assert keys(log) == ["$11", "$13", "$12"]
    assert cursors(log).gaps == ()


@postgres_only
def test_a_gap_is_kept_for_as_long_as_any_older_transaction_is_open(
    follower: Follower, tables: EventTables, log: Database, open_transaction: Callable[[], OpenTransaction]
) -> None:
    late, other = open_transaction(), open_transaction()
    add_event(late.transaction, 12)
    tables.add(13)
    follow(follower, {"master": 13})
    other.close()
    for _ in range(3):
        follower.run_cycle({"master": 13})
    assert [gap[:3] for gap in cursors(log).gaps] == [("", 11, 12)]
    late.close()
    assert follower.run_cycle({"master": 13}) == 0
    assert cursors(log).gaps == ()
    assert keys(log) == ["$13"]


@postgres_only
def test_a_transaction_that_began_after_an_id_was_passed_keeps_no_gap(
    follower: Follower, tables: EventTables, log: Database, open_transaction: Callable[[], OpenTransaction]
) -> None:
    tables.add(13)
    follow(follower, {"master": 13})
    assert len(cursors(log).gaps) == 1
    open_transaction()
    follower.run_cycle({"master": 13})
    assert cursors(log).gaps == ()


@postgres_only
def test_the_rest_of_a_gap_is_kept_when_a_part_of_it_was_found(
    follower: Follower, tables: EventTables, log: Database, open_transaction: Callable[[], OpenTransaction]
) -> None:
    first, second = open_transaction(), open_transaction()
    add_event(first.transaction, 13)
    add_event(second.transaction, 15)
    tables.add(16)
    follow(follower, {"master": 16})
    first.commit()
    follower.run_cycle({"master": 16})
    assert [gap[:3] for gap in cursors(log).gaps] == [("", 11, 12), ("", 14, 15)]
    second.commit()
    follower.run_cycle({"master": 16})
    assert keys(log) == ["$16", "$13", "$15"]


@postgres_only
def test_what_is_late_is_found_whoever_wrote_it_and_in_imported_history_too(
    tables: EventTables, log: Database, open_transaction: Callable[[], OpenTransaction]
) -> None:
    follower = follower_of(tables.database, log)
    follower.run_cycle({"worker1": 10, "worker2": 10, "backfill/worker1": -1})
    late = open_transaction()
    add_event(late.transaction, 11, writer="worker1")
    add_event(late.transaction, -2, writer="worker1")
    tables.add(12, writer="worker2")
    positions = {"worker1": 12, "worker2": 12, "backfill/worker1": -3}
    follow(follower, positions)
    assert [gap[:3] for gap in cursors(log).gaps] == [("", 11, 11), ("backfill/", 2, 3)]
    late.commit()
    follow(follower, positions)
    assert sorted(keys(log)) == ["$-2", "$11", "$12"]


@postgres_only
def test_very_many_gaps_become_one_that_is_looked_through_at_the_end(
    follower: Follower,
    tables: EventTables,
    log: Database,
    open_transaction: Callable[[], OpenTransaction],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_lanes, "_PAGE", 7)
    late = open_transaction()
    ends = 11 + 2 * (MAX_GAPS + 1)
    add_event(late.transaction, ends - 2)
    for ordering in range(12, ends, 2):
        tables.add(ordering)
    while cursors(log).reached["master"] < ends:
        follower.run_cycle({"master": ends})
    assert [gap.coarse for gap in cursors(log).gaps] == [True]
    assert not follower.caught_up({"master": ends}), "until it was looked through, nobody can know"

    late.commit()
    follower.run_cycle({"master": ends})
    assert follower.unfinished, "the rest of it is to be looked through at once"
    assert follow(follower, {"master": ends}) == 1
    assert keys(log) == [*(f"${number}" for number in range(12, ends, 2)), f"${ends - 2}"]
    assert cursors(log).gaps == ()


@postgres_only
def test_a_gap_of_another_database_cluster_is_looked_through_once(
    follower: Follower, tables: EventTables, log: Database
) -> None:
    tables.add(13)
    follow(follower, {"master": 13})
    tables.add(12)

    def as_if_copied(transaction: Transaction) -> None:
        generation, text = store.cursor(transaction, EVENTS_STREAM)
        here = Cursors.parse(text or "")
        gaps = (Gap("", 11, 12, horizon=2**40),)
        store.advance_cursor(transaction, EVENTS_STREAM, generation, Cursors(here.begin, here.reached, gaps).text())

    log.run(as_if_copied)
    assert follower.run_cycle({"master": 13}) == 1
    assert cursors(log).gaps == ()


class Writers:
    """Three writers that store events in transactions of their own and end them in any order."""

    def __init__(self, choose: random.Random, open_transaction: Callable[[], OpenTransaction]) -> None:
        self.committed: set[int] = set()
        self.positions = dict.fromkeys(("master", "worker1", "worker2"), 10)
        self.last = 10
        self._choose = choose
        self._open = open_transaction
        self._under_way: list[tuple[int, OpenTransaction]] = []

    def begin(self) -> None:
        """One of them takes an id and stores an event under it, for nobody to see yet."""
        if len(self._under_way) < 8:
            self.last += self._choose.randint(1, 3)
            self._under_way.append((self.last, self._open()))
            writer = self._choose.choice(list(self.positions))
            add_event(self._under_way[-1][1].transaction, self.last, writer=writer)

    def end(self, *, commit: bool | None = None) -> bool:
        """One of the transactions ends, most with success; False when there is none."""
        if not self._under_way:
            return False
        ordering, transaction = self._under_way.pop(self._choose.randrange(len(self._under_way)))
        if commit or (commit is None and self._choose.random() < 0.8):
            transaction.commit()
            self.committed.add(ordering)
        transaction.close()
        return True

    def claim(self) -> None:
        """One of them was killed, starts again, and claims all ids that were given out."""
        self.positions[self._choose.choice(list(self.positions))] = self.last


@postgres_only
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_in_whatever_order_each_committed_event_is_recorded_once(
    follower: Follower,
    tables: EventTables,
    log: Database,
    open_transaction: Callable[[], OpenTransaction],
    seed: int,
) -> None:
    choose = random.Random(seed)  # noqa: S311  a schedule, no secret
    writers = Writers(choose, open_transaction)

    def cycle() -> None:
        follower_of(tables.database, log).run_cycle(writers.positions)

    for _ in range(150):
        choose.choice((writers.begin, writers.begin, writers.end, writers.claim, cycle))()
    while writers.end(commit=True):
        cycle()
    writers.positions = dict.fromkeys(writers.positions, writers.last)
    follow(follower, writers.positions)
    assert len(writers.committed) > 10
    assert sorted(keys(log)) == sorted(f"${ordering}" for ordering in writers.committed)
    cycle()
    assert cursors(log).gaps == ()
