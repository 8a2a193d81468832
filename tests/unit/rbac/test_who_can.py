"""Who may do something is the decisions read the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.core.permissions import Permission
from synapse_modules.rbac.decide import ANYBODY, compile_policy
from synapse_modules.rbac.model import SERVER, AccessRequest, Policy
from synapse_modules.rbac.parsing import parse_policy
from synapse_modules.rbac.who_can import Holder, who_can
from tests.unit.rbac.policies import DOMAIN, NOW, naive_allows, policies

if TYPE_CHECKING:
    from synapse_modules.rbac.who_can import Room

PERMISSIONS = st.sampled_from([Permission.LOGIN, Permission.ROOM_CREATE, Permission.POLICY_WRITE])
POLICY = parse_policy(
    {
        "version": 1,
        "room_classes": [{"name": "regulated", "match": {"name": "Regulated*"}}],
        "groups": {"staff": {"members": ["@a:x", "@b:x"]}},
        "roles": {
            "member": {"allow": ["room.join"]},
            "host": {"allow": ["room.invite"]},
            "no-join": {"deny": ["room.join"]},
            "no-invite": {"deny": ["room.invite"]},
        },
        "bindings": [
            {"role": "member", "group": "staff", "scope": "server"},
            {"role": "no-join", "user": "@a:x", "scope": "class:regulated"},
            {"role": "host", "user": "@a:x", "scope": "users:staff"},
            {"role": "host", "user": "@b:x", "scope": "room:!p:x"},
            {"role": "no-invite", "user": "@a:x", "scope": "class:regulated"},
            {"role": "member", "user": "@late:x", "scope": "server", "not_before": "2020-01-01T00:00:00Z"},
        ],
    },
    "p",
)


def answer(permission: Permission, room: Room | None = None) -> list[Holder]:
    return who_can(compile_policy(POLICY, server_name="x"), permission, NOW, room)


def holder(user: str, *scopes: str, but: tuple[str, ...] = ()) -> Holder:
    return Holder(user=user, scopes=scopes, except_scopes=but)


def test_people_are_listed_with_where_they_may_and_where_not() -> None:
    assert answer(Permission.ROOM_JOIN) == [
        holder("@a:x", "server", but=("class:regulated",)),
        holder("@b:x", "server"),
    ]
    assert answer(Permission.ROOM_INVITE) == [
        holder("@a:x", "users:staff", but=("class:regulated",)),
        holder("@b:x", "room:!p:x"),
    ]


def test_in_one_room_only_what_covers_it_counts() -> None:
    assert answer(Permission.ROOM_JOIN, ("!p:x", "regulated")) == [holder("@b:x", "room:!p:x")]
    assert answer(Permission.ROOM_INVITE, ("!q:x", None)) == [holder("@a:x", "users:staff")]
    assert answer(Permission.ROOM_INVITE, ("!p:x", "regulated")) == [holder("@b:x", "room:!p:x")]


def test_the_empty_policy_lists_nobody() -> None:
    assert who_can(compile_policy(Policy(), server_name="x"), Permission.LOGIN, NOW) == []


@given(policies(), PERMISSIONS)
def test_on_the_whole_server_it_agrees_with_every_decision(policy: Policy, permission: Permission) -> None:
    snapshot = compile_policy(policy, server_name=DOMAIN)
    found = {each.user: each for each in who_can(snapshot, permission, NOW)}
    for user in {*snapshot.known_users(), ANYBODY}:
        listed = found.get(user, holder(user))
        everywhere = permission in snapshot.capabilities(user, SERVER, NOW)
        assert (SERVER in listed.scopes) == everywhere
        for scope in {binding.scope for binding in snapshot.held_by(user)} - {SERVER}:
            here = permission in snapshot.capabilities(user, scope, NOW)
            assert (scope in listed.scopes) == (here and not everywhere)
            assert not (here and scope in listed.except_scopes)
            assert here or not everywhere or scope in listed.except_scopes


@given(policies(), PERMISSIONS, st.sampled_from(["!p:x", "!q"]), st.sampled_from([None, "k", "l"]))
def test_in_one_room_it_agrees_with_every_decision(
    policy: Policy, permission: Permission, room: str, room_class: str | None
) -> None:
    snapshot = compile_policy(policy, server_name=DOMAIN)
    found = {each.user: each for each in who_can(snapshot, permission, NOW, (room, room_class))}
    for user in snapshot.known_users():
        listed = found.get(user, holder(user))
        allowed = naive_allows(policy, AccessRequest(user, permission, room, room_class))
        assert (f"room:{room}" in listed.scopes) == allowed


@pytest.mark.parametrize("now_ms", [NOW, 2**60])
def test_a_window_counts(now_ms: int) -> None:
    found = who_can(compile_policy(POLICY, server_name="x"), Permission.ROOM_JOIN, now_ms)
    assert ("@late:x" in [each.user for each in found]) == (now_ms > NOW)
