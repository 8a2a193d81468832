"""Random histories, holds and deletions against a model that goes through them one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synapse_modules.core.clock import SystemClock
from synapse_modules.homeserver.history import Cutoff
from synapse_modules.retention.due import count_due, due_messages
from synapse_modules.retention.simulation import DueMessages
from synapse_modules.storage.migrations import migrate
from tests.support.synapse_tables import Message, add_messages, add_room, execute, query, set_newest

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

ROOMS = ("!one:x", "!two:x")
PEOPLE = ("@ada:x", "@bob:x")
_RANDOM = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def database(synapse_database: Database) -> Database:
    """A homeserver's database with two empty rooms."""
    migrate(synapse_database, "homeserver", SystemClock())
    for room in ROOMS:
        add_room(synapse_database, room)
    return synapse_database


def _begin_anew(database: Database) -> None:
    """Forget all events and holds."""
    execute(
        database,
        "UPDATE governance_holds SET released_ms = 1, released_by = 'x', release_reason = 'x' "
        "WHERE released_ms IS NULL",
    )
    execute(database, "DELETE FROM event_forward_extremities")
    for table in ("events", "event_json", "state_events", "governance_held_events"):
        execute(database, f"DELETE FROM {table}")


def _place(database: Database, kind: str, subject: str) -> None:
    ((count,),) = query(database, "SELECT COUNT(*) FROM governance_holds")
    execute(
        database,
        "INSERT INTO governance_holds (hold_id, kind, subject, case_id, owner, reason, created_ms) "
        "VALUES (?, ?, ?, 'x', 'x', 'x', 1)",
        (f"h{count}", kind, subject),
    )


# ------------------------------------------------------------------------------------------------- what is due


class _Sent(NamedTuple):
    """A message or a setting; ``fetched_ms`` is when it was fetched from elsewhere, None for a live one."""

    room: str
    sender: str
    state: bool
    text: str
    fetched_ms: int | None


_SENT = st.builds(
    _Sent,
    st.sampled_from(ROOMS),
    st.sampled_from(PEOPLE),
    st.booleans(),
    st.text("ab€", max_size=5),
    st.none() | st.integers(0, 14),
)


def _message(place: int, sent: _Sent) -> Message:
    """``sent`` at depth ``place``. Of live messages that is also when they were received, and their stream ordering."""
    state_key = f"key {place}" if sent.state else None
    live = sent.fetched_ms is None
    ordering, received_ms = (place, place) if sent.fetched_ms is None else (-place, sent.fetched_ms)
    return Message(
        f"${place}", sent.room, sent.sender, ordering, received_ms, sent.text, state_key, None if live else place
    )


def _due(own: list[Message], moment: int) -> list[Message]:
    """The model: what lies below everything that was received since ``moment``, and below the newest event."""
    kept = [message.place for message in own if message.received_ms >= moment]
    lowest = min([*kept, *(message.place for message in own[-1:])], default=0)
    return [message for message in own if message.place < lowest and message.state_key is None]


@_RANDOM
@given(
    sent=st.lists(_SENT, min_size=1, max_size=12),
    moment=st.integers(0, 14),
    held=st.sets(st.sampled_from(PEOPLE)),
)
def test_what_is_due_is_what_a_model_counts(database: Database, sent: list[_Sent], moment: int, held: set[str]) -> None:
    _begin_anew(database)
    messages = [_message(place, each) for place, each in enumerate(sent, start=1)]
    add_messages(database, messages)
    for room in ROOMS:
        own = [message for message in messages if message.room_id == room]
        if own:
            set_newest(database, own[-1])
    for person in held:
        _place(database, "user", person)

    cutoff = Cutoff(moment, moment)
    for room in ROOMS:
        old = _due([message for message in messages if message.room_id == room], moment)
        size = sum(len(message.json.encode()) for message in old)
        expected = DueMessages(len(old), size, sum(message.sender in held for message in old))

        def look(transaction: Transaction, room: str = room) -> tuple[DueMessages, DueMessages, int]:
            counted = due_messages(transaction, room, cutoff)
            return due_messages(transaction, room, cutoff, sized=True), counted, count_due(transaction, room, cutoff)

        assert database.run(look) == (expected, expected._replace(size=0), expected.events)


def test_history_that_was_fetched_lately_is_as_young_as_that(database: Database) -> None:
    (room, _), (ada, bob) = ROOMS, PEOPLE
    fetched = Message("$fetched", room, ada, -7, received_ms=20, depth=2)
    old = [Message("$old", room, ada, 1, received_ms=1), Message("$older", room, bob, -3, received_ms=5, depth=1)]
    live = [Message(f"${number}", room, bob, number, received_ms=number) for number in range(3, 8)]
    add_messages(database, [*old, fetched, *live])
    set_newest(database, live[-1])

    def due(moment: int) -> int:
        return database.run(lambda transaction: due_messages(transaction, room, Cutoff(moment, moment))).events

    assert due(6) == 2, "what lies below it; it is younger, and what lies above it stays with it"
    assert due(21) == 7, "once it is old enough itself, everything but the newest"


# ------------------------------------------------------------------------------------------ what holds preserve


class Deed(NamedTuple):
    """Something that somebody does to the database: ``what`` to the event or the room called ``which``."""

    what: str
    which: str


_EVENTS = [f"${number}" for number in range(6)]
_DEEDS = st.one_of(
    st.builds(Deed, st.sampled_from(["censor", "forget event"]), st.sampled_from(_EVENTS)),
    st.builds(Deed, st.sampled_from(["purge", "delete room", "hold room"]), st.sampled_from(ROOMS)),
    st.builds(Deed, st.just("hold user"), st.sampled_from(PEOPLE)),
)
_STATEMENTS = {
    "censor": ("UPDATE event_json SET json = '{}' WHERE event_id = ?",),
    "forget event": ("DELETE FROM events WHERE event_id = ?",),
    "purge": ("DELETE FROM events WHERE room_id = ?", "DELETE FROM event_json WHERE room_id = ?"),
    "delete room": ("DELETE FROM event_json WHERE room_id = ?", "DELETE FROM events WHERE room_id = ?"),
}


def _carry_out(database: Database, deed: Deed) -> bool:
    """Whether the deed was let happen."""
    if deed.what.startswith("hold"):
        _place(database, deed.what.removeprefix("hold "), deed.which)
        return True

    def work(transaction: Transaction) -> None:
        for statement in _STATEMENTS[deed.what]:
            transaction.execute(statement, (deed.which,))

    try:
        database.run(work)
    except Exception as error:
        if "legal hold" not in str(error):
            raise
        return False
    return True


@_RANDOM
@given(deeds=st.lists(_DEEDS, max_size=10))
def test_whatever_is_done_the_content_of_what_was_held_when_it_was_done_can_be_found(
    database: Database, deeds: list[Deed]
) -> None:
    _begin_anew(database)
    messages = {
        event_id: Message(event_id, ROOMS[number % 2], PEOPLE[number // 2 % 2], number + 1, text=f"text {number}")
        for number, event_id in enumerate(_EVENTS)
    }
    add_messages(database, list(messages.values()))
    held_rooms: set[str] = set()
    held_people: set[str] = set()
    lost: set[str] = set()  # rewritten or deleted while nothing held them

    for deed in deeds:
        touched = {event_id for event_id, message in messages.items() if deed.which in (event_id, message.room_id)}
        if deed.what == "hold room":
            held_rooms.add(deed.which)
        elif deed.what == "hold user":
            held_people.add(deed.which)
        done = _carry_out(database, deed)
        refused = deed.what not in ("censor", "hold room", "hold user") and any(
            messages[event_id].room_id in held_rooms for event_id in touched & _standing(database)
        )
        assert done or refused
        if done and not deed.what.startswith("hold"):
            lost |= {
                event_id
                for event_id in touched
                if messages[event_id].sender not in held_people and messages[event_id].room_id not in held_rooms
            }

    found: dict[str, str] = dict(query(database, "SELECT event_id, json FROM event_json"))
    found |= dict(query(database, "SELECT event_id, json FROM governance_held_events"))
    for event_id, message in messages.items():
        if event_id not in lost and (message.room_id in held_rooms or message.sender in held_people):
            assert found[event_id] == message.json


def _standing(database: Database) -> set[str]:
    return {row[0] for row in query(database, "SELECT event_id FROM events UNION SELECT event_id FROM event_json")}
