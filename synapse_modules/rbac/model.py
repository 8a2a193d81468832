"""The access policy as plain values: groups, roles, bindings and room classes, and the question asked of them.

Rules (NIST RBAC's core and hierarchy; Cedar's "deny by default, forbid overrides permit"):

- Nothing is allowed unless a binding in force gives the person a role that allows it. An empty policy allows nothing.
- A deny beats every allow, whatever role, scope or group either comes from.
- A role holds what it allows and denies itself and what the roles it inherits from hold.
- A member of a group is a member of every group that contains that group.
- A binding counts while its time window contains the moment and its scope covers the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.core.permissions import Permission
    from synapse_modules.core.room_classes import RoomClass

__all__ = [
    "EMPTY_POLICY",
    "EVERYONE",
    "SERVER",
    "AccessRequest",
    "Binding",
    "Group",
    "Policy",
    "Role",
    "ScopeKind",
    "SubjectKind",
    "class_scope",
    "is_nameless",
    "people_scope",
    "room_scope",
    "scope_kind",
    "scope_name",
]

EVERYONE = "everyone"
"""The built-in group of every user of this homeserver who has a name. It cannot be defined, only used."""


class SubjectKind(StrEnum):
    """Whom a binding gives a role."""

    USER = "user"
    GROUP = "group"


class ScopeKind(StrEnum):
    """Where a binding counts. The text of a scope is its kind, and a name after ``:`` except for ``server``."""

    SERVER = "server"
    ROOM = "room"
    CLASS = "class"
    USERS = "users"


SERVER = ScopeKind.SERVER.value
"""The scope that covers every request."""


def is_nameless(user: str) -> bool:
    """Whether the name of ``user`` is but a number, which Synapse gives to guests and to those who chose no name."""
    return user[1:].partition(":")[0].isdecimal()


def room_scope(room_id: str) -> str:
    """The scope of one room."""
    return f"room:{room_id}"


def class_scope(name: str) -> str:
    """The scope of every room of a class."""
    return f"class:{name}"


def people_scope(group: str) -> str:
    """The scope of what is done *to* members of a group."""
    return f"users:{group}"


def scope_kind(scope: str) -> ScopeKind:
    """The kind of a well-formed scope."""
    return ScopeKind(scope.partition(":")[0])


def scope_name(scope: str) -> str:
    """What a scope names: a room id, a class or a group; empty for ``server``."""
    return scope.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of permissions. ``inherits`` are roles whose permissions, allowed and denied, this one has too."""

    name: str
    description: str = ""
    inherits: tuple[str, ...] = ()
    allow: frozenset[Permission] = frozenset()
    deny: frozenset[Permission] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """Named people. ``groups`` are the groups inside this one: their members are its members too."""

    name: str
    description: str = ""
    members: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


class Binding(NamedTuple):
    """A role given to somebody, somewhere, for some time. A tuple, because a large policy has a million of them.

    Attributes:
        number: its identity in this homeserver, never used again for another one.
        role: the role's name.
        subject_kind: whether ``subject`` is a user id or a group's name.
        scope: such as ``server``, ``room:!a:x``, ``class:regulated`` or ``users:help-desk``.
        not_before_ms: the first millisecond of its window, or None for "since ever".
        expires_ms: the first millisecond after its window, or None for "until it is removed".
        justification: why, in words. case_id: the case that justifies it; empty when there is none.
    """

    number: int
    role: str
    subject_kind: SubjectKind
    subject: str
    scope: str
    not_before_ms: int | None = None
    expires_ms: int | None = None
    justification: str = ""
    case_id: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it the same binding in two policies: role, subject and scope."""
        return (self.role, self.subject_kind.value, self.subject, self.scope)

    def in_force(self, now_ms: int) -> bool:
        """Whether its window contains ``now_ms``."""
        return (self.not_before_ms is None or self.not_before_ms <= now_ms) and (
            self.expires_ms is None or now_ms < self.expires_ms
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole access policy, already checked: every name in it exists and nothing contains itself.

    Attributes:
        room_classes: first match wins. groups, roles: by name. bindings: in the order of their numbers.
        next_number: the number of the next new binding.
    """

    room_classes: tuple[RoomClass, ...] = ()
    groups: Mapping[str, Group] = field(default_factory=lambda: MappingProxyType({}))
    roles: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType({}))
    bindings: tuple[Binding, ...] = ()
    next_number: int = 1


EMPTY_POLICY = Policy()
"""What is in force where no policy was ever applied: nothing is allowed."""


class AccessRequest(NamedTuple):
    """One question: may ``user`` do ``permission`` there, to that person?

    A tuple, so that making one and looking it up cost well under a microsecond.

    Attributes:
        user: Matrix user id. permission: what is asked for.
        room_id: the room it happens in. room_class: the class of that room, or of the room to be created.
        target: Matrix user id of the person it is done to.
    """

    user: str
    permission: Permission
    room_id: str | None = None
    room_class: str | None = None
    target: str | None = None
