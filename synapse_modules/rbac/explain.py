"""Explains one decision: which groups, which bindings, which roles, and why each of them counts or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.permissions import DESCRIPTIONS, Permission
from synapse_modules.rbac.decide import DEFAULT_RULE, judge, origin
from synapse_modules.rbac.model import EVERYONE, Binding, ScopeKind, scope_kind, scope_name
from synapse_modules.rbac.parsing import format_instant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synapse_modules.rbac.decide import Snapshot
    from synapse_modules.rbac.model import AccessRequest

__all__ = ["ConsideredBinding", "Explanation", "GroupPath", "explain"]


class GroupPath(FrozenModel):
    """How somebody is in a group: ``path`` begins with the group that lists them and ends with ``group``."""

    group: str
    path: tuple[str, ...]


class ConsideredBinding(FrozenModel):
    """One binding that says something about the permission, and whether it counts for this request.

    Attributes:
        allows, denies: what its role says. in_force: its time window contains the moment. covers: so does its scope.
        roles: from the bound role to the inherited one in which the permission is written.
        words: all of it in one sentence.
    """

    number: int
    role: str
    subject: str
    scope: str
    not_before: str | None
    expires: str | None
    justification: str
    case: str
    allows: bool
    denies: bool
    in_force: bool
    covers: bool
    roles: tuple[str, ...]
    words: str


class Explanation(FrozenModel):
    """A decision and its whole derivation; ``lines`` is the derivation for people.

    ``silent`` counts the bindings that the person holds and that say nothing about the permission.
    """

    user: str
    permission: Permission
    room: str | None
    room_class: str | None
    target: str | None
    at: str
    policy_version: int
    allowed: bool
    rule: str
    reason: str
    groups: tuple[GroupPath, ...]
    bindings: tuple[ConsideredBinding, ...]
    silent: int
    lines: tuple[str, ...]


def explain(snapshot: Snapshot, request: AccessRequest, now_ms: int, *, papers: bool = True) -> Explanation:
    """Derive the decision on ``request`` at ``now_ms`` with everything that was looked at.

    Args:
        snapshot: the policy.
        request: the question.
        now_ms: when, in milliseconds since the epoch.
        papers: whether to tell justifications and cases, which are not for everybody's eyes.
    """
    decision = judge(snapshot, request, now_ms).decision
    groups = _group_paths(snapshot, request.user)
    held = [each if papers else each._replace(justification="", case_id="") for each in snapshot.held_by(request.user)]
    considered = tuple(
        found for binding in held if (found := _considered(snapshot, request, binding, now_ms)) is not None
    )
    explanation = Explanation(
        user=request.user,
        permission=request.permission,
        room=request.room_id,
        room_class=request.room_class,
        target=request.target,
        at=format_instant(now_ms),
        policy_version=snapshot.version,
        allowed=decision.allowed,
        rule=decision.rule,
        reason=decision.reason,
        groups=groups,
        bindings=considered,
        silent=len(held) - len(considered),
        lines=(),
    )
    return explanation.model_copy(update={"lines": tuple(_lines(explanation))})


def _group_paths(snapshot: Snapshot, user: str) -> tuple[GroupPath, ...]:
    """The shortest way into each group that ``user`` is in."""
    containing: dict[str, list[str]] = {}
    for outer in snapshot.groups.values():
        for inner in outer.groups:
            containing.setdefault(inner, []).append(outer.name)
    paths: dict[str, tuple[str, ...]] = {group: (group,) for group in snapshot.direct_groups_of(user)}
    queue = list(paths)
    for group in queue:
        new = [name for name in sorted(containing.get(group, ())) if name not in paths]
        paths.update((name, (*paths[group], name)) for name in new)
        queue.extend(new)
    return tuple(GroupPath(group=group, path=path) for group, path in paths.items())


def _considered(snapshot: Snapshot, request: AccessRequest, binding: Binding, now_ms: int) -> ConsideredBinding | None:
    """The binding as considered, or None when its role says nothing about the permission."""
    allows, denies = (snapshot.role_gives(binding.role, request.permission, allow=allow) for allow in (True, False))
    if not allows and not denies:
        return None
    covers = _covers(snapshot, request, binding.scope)
    roles = origin(snapshot.roles, binding.role, request.permission, allow=not denies)
    return ConsideredBinding(
        number=binding.number,
        role=binding.role,
        subject=f"{binding.subject_kind.value} {binding.subject}",
        scope=binding.scope,
        not_before=None if binding.not_before_ms is None else format_instant(binding.not_before_ms),
        expires=None if binding.expires_ms is None else format_instant(binding.expires_ms),
        justification=binding.justification,
        case=binding.case_id,
        allows=allows,
        denies=denies,
        in_force=binding.in_force(now_ms),
        covers=covers,
        roles=roles,
        words=_words(binding, request, roles, now_ms, denies=denies, covers=covers),
    )


def _covers(snapshot: Snapshot, request: AccessRequest, scope: str) -> bool:
    match scope_kind(scope):
        case ScopeKind.SERVER:
            return True
        case ScopeKind.ROOM:
            return request.room_id == scope_name(scope)
        case ScopeKind.CLASS:
            return request.room_class == scope_name(scope)
        case ScopeKind.USERS:
            return request.target is not None and scope_name(scope) in snapshot.groups_of(request.target)


def _words(
    binding: Binding, request: AccessRequest, roles: tuple[str, ...], now_ms: int, *, denies: bool, covers: bool
) -> str:
    verb = "denies" if denies else "allows"
    via = "" if len(roles) == 1 else f", inherited through {' → '.join(roles)}"
    says = f"role {binding.role} {verb} {request.permission.value}{via}"
    given = f"binding {binding.number} gives role {binding.role} to {binding.subject_kind.value} {binding.subject}"
    problem = _window_problem(binding, now_ms) or ("" if covers else _scope_problem(request, binding.scope))
    return f"{given}, scope {binding.scope}: {says}" + (f"; does not count, {problem}" if problem else "; counts")


def _window_problem(binding: Binding, now_ms: int) -> str:
    if binding.not_before_ms is not None and now_ms < binding.not_before_ms:
        return f"it begins at {format_instant(binding.not_before_ms)}"
    if binding.expires_ms is not None and now_ms >= binding.expires_ms:
        return f"it ended at {format_instant(binding.expires_ms)}"
    return ""


def _scope_problem(request: AccessRequest, scope: str) -> str:
    name = scope_name(scope)
    match scope_kind(scope):
        case ScopeKind.ROOM:
            return f"the request is not about room {name}"
        case ScopeKind.CLASS:
            return f"the room's class is {request.room_class or 'none'}, not {name}"
        case ScopeKind.USERS:
            target = request.target
            return "the request is about nobody" if target is None else f"{target} is not in group {name}"
        case ScopeKind.SERVER:
            raise AssertionError("the scope 'server' covers everything")


def _lines(found: Explanation) -> Iterator[str]:
    verdict = "ALLOWED" if found.allowed else "DENIED"
    yield f"{verdict}: {found.user}, {found.permission.value} ({DESCRIPTIONS[found.permission]})"
    yield f"asked: {_asked(found)}at {found.at}, policy version {found.policy_version}"
    yield f"rule: {found.rule}"
    yield "groups:" if found.groups else "groups: none"
    for path in found.groups:
        yield f"  {_in_words(path)}"
    yield "bindings:" if found.bindings else f"bindings: none that says anything about {found.permission.value}"
    for binding in found.bindings:
        yield f"  {binding.words}"
        yield from _papers(binding)
    if found.silent:
        yield f"  {found.silent} more, which say nothing about {found.permission.value}"
    yield f"therefore: {_conclusion(found)}"


def _asked(found: Explanation) -> str:
    parts: Mapping[str, str | None] = {"room": found.room, "class": found.room_class, "target": found.target}
    return "".join(f"{name} {value}, " for name, value in parts.items() if value is not None)


def _in_words(path: GroupPath) -> str:
    direct = "every user of this server" if path.path[0] == EVERYONE else "listed as a member"
    if len(path.path) == 1:
        return f"{path.group}: {direct}"
    return f"{path.group}: contains {' ← '.join(reversed(path.path[:-1]))} ({direct})"


def _papers(binding: ConsideredBinding) -> Iterator[str]:
    """Since when, until when, why and by which case."""
    window = {"from": binding.not_before, "until": binding.expires, "case": binding.case}
    papers = [f"{name} {value}" for name, value in window.items() if value]
    if binding.justification:
        papers.append(f"because: {binding.justification}")
    if papers:
        yield f"    {', '.join(papers)}"


def _conclusion(found: Explanation) -> str:
    if found.allowed:
        return "a role in force allows it, and none denies it"
    if found.rule == DEFAULT_RULE:
        return "no role in force allows it, and what nothing allows is denied"
    return "a role in force denies it, and a deny beats every allow"
