"""The access policy in the homeserver's database: read whole, changed in one transaction with its audit records."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from synapse_modules.core.errors import Conflict, InvalidInput, nearest
from synapse_modules.core.permissions import parse_permission
from synapse_modules.core.room_classes import RoomClass
from synapse_modules.rbac.changes import Change, Membership, RoomClasses, differences, successor
from synapse_modules.rbac.model import (
    EMPTY_POLICY,
    Binding,
    Group,
    Policy,
    Role,
    ScopeKind,
    SubjectKind,
    scope_kind,
    scope_name,
)
from synapse_modules.rbac.records import Author, policy_events
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from synapse_modules.core.ports import AuditSink, Rows, Transaction, TransactionRunner
    from synapse_modules.storage.statements import Statement

__all__ = ["Applied", "BindingRow", "PolicyStore", "StoredPolicy", "require_first_rooms"]

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_SQL = StatementHome("rbac.store", database="homeserver")

_STATE = _SQL.add(
    "state", "SELECT version, next_number, applied_ms, applied_by, room_classes FROM governance_rbac_state"
)
_RAISE_VERSION = _SQL.add(
    "raise version",
    """
    UPDATE governance_rbac_state SET version = version + 1, applied_ms = ?, applied_by = ? WHERE version = ?
    """,
)
_SET_STATE = _SQL.add("set state", "UPDATE governance_rbac_state SET next_number = ?, room_classes = ?")
_GROUPS = _SQL.add("groups", "SELECT name, description, inner_groups FROM governance_rbac_groups")
_MEMBERS = _SQL.add("members", "SELECT group_name, user_id FROM governance_rbac_members")
_ROLES = _SQL.add("roles", "SELECT name, description, inherits, allows, denies FROM governance_rbac_roles")
_BINDING_COLUMNS = "number, role, subject_kind, subject, scope, not_before_ms, expires_ms, justification, case_id"
_BINDINGS = _SQL.add("bindings", f"SELECT {_BINDING_COLUMNS} FROM governance_rbac_bindings ORDER BY number")
_BINDING_PAGE = _SQL.add(
    "page of bindings",
    f"""
    SELECT {_BINDING_COLUMNS}, granted_ms, granted_by FROM governance_rbac_bindings
    WHERE number > ? AND (? = '' OR role = ?) AND (? = '' OR subject = ?)
    ORDER BY number LIMIT ?
    """,
)
_DELETE_GROUP = _SQL.add("delete group", "DELETE FROM governance_rbac_groups WHERE name = ?")
_INSERT_GROUP = _SQL.add(
    "insert group", "INSERT INTO governance_rbac_groups (name, description, inner_groups) VALUES (?, ?, ?)"
)
_DELETE_MEMBER = _SQL.add("delete member", "DELETE FROM governance_rbac_members WHERE group_name = ? AND user_id = ?")
_INSERT_MEMBER = _SQL.add("insert member", "INSERT INTO governance_rbac_members (group_name, user_id) VALUES (?, ?)")
_DELETE_ROLE = _SQL.add("delete role", "DELETE FROM governance_rbac_roles WHERE name = ?")
_INSERT_ROLE = _SQL.add(
    "insert role",
    "INSERT INTO governance_rbac_roles (name, description, inherits, allows, denies) VALUES (?, ?, ?, ?, ?)",
)
_DELETE_BINDING = _SQL.add("delete binding", "DELETE FROM governance_rbac_bindings WHERE number = ?")
_INSERT_BINDING = _SQL.add(
    "insert binding",
    f"""
    INSERT INTO governance_rbac_bindings ({_BINDING_COLUMNS}, granted_ms, granted_by)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """,
)
_ROOM = _SQL.add("room exists", "SELECT 1 FROM rooms WHERE room_id = ?")
_ANY_ROOM = _SQL.add("any room", "SELECT 1 FROM rooms LIMIT 1")
_ROOMS_LIKE = _SQL.add(
    "rooms that sort near", "SELECT room_id FROM rooms WHERE room_id >= ? ORDER BY room_id LIMIT 200"
)


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """The policy in force. ``version`` is 0 where none was ever applied; ``applied_by`` is None for the product."""

    version: int
    applied_ms: int
    applied_by: str | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did: nothing, and no new version, where there was no difference."""

    version: int
    changes: tuple[Change, ...]


class BindingRow(NamedTuple):
    """A binding with when and by whom it was given its present form."""

    binding: Binding
    granted_ms: int
    granted_by: str | None


class PolicyStore:
    """The stored policy.

    Args:
        database: the homeserver's, in transactions that see one state of it (REPEATABLE READ or stricter).
        audit: where changes are recorded, in the same transaction.
    """

    def __init__(self, database: TransactionRunner, audit: AuditSink) -> None:
        self._database = database
        self._audit = audit

    async def version(self) -> int:
        """The version in force; 0 where no policy was ever applied."""
        return await self._database.run("rbac_version", lambda transaction: _state(transaction).version)

    async def read(self, function: Callable[[StoredPolicy], _Result]) -> _Result:
        """Read the whole policy and return what ``function`` makes of it, computed off the reactor thread."""
        return await self._database.run("rbac_read", lambda transaction: function(_load(transaction)))

    async def read_with_rooms(self, new: Policy, root: str, function: Callable[[StoredPolicy], _Result]) -> _Result:
        """Like :meth:`read`, once it is certain that the rooms ``new`` names exist.

        Raises:
            InvalidInput: one does not; its path begins with ``root``.
        """

        def work(transaction: Transaction) -> _Result:
            stored = _load(transaction)
            _require_rooms(transaction, stored.policy, new, root)
            return function(stored)

        return await self._database.run("rbac_read", work)

    async def bindings(self, *, after: int, role: str, subject: str, limit: int) -> list[BindingRow]:
        """At most ``limit`` bindings with numbers above ``after``; empty ``role`` or ``subject`` means any."""
        parameters = (after, role, role, subject, subject, limit)
        rows = await self._database.run("rbac_bindings", lambda tx: _query(tx, _BINDING_PAGE, parameters))
        return [BindingRow(_binding(row[:9]), row[9], row[10]) for row in rows]

    async def apply(
        self,
        new: Policy,
        *,
        expected_version: int,
        author: Author,
        now_ms: int,
        root: str,
        check: Callable[[Policy], None] | None = None,
        rooms_may_be_missing: bool = False,
    ) -> Applied:
        """Replace the policy, all of it or nothing, with its audit records in the same transaction.

        Args:
            new: as parsed from a document.
            expected_version: the version that the author has seen.
            author: who.
            now_ms: when, in milliseconds since the epoch.
            root: what paths in errors begin with.
            check: may refuse the result by raising.
            rooms_may_be_missing: whether a scope may name a room that does not exist yet; that is then only logged.

        Raises:
            Conflict: another version is in force by now.
            InvalidInput: a room that a scope names does not exist, and had to.
        """

        def work(transaction: Transaction) -> Applied:
            # First of all: it takes the row's lock, so that of two authors one waits and then finds a newer version.
            if not _run(transaction, _RAISE_VERSION, (now_ms, author.user_id, expected_version)):
                raise _overtaken(expected_version, _state(transaction).version)
            old = _load(transaction).policy
            _require_rooms(transaction, old, new, root, or_warn=rooms_may_be_missing)
            numbered = successor(old, new)
            changes = tuple(differences(old, numbered))
            if not changes and expected_version:
                raise _Unchanged
            if check is not None:
                check(numbered)
            _write(transaction, numbered, changes, author, now_ms)
            for event in policy_events(changes, author, expected_version + 1, now_ms):
                self._audit.record_in(transaction, event)
            return Applied(expected_version + 1, changes)

        try:
            return await self._database.run("rbac_apply", work)
        except _Unchanged:
            return Applied(expected_version, ())


class _Unchanged(Exception):
    """Nothing is different: the transaction is rolled back, so that the version stays."""


def _load(transaction: Transaction) -> StoredPolicy:
    """Read the whole policy.

    Raises:
        InvalidInput: a newer release wrote a permission that this one does not know.
    """
    state = _state(transaction)
    members: dict[str, set[str]] = {}
    for group, user in _query(transaction, _MEMBERS):
        members.setdefault(group, set()).add(user)
    policy = Policy(
        room_classes=state.room_classes,
        groups={
            name: Group(name, description, frozenset(members.get(name, ())), frozenset(json.loads(inner)))
            for name, description, inner in _query(transaction, _GROUPS)
        },
        roles={row[0]: _role(row) for row in _query(transaction, _ROLES)},
        bindings=tuple(map(_binding, _query(transaction, _BINDINGS))),
        next_number=state.next_number,
    )
    return StoredPolicy(state.version, state.applied_ms, state.applied_by, policy)


def require_first_rooms(transaction: Transaction, policy: Policy, root: str) -> None:
    """Check the rooms that the first policy of all names, unless the homeserver has no room yet or a policy already.

    Raises:
        InvalidInput: one does not exist; its path begins with ``root``.
    """
    if _state(transaction).version == 0 and _query(transaction, _ANY_ROOM):
        _require_rooms(transaction, EMPTY_POLICY, policy, root)


def _require_rooms(transaction: Transaction, old: Policy, new: Policy, root: str, *, or_warn: bool = False) -> None:
    for mistake in _missing_rooms(transaction, old, new, root):
        if not or_warn:
            raise mistake
        logger.warning("there is no such room yet: %s", mistake)


def _missing_rooms(transaction: Transaction, old: Policy, new: Policy, root: str) -> Iterator[InvalidInput]:
    """Each scope that names no room of this homeserver, as a mistake with the binding's path and the nearest room.

    What is in force already is none: a binding may outlive its room.
    """
    known = {binding.scope for binding in old.bindings}
    for position, binding in enumerate(new.bindings):
        if scope_kind(binding.scope) is not ScopeKind.ROOM or binding.scope in known:
            continue
        room_id = scope_name(binding.scope)
        if not _query(transaction, _ROOM, (room_id,)):
            near = nearest(room_id, [row[0] for row in _query(transaction, _ROOMS_LIKE, (room_id[:3],))])
            yield InvalidInput(
                f"{root}bindings[{position}].scope",
                binding.scope,
                "'room:' and the id of a room that this homeserver knows",
                suggestion=near and f"room:{near}",
            )
        known.add(binding.scope)


class _State(NamedTuple):
    version: int
    next_number: int
    applied_ms: int
    applied_by: str | None
    room_classes: tuple[RoomClass, ...]


def _state(transaction: Transaction) -> _State:
    ((version, next_number, applied_ms, applied_by, classes),) = _query(transaction, _STATE)
    parsed = tuple(RoomClass.model_validate_json(json.dumps(each)) for each in json.loads(classes))
    return _State(version, next_number, applied_ms, applied_by, parsed)


def _role(row: Sequence[Any]) -> Role:
    name, description, inherits, allows, denies = row
    where = f"role {name}"
    return Role(
        name,
        description,
        tuple(json.loads(inherits)),
        frozenset(parse_permission(each, where) for each in json.loads(allows)),
        frozenset(parse_permission(each, where) for each in json.loads(denies)),
    )


def _binding(row: Sequence[Any]) -> Binding:
    number, role, kind, subject, scope, not_before_ms, expires_ms, justification, case_id = row
    return Binding(number, role, SubjectKind(kind), subject, scope, not_before_ms, expires_ms, justification, case_id)


def _write(transaction: Transaction, policy: Policy, changes: Iterable[Change], author: Author, now_ms: int) -> None:
    """Carry out ``changes``: what is changed or removed is deleted, what is added or changed is inserted."""
    classes = [each.model_dump(mode="json", exclude_defaults=True) for each in policy.room_classes]
    _run(transaction, _SET_STATE, (policy.next_number, _json(classes)))
    deleted: dict[Statement, list[tuple[Any, ...]]] = {}
    inserted: dict[Statement, list[tuple[Any, ...]]] = {}
    for change in changes:
        if isinstance(change.entity, RoomClasses):
            continue
        if change.before is not None:
            statement, row = _deletion(change.before)
            deleted.setdefault(statement, []).append(row)
        if change.after is not None:
            statement, row = _insertion(change.after, author, now_ms)
            inserted.setdefault(statement, []).append(row)
    for statements in (deleted, inserted):
        for statement, rows in statements.items():
            transaction.executemany(statement.text(transaction.dialect), rows)


def _deletion(entity: object) -> tuple[Statement, tuple[Any, ...]]:
    match entity:
        case Group():
            return _DELETE_GROUP, (entity.name,)
        case Membership():
            return _DELETE_MEMBER, tuple(entity)
        case Role():
            return _DELETE_ROLE, (entity.name,)
        case Binding():
            return _DELETE_BINDING, (entity.number,)
    raise TypeError(f"no rows for {entity!r}")


def _insertion(entity: object, author: Author, now_ms: int) -> tuple[Statement, tuple[Any, ...]]:
    match entity:
        case Group():
            return _INSERT_GROUP, (entity.name, entity.description, _json(sorted(entity.groups)))
        case Membership():
            return _INSERT_MEMBER, tuple(entity)
        case Role():
            lists = (entity.inherits, sorted(entity.allow), sorted(entity.deny))
            return _INSERT_ROLE, (entity.name, entity.description, *map(_json, lists))
        case Binding():
            kind = entity.subject_kind.value
            return _INSERT_BINDING, (*entity[:2], kind, *entity[3:], now_ms, author.user_id)
    raise TypeError(f"no rows for {entity!r}")


def _json(value: Sequence[str] | Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _overtaken(expected: int, found: int) -> Conflict:
    return Conflict(
        f"version {found} of the access policy is in force, you have seen version {expected}",
        advice="Look at the plan again, then apply",
    )


def _query(transaction: Transaction, statement: Statement, parameters: Sequence[Any] = ()) -> Rows:
    transaction.execute(statement.text(transaction.dialect), parameters)
    return transaction.fetchall()


def _run(transaction: Transaction, statement: Statement, parameters: Sequence[Any]) -> int:
    transaction.execute(statement.text(transaction.dialect), parameters)
    return transaction.rowcount
