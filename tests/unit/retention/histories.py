"""Rules, rooms and holds made up by hypothesis, and what a run should do with them by a simple model."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from synapse_modules.retention.rules import Rule, Rules

CLASSES = ("board", "project", "regulated")
PEOPLE = ("@ada:x", "@bob:x")
_DURATIONS = {None: None, "1s": 1_000, "1min": 60_000, "2min": 120_000, "1h": 3_600_000}


class Sent(NamedTuple):
    """A message: who sent it, how many milliseconds before now it was received, and its size."""

    sender: str
    age_ms: int
    size: int


class MadeUpRoom(NamedTuple):
    """A room with its class and its messages, and the holds on it."""

    room_id: str
    room_class: str | None
    messages: tuple[Sent, ...]
    holds: tuple[str, ...]


class Expected(NamedTuple):
    """What the model says about one room: messages and bytes due, of people under hold, and kept by a hold."""

    due: int
    size: int
    copied: int
    kept: int


def expected(room: MadeUpRoom, rules: Rules, held_people: frozenset[str]) -> Expected:
    """The model: message by message, by the rule of the room's class or else the default."""
    durations = {rule.room_class: rule.delete_after for rule in rules.rules}
    limit = _DURATIONS[durations.get(room.room_class, rules.default.delete_after)]
    old = [message for message in room.messages if limit is not None and message.age_ms > limit]
    if room.holds:
        return Expected(0, 0, 0, len(old))
    return Expected(
        len(old),
        sum(message.size for message in old),
        sum(message.sender in held_people for message in old),
        0,
    )


_DURATION = st.sampled_from(list(_DURATIONS))
_RULE = st.builds(Rule, st.sampled_from(CLASSES), _DURATION)
RULES = st.builds(
    Rules,
    st.lists(_RULE, max_size=3, unique_by=lambda rule: rule.room_class).map(tuple),
    st.builds(Rule, st.none(), _DURATION),
)
_AGES = st.sampled_from([0, 999, 1_000, 1_001, 59_999, 60_001, 119_999, 120_001, 3_599_999, 3_600_001])
_MESSAGE = st.builds(Sent, st.sampled_from(PEOPLE), _AGES, st.integers(1, 50))
_HOLDS = st.lists(st.sampled_from(["h1", "h2", "h3"]), max_size=2, unique=True).map(tuple)


def _room(number: int) -> st.SearchStrategy[MadeUpRoom]:
    messages = st.lists(_MESSAGE, max_size=6).map(
        lambda found: tuple(sorted(found, key=lambda message: -message.age_ms))
    )
    return st.builds(
        MadeUpRoom, st.just(f"!room{number}:x"), st.sampled_from([None, "other", *CLASSES]), messages, _HOLDS
    )


ROOMS = st.integers(0, 4).flatmap(lambda count: st.tuples(*map(_room, range(count))))
HELD_PEOPLE = st.frozensets(st.sampled_from(PEOPLE))
