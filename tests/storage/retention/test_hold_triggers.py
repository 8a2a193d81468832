"""The triggers by themselves: SQL as Synapse's own jobs, or a person at a database prompt, would run it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from synapse_modules.storage.dialect import Dialect
from tests.support.synapse_tables import execute, query
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse_modules.core.ports import Rows, Transaction
    from synapse_modules.storage.database import Database

HELD = "!held:x"
FREE = "!free:x"
REFUSED = "legal hold: the room is under hold"


def hold(database: Database, kind: str, subject: str, hold_id: str = "h1") -> None:
    execute(database, "UPDATE governance_hold_state SET version = version + 1")
    execute(
        database,
        "INSERT INTO governance_holds (hold_id, kind, subject, case_id, owner, reason, created_ms) "
        "VALUES (?, ?, ?, 'CASE', '@olivia:x', 'evidence', 1)",
        (hold_id, kind, subject),
    )


def release(database: Database, hold_id: str = "h1") -> None:
    execute(
        database,
        "UPDATE governance_holds SET released_ms = 2, released_by = '@olivia:x', release_reason = 'over' "
        "WHERE hold_id = ?",
        (hold_id,),
    )


def evidence(database: Database, room_id: str) -> Rows:
    """The room's events as they stand in Synapse's tables."""
    return query(
        database,
        "SELECT e.event_id, e.sender, j.json FROM events AS e JOIN event_json AS j ON j.event_id = e.event_id "
        "WHERE e.room_id = ? ORDER BY e.event_id",
        (room_id,),
    )


def copies(database: Database) -> Rows:
    return query(
        database, "SELECT event_id, room_id, sender, json, cause FROM governance_held_events ORDER BY event_id"
    )


def original(event_id: str, sender: str) -> str:
    text = event_id.removeprefix("$")
    return f'{{"content": {{"body": "{text[:-1]} {text[-1]}"}}, "sender": "{sender}", "type": "m.room.message"}}'


# ------------------------------------------------------------------------------------------------------ room


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events WHERE event_id = '$held1'",
        "DELETE FROM event_json WHERE event_id = '$held1'",
        "DELETE FROM events WHERE room_id = '!held:x'",
        "DELETE FROM events",
        "DELETE FROM event_json",
    ],
)
def test_a_room_under_hold_refuses_every_deletion_and_loses_nothing(database: Database, statement: str) -> None:
    hold(database, "room", HELD)
    before = evidence(database, HELD), evidence(database, FREE)
    with pytest.raises(Exception, match=REFUSED):
        execute(database, statement)
    assert (evidence(database, HELD), evidence(database, FREE)) == before


def test_the_whole_transaction_that_tried_is_undone(database: Database) -> None:
    hold(database, "room", HELD)

    def purge_both(transaction: Transaction) -> None:
        transaction.execute("DELETE FROM events WHERE room_id = '!free:x'")
        transaction.execute("DELETE FROM events WHERE room_id = '!held:x'")

    with pytest.raises(Exception, match=REFUSED):
        database.run(purge_both)
    assert len(evidence(database, FREE)) == 4


def test_other_rooms_are_not_affected(database: Database) -> None:
    hold(database, "room", HELD)
    assert execute(database, "DELETE FROM events WHERE room_id = '!free:x'") == 4
    assert execute(database, "DELETE FROM event_json WHERE room_id = '!free:x'") == 4
    assert copies(database) == []


def test_without_a_hold_nothing_is_refused_and_nothing_is_copied(database: Database) -> None:
    assert execute(database, "DELETE FROM events") == 8
    assert execute(database, "DELETE FROM event_json") == 8
    assert copies(database) == []


def test_a_released_hold_refuses_nothing(database: Database) -> None:
    hold(database, "room", HELD)
    release(database)
    assert execute(database, "DELETE FROM events WHERE room_id = '!held:x'") == 4


def test_a_room_with_two_holds_is_held_until_both_are_released(database: Database) -> None:
    hold(database, "room", HELD, "h1")
    hold(database, "room", HELD, "h2")
    release(database, "h1")
    with pytest.raises(Exception, match=REFUSED):
        execute(database, "DELETE FROM events WHERE room_id = '!held:x'")
    release(database, "h2")
    assert execute(database, "DELETE FROM events WHERE room_id = '!held:x'") == 4


# ------------------------------------------------------------------------------------------------------ user


@pytest.mark.parametrize("order", [("events", "event_json"), ("event_json", "events")])
def test_events_of_a_person_under_hold_are_copied_whichever_table_goes_first(
    database: Database, order: tuple[str, str]
) -> None:
    hold(database, "user", "@ada:x")
    for table in order:
        assert execute(database, f"DELETE FROM {table} WHERE room_id = '!free:x'") == 4
    assert copies(database) == [
        (event_id, FREE, "@ada:x", original(event_id, "@ada:x"), "deleted") for event_id in ("$free0", "$free2")
    ]


def test_a_person_under_hold_keeps_nobody_elses_events(database: Database) -> None:
    hold(database, "user", "@ada:x")
    execute(database, "DELETE FROM events")
    assert {sender for _, _, sender, _, _ in copies(database)} == {"@ada:x"}


def test_a_copy_has_everything_that_stands_in_the_events_row(database: Database) -> None:
    columns = "event_id, room_id, sender, type, state_key, origin_server_ts, received_ts, stream_ordering"
    before = query(database, f"SELECT {columns}, topological_ordering FROM events WHERE event_id = '$free0'")
    hold(database, "user", "@ada:x")
    execute(database, "DELETE FROM events WHERE event_id = '$free0'")
    kept = query(database, f"SELECT {columns}, topological_ordering FROM governance_held_events")
    assert kept == before
    (row,) = query(database, "SELECT format_version, internal_metadata, copied_ms FROM governance_held_events")
    assert row[:2] == (3, "{}")
    assert row[2] > 1_600_000_000_000


# ------------------------------------------------------------------------------------------------- rewriting


@pytest.mark.parametrize(("kind", "subject"), [("room", HELD), ("user", "@ada:x")])
def test_the_original_is_copied_before_an_event_under_hold_is_rewritten(
    database: Database, kind: str, subject: str
) -> None:
    hold(database, kind, subject)
    for text in ("{}", '{"again": 1}'):
        execute(database, "UPDATE event_json SET json = ? WHERE event_id = '$held0'", (text,))
    assert copies(database) == [("$held0", HELD, "@ada:x", original("$held0", "@ada:x"), "rewritten")]


def test_an_update_that_changes_nothing_copies_nothing(database: Database) -> None:
    hold(database, "room", HELD)
    execute(database, "UPDATE event_json SET json = json")
    assert copies(database) == []


def test_rewriting_what_nobody_holds_copies_nothing(database: Database) -> None:
    hold(database, "room", HELD)
    hold(database, "user", "@ada:x", "h2")
    assert execute(database, "UPDATE event_json SET json = '{}' WHERE event_id = '$free1'") == 1
    assert copies(database) == []


def test_the_original_survives_a_deletion_that_follows_the_rewriting(database: Database) -> None:
    hold(database, "user", "@ada:x")
    execute(database, "UPDATE event_json SET json = '{}' WHERE event_id = '$free0'")
    execute(database, "DELETE FROM event_json WHERE event_id = '$free0'")
    execute(database, "DELETE FROM events WHERE event_id = '$free0'")
    assert copies(database) == [("$free0", FREE, "@ada:x", original("$free0", "@ada:x"), "rewritten")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET room_id = '!free:x' WHERE event_id = '$held0'",
        "UPDATE events SET sender = '@bob:x' WHERE event_id = '$held0'",
        "UPDATE events SET event_id = '$other' WHERE event_id = '$held0'",
        "UPDATE events SET type = 'm.other' WHERE event_id = '$held0'",
        "UPDATE event_json SET room_id = '!free:x' WHERE event_id = '$held0'",
        "UPDATE event_json SET event_id = '$other' WHERE event_id = '$held0'",
    ],
)
@pytest.mark.parametrize(("kind", "subject"), [("room", HELD), ("user", "@ada:x")])
def test_an_event_under_hold_cannot_be_moved_out_of_it(
    database: Database, statement: str, kind: str, subject: str
) -> None:
    hold(database, kind, subject)
    with pytest.raises(Exception, match="legal hold: whose and where"):
        execute(database, statement)


def test_what_synapse_itself_updates_in_events_under_hold_is_let_pass(database: Database) -> None:
    hold(database, "room", HELD)
    hold(database, "user", "@ada:x", "h2")
    assert execute(database, "UPDATE events SET outlier = ?, sender = sender", (True,)) == 8
    assert execute(database, "UPDATE event_json SET internal_metadata = '{\"a\": 1}'") == 8
    assert copies(database) == []


# ------------------------------------------------------------------------------------------- the holds themselves


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM governance_holds", "released, never deleted"),
        ("UPDATE governance_holds SET subject = '!free:x'", "never changed but by its release"),
        ("DELETE FROM governance_held_events", "still under hold"),
        ("UPDATE governance_held_events SET json = '{}'", "never changed"),
    ],
)
def test_holds_and_copies_cannot_be_got_rid_of(database: Database, statement: str, words: str) -> None:
    hold(database, "room", HELD)
    execute(database, "UPDATE event_json SET json = '{}' WHERE event_id = '$held0'")
    with pytest.raises(Exception, match=words):
        execute(database, statement)


def test_a_hold_is_released_once(database: Database) -> None:
    hold(database, "room", HELD)
    release(database)
    with pytest.raises(Exception, match="released once, for good"):
        execute(database, "UPDATE governance_holds SET released_ms = NULL, released_by = NULL, release_reason = NULL")


def test_a_copy_can_go_once_no_hold_covers_it(database: Database) -> None:
    hold(database, "user", "@ada:x")
    execute(database, "DELETE FROM events WHERE room_id = '!free:x'")
    release(database)
    assert execute(database, "DELETE FROM governance_held_events") == 2


# ---------------------------------------------------------------------------------------- each engine by itself


def test_sqlites_conflict_clauses_do_not_replace_a_copy(database: Database, engine: Dialect) -> None:
    if engine is Dialect.POSTGRES:
        statement = "UPDATE event_json SET json = ? WHERE event_id = '$held0'"
    else:
        statement = "UPDATE OR REPLACE event_json SET json = ? WHERE event_id = '$held0'"
    hold(database, "room", HELD)
    for text in ("{}", '{"again": 1}'):
        execute(database, statement, (text,))
    assert [row[3] for row in copies(database)] == [original("$held0", "@ada:x")]


EVENTS = "stream_ordering, topological_ordering, depth, event_id, type, room_id, processed, outlier, sender"
JSON = "event_id, room_id, internal_metadata, json"


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT OR REPLACE INTO event_json ({JSON}) VALUES ('$held0', '!held:x', '{{}}', '{{}}')",
        f"REPLACE INTO event_json ({JSON}) VALUES ('$held0', '!free:x', '{{}}', '{{}}')",
        f"INSERT OR REPLACE INTO event_json (rowid, {JSON}) VALUES (1, '$new', '!free:x', '{{}}', '{{}}')",
        f"INSERT OR REPLACE INTO events ({EVENTS}) VALUES (99, 1, 1, '$held0', 'm', '!free:x', 1, 0, '@bob:x')",
        f"INSERT OR REPLACE INTO events ({EVENTS}) VALUES (1, 1, 1, '$new', 'm', '!free:x', 1, 0, '@bob:x')",
        f"INSERT INTO event_json ({JSON}) VALUES ('$held0', '!held:x', '', '') ON CONFLICT DO NOTHING",
        "UPDATE OR REPLACE events SET event_id = '$held0' WHERE event_id = '$free1'",
        "UPDATE OR REPLACE events SET stream_ordering = 1 WHERE event_id = '$free1'",
        "UPDATE OR REPLACE events SET oid = 1 WHERE event_id = '$free1'",
        "UPDATE OR REPLACE event_json SET event_id = '$held0' WHERE event_id = '$free1'",
        "UPDATE OR REPLACE event_json SET rowid = 1 WHERE event_id = '$free1'",
    ],
)
@pytest.mark.parametrize(("kind", "subject"), [("room", HELD), ("user", "@ada:x")])
@pytest.mark.parametrize("engine", [Dialect.SQLITE], ids=str)
def test_sqlites_replace_takes_nothing_that_is_under_hold_away(
    database: Database, statement: str, kind: str, subject: str
) -> None:
    hold(database, kind, subject)
    before = evidence(database, HELD), evidence(database, FREE)
    with pytest.raises(Exception, match="legal hold: an event under hold is never replaced"):
        execute(database, statement)
    assert (evidence(database, HELD), evidence(database, FREE)) == before


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT OR REPLACE INTO event_json ({JSON}) VALUES ('$free1', '!free:x', '{{}}', '{{}}')",
        f"INSERT OR REPLACE INTO events ({EVENTS}) VALUES (6, 1, 1, '$free1', 'm', '!free:x', 1, 0, '@bob:x')",
        f"INSERT INTO event_json ({JSON}) VALUES ('$new', '!held:x', '{{}}', '{{}}')",
        f"INSERT INTO events ({EVENTS}) VALUES (-1, 1, 1, '$new', 'm', '!held:x', 1, 0, '@ada:x')",
        "UPDATE events SET stream_ordering = 99 WHERE event_id = '$held0'",
    ],
)
@pytest.mark.parametrize("engine", [Dialect.SQLITE], ids=str)
def test_what_takes_nothing_away_is_let_pass(database: Database, statement: str) -> None:
    hold(database, "room", HELD)
    hold(database, "user", "@ada:x", "h2")
    assert execute(database, statement) == 1


HOLD = "hold_id, kind, subject, case_id, owner, reason, created_ms"
COPY = "event_id, room_id, cause, copied_ms"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"REPLACE INTO governance_holds ({HOLD}) VALUES ('h1', 'room', '!no', '', '', '', 1)", "a hold is never"),
        (
            f"REPLACE INTO governance_holds (rowid, {HOLD}) VALUES (1, 'h3', 'room', '!a', '', '', '', 1)",
            "a hold is never",
        ),
        ("UPDATE OR REPLACE governance_holds SET rowid = 1 WHERE hold_id = 'h2'", "a hold is never"),
        (f"REPLACE INTO governance_held_events ({COPY}) VALUES ('$held0', '!no', 'deleted', 1)", "a copy is never"),
        (
            f"REPLACE INTO governance_held_events (rowid, {COPY}) VALUES (1, '$o', '!no', 'deleted', 1)",
            "a copy is never",
        ),
        ("UPDATE OR REPLACE governance_held_events SET rowid = 1", "a copy is never"),
    ],
)
@pytest.mark.parametrize("engine", [Dialect.SQLITE], ids=str)
def test_sqlites_replace_moves_no_hold_and_forges_no_copy(database: Database, statement: str, words: str) -> None:
    hold(database, "room", HELD)
    hold(database, "room", FREE, "h2")
    execute(database, "UPDATE event_json SET json = '{}' WHERE event_id = '$held0'")
    before = copies(database), query(database, "SELECT * FROM governance_holds ORDER BY hold_id")
    with pytest.raises(Exception, match=words):
        execute(database, statement)
    assert (copies(database), query(database, "SELECT * FROM governance_holds ORDER BY hold_id")) == before


def test_emptying_the_tables_is_refused(database: Database, engine: Dialect) -> None:
    command = "TRUNCATE {} CASCADE" if engine is Dialect.POSTGRES else "DELETE FROM {}"
    hold(database, "room", HELD)
    execute(database, "UPDATE event_json SET json = '{}' WHERE event_id = '$held0'")
    for table in ("events", "event_json", "governance_held_events", "governance_holds"):
        with pytest.raises(Exception, match="legal hold"):
            execute(database, command.format(table))
    assert len(evidence(database, HELD)) == 4


def test_a_temporary_table_does_not_stand_in_for_the_holds(database: Database) -> None:
    hold(database, "room", HELD)

    def cheat(transaction: Transaction) -> None:
        transaction.execute("CREATE TEMPORARY TABLE governance_holds (kind TEXT, subject TEXT, released_ms BIGINT)")
        transaction.execute("DELETE FROM events WHERE room_id = '!held:x'")

    with pytest.raises(Exception, match=REFUSED):
        database.run(cheat)


def test_a_deletion_that_began_before_a_hold_does_not_pass_it(database: Database, engine: Dialect) -> None:
    began, placed = threading.Event(), threading.Event()

    def purge(transaction: Transaction) -> None:
        if engine is Dialect.POSTGRES:
            transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        transaction.execute("SELECT COUNT(*) FROM events")
        transaction.fetchall()
        began.set()
        assert placed.wait(20)
        transaction.execute("DELETE FROM events WHERE room_id = '!free:x'")

    with ThreadPoolExecutor(1) as pool:
        # As Synapse's do, the transaction takes no lock before it writes; the engine makes it start anew.
        purging = pool.submit(database.run, purge, read_only=True)
        assert began.wait(20)
        hold(database, "room", FREE)
        placed.set()
        with pytest.raises(Exception, match=REFUSED):
            purging.result(60)
    assert len(evidence(database, FREE)) == 4


def test_a_hold_waits_for_the_deletions_that_are_going_on(database: Database, engine: Dialect) -> None:
    deleted, proceed = threading.Event(), threading.Event()

    def purge(transaction: Transaction) -> None:
        transaction.execute("DELETE FROM events WHERE room_id = '!free:x'")
        deleted.set()
        assert proceed.wait(20)

    with ThreadPoolExecutor(2) as pool:
        purging = pool.submit(database.run, purge)
        assert deleted.wait(20)
        placing = pool.submit(hold, database, "room", FREE)
        if engine is Dialect.POSTGRES:
            wait_until(lambda: _waits(database), what="the hold waits for a lock")
        assert not placing.done()
        proceed.set()
        purging.result(20)
        placing.result(20)
    assert evidence(database, FREE) == []


def _waits(database: Database) -> bool:
    sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(query(database, sql)[0][0])
