"""An explanation agrees with the decision and shows everything that was looked at."""

from __future__ import annotations

from hypothesis import given

from synapse_modules.core.permissions import Permission
from synapse_modules.rbac.decide import compile_policy, decide
from synapse_modules.rbac.explain import Explanation, explain
from synapse_modules.rbac.model import AccessRequest, Policy
from synapse_modules.rbac.parsing import parse_policy
from tests.unit.rbac.policies import DOMAIN, NOW, policies, requests

DOCUMENT = {
    "version": 1,
    "room_classes": [{"name": "regulated", "match": {"encrypted": True}}],
    "groups": {"staff": {"groups": ["externals"]}, "externals": {"members": ["@guest:x"]}},
    "roles": {
        "employee": {"allow": ["room.create"]},
        "guest": {"deny": ["room.create"]},
        "contractor": {"inherits": ["guest"]},
        "other": {"allow": ["login"]},
    },
    "bindings": [
        {"role": "employee", "group": "everyone", "scope": "server"},
        {"role": "contractor", "group": "staff", "scope": "server", "justification": "outside firm", "case": "HR-7"},
        {"role": "guest", "user": "@guest:x", "scope": "server", "expires": "1970-01-01T00:00:01Z"},
        {"role": "employee", "user": "@guest:x", "scope": "room:!a:x", "not_before": "1970-01-01T00:00:02Z"},
        {"role": "guest", "user": "@guest:x", "scope": "class:regulated"},
        {"role": "guest", "user": "@guest:x", "scope": "users:externals"},
        {"role": "other", "user": "@guest:x", "scope": "server"},
    ],
}


def explained(request: AccessRequest) -> Explanation:
    return explain(compile_policy(parse_policy(DOCUMENT, "p"), server_name="x", version=4), request, NOW)


@given(policies(), requests())
def test_the_derivation_leads_to_the_decision(policy: Policy, request: AccessRequest) -> None:
    snapshot = compile_policy(policy, server_name=DOMAIN)
    decision = decide(snapshot, request, NOW)
    found = explain(snapshot, request, NOW)
    counting = [binding for binding in found.bindings if binding.in_force and binding.covers]
    derived = any(each.allows for each in counting) and not any(each.denies for each in counting)
    assert (found.allowed, found.rule, found.reason) == (decision.allowed, decision.rule, decision.reason)
    assert derived == decision.allowed
    assert {path.group for path in found.groups} == set(snapshot.groups_of(request.user))


def test_it_reads_from_top_to_bottom() -> None:
    assert explained(AccessRequest("@guest:x", Permission.ROOM_CREATE, target="@b:x")).lines == (
        "DENIED: @guest:x, room.create (create a room)",
        "asked: target @b:x, at 1970-01-01T00:00:01Z, policy version 4",
        "rule: role:guest deny room.create (binding 2 of role contractor, scope server)",
        "groups:",
        "  externals: listed as a member",
        "  everyone: every user of this server",
        "  staff: contains externals (listed as a member)",
        "bindings:",
        (
            "  binding 3 gives role guest to user @guest:x, scope server: role guest denies room.create; "
            "does not count, it ended at 1970-01-01T00:00:01Z"
        ),
        "    until 1970-01-01T00:00:01Z",
        (
            "  binding 4 gives role employee to user @guest:x, scope room:!a:x: role employee allows room.create; "
            "does not count, it begins at 1970-01-01T00:00:02Z"
        ),
        "    from 1970-01-01T00:00:02Z",
        (
            "  binding 5 gives role guest to user @guest:x, scope class:regulated: role guest denies room.create; "
            "does not count, the room's class is none, not regulated"
        ),
        (
            "  binding 6 gives role guest to user @guest:x, scope users:externals: role guest denies room.create; "
            "does not count, @b:x is not in group externals"
        ),
        (
            "  binding 2 gives role contractor to group staff, scope server: role contractor denies room.create, "
            "inherited through contractor → guest; counts"
        ),
        "    case HR-7, because: outside firm",
        "  binding 1 gives role employee to group everyone, scope server: role employee allows room.create; counts",
        "  1 more, which say nothing about room.create",
        "therefore: a role in force denies it, and a deny beats every allow",
    )


def test_somebody_whom_nothing_names_is_denied_by_default() -> None:
    found = explained(AccessRequest("@far:y", Permission.ROOM_CREATE))
    assert found.lines[-3:] == (
        "groups: none",
        "bindings: none that says anything about room.create",
        "therefore: no role in force allows it, and what nothing allows is denied",
    )


def test_papers_are_told_only_when_asked_for() -> None:
    snapshot = compile_policy(parse_policy(DOCUMENT, "p"), server_name="x", version=4)
    request = AccessRequest("@guest:x", Permission.ROOM_CREATE)
    assert "outside firm" in str(explain(snapshot, request, NOW))
    quiet = explain(snapshot, request, NOW, papers=False)
    assert "outside firm" not in str(quiet)
    assert "HR-7" not in str(quiet)
    assert quiet.rule == explain(snapshot, request, NOW).rule
