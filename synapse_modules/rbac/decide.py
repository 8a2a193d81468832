"""Compiles a policy into a snapshot and decides requests on it. No I/O, no clock: the moment is an argument.

How it is fast: what groups are given is folded by scope and group into :class:`Effect` (bits of what is allowed and
denied there), so that a request looks only at the scopes that cover it; a person's own bindings are few and are read
through. The answer is then remembered together with the span of time in which it holds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.core.permissions import Permission
from synapse_modules.core.ports import Decision
from synapse_modules.core.room_classes import RoomClassifier
from synapse_modules.rbac import messages
from synapse_modules.rbac.model import (
    EVERYONE,
    SERVER,
    AccessRequest,
    Binding,
    Group,
    Policy,
    Role,
    SubjectKind,
    class_scope,
    people_scope,
    room_scope,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = ["ANYBODY", "DEFAULT_RULE", "Effect", "Snapshot", "Verdict", "compile_policy", "decide", "judge", "origin"]

DEFAULT_RULE = "default"
"""The rule of a denial because nothing allows."""

ANYBODY = "@"
"""Stands for a local user whom the policy does not name; never the id of a real one."""

_BITS = {permission: 1 << position for position, permission in enumerate(Permission)}
_CLASS = class_scope("")
_PEOPLE = people_scope("")
_NOTHING: dict[str, Effect] = {}
_ALWAYS = (-(2**63), 2**63)
_REMEMBERED_VERDICTS = 100_000

_Row = tuple[int, str, str, int | None, int | None, str, str]
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
    rows: tuple[_Row, ...]
    all_rows: tuple[_Row, ...]


class Verdict(NamedTuple):
    """A decision with all that led to it.

    Attributes:
        decision: what callers need.
        permission: what was asked for.
        role: the role in which the deciding permission is written; None where nothing matched.
        binding: the number of the binding that gave it; None where nothing matched.
        scope: that binding's scope; None where nothing matched.
        since, until: the span of time (milliseconds, until excluded) in which the same answer holds.
    """

    decision: Decision
    permission: Permission
    role: str | None
    binding: int | None
    scope: str | None
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A compiled policy. Its content never changes; what it remembers are answers that follow from it.

    Attributes:
        version: the policy's version; 0 where none was ever applied.
        roles, groups: by name.
        classifier: the policy's room classes.
        class_permissions: permissions about which some binding with a ``class:`` scope says something.
        verdicts: answers already found.
    """

    version: int
    roles: Mapping[str, Role]
    groups: Mapping[str, Group]
    classifier: RoomClassifier
    class_permissions: frozenset[Permission]
    verdicts: dict[AccessRequest, Verdict]
    _local_suffix: str
    _bits: Mapping[str, tuple[int, int]]
    _memberships: Mapping[str, tuple[str, ...]]
    _within: Mapping[str, Mapping[str, None]]
    _towards: Mapping[str, tuple[str, ...]]
    _rows: Mapping[SubjectKind, Mapping[str, tuple[_Row, ...]]]
    _group_effects: Mapping[str, dict[str, Effect]]  # by scope; at wide scopes with those of containing groups

    def groups_of(self, user: str) -> Mapping[str, None]:
        """Every group ``user`` is in, directly or through other groups; an ordered set."""
        found: dict[str, None] = {}
        for group in self.direct_groups_of(user):
            found.update(self._within[group])
        return found

    def direct_groups_of(self, user: str) -> tuple[str, ...]:
        """The groups that list ``user`` as a member, and :data:`EVERYONE` for local users."""
        listed = self._memberships.get(user, ())
        return (*listed, EVERYONE) if self.is_local(user) else listed

    def is_local(self, user: str) -> bool:
        """Whether ``user`` belongs to this homeserver."""
        return user.endswith(self._local_suffix) or user == ANYBODY

    def known_users(self) -> set[str]:
        """Every user whom the policy names, as a member or in a binding."""
        return self._rows[SubjectKind.USER].keys() | self._memberships.keys()

    def bindings_of(self, kind: SubjectKind, subject: str) -> list[Binding]:
        """The bindings of one user or group themselves."""
        return [Binding(row[0], row[1], kind, subject, *row[2:]) for row in self._rows[kind].get(subject, ())]

    def held_by(self, user: str) -> Iterator[Binding]:
        """Every binding that gives ``user`` a role, now or at another time, their own first, then their groups'."""
        yield from self.bindings_of(SubjectKind.USER, user)
        for group in self.groups_of(user):
            yield from self.bindings_of(SubjectKind.GROUP, group)

    def role_permissions(self, role: str) -> tuple[int, int]:
        """What ``role``, with what it inherits, allows and denies, as bits that are the same in every snapshot."""
        return self._bits[role]

    def role_gives(self, role: str, permission: Permission, *, allow: bool) -> bool:
        """Whether ``role``, with what it inherits, allows (or else denies) ``permission``."""
        return bool(self._bits[role][0 if allow else 1] & _BITS[permission])

    def effects(self, request: AccessRequest, now_ms: int) -> list[Effect]:
        """What the person's own bindings and those of their groups give at the scopes that cover ``request``."""
        wide = [SERVER] if request.room_class is None else [SERVER, class_scope(request.room_class)]
        narrow = [] if request.room_id is None else [room_scope(request.room_id)]
        if request.target is not None:
            for group in self.direct_groups_of(request.target):
                narrow += self._towards[group]
        return self._effects_at(request.user, wide, narrow, now_ms)

    def capabilities(self, user: str, scope: str, now_ms: int) -> frozenset[Permission]:
        """What ``user`` may do where ``scope`` and nothing narrower covers it: there, or to a member of that group."""
        allow, deny = self._bits_at(user, (SERVER, scope), now_ms)
        return frozenset(permission for permission, bit in _BITS.items() if allow & ~deny & bit)

    def says(self, user: str, permission: Permission, scopes: Iterable[str], now_ms: int) -> tuple[bool, bool]:
        """Whether what ``user`` holds allows, and whether it denies, ``permission`` where ``scopes`` all cover it."""
        allow, deny = self._bits_at(user, scopes, now_ms)
        bit = _BITS[permission]
        return bool(allow & bit), bool(deny & bit)

    def _bits_at(self, user: str, scopes: Iterable[str], now_ms: int) -> tuple[int, int]:
        wide: list[str] = []
        narrow: list[str] = []
        for scope in dict.fromkeys(scopes):
            if scope.startswith(_PEOPLE):
                narrow += self._towards.get(scope.removeprefix(_PEOPLE), ())
            else:
                (wide if scope == SERVER or scope.startswith(_CLASS) else narrow).append(scope)
        allow = deny = 0
        for effect in self._effects_at(user, wide, narrow, now_ms):
            allow |= effect.allow
            deny |= effect.deny
        return allow, deny

    def _effects_at(self, user: str, wide: list[str], narrow: list[str], now_ms: int) -> list[Effect]:
        found = []
        own = self._rows[SubjectKind.USER].get(user)
        if own:
            scopes = {*wide, *narrow}
            found.append(self._fold(tuple([row for row in own if row[2] in scopes]), now_ms))
        found += self._found(wide, self.direct_groups_of(user), now_ms)
        narrow = [scope for scope in dict.fromkeys(narrow) if scope in self._group_effects]
        return found + self._found(narrow, self.groups_of(user), now_ms) if narrow else found

    def _found(self, scopes: Iterable[str], groups: Collection[str], now_ms: int) -> list[Effect]:
        """The effects of ``groups`` at ``scopes``, found from the smaller side."""
        found = []
        for scope in scopes:
            by_group = self._group_effects.get(scope, _NOTHING)
            fewer, others = (by_group, groups) if len(by_group) < len(groups) else (groups, by_group)
            for group in fewer:
                if group in others:
                    effect = by_group[group]
                    found.append(
                        effect if effect.since <= now_ms < effect.until else self._refold(by_group, group, now_ms)
                    )
        return found

    def _refold(self, by_group: dict[str, Effect], group: str, now_ms: int) -> Effect:
        effect = by_group[group] = self._fold(by_group[group].all_rows, now_ms)
        return effect

    def _fold(self, rows: tuple[_Row, ...], now_ms: int) -> Effect:
        """What ``rows`` give at ``now_ms``, and how long before and after they give the same."""
        since, until = _ALWAYS
        allow = deny = 0
        in_force = []
        for row in rows:
            _, role, _, starts, ends, _, _ = row
            if starts is not None and starts > now_ms:
                until = min(until, starts)
                continue
            if ends is not None and ends <= now_ms:
                since = max(since, ends)
                continue
            if starts is not None and starts > since:
                since = starts
            if ends is not None and ends < until:
                until = ends
            in_force.append(row)
            bits = self._bits[role]
            allow |= bits[0]
            deny |= bits[1]
        return Effect(since, until, allow, deny, tuple(in_force), rows)


def compile_policy(policy: Policy, *, server_name: str, version: int = 0) -> Snapshot:
    """Compile ``policy`` for the homeserver called ``server_name``."""
    bits = _role_bits(policy.roles)
    rows = _rows(policy.bindings)
    within = _within(policy)
    return Snapshot(
        version=version,
        roles=policy.roles,
        groups=policy.groups,
        classifier=RoomClassifier(policy.room_classes),
        class_permissions=_class_permissions(policy.bindings, bits),
        verdicts={},
        _local_suffix=f":{server_name}",
        _bits=bits,
        _memberships=_memberships(policy),
        _within=within,
        _towards=_towards(policy.bindings, within),
        _rows=rows,
        _group_effects=_unfolded(rows[SubjectKind.GROUP], within),
    )


def decide(snapshot: Snapshot, request: AccessRequest, now_ms: int) -> Decision:
    """Answer ``request`` at the moment ``now_ms`` (milliseconds since the epoch)."""
    verdict = snapshot.verdicts.get(request)
    if verdict is not None and verdict.since <= now_ms < verdict.until:
        return verdict.decision
    return judge(snapshot, request, now_ms).decision


def judge(snapshot: Snapshot, request: AccessRequest, now_ms: int) -> Verdict:
    """Like :func:`decide`, with all that led to the answer."""
    remembered = snapshot.verdicts
    verdict = remembered.get(request)
    if verdict is None or not verdict.since <= now_ms < verdict.until:
        verdict = _judge(snapshot, request, now_ms)
        if len(remembered) >= _REMEMBERED_VERDICTS:
            remembered.clear()
        remembered[request] = verdict
    return verdict


def origin(roles: Mapping[str, Role], name: str, permission: Permission, *, allow: bool) -> tuple[str, ...]:
    """The shortest way from role ``name`` through what it inherits to a role that itself allows (or else denies)
    ``permission``; empty when there is none.
    """
    ways: list[tuple[str, ...]] = [(name,)]
    seen = {name}
    for way in ways:
        role = roles[way[-1]]
        if permission in (role.allow if allow else role.deny):
            return way
        ways.extend((*way, parent) for parent in role.inherits if parent not in seen)
        seen.update(role.inherits)
    return ()


def _judge(snapshot: Snapshot, request: AccessRequest, now_ms: int) -> Verdict:
    bit = _BITS[request.permission]
    since, until = _ALWAYS
    allowing = denying = None
    for effect in snapshot.effects(request, now_ms):
        since = max(since, effect.since)
        until = min(until, effect.until)
        if denying is None and effect.deny & bit:
            denying = effect
        elif allowing is None and effect.allow & bit:
            allowing = effect
    deciding = denying or allowing  # a deny beats every allow
    if deciding is None:
        decision = Decision(allowed=False, rule=DEFAULT_RULE, reason=messages.refused(request.permission, None))
        return Verdict(decision, request.permission, None, None, None, since, until)
    return _explained(snapshot, request.permission, deciding, since, until, allow=denying is None)


def _explained(
    snapshot: Snapshot, permission: Permission, effect: Effect, since: int, until: int, *, allow: bool
) -> Verdict:
    number, bound, scope, *_ = next(row for row in effect.rows if snapshot.role_gives(row[1], permission, allow=allow))
    role = origin(snapshot.roles, bound, permission, allow=allow)[-1]
    via = "" if role == bound else f" of role {bound}"
    verb = "allow" if allow else "deny"
    rule = f"role:{role} {verb} {permission.value} (binding {number}{via}, scope {scope})"
    reason = (messages.granted if allow else messages.refused)(permission, role, here=scope != SERVER)
    return Verdict(Decision(allowed=allow, rule=rule, reason=reason), permission, role, number, scope, since, until)


def _role_bits(roles: Mapping[str, Role]) -> dict[str, tuple[int, int]]:
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
    return sum(_BITS[permission] for permission in permissions)


def _rows(bindings: Iterable[Binding]) -> dict[SubjectKind, dict[str, tuple[_Row, ...]]]:
    found: dict[SubjectKind, dict[str, list[_Row]]] = {kind: defaultdict(list) for kind in SubjectKind}
    for number, role, kind, subject, scope, not_before, expires, justification, case_id in bindings:
        found[kind][subject].append((number, role, scope, not_before, expires, justification, case_id))
    return {kind: {subject: tuple(rows) for subject, rows in by_subject.items()} for kind, by_subject in found.items()}


def _unfolded(
    by_group: Mapping[str, tuple[_Row, ...]], within: Mapping[str, Mapping[str, None]]
) -> dict[str, dict[str, Effect]]:
    """By scope, then by group: effects that hold at no time yet, to be folded when they are first looked at.

    The wide scopes ``server`` and ``class:`` hold for many requests: there a group has the rows of every group that
    contains it too, so that a decision need not walk up. At a room or towards people few groups have anything.
    """
    found: dict[str, dict[str, list[_Row]]] = defaultdict(lambda: defaultdict(list))
    for group, containing in within.items():
        for giver in containing:
            for row in by_group.get(giver, ()):
                if giver == group or row[2] == SERVER or row[2].startswith(_CLASS):
                    found[row[2]][group].append(row)
    return {
        scope: {group: Effect(0, 0, 0, 0, (), tuple(rows)) for group, rows in groups.items()}
        for scope, groups in found.items()
    }


def _memberships(policy: Policy) -> dict[str, tuple[str, ...]]:
    """The groups that list each user."""
    found: dict[str, list[str]] = defaultdict(list)
    for group in policy.groups.values():
        for member in group.members:
            found[member].append(group.name)
    return {user: tuple(sorted(groups)) for user, groups in found.items()}


def _within(policy: Policy) -> dict[str, dict[str, None]]:
    """Each group with every group that contains it, as ordered sets."""
    parents: dict[str, list[str]] = {name: [] for name in (EVERYONE, *policy.groups)}
    for group in policy.groups.values():
        for inner in sorted(group.groups):
            parents[inner].append(group.name)
    return {name: dict.fromkeys(_closure(name, parents)) for name in parents}


def _towards(bindings: Iterable[Binding], within: Mapping[str, Mapping[str, None]]) -> dict[str, tuple[str, ...]]:
    """Each group with the ``users:`` scopes that any binding has and that cover its members."""
    used = {binding.scope for binding in bindings if binding.scope.startswith(_PEOPLE)}
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


def _class_permissions(bindings: Iterable[Binding], bits: Mapping[str, tuple[int, int]]) -> frozenset[Permission]:
    mentioned = 0
    for binding in bindings:
        if binding.scope.startswith(_CLASS):
            mentioned |= bits[binding.role][0] | bits[binding.role][1]
    return frozenset(permission for permission, bit in _BITS.items() if mentioned & bit)
