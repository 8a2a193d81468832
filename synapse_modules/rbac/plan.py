"""What a new policy would do: its differences in words, which people gain or lose what, and what looks unintended."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.permissions import DESCRIPTIONS, Permission
from synapse_modules.rbac.changes import differences, in_words, successor
from synapse_modules.rbac.decide import ANYBODY, compile_policy
from synapse_modules.rbac.model import SERVER, ScopeKind, SubjectKind, scope_kind, scope_name
from synapse_modules.rbac.parsing import format_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_modules.rbac.decide import Snapshot
    from synapse_modules.rbac.model import Policy

__all__ = ["Consequence", "Plan", "holders", "make_plan", "warnings_of"]

_NAMED_USERS = 20
"""A consequence names so many people and counts the rest."""

_NEVER_MS = 2**62
"""A moment after every window."""

_Delta = tuple[bool, Permission, str]
"""Whether it is gained, what, and at which scope."""


class Consequence(FrozenModel):
    """What some people gain or lose.

    Attributes:
        gains: whether they gain it or lose it.
        scope: where: ``server`` is everywhere, ``users:<group>`` is towards members of that group.
        users: the first people, in order; ``@`` stands for every local user whom the policy does not name.
        count: how many they are in all.
    """

    gains: bool
    permission: Permission
    scope: str
    users: tuple[str, ...]
    count: int
    words: str


class Plan(FrozenModel):
    """What applying a policy would do. ``warnings`` are what its author probably did not mean."""

    from_version: int
    changes: tuple[str, ...]
    consequences: tuple[Consequence, ...]
    warnings: tuple[str, ...]


def make_plan(old: Policy, new: Policy, *, server_name: str, version: int, now_ms: int) -> Plan:
    """The plan of replacing ``old``, which is at ``version``, by ``new``, as of the moment ``now_ms``."""
    new = successor(old, new)
    before, after = (compile_policy(policy, server_name=server_name) for policy in (old, new))
    return Plan(
        from_version=version,
        changes=tuple(in_words(change) for change in differences(old, new)),
        consequences=tuple(_consequences(before, after, now_ms)),
        warnings=tuple(warnings_of(new, after, now_ms)),
    )


def holders(snapshot: Snapshot, permission: Permission, now_ms: int) -> set[str]:
    """Who may do ``permission`` everywhere; :data:`ANYBODY` for every local user whom the policy does not name."""
    users = {*snapshot.known_users(), ANYBODY}
    return {user for user in users if permission in snapshot.capabilities(user, SERVER, now_ms)}


def _consequences(before: Snapshot, after: Snapshot, now_ms: int) -> Iterator[Consequence]:
    people: dict[_Delta, list[str]] = defaultdict(list)
    remembered: dict[object, list[_Delta]] = {}
    for user in sorted({*before.known_users(), *after.known_users(), ANYBODY}):
        # People in the same groups without bindings of their own fare alike.
        profile = tuple(
            (side.direct_groups_of(user), tuple(side.bindings_of(SubjectKind.USER, user))) for side in (before, after)
        )
        if profile not in remembered:
            remembered[profile] = list(_deltas(before, after, user, now_ms))
        for delta in remembered[profile]:
            people[delta].append(user)
    for delta in sorted(people, key=lambda delta: (delta[2] != SERVER, delta[2], delta[1], not delta[0])):
        yield _consequence(*delta, people[delta])


def _deltas(before: Snapshot, after: Snapshot, user: str, now_ms: int) -> Iterator[_Delta]:
    """What ``user`` gains and loses; at a narrower scope only what is not gained or lost everywhere."""
    scopes = {binding.scope for side in (before, after) for binding in side.held_by(user)}
    everywhere: set[tuple[bool, Permission]] = set()
    for scope in (SERVER, *sorted(scopes - {SERVER})):
        old, new = (side.capabilities(user, scope, now_ms) for side in (before, after))
        here = {(True, each) for each in new - old} | {(False, each) for each in old - new}
        yield from ((gains, permission, scope) for gains, permission in here - everywhere)
        if scope == SERVER:
            everywhere = here


def _consequence(gains: bool, permission: Permission, scope: str, users: list[str]) -> Consequence:
    named = tuple(users[:_NAMED_USERS])
    who = ", ".join("every local user not named here" if user == ANYBODY else user for user in named)
    more = f" and {len(users) - len(named)} more" if len(users) > len(named) else ""
    verb = ("gain" if gains else "lose") + ("s" if len(users) == 1 else "")
    words = f"{who}{more} {verb} {permission.value} ({DESCRIPTIONS[permission]}) {_place(scope)}"
    return Consequence(gains=gains, permission=permission, scope=scope, users=named, count=len(users), words=words)


def _place(scope: str) -> str:
    name = scope_name(scope)
    match scope_kind(scope):
        case ScopeKind.SERVER:
            return "on this server"
        case ScopeKind.ROOM:
            return f"in room {name}"
        case ScopeKind.CLASS:
            return f"in rooms of class {name}"
        case ScopeKind.USERS:
            return f"towards members of group {name}"


def warnings_of(policy: Policy, snapshot: Snapshot, now_ms: int) -> Iterator[str]:
    """What the author of ``policy``, compiled as ``snapshot``, probably did not mean, as of the moment ``now_ms``."""
    if not holders(snapshot, Permission.POLICY_WRITE, now_ms):
        yield f"nobody may change the policy any more: no one holds {Permission.POLICY_WRITE.value} with scope server"
    elif not holders(snapshot, Permission.POLICY_WRITE, _NEVER_MS):
        yield f"nobody may change the policy in the end: whoever holds {Permission.POLICY_WRITE.value} loses it"
    if not holders(snapshot, Permission.LOGIN, now_ms):
        yield f"nobody may log in: no one holds {Permission.LOGIN.value} with scope server"
    for binding in policy.bindings:
        if binding.expires_ms is not None and binding.expires_ms <= now_ms:
            name = f"binding {binding.number}, role {binding.role} for {binding.subject}"
            yield f"{name}, gives nothing: it ended at {format_instant(binding.expires_ms)}"
