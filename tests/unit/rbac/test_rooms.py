"""What a room will look like, from the request that creates it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from synapse_modules.core.ports import RoomFacts
from synapse_modules.rbac.rooms import facts_of_creation

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
