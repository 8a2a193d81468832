"""Decisions: what the rules say, on random policies too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.core.permissions import Permission
from synapse_modules.rbac.decide import DEFAULT_RULE, Snapshot, compile_policy, decide, judge
from synapse_modules.rbac.model import EMPTY_POLICY, AccessRequest, Policy
from synapse_modules.rbac.parsing import parse_policy
from tests.unit.rbac.policies import DOMAIN, NOW, naive_allows, permissions_of, policies, requests

CREATE = Permission.ROOM_CREATE


def compiled(policy: Policy) -> Snapshot:
    return compile_policy(policy, server_name=DOMAIN)


def allows(policy: Policy, request: AccessRequest, now_ms: int = NOW) -> bool:
    return decide(compiled(policy), request, now_ms).allowed


@given(policies(), requests())
def test_decide_equals_the_naive_reference(policy: Policy, request: AccessRequest) -> None:
    assert allows(policy, request) == naive_allows(policy, request)


@given(policies(), st.lists(st.tuples(requests(), st.sampled_from([NOW - 11, NOW - 1, NOW, NOW + 1, NOW + 10]))))
def test_what_was_asked_before_and_when_does_not_matter(policy: Policy, asked: list[tuple[AccessRequest, int]]) -> None:
    snapshot = compiled(policy)
    for request, now_ms in [*asked, *asked]:
        assert decide(snapshot, request, now_ms).allowed == naive_allows(policy, request, now_ms)


@given(policies(), requests(), st.data())
def test_adding_a_deny_never_allows_more(policy: Policy, request: AccessRequest, data: st.DataObject) -> None:
    role = policy.roles[data.draw(st.sampled_from(sorted(policy.roles)))]
    stricter = replace(role, deny=role.deny | {data.draw(st.sampled_from(Permission))})
    changed = replace(policy, roles={**policy.roles, role.name: stricter})
    assert allows(policy, request) or not allows(changed, request)


@given(policies(), requests(), st.data())
def test_removing_a_binding_never_allows_more(policy: Policy, request: AccessRequest, data: st.DataObject) -> None:
    # A binding whose role denies the permission takes that deny with it; of all others the rule holds.
    harmless = [
        binding
        for binding in policy.bindings
        if request.permission not in permissions_of(policy, binding.role, allow=False)
    ]
    if harmless:
        removed = data.draw(st.sampled_from(harmless))
        fewer = replace(policy, bindings=tuple(binding for binding in policy.bindings if binding != removed))
        assert allows(policy, request) or not allows(fewer, request)


@given(requests())
def test_an_empty_policy_allows_nothing(request: AccessRequest) -> None:
    decision = decide(compiled(EMPTY_POLICY), request, NOW)
    assert (decision.allowed, decision.rule) == (False, DEFAULT_RULE)


@given(policies(), requests())
def test_roles_and_groups_without_bindings_allow_nothing(policy: Policy, request: AccessRequest) -> None:
    assert not allows(replace(policy, bindings=()), request)


@given(policies(), requests())
def test_a_verdict_holds_exactly_in_its_span(policy: Policy, request: AccessRequest) -> None:
    verdict = judge(compiled(policy), request, NOW)
    assert verdict.since <= NOW < verdict.until
    for moment in (max(verdict.since, NOW - 20), min(verdict.until - 1, NOW + 20)):
        assert naive_allows(policy, request, moment) == verdict.decision.allowed


POLICY = {
    "version": 1,
    "room_classes": [{"name": "regulated", "match": {"name": "Regulated*"}}],
    "groups": {
        "staff": {"groups": ["externals"]},
        "externals": {"members": ["@guest:x", "@remote:y"]},
        "officers": {"members": ["@officer:x"]},
    },
    "roles": {
        "employee": {"allow": ["login", "room.create", "room.invite", "message.send"]},
        "guest": {"deny": ["room.create"]},
        "contractor": {"inherits": ["guest"]},
        "silent": {"deny": ["message.send", "room.invite"]},
    },
    "bindings": [
        {"role": "employee", "group": "everyone", "scope": "server"},
        {"role": "contractor", "group": "staff", "scope": "server"},
        {"role": "silent", "group": "staff", "scope": "class:regulated"},
        {"role": "silent", "group": "everyone", "scope": "users:officers"},
        {"role": "silent", "user": "@bob:x", "scope": "room:!r:x", "expires": "1970-01-01T00:00:02Z"},
    ],
}


@pytest.mark.parametrize(
    ("request_", "rule", "reason"),
    [
        (
            AccessRequest("@bob:x", CREATE),
            "role:employee allow room.create (binding 1, scope server)",
            "The role 'employee' lets you create rooms.",
        ),
        (
            AccessRequest("@guest:x", CREATE),
            "role:guest deny room.create (binding 2 of role contractor, scope server)",
            "Your role 'guest' may not create rooms.",
        ),
        (
            AccessRequest("@guest:x", Permission.MESSAGE_SEND, room_class="regulated"),
            "role:silent deny message.send (binding 3, scope class:regulated)",
            "Your role 'silent' may not send messages to this room.",
        ),
        (
            AccessRequest("@bob:x", Permission.ROOM_INVITE, target="@officer:x"),
            "role:silent deny room.invite (binding 4, scope users:officers)",
            "Your role 'silent' may not send this invitation.",
        ),
        (
            AccessRequest("@bob:x", Permission.MESSAGE_SEND, "!r:x"),
            "role:silent deny message.send (binding 5, scope room:!r:x)",
            "Your role 'silent' may not send messages to this room.",
        ),
        (AccessRequest("@remote:z", CREATE), "default", "None of your roles lets you create rooms."),
    ],
)
def test_a_decision_names_its_rule_and_says_why(request_: AccessRequest, rule: str, reason: str) -> None:
    decision = decide(compiled(parse_policy(POLICY, "p")), request_, NOW)
    assert (decision.rule, decision.reason) == (rule, reason)


def test_a_binding_ends_at_the_millisecond_it_says() -> None:
    snapshot = compiled(parse_policy(POLICY, "p"))
    request = AccessRequest("@bob:x", Permission.MESSAGE_SEND, "!r:x")
    assert [decide(snapshot, request, now).allowed for now in (1_999, 2_000, 1_999)] == [False, True, False]


def test_only_permissions_of_class_bindings_need_the_class_of_a_room() -> None:
    snapshot = compiled(parse_policy(POLICY, "p"))
    assert snapshot.class_permissions == {Permission.MESSAGE_SEND, Permission.ROOM_INVITE}


@pytest.mark.parametrize(("name", "is_everyone"), [("4711", False), ("a4711", True), ("47.11", True)])
def test_guests_and_who_chose_no_name_have_a_number_and_are_not_everyone(name: str, is_everyone: bool) -> None:
    request = AccessRequest(f"@{name}:x", Permission.LOGIN)
    assert allows(parse_policy(POLICY, "p"), request) is is_everyone
    by_name = {"role": "employee", "user": request.user, "scope": "server"}
    assert allows(parse_policy(POLICY | {"bindings": [by_name]}, "p"), request)


def test_a_user_of_another_server_is_not_everyone() -> None:
    policy = parse_policy(POLICY, "p")
    assert not allows(policy, AccessRequest("@bob:xx", Permission.LOGIN))
    assert not allows(policy, AccessRequest("@bob:y", Permission.LOGIN))
