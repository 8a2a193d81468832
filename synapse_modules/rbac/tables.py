"""The tables that a policy is compiled into: who is where, and what is given to whom at which scope."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.core.permissions import Permission
from synapse_modules.rbac.model import EVERYONE, SERVER, SubjectKind, class_scope, people_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synapse_modules.rbac.model import Binding, Policy, Role

__all__ = [
    "BITS",
    "CLASS_PREFIX",
    "PEOPLE_PREFIX",
    "Effect",
    "Row",
    "class_permissions",
    "groups_within",
    "memberships",
    "people_scopes_of",
    "role_bits",
    "rows_by_subject",
    "unfolded",
]

BITS = {permission: 1 << position for position, permission in enumerate(Permission)}
"""Each permission as a bit."""

CLASS_PREFIX = class_scope("")
PEOPLE_PREFIX = people_scope("")

Row = tuple[int, str, str, int | None, int | None, str, str]
"""A binding without its subject, its fields in the same order. A bare tuple of plain values, because Python's garbage
collector leaves those alone, even a million of them.
"""


class Effect(NamedTuple):
    """What one subject's bindings at one scope give from ``since`` until just before ``until`` (milliseconds).

    ``allow`` and ``deny`` are bits; ``rows`` are in force, out of ``all_rows``.
    """

    since: int
    until: int
    allow: int
    deny: int
    rows: tuple[Row, ...]
    all_rows: tuple[Row, ...]


def role_bits(roles: Mapping[str, Role]) -> dict[str, tuple[int, int]]:
    """What each role allows and denies, inherited permissions included."""
    own = {name: (_bits_of(role.allow), _bits_of(role.deny)) for name, role in roles.items()}
    parents = {name: role.inherits for name, role in roles.items()}
    closed: dict[str, tuple[int, int]] = {}
    for name in roles:
        allow = deny = 0
        for each in _closure(name, parents):
            allow |= own[each][0]
            deny |= own[each][1]
        closed[name] = (allow, deny)
    return closed


def _bits_of(permissions: Iterable[Permission]) -> int:
    return sum(BITS[permission] for permission in permissions)


def rows_by_subject(bindings: Iterable[Binding]) -> dict[SubjectKind, dict[str, tuple[Row, ...]]]:
    """The bindings of each user and of each group, in their order."""
    found: dict[SubjectKind, dict[str, list[Row]]] = {kind: defaultdict(list) for kind in SubjectKind}
    for number, role, kind, subject, scope, not_before, expires, justification, case_id in bindings:
        found[kind][subject].append((number, role, scope, not_before, expires, justification, case_id))
    return {kind: {subject: tuple(rows) for subject, rows in by_subject.items()} for kind, by_subject in found.items()}


def unfolded(
    by_group: Mapping[str, tuple[Row, ...]], within: Mapping[str, Mapping[str, None]]
) -> dict[str, dict[str, Effect]]:
    """By scope, then by group: effects that hold at no time yet, to be folded when they are first looked at.

    The wide scopes ``server`` and ``class:`` hold for many requests: there a group has the rows of every group that
    contains it too, so that a decision need not walk up. At a room or towards people few groups have anything.
    """
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for group, containing in within.items():
        for giver in containing:
            for row in by_group.get(giver, ()):
                if giver == group or row[2] == SERVER or row[2].startswith(CLASS_PREFIX):
                    found[row[2]][group].append(row)
    return {
        scope: {group: Effect(0, 0, 0, 0, (), tuple(rows)) for group, rows in groups.items()}
        for scope, groups in found.items()
    }


def memberships(policy: Policy) -> dict[str, tuple[str, ...]]:
    """The groups that list each user."""
    found: dict[str, list[str]] = defaultdict(list)
    for group in policy.groups.values():
        for member in group.members:
            found[member].append(group.name)
    return {user: tuple(sorted(groups)) for user, groups in found.items()}


def groups_within(policy: Policy) -> dict[str, dict[str, None]]:
    """Each group with every group that contains it, as ordered sets."""
    parents: dict[str, list[str]] = {name: [] for name in (EVERYONE, *policy.groups)}
    for group in policy.groups.values():
        for inner in sorted(group.groups):
            parents[inner].append(group.name)
    return {name: dict.fromkeys(_closure(name, parents)) for name in parents}


def people_scopes_of(
    bindings: Iterable[Binding], within: Mapping[str, Mapping[str, None]]
) -> dict[str, tuple[str, ...]]:
    """Each group with the ``users:`` scopes that any binding has and that cover its members."""
    used = {binding.scope for binding in bindings if binding.scope.startswith(PEOPLE_PREFIX)}
    return {
        group: tuple(scope for scope in map(people_scope, containing) if scope in used)
        for group, containing in within.items()
    }


def _closure(start: str, edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """``start`` and all that can be reached from it, the nearest first."""
    found = [start]
    seen = {start}
    for each in found:
        new = [following for following in dict.fromkeys(edges[each]) if following not in seen]
        found.extend(new)
        seen.update(new)
    return tuple(found)


def class_permissions(bindings: Iterable[Binding], bits: Mapping[str, tuple[int, int]]) -> frozenset[Permission]:
    """The permissions about which some binding with a ``class:`` scope says something."""
    mentioned = 0
    for binding in bindings:
        if binding.scope.startswith(CLASS_PREFIX):
            mentioned |= bits[binding.role][0] | bits[binding.role][1]
    return frozenset(permission for permission, bit in BITS.items() if mentioned & bit)
