"""Random policies and requests, and a reference that decides by the rules alone, without any cleverness."""

from __future__ import annotations

from hypothesis import strategies as st

from synapse_modules.core.permissions import Permission
from synapse_modules.core.room_classes import RoomClass, RoomMatch
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

__all__ = ["DOMAIN", "NOW", "naive_allows", "permissions_of", "policies", "requests"]

DOMAIN = "x"
NOW = 1_000
_USERS = ["@a:x", "@b:x", "@c:x", "@remote:y"]
_GROUPS = ["g0", "g1", "g2", "g3"]
_ROLES = ["r0", "r1", "r2", "r3"]
_ROOMS = ["!p:x", "!q"]
_CLASSES = ["k", "l"]
_PERMISSIONS = [Permission.LOGIN, Permission.ROOM_CREATE, Permission.POLICY_WRITE]
_INSTANTS = [None, NOW - 10, NOW, NOW + 1, NOW + 10]
_SCOPES = [
    SERVER,
    *map(room_scope, _ROOMS),
    *map(class_scope, _CLASSES),
    *map(people_scope, [*_GROUPS, EVERYONE]),
]


def policies() -> st.SearchStrategy[Policy]:
    """Valid policies: a name refers only to names after it, so nothing contains itself."""
    return _POLICIES


def requests() -> st.SearchStrategy[AccessRequest]:
    """Requests about people, rooms and classes that the policies know, and some they do not."""
    return _REQUESTS


def naive_allows(policy: Policy, request: AccessRequest, now_ms: int = NOW) -> bool:
    """The rules of :mod:`synapse_modules.rbac.model`, word for word."""
    given = [
        binding
        for binding in policy.bindings
        if _is_subject(policy, binding, request.user)
        and _in_window(binding, now_ms)
        and _covers(policy, binding.scope, request)
    ]
    denied = any(request.permission in permissions_of(policy, binding.role, allow=False) for binding in given)
    allowed = any(request.permission in permissions_of(policy, binding.role, allow=True) for binding in given)
    return allowed and not denied


def _subset(names: list[str]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(names)) if names else st.just(frozenset())


def _group(name: str) -> st.SearchStrategy[Group]:
    inner = [*_GROUPS[_GROUPS.index(name) + 1 :], EVERYONE]
    return st.builds(Group, st.just(name), st.just(""), _subset(_USERS), _subset(inner))


def _role(name: str) -> st.SearchStrategy[Role]:
    parents = _subset(_ROLES[_ROLES.index(name) + 1 :]).map(lambda names: tuple(sorted(names)))
    permissions = st.frozensets(st.sampled_from(_PERMISSIONS), max_size=2)
    return st.builds(Role, st.just(name), st.just(""), parents, permissions, permissions)


_SUBJECTS = [
    *((SubjectKind.USER, user) for user in _USERS),
    *((SubjectKind.GROUP, group) for group in [*_GROUPS, EVERYONE]),
]
_WINDOW = st.sampled_from([(None, None), (None, None), *((since, until) for since in _INSTANTS for until in _INSTANTS)])


def _binding(
    number: int, key: tuple[str, tuple[SubjectKind, str], str], window: tuple[int | None, int | None]
) -> Binding:
    role, (kind, subject), scope = key
    return Binding(number, role, kind, subject, scope, *window)


_BINDINGS = st.lists(
    st.tuples(
        st.tuples(st.sampled_from(_ROLES), st.sampled_from(_SUBJECTS), st.sampled_from(_SCOPES)),
        _WINDOW,
    ),
    max_size=8,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: tuple(_binding(number, *pair) for number, pair in enumerate(pairs, start=1)))

_POLICIES = st.builds(
    Policy,
    room_classes=st.just(tuple(RoomClass(name=name, match=RoomMatch(name=name)) for name in _CLASSES)),
    groups=st.fixed_dictionaries({name: _group(name) for name in _GROUPS}),
    roles=st.fixed_dictionaries({name: _role(name) for name in _ROLES}),
    bindings=_BINDINGS,
    next_number=st.just(100),
)

_REQUESTS = st.builds(
    AccessRequest,
    st.sampled_from([*_USERS, "@stranger:x", "@stranger:z"]),
    st.sampled_from(_PERMISSIONS),
    st.sampled_from([None, *_ROOMS, "!other:x"]),
    st.sampled_from([None, *_CLASSES]),
    st.sampled_from([None, *_USERS, "@stranger:z"]),
)


def _is_subject(policy: Policy, binding: Binding, user: str) -> bool:
    if binding.subject_kind is SubjectKind.USER:
        return binding.subject == user
    return _is_member(policy, user, binding.subject)


def _is_member(policy: Policy, user: str, group: str) -> bool:
    if group == EVERYONE:
        return user.endswith(f":{DOMAIN}")
    return user in policy.groups[group].members or any(
        _is_member(policy, user, inner) for inner in policy.groups[group].groups
    )


def _in_window(binding: Binding, now_ms: int) -> bool:
    begun = binding.not_before_ms is None or now_ms >= binding.not_before_ms
    return begun and (binding.expires_ms is None or now_ms < binding.expires_ms)


def _covers(policy: Policy, scope: str, request: AccessRequest) -> bool:
    kind, _, name = scope.partition(":")
    if kind == "users":
        return request.target is not None and _is_member(policy, request.target, name)
    return kind == "server" or {"room": request.room_id, "class": request.room_class}[kind] == name


def permissions_of(policy: Policy, role: str, *, allow: bool) -> set[Permission]:
    """What ``role``, with what it inherits, allows or else denies."""
    found = set(policy.roles[role].allow if allow else policy.roles[role].deny)
    return found.union(*(permissions_of(policy, parent, allow=allow) for parent in policy.roles[role].inherits))
