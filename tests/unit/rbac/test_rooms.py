"""What a room will look like, from the request that creates it; what is remembered of one that exists."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.core.ports import RoomFacts
from synapse_modules.core.room_state import SETTINGS
from synapse_modules.core.yaml_documents import load_yaml
from synapse_modules.homeserver.rooms import FACT_TYPES
from synapse_modules.rbac.decide import compile_policy
from synapse_modules.rbac.parsing import parse_policy
from synapse_modules.rbac.rooms import RoomClassCache, facts_of_creation, initial_types
from tests.unit.rbac.doubles import StillHomeserver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_modules.rbac.model import Policy

PLAIN = RoomFacts(room_id="", creator="@a:x", join_rule="invite")


def _state(kind: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"initial_state": [{"type": kind, "content": content, **more}]}


CASES: dict[str, tuple[dict[str, Any], RoomFacts]] = {
    "nothing": ({}, PLAIN),
    "a name": ({"name": "Tea"}, replace(PLAIN, name="Tea")),
    "a name in the initial state": (_state("m.room.name", {"name": "Tea"}), replace(PLAIN, name="Tea")),
    "a name beats that of the initial state": (
        {"name": "", **_state("m.room.name", {"name": "Tea"})},
        PLAIN,
    ),
    "an alias": ({"room_alias_name": "tea"}, replace(PLAIN, alias="#tea:x")),
    "a public room": ({"preset": "public_chat"}, replace(PLAIN, join_rule="public")),
    "a published room": ({"visibility": "public"}, replace(PLAIN, join_rule="public", published=True)),
    "a published room with invitations": (
        {"visibility": "public", "preset": "private_chat"},
        replace(PLAIN, published=True),
    ),
    "a join rule in the initial state": (
        {"preset": "private_chat", **_state("m.room.join_rules", {"join_rule": "public"})},
        replace(PLAIN, join_rule="public"),
    ),
    "an encrypted room": (_state("m.room.encryption", {}), replace(PLAIN, encrypted=True)),
    "a room for this server only": ({"creation_content": {"m.federate": False}}, replace(PLAIN, federated=False)),
    "state of another key": (_state("m.room.name", {"name": "Tea"}, state_key="x"), PLAIN),
}


@pytest.mark.parametrize("case", CASES)
def test_a_request_is_understood_as_synapse_does(case: str) -> None:
    body, facts = CASES[case]
    assert facts_of_creation("@a:x", MappingProxyType(body), "x") == facts


@pytest.mark.parametrize(
    "body",
    [
        {"name": 1, "room_alias_name": [], "creation_content": "x", "initial_state": {"a": 1}, "preset": 5},
        {"initial_state": [None, "x", {}, {"type": 1, "content": {}}, {"type": "m.room.name", "content": "Tea"}]},
        _state("m.room.join_rules", {"join_rule": ["public"]}),
    ],
)
def test_nonsense_is_left_to_synapse_to_refuse(body: dict[str, Any]) -> None:
    assert facts_of_creation("@a:x", body, "x").name is None


def test_the_types_of_the_first_state_are_known_whatever_their_key() -> None:
    state = [
        {"type": "a", "content": {}},
        {"type": "b", "state_key": "k", "content": {}},
        {"type": 1, "content": {}},
        7,
    ]
    assert initial_types({"initial_state": state}) == {"a", "b"}
    assert initial_types({}) == initial_types({"initial_state": "x"}) == frozenset()


# ----------------------------------------------------------------------------------------- classes that are remembered

DOCUMENT = """
version: 1
room_classes:
  - {name: %s, match: {name: "Secret*"}}
  - {name: open, match: {name: "*"}}
"""


def _policy(text: str) -> Policy:
    return parse_policy(load_yaml(text, "p"), "p")


POLICY = compile_policy(_policy(DOCUMENT % "secret"), server_name="x", version=1)
LATER = compile_policy(_policy(DOCUMENT % "hidden"), server_name="x", version=2)
ROOM = "!r:x"


class Rooms:
    """A database of rooms' names that counts questions, and can be slow or broken."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.asked: list[str] = []
        self.broken = False
        self.open = asyncio.Event()
        self.open.set()
        self._found: list[tuple[Any, ...]] = []

    dialect = "sqlite"
    rowcount = 0

    async def run(self, name: str, function: Callable[[Any], Any]) -> Any:
        del name
        answer = function(self)
        await self.open.wait()
        if self.broken:
            raise RuntimeError("the database is down")
        return answer

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        del sql
        (room_id,) = parameters
        self.asked.append(room_id)
        document = json.dumps({"content": {"name": self.names.get(room_id)}})
        self._found = [(room_id, 0, "m.room.name", document)] if room_id in self.names else []

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._found


class Place:
    def __init__(self, remembered: int = 10) -> None:
        self.homeserver = StillHomeserver()
        self.rooms = self.homeserver.database = Rooms()
        self.rooms.names[ROOM] = "Secret plans"
        self.cache = RoomClassCache(self.homeserver.itself, remembered)

    async def ask(self, room_id: str = ROOM, snapshot: Any = POLICY) -> str | None:
        return await self.cache.class_of(snapshot, room_id, self.homeserver.ms)

    async def ask_after(self, milliseconds: int) -> str | None:
        self.homeserver.ms += milliseconds
        return await self.ask()


def played(story: Callable[[Place], Any], remembered: int = 10) -> None:
    async def play() -> None:
        await asyncio.wait_for(story(Place(remembered)), 10)

    asyncio.run(play())


def test_only_the_first_question_waits_for_the_database() -> None:
    async def story(place: Place) -> None:
        assert await place.ask() == "secret"
        place.rooms.names[ROOM] = "Talk"
        place.rooms.open.clear()
        for _ in range(5):
            assert await place.ask_after(9_999) == "secret"  # at once, though the database would not answer
        assert list(place.homeserver.started) == ["governance_rbac_room"]
        place.rooms.open.set()
        await place.homeserver.run_started()
        assert await place.ask() == "open"
        assert len(place.rooms.asked) == 2

    played(story)


def test_what_is_younger_than_ten_seconds_is_not_looked_up_again() -> None:
    async def story(place: Place) -> None:
        await place.ask()
        await place.ask_after(9_999)
        assert place.homeserver.started == {}
        await place.ask_after(1)
        assert place.homeserver.started != {}

    played(story)


@pytest.mark.parametrize("milliseconds", [60_000, -1])
def test_what_is_older_than_a_minute_or_from_the_future_is_not_answered_with(milliseconds: int) -> None:
    async def story(place: Place) -> None:
        await place.ask()
        place.rooms.names[ROOM] = "Talk"
        assert await place.ask_after(milliseconds) == "open"

    played(story)


def test_a_renewal_that_fails_is_tried_again_and_nothing_is_answered_with_for_ever() -> None:
    async def story(place: Place) -> None:
        await place.ask()
        place.rooms.broken = True
        for _ in range(2):
            assert await place.ask_after(20_000) == "secret"
            with pytest.raises(RuntimeError):
                await place.homeserver.run_started()
        with pytest.raises(RuntimeError):
            await place.ask_after(20_000)

    played(story)


@pytest.mark.parametrize("kind", FACT_TYPES)
@pytest.mark.parametrize("known", [True, False], ids=["of a room that is known", "of a room that is not known yet"])
def test_a_change_that_is_seen_is_looked_for_until_it_must_be_there(kind: str, known: bool) -> None:
    async def story(place: Place) -> None:
        if known:
            await place.ask()
        place.cache.changing(ROOM, kind)
        assert await place.ask() == "secret"  # it is not stored yet
        place.rooms.names[ROOM] = "Talk"
        assert await place.ask_after(1_999) == "open"
        asked = len(place.rooms.asked)
        await place.ask_after(1)
        assert len(place.rooms.asked) == asked

    played(story)


def test_a_change_that_makes_no_difference_to_the_class_is_not_looked_for() -> None:
    async def story(place: Place) -> None:
        await place.ask()
        place.cache.changing(ROOM, "m.room.topic")
        await place.ask()
        assert len(place.rooms.asked) == 1

    played(story)


def test_what_makes_a_rooms_class_is_seen_because_it_is_a_setting() -> None:
    assert set(FACT_TYPES) <= SETTINGS


def test_another_policy_gives_another_class_without_a_look() -> None:
    async def story(place: Place) -> None:
        assert await place.ask() == "secret"
        assert await place.ask(snapshot=LATER) == "hidden"
        assert len(place.rooms.asked) == 1

    played(story)


def test_a_room_that_is_not_known_here_has_no_class() -> None:
    async def story(place: Place) -> None:
        assert await place.ask("!unknown:x") is None

    played(story)


def test_what_is_remembered_has_an_end() -> None:
    async def story(place: Place) -> None:
        for number in range(5):
            await place.ask(f"!{number}:x")
        await place.ask("!4:x")
        await place.ask("!3:x")
        assert len(place.rooms.asked) == 5
        await place.ask("!0:x")
        assert place.rooms.asked[5:] == ["!0:x"]

    played(story, remembered=3)
