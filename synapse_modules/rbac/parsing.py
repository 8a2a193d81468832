"""Reads a policy document strictly: a mistake anywhere refuses the whole, with path, found, expected, nearest name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import InvalidInput, nearest
from synapse_modules.core.identifiers import Name, UserId, check_room_id
from synapse_modules.core.permissions import Permission, parse_permission
from synapse_modules.core.room_classes import RoomClass, check_class_names
from synapse_modules.rbac.model import (
    EVERYONE,
    SERVER,
    Binding,
    Group,
    Policy,
    Role,
    ScopeKind,
    SubjectKind,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = [
    "CaseId",
    "PermissionName",
    "PolicyDocument",
    "binding_document",
    "build_policy",
    "format_instant",
    "group_document",
    "parse_policy",
    "policy_document",
    "role_document",
]

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SCOPES = "'server', 'room:<room id>', 'class:<room class>' or 'users:<group>'"


def _permission(value: object) -> object:
    return parse_permission(value, "") if isinstance(value, str) else value


def _instant_ms(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        if _INSTANT.fullmatch(value):
            # In UTC it must lie within the years 1 to 9999 too, so that it can be written again.
            return round(datetime.fromisoformat(value.upper()).astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    raise InvalidInput("", value, "a time with its zone, such as '2026-12-31T23:59:59Z'")


def format_instant(milliseconds: int) -> str:
    """The RFC 3339 text of a time, in UTC."""
    instant = datetime.fromtimestamp(milliseconds // 1000, UTC) + timedelta(milliseconds=milliseconds % 1000)
    return instant.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds").replace("+00:00", "Z")


def _printable(text: str) -> str:
    """Refuse control characters, which no database text and no terminal should get; new lines and tabs are text."""
    if _CONTROLS.search(text):
        raise InvalidInput("", text, "text without control characters")
    return text


PermissionName = Annotated[Permission, pydantic.BeforeValidator(_permission)]
"""A permission, by its whole name."""

CaseId = Annotated[str, pydantic.Field(max_length=100), pydantic.AfterValidator(_printable)]
"""The name of a case in somebody else's system."""

_Instant = Annotated[
    int, pydantic.BeforeValidator(_instant_ms), pydantic.WithJsonSchema({"type": "string", "format": "date-time"})
]
_Sentence = Annotated[str, pydantic.Field(max_length=500), pydantic.AfterValidator(_printable)]


class GroupDocument(FrozenModel):
    """A group as it is written."""

    description: _Sentence = ""
    members: tuple[UserId, ...] = ()
    groups: tuple[str, ...] = ()


class RoleDocument(FrozenModel):
    """A role as it is written."""

    description: _Sentence = ""
    inherits: tuple[str, ...] = ()
    allow: tuple[PermissionName, ...] = ()
    deny: tuple[PermissionName, ...] = ()


class BindingDocument(FrozenModel):
    """A binding as it is written: a role for exactly one of ``user`` and ``group``."""

    role: str
    user: UserId | None = None
    group: str | None = None
    scope: str
    not_before: _Instant | None = None
    expires: _Instant | None = None
    justification: _Sentence = ""
    case: CaseId = ""

    @pydantic.model_validator(mode="after")
    def _make_sense(self) -> BindingDocument:
        if (self.user is None) == (self.group is None):
            found = {"user": self.user, "group": self.group}
            raise InvalidInput("", found, "either user or group, and not both")
        if self.not_before is not None and self.expires is not None and self.expires <= self.not_before:
            raise InvalidInput("expires", format_instant(self.expires), "a time after not_before")
        return self


class PolicyDocument(FrozenModel):
    """A whole policy as it is written in ``policy.yaml`` and sent to the API."""

    version: Literal[1]
    room_classes: tuple[RoomClass, ...] = ()
    groups: dict[Name, GroupDocument] = pydantic.Field(default_factory=dict)
    roles: dict[Name, RoleDocument] = pydantic.Field(default_factory=dict)
    bindings: tuple[BindingDocument, ...] = ()


def parse_policy(document: object, where: str) -> Policy:
    """Parse and check a policy document.

    Args:
        document: what YAML or JSON gave.
        where: the file's name or the like, the root of every path in an error.

    Raises:
        InvalidInput: the first mistake: an unknown key, permission, role, group or scope, a wrong type, something
            given twice, a cycle.
    """
    return build_policy(parse_document(PolicyDocument, document, where), f"{where}:")


def build_policy(parsed: PolicyDocument, root: str) -> Policy:
    """Check a document whose form is right for what it means.

    Args:
        parsed: the document.
        root: what paths in errors begin with, such as ``policy.yaml:``.

    Raises:
        InvalidInput: the first mistake: an unknown role, group or scope, something given twice, a cycle.
    """
    _check(parsed, root)
    return Policy(
        room_classes=parsed.room_classes,
        groups={name: _group(name, group) for name, group in parsed.groups.items()},
        roles={name: _role(name, role) for name, role in parsed.roles.items()},
        bindings=tuple(_binding(number, binding) for number, binding in enumerate(parsed.bindings, start=1)),
        next_number=len(parsed.bindings) + 1,
    )


def policy_document(policy: Policy) -> dict[str, Any]:
    """The document that parses to ``policy``, the numbers of its bindings aside."""
    return {
        "version": 1,
        "room_classes": [each.model_dump(mode="json", exclude_defaults=True) for each in policy.room_classes],
        "groups": {name: group_document(group) for name, group in sorted(policy.groups.items())},
        "roles": {name: role_document(role) for name, role in sorted(policy.roles.items())},
        "bindings": [binding_document(binding) for binding in policy.bindings],
    }


def _check(policy: PolicyDocument, root: str) -> None:
    check_class_names(policy.room_classes, f"{root}room_classes")
    if EVERYONE in policy.groups:
        raise InvalidInput(f"{root}groups", EVERYONE, "another name: this group is built in and holds every local user")
    groups = {EVERYONE, *policy.groups}
    for name, group in policy.groups.items():
        _check_once(group.members, f"{root}groups.{name}.members")
        _check_names(group.groups, groups, f"{root}groups.{name}.groups", "a group")
    _check_acyclic({name: group.groups for name, group in policy.groups.items()}, f"{root}groups", "groups")
    for name, role in policy.roles.items():
        _check_once(role.allow, f"{root}roles.{name}.allow")
        _check_once(role.deny, f"{root}roles.{name}.deny")
        _check_names(role.inherits, policy.roles, f"{root}roles.{name}.inherits", "a role")
    _check_acyclic({name: role.inherits for name, role in policy.roles.items()}, f"{root}roles", "inherits")
    _check_bindings(policy, groups, f"{root}bindings")


def _check_bindings(policy: PolicyDocument, groups: Collection[str], root: str) -> None:
    classes = {room_class.name for room_class in policy.room_classes}
    first: dict[tuple[str, ...], int] = {}
    for position, binding in enumerate(policy.bindings):
        where = f"{root}[{position}]"
        _check_name(binding.role, policy.roles, f"{where}.role", "a role")
        if binding.group is not None:
            _check_name(binding.group, groups, f"{where}.group", "a group")
        _check_scope(binding.scope, groups, classes, f"{where}.scope")
        key = _binding(0, binding).key
        if key in first:
            raise InvalidInput(
                where, list(key), f"a role, a subject and a scope that {root.rpartition(':')[2]}[{first[key]}] has not"
            )
        first[key] = position


def _check_scope(scope: str, groups: Collection[str], classes: Collection[str], where: str) -> None:
    kind, colon, name = scope.partition(":")
    if scope == SERVER:
        return
    if not colon or kind not in set(ScopeKind) - {ScopeKind.SERVER}:
        likely = nearest(kind, ScopeKind)
        raise InvalidInput(
            where, scope, _SCOPES, suggestion=likely and (likely if likely == SERVER else f"{likely}:{name}")
        )
    if kind == ScopeKind.CLASS:
        _check_name(name, classes, where, "a room class after 'class:'")
    elif kind == ScopeKind.USERS:
        _check_name(name, groups, where, "a group after 'users:'")
    else:
        try:
            check_room_id(name)
        except InvalidInput as error:
            raise InvalidInput(where, scope, f"after 'room:' {error.expected}") from None


def _check_name(name: str, known: Collection[str], where: str, what: str) -> None:
    if name not in known:
        raise InvalidInput(where, name, f"{what} that this policy defines", suggestion=nearest(name, known))


def _check_names(names: Sequence[str], known: Collection[str], where: str, what: str) -> None:
    _check_once(names, where)
    for position, name in enumerate(names):
        _check_name(name, known, f"{where}[{position}]", what)


def _check_once(values: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for position, value in enumerate(values):
        if value in seen:
            raise InvalidInput(f"{where}[{position}]", str(value), "each one only once")
        seen.add(value)


def _check_acyclic(edges: Mapping[str, Sequence[str]], where: str, key: str) -> None:
    """Refuse a cycle, naming it whole. Iterative: a chain may be longer than Python's stack."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = [start]
        trail: list[Iterator[str]] = [iter(edges[start])]
        while trail:
            following = next(trail[-1], None)
            if following is None:
                trail.pop()
                done.add(path.pop())
            elif following in path:
                cycle = " → ".join([*path[path.index(following) :], following])
                raise InvalidInput(f"{where}.{path[-1]}.{key}", cycle, "no cycle")
            elif following not in done:
                path.append(following)
                trail.append(iter(edges.get(following, ())))


def _group(name: str, group: GroupDocument) -> Group:
    return Group(name, group.description, frozenset(group.members), frozenset(group.groups))


def _role(name: str, role: RoleDocument) -> Role:
    return Role(name, role.description, role.inherits, frozenset(role.allow), frozenset(role.deny))


def _binding(number: int, binding: BindingDocument) -> Binding:
    kind = SubjectKind.GROUP if binding.user is None else SubjectKind.USER
    return Binding(
        number,
        binding.role,
        kind,
        binding.user or binding.group or "",
        binding.scope,
        binding.not_before,
        binding.expires,
        binding.justification,
        binding.case,
    )


def group_document(group: Group) -> dict[str, Any]:
    """A group as it is written, without its name."""
    return _without_empty(
        {"description": group.description, "members": sorted(group.members), "groups": sorted(group.groups)}
    )


def role_document(role: Role) -> dict[str, Any]:
    """A role as it is written, without its name."""
    return _without_empty(
        {
            "description": role.description,
            "inherits": list(role.inherits),
            "allow": sorted(role.allow),
            "deny": sorted(role.deny),
        }
    )


def binding_document(binding: Binding) -> dict[str, Any]:
    """A binding as it is written."""
    return _without_empty(
        {
            "role": binding.role,
            binding.subject_kind.value: binding.subject,
            "scope": binding.scope,
            "not_before": None if binding.not_before_ms is None else format_instant(binding.not_before_ms),
            "expires": None if binding.expires_ms is None else format_instant(binding.expires_ms),
            "justification": binding.justification,
            "case": binding.case_id,
        }
    )


def _without_empty(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value not in (None, "", [])}
