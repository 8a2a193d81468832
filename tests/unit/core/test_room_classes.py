"""Room classes: the first whose matchers all match names the room; what would match everything is refused."""

from __future__ import annotations

import time

import pytest

from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import RoomFacts
from synapse_modules.core.room_classes import RoomClass, RoomClassifier, check_class_names

ROOM = RoomFacts(
    "!a:x",
    name="Regulated: Trading",
    alias="#trading:x",
    creator="@officer:x",
    join_rule="invite",
    encrypted=True,
    federated=False,
)


class Document(FrozenModel):
    room_classes: tuple[RoomClass, ...]


def classes_of(*classes: dict[str, object]) -> tuple[RoomClass, ...]:
    return parse_document(Document, {"room_classes": list(classes)}, "f").room_classes


def classify(match: dict[str, object], facts: RoomFacts = ROOM) -> bool:
    return RoomClassifier(classes_of({"name": "c", "match": match})).classify(facts) == "c"


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({"name": "regulated*"}, True),
        ({"name": "Regulated"}, False),
        ({"name": "*[a-z]*"}, False),
        ({"alias": "#trad?ng:x"}, True),
        ({"alias": "#other*"}, False),
        ({"creator": "@officer:*"}, True),
        ({"encrypted": True}, True),
        ({"encrypted": False}, False),
        ({"federated": False}, True),
        ({"published": True}, False),
        ({"public": False}, True),
        ({"public": True}, False),
        ({"rooms": ["!b:x", "!a:x"]}, True),
        ({"rooms": ["!b:x"]}, False),
        ({"name": "Regulated*", "encrypted": False}, False),
        ({"name": "Regulated*", "encrypted": True, "rooms": ["!a:x"]}, True),
    ],
)
def test_every_matcher_that_is_given_must_match(match: dict[str, object], matches: bool) -> None:
    assert classify(match) is matches


def test_a_room_without_a_name_matches_no_pattern() -> None:
    assert not classify({"name": "*"}, RoomFacts("!a:x"))


def test_the_first_class_that_matches_names_the_room() -> None:
    classifier = RoomClassifier(
        classes_of(
            {"name": "secret", "match": {"name": "Secret*"}},
            {"name": "encrypted", "match": {"encrypted": True}},
            {"name": "all", "match": {"name": "*"}},
        )
    )
    assert classifier.classify(ROOM) == "encrypted"
    assert classifier.classify(RoomFacts("!a:x")) is None
    assert classifier.names == {"secret", "encrypted", "all"}


def test_no_classes_name_no_room() -> None:
    assert RoomClassifier(()).classify(ROOM) is None


@pytest.mark.parametrize(
    ("room_class", "where", "said"),
    [
        ({"name": "c", "match": {}}, "f:room_classes[0].match", "at least one of alias, creator"),
        ({"name": "c", "match": {"rooms": []}}, "f:room_classes[0].match.rooms", "at least 1 item"),
        ({"name": "c", "match": {"name": ""}}, "f:room_classes[0].match.name", "at least 1 character"),
        ({"name": "c", "match": {"encryptd": True}}, "f:room_classes[0].match.encryptd", "Did you mean 'encrypted'?"),
        ({"name": "c", "match": {"encrypted": "yes"}}, "f:room_classes[0].match.encrypted", "boolean"),
        ({"name": "c", "match": {"rooms": ["#a:x"]}}, "f:room_classes[0].match.rooms[0]", "a Matrix room id"),
        ({"name": "class:c", "match": {"encrypted": True}}, "f:room_classes[0].name", "a name of 1 to 64"),
    ],
)
def test_a_class_that_makes_no_sense_is_refused_with_its_path(
    room_class: dict[str, object], where: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        classes_of(room_class)
    assert refusal.value.where == where
    assert said in refusal.value.sentence()


def test_two_classes_of_one_name_are_refused() -> None:
    one: dict[str, object] = {"name": "c", "match": {"encrypted": True}}
    with pytest.raises(InvalidInput, match=r"room_classes\[1\]\.name"):
        check_class_names(classes_of(one, one), "room_classes")


def test_a_hostile_pattern_takes_no_time() -> None:
    began = time.monotonic()
    assert not classify({"name": "*a" * 50 + "b"}, RoomFacts("!a:x", name="a" * 10_000))
    assert time.monotonic() - began < 1
