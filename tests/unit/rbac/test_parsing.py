"""Policies are parsed whole or not at all, and a mistake is named with path, found, expected and the nearest name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.permissions import Permission
from synapse_modules.core.yaml_documents import load_yaml
from synapse_modules.rbac.model import Policy, SubjectKind
from synapse_modules.rbac.parsing import format_instant, parse_policy, policy_document
from tests.unit.rbac.policies import NOW, policies

CONFIG = Path(__file__).parents[3] / "config"


def document(**changes: Any) -> dict[str, Any]:
    """A small policy in which every kind of name occurs."""
    return {
        "version": 1,
        "room_classes": [{"name": "regulated", "match": {"encrypted": True}}],
        "groups": {"employees": {"members": ["@a:x"], "groups": ["contractors"]}, "contractors": {}},
        "roles": {"employee": {"allow": ["room.create"]}, "guest": {"inherits": ["employee"], "deny": ["login"]}},
        "bindings": [{"role": "employee", "group": "employees", "scope": "server"}],
    } | changes


def binding(**changes: Any) -> dict[str, Any]:
    one: dict[str, Any] = {"role": "employee", "group": "employees", "scope": "server"} | changes
    return document(bindings=[{key: value for key, value in one.items() if value is not None}])


MISTAKES: dict[str, tuple[Any, str, str]] = {
    "an unknown permission": (
        document(roles={"r": {"allow": ["room.creat"]}}),
        "p:roles.r.allow[0]",
        "Did you mean 'room.create'?",
    ),
    "a wildcard": (document(roles={"r": {"allow": ["room.*"]}}), "p:roles.r.allow[0]", "a known permission"),
    "an unknown key": (document(rolse={}), "p:rolse", "Did you mean 'roles'?"),
    "an unknown key in a role": (document(roles={"r": {"alow": []}}), "p:roles.r.alow", "Did you mean 'allow'?"),
    "a text with a control character": (
        document(roles={"r": {"description": "a\0b"}}),
        "p:roles.r.description",
        "text without control characters",
    ),
    "a time before the year 1": (binding(expires="0001-01-01T00:00:00+14:00"), "p:bindings[0].expires", "its zone"),
    "a time after the year 9999": (binding(expires="9999-12-31T23:59:59-14:00"), "p:bindings[0].expires", "its zone"),
    "a wrong type": (document(roles={"r": {"allow": "login"}}), "p:roles.r.allow", "found 'login'"),
    "a wrong version": (document(version=2), "p:version", "found 2"),
    "no version": ({"roles": {}}, "p:version", "this key is required"),
    "no mapping": ([], "p", "a mapping"),
    "a name with a colon": (document(roles={"a:b": {}}), "p:roles.a:b.[key]", "a name of 1 to 64"),
    "a user id that is none": (document(groups={"g": {"members": ["bob"]}}), "p:groups.g.members[0]", "user id"),
    "a member twice": (
        document(groups={"g": {"members": ["@a:x", "@a:x"]}}),
        "p:groups.g.members[1]",
        "each one only once",
    ),
    "an unknown group in a group": (
        document(groups={"g": {"groups": ["h"]}, "hh": {}}),
        "p:groups.g.groups[0]",
        "Did you mean 'hh'?",
    ),
    "the built-in group": (document(groups={"everyone": {}}), "p:groups", "another name"),
    "a cycle of groups": (
        document(groups={"a": {"groups": ["b"]}, "b": {"groups": ["c"]}, "c": {"groups": ["b"]}}, bindings=[]),
        "p:groups.c.groups",
        "found 'b → c → b', expected no cycle",
    ),
    "a group in itself": (document(groups={"a": {"groups": ["a"]}}), "p:groups.a.groups", "found 'a → a'"),
    "a cycle of roles": (
        document(roles={"a": {"inherits": ["b"]}, "b": {"inherits": ["a"]}}, bindings=[]),
        "p:roles.b.inherits",
        "found 'a → b → a', expected no cycle",
    ),
    "an unknown inherited role": (
        document(roles={"guest": {"inherits": ["guests"]}}),
        "p:roles.guest.inherits[0]",
        "Did you mean 'guest'?",
    ),
    "a permission twice": (document(roles={"r": {"deny": ["login", "login"]}}), "p:roles.r.deny[1]", "only once"),
    "an unknown role": (binding(role="employe"), "p:bindings[0].role", "Did you mean 'employee'?"),
    "an unknown group": (binding(group="employes"), "p:bindings[0].group", "Did you mean 'employees'?"),
    "nobody": (binding(group=None), "p:bindings[0]", "either user or group"),
    "two subjects": (binding(user="@a:x"), "p:bindings[0]", "either user or group"),
    "no scope": (binding(scope=None), "p:bindings[0].scope", "this key is required"),
    "an unknown scope": (binding(scope="sever"), "p:bindings[0].scope", "Did you mean 'server'?"),
    "a misspelt kind of scope": (binding(scope="clas:regulated"), "p:bindings[0].scope", "mean 'class:regulated'?"),
    "an unknown class": (binding(scope="class:regulatd"), "p:bindings[0].scope", "Did you mean 'regulated'?"),
    "a scope towards nobody": (binding(scope="users:contractor"), "p:bindings[0].scope", "mean 'contractors'?"),
    "a room scope without a room": (binding(scope="room:"), "p:bindings[0].scope", "a Matrix room id"),
    "a room scope with an alias": (binding(scope="room:#a:x"), "p:bindings[0].scope", "a Matrix room id"),
    "a server scope with a name": (binding(scope="server:x"), "p:bindings[0].scope", "'server', 'room:"),
    "a time without a zone": (binding(expires="2030-01-01T00:00:00"), "p:bindings[0].expires", "with its zone"),
    "a date": (binding(expires="2030-01-01"), "p:bindings[0].expires", "with its zone"),
    "a day that is not": (binding(expires="2030-02-30T00:00:00Z"), "p:bindings[0].expires", "with its zone"),
    "a window that is none": (
        binding(not_before="2030-01-01T00:00:00Z", expires="2030-01-01T00:00:00+00:00"),
        "p:bindings[0].expires",
        "a time after not_before",
    ),
    "the same binding twice": (
        document(bindings=[*binding()["bindings"], *binding(case="1")["bindings"]]),
        "p:bindings[1]",
        "that bindings[0] has not",
    ),
    "two classes of one name": (
        document(room_classes=[{"name": "a", "match": {"encrypted": True}}] * 2, bindings=[]),
        "p:room_classes[1].name",
        "no other room class",
    ),
    "a class of all rooms": (
        document(room_classes=[{"name": "a", "match": {}}]),
        "p:room_classes[0].match",
        "at least",
    ),
    "a justification as long as a novel": (binding(justification="x" * 501), "p:bindings[0].justification", "500"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_refused_with_its_path(what: str) -> None:
    wrong, where, said = MISTAKES[what]
    with pytest.raises(InvalidInput) as refusal:
        parse_policy(wrong, "p")
    assert refusal.value.where == where
    assert said in refusal.value.sentence()


def test_a_policy_without_anything_is_a_policy() -> None:
    assert parse_policy({"version": 1}, "p") == Policy()


def test_names_times_and_papers_are_read() -> None:
    policy = parse_policy(
        binding(
            group=None,
            user="@a:x",
            not_before="1970-01-01T01:00:00+01:00",
            expires="1970-01-01t00:00:01.500z",
            justification="acting head",
            case="HR-7",
        ),
        "p",
    )
    (found,) = policy.bindings
    assert (found.number, found.subject_kind, found.subject) == (1, SubjectKind.USER, "@a:x")
    assert (found.not_before_ms, found.expires_ms) == (0, 1_500)
    assert (found.justification, found.case_id) == ("acting head", "HR-7")
    assert policy.roles["guest"].deny == {Permission.LOGIN}


@pytest.mark.parametrize(("milliseconds", "text"), [(0, "1970-01-01T00:00:00Z"), (1_001, "1970-01-01T00:00:01.001Z")])
def test_a_time_is_written_as_it_is_read(milliseconds: int, text: str) -> None:
    assert format_instant(milliseconds) == text


@given(policies())
def test_a_written_policy_reads_as_the_same(policy: Policy) -> None:
    # Only windows that begin before they end can be written.
    bindings = [each for each in policy.bindings if (each.not_before_ms or 0) < (each.expires_ms or NOW * 2)]
    policy = replace(policy, bindings=tuple(b._replace(number=n) for n, b in enumerate(bindings, start=1)))
    assert replace(parse_policy(policy_document(policy), "p"), next_number=policy.next_number) == policy


@pytest.mark.parametrize("name", ["policy.yaml", "demo/policy.yaml"])
def test_the_examples_are_valid(name: str) -> None:
    assert parse_policy(load_yaml((CONFIG / name).read_text(encoding="utf-8"), name), name).bindings


def test_a_deep_chain_of_groups_needs_no_deep_stack() -> None:
    chain = {f"g{n}": {"groups": [f"g{n + 1}"]} for n in range(3_000)} | {"g3000": {}}
    assert len(parse_policy({"version": 1, "groups": chain}, "p").groups) == 3_001
