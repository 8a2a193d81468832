"""A plan says in words what changes and who gains or loses what, and it says all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given

from synapse_modules.rbac.changes import differences, successor
from synapse_modules.rbac.decide import ANYBODY, compile_policy
from synapse_modules.rbac.model import EMPTY_POLICY, SERVER, Policy
from synapse_modules.rbac.parsing import parse_policy
from synapse_modules.rbac.plan import Plan, make_plan
from tests.unit.rbac.policies import DOMAIN, NOW, policies

OLD: dict[str, Any] = {
    "version": 1,
    "room_classes": [{"name": "regulated", "match": {"name": "Regulated*"}}],
    "groups": {"staff": {"members": ["@a:x", "@b:x"]}, "old": {}},
    "roles": {
        "employee": {"allow": ["login", "room.create"]},
        "admin": {"allow": ["governance.policy.write"]},
        "gone": {},
    },
    "bindings": [
        {"role": "employee", "group": "staff", "scope": "server"},
        {"role": "admin", "user": "@a:x", "scope": "server"},
        {"role": "gone", "user": "@c:x", "scope": "server"},
    ],
}
NEW: dict[str, Any] = {
    "version": 1,
    "room_classes": [{"name": "regulated", "match": {"name": "Regulated*", "encrypted": True}}],
    "groups": {"staff": {"members": ["@b:x", "@d:x"]}, "new": {"groups": ["staff"], "description": "All"}},
    "roles": {"employee": {"allow": ["login"]}, "admin": {"allow": ["governance.policy.write"]}, "guest": {}},
    "bindings": [
        {"role": "admin", "user": "@a:x", "scope": "server", "expires": "1970-01-01T00:00:02Z", "case": "C-1"},
        {"role": "employee", "group": "staff", "scope": "server"},
        {"role": "employee", "user": "@c:x", "scope": "class:regulated"},
    ],
}


def plan(old: Policy, new: Policy) -> Plan:
    return make_plan(old, new, server_name=DOMAIN, version=7, now_ms=NOW)


def test_differences_are_told_in_words() -> None:
    assert plan(parse_policy(OLD, "old"), parse_policy(NEW, "new")).changes == (
        "change room classes: regulated matches name 'Regulated*' and encrypted True instead of name 'Regulated*'",
        'add group new: contains groups staff; described as "All"',
        "remove group old",
        "remove @a:x from group staff",
        "add @d:x to group staff",
        "change role employee: allows login instead of login, room.create",
        "remove role gone",
        "add role guest",
        (
            "change binding 2, role admin for user @a:x, scope server: "
            "until 1970-01-01T00:00:02Z instead of nothing; case C-1 instead of nothing"
        ),
        "give binding 4, role employee for user @c:x, scope class:regulated",
        "take away binding 3, role gone for user @c:x, scope server",
    )


def test_who_gains_and_who_loses_is_told() -> None:
    words = [each.words for each in plan(parse_policy(OLD, "old"), parse_policy(NEW, "new")).consequences]
    assert words == [
        "@d:x gains login (log in with a password, a token or single sign-on) on this server",
        "@a:x loses login (log in with a password, a token or single sign-on) on this server",
        "@a:x, @b:x lose room.create (create a room) on this server",
        "@c:x gains login (log in with a password, a token or single sign-on) in rooms of class regulated",
    ]


def test_many_people_are_counted() -> None:
    members = [f"@u{number:02}:x" for number in range(25)]
    new = OLD | {"groups": {"staff": {"members": members}, "old": {}}}
    gained = plan(parse_policy(OLD, "old"), parse_policy(new, "new")).consequences[0]
    assert (gained.gains, gained.count, len(gained.users)) == (True, 25, 20)
    assert "@u19:x and 5 more gain login" in gained.words


def test_what_everybody_gains_is_said_of_everybody() -> None:
    new = parse_policy(
        {
            "version": 1,
            "roles": {"r": {"allow": ["login"]}},
            "bindings": [{"role": "r", "group": "everyone", "scope": "server"}],
        },
        "new",
    )
    (gained,) = plan(EMPTY_POLICY, new).consequences
    assert gained.users == (ANYBODY,)
    assert gained.words.startswith("every local user not named here gains login")


def test_an_author_is_warned_before_locking_everybody_out() -> None:
    warnings = plan(parse_policy(OLD, "old"), Policy()).warnings
    assert warnings == (
        "nobody may change the policy any more: no one holds governance.policy.write with scope server",
        "nobody may log in: no one holds login with scope server",
    )


def test_an_author_is_warned_when_everybody_loses_the_policy_in_the_end() -> None:
    bindings = [*OLD["bindings"][:1], OLD["bindings"][1] | {"expires": "1970-01-01T00:00:02Z"}]
    warning = "nobody may change the policy in the end: whoever holds governance.policy.write loses it"
    assert plan(EMPTY_POLICY, parse_policy(OLD | {"bindings": bindings}, "new")).warnings == (warning,)


def test_an_author_is_warned_of_a_binding_that_is_over() -> None:
    over = OLD | {"bindings": [*OLD["bindings"][:2], OLD["bindings"][2] | {"expires": "1970-01-01T00:00:00Z"}]}
    assert plan(parse_policy(OLD, "old"), parse_policy(over, "new")).warnings == (
        "binding 3, role gone for @c:x, gives nothing: it ended at 1970-01-01T00:00:00Z",
    )


def test_a_binding_keeps_its_number_and_a_number_is_never_used_again() -> None:
    old = parse_policy(OLD, "old")
    fewer = successor(old, replace(old, bindings=old.bindings[:2]))
    again = successor(fewer, old)
    assert [binding.number for binding in fewer.bindings] == [1, 2]
    assert [binding.number for binding in again.bindings] == [1, 2, 4]
    assert again.next_number == 5


@given(policies(), policies())
def test_a_plan_is_empty_exactly_when_nothing_changes(old: Policy, new: Policy) -> None:
    assert plan(old, old).changes == ()
    following = successor(old, new)
    assert bool(differences(old, following)) == (following != replace(old, next_number=following.next_number))


@given(policies(), policies())
def test_every_gain_and_loss_on_the_whole_server_is_in_the_plan(old: Policy, new: Policy) -> None:
    before, after = (compile_policy(each, server_name=DOMAIN) for each in (old, new))
    told = {
        (user, each.permission, each.gains)
        for each in plan(old, new).consequences
        if each.scope == SERVER
        for user in each.users
    }
    expected = set()
    for user in {*before.known_users(), *after.known_users(), ANYBODY}:
        had, has = (side.capabilities(user, SERVER, NOW) for side in (before, after))
        expected |= {(user, each, True) for each in has - had} | {(user, each, False) for each in had - has}
    assert told == expected
