"""Room classes: names for kinds of rooms, given by what a room looks like. Access policies and retention share them.

Rules: classes are tried in the order they are written and the first that matches names the room. Inside a class every
matcher that is given must match. A class without a matcher is refused: empty is never "every room".

A room's moderators can change its name, alias, join rule and directory entry, and so its class; ``rooms``,
``creator`` and ``federated`` stay for ever, and encryption can be turned on but never off.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

import pydantic

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.identifiers import Name, RoomId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_modules.core.ports import RoomFacts

__all__ = ["RoomClass", "RoomClassifier", "RoomMatch", "check_class_names"]


class RoomMatch(FrozenModel):
    """What a room must look like. All matchers that are given must match.

    Attributes:
        name: pattern of the room's name; ``*`` is any text, ``?`` one character; case does not matter. A room without
            a name matches no pattern.
        alias: pattern of the canonical alias, such as ``#hr-*:example.org``.
        creator: pattern of the creator's user id, such as ``@hr-*:example.org``.
        encrypted: whether the room is end-to-end encrypted.
        public: whether anybody may join without an invitation.
        published: whether the room stands in the room directory.
        federated: whether other homeservers may take part.
        rooms: the rooms themselves, by id.
    """

    name: str | None = pydantic.Field(default=None, min_length=1)
    alias: str | None = pydantic.Field(default=None, min_length=1)
    creator: str | None = pydantic.Field(default=None, min_length=1)
    encrypted: bool | None = None
    public: bool | None = None
    published: bool | None = None
    federated: bool | None = None
    rooms: tuple[RoomId, ...] | None = pydantic.Field(default=None, min_length=1)

    @pydantic.model_validator(mode="after")
    def _some_matcher(self) -> RoomMatch:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise InvalidInput("", {}, f"at least one of {', '.join(sorted(type(self).model_fields))}")
        return self


class RoomClass(FrozenModel):
    """A named kind of room. ``description`` is for people."""

    name: Name
    match: RoomMatch
    description: str = ""


class RoomClassifier:
    """Compiled room classes; a :class:`synapse_modules.core.ports.RoomClasses`.

    Args:
        classes: in the order they are tried.
    """

    def __init__(self, classes: Sequence[RoomClass]) -> None:
        self.classes = tuple(classes)
        self._tests = tuple((room_class.name, _tests_of(room_class.match)) for room_class in classes)

    @property
    def names(self) -> frozenset[str]:
        """Every class there is."""
        return frozenset(room_class.name for room_class in self.classes)

    def classify(self, facts: RoomFacts) -> str | None:
        """The first class whose matchers all match, or None."""
        for name, tests in self._tests:
            if all(test(facts) for test in tests):
                return name
        return None


def check_class_names(classes: Sequence[RoomClass], where: str) -> None:
    """Refuse two classes of one name.

    Raises:
        InvalidInput: at the second of them.
    """
    seen: set[str] = set()
    for position, room_class in enumerate(classes):
        if room_class.name in seen:
            raise InvalidInput(f"{where}[{position}].name", room_class.name, "a name that no other room class has")
        seen.add(room_class.name)


def _tests_of(match: RoomMatch) -> tuple[Callable[[RoomFacts], bool], ...]:
    """One test for each matcher that is given."""
    tests = []
    for matcher, wanted in match:
        if wanted is None:
            continue
        if matcher == "rooms":
            tests.append(_one_of(frozenset(wanted)))
        elif isinstance(wanted, bool):
            tests.append(_is(matcher, wanted))
        else:
            tests.append(_like(matcher, wanted))
    return tuple(tests)


def _one_of(rooms: frozenset[str]) -> Callable[[RoomFacts], bool]:
    return lambda facts: facts.room_id in rooms


def _is(fact: str, wanted: bool) -> Callable[[RoomFacts], bool]:
    if fact == "public":
        return lambda facts: (facts.join_rule == "public") is wanted
    return lambda facts: getattr(facts, fact) is wanted


def _like(fact: str, pattern: str) -> Callable[[RoomFacts], bool]:
    # fnmatch translates into an expression that never backtracks; "[" is no range here but itself.
    matches = re.compile(fnmatch.translate(pattern.casefold().replace("[", "[[]"))).match

    def test(facts: RoomFacts) -> bool:
        text = getattr(facts, fact)
        return text is not None and matches(text.casefold()) is not None

    return test
