"""Compiles a policy into a snapshot and decides requests on it. No I/O, no clock: the moment is an argument.

How it is fast: what groups are given is folded by scope and group into :class:`Effect` (bits of what is allowed and
denied there), so that a request looks only at the scopes that cover it; a person's own bindings are few and are read
through. The answer is then remembered together with the span of time in which it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
    is_nameless,
    room_scope,
)
from synapse_modules.rbac.tables import (
    BITS,
    CLASS_PREFIX,
    PEOPLE_PREFIX,
    Effect,
    class_permissions,
    groups_within,
    memberships,
    people_scopes_of,
    role_bits,
    rows_by_subject,
    unfolded,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from synapse_modules.core.permissions import Permission
    from synapse_modules.rbac.tables import Row

__all__ = ["ANYBODY", "DEFAULT_RULE", "Snapshot", "Verdict", "compile_policy", "decide", "judge", "origin"]

DEFAULT_RULE = "default"
"""The rule of a denial because nothing allows."""

ANYBODY = "@"
"""Stands for a local user whom the policy does not name; never the id of a real one."""

_NOTHING: dict[str, Effect] = {}
_ALWAYS = (-(2**63), 2**63)
_REMEMBERED_VERDICTS = 100_000


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
    _rows: Mapping[SubjectKind, Mapping[str, tuple[Row, ...]]]
    _group_effects: Mapping[str, dict[str, Effect]]  # by scope; at wide scopes with those of containing groups

    def groups_of(self, user: str) -> Mapping[str, None]:
        """Every group ``user`` is in, directly or through other groups; an ordered set."""
        found: dict[str, None] = {}
        for group in self.direct_groups_of(user):
            found.update(self._within[group])
        return found

    def direct_groups_of(self, user: str) -> tuple[str, ...]:
        """The groups that list ``user`` as a member, and :data:`EVERYONE` for local users with a name."""
        listed = self._memberships.get(user, ())
        return (*listed, EVERYONE) if self.is_local(user) and not is_nameless(user) else listed

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
        return bool(self._bits[role][0 if allow else 1] & BITS[permission])

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
        return frozenset(permission for permission, bit in BITS.items() if allow & ~deny & bit)

    def says(self, user: str, permission: Permission, scopes: Iterable[str], now_ms: int) -> tuple[bool, bool]:
        """Whether what ``user`` holds allows, and whether it denies, ``permission`` where ``scopes`` all cover it."""
        allow, deny = self._bits_at(user, scopes, now_ms)
        bit = BITS[permission]
        return bool(allow & bit), bool(deny & bit)

    def _bits_at(self, user: str, scopes: Iterable[str], now_ms: int) -> tuple[int, int]:
        wide: list[str] = []
        narrow: list[str] = []
        for scope in dict.fromkeys(scopes):
            if scope.startswith(PEOPLE_PREFIX):
                narrow += self._towards.get(scope.removeprefix(PEOPLE_PREFIX), ())
            else:
                (wide if scope == SERVER or scope.startswith(CLASS_PREFIX) else narrow).append(scope)
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

    def _fold(self, rows: tuple[Row, ...], now_ms: int) -> Effect:
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
    bits = role_bits(policy.roles)
    rows = rows_by_subject(policy.bindings)
    within = groups_within(policy)
    return Snapshot(
        version=version,
        roles=policy.roles,
        groups=policy.groups,
        classifier=RoomClassifier(policy.room_classes),
        class_permissions=class_permissions(policy.bindings, bits),
        verdicts={},
        _local_suffix=f":{server_name}",
        _bits=bits,
        _memberships=memberships(policy),
        _within=within,
        _towards=people_scopes_of(policy.bindings, within),
        _rows=rows,
        _group_effects=unfolded(rows[SubjectKind.GROUP], within),
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
    bit = BITS[request.permission]
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
