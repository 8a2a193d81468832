"""Legal holds in the homeserver's database. The triggers beside them keep what is held; nothing here has to.

Rules: a hold is acknowledged only once it is in force for every deletion that is not finished yet. Several holds may
lie on one subject; it is held until the last of them is released. Copies that triggers made stay until no hold covers
them, and go with the next retention run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_modules.core.errors import Conflict, NotFound, Unavailable
from synapse_modules.core.ports import HeldSubject
from synapse_modules.retention.model import Hold, HoldKind
from synapse_modules.retention.records import hold_created_event, hold_released_event
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_modules.core.ports import AuditSink, Transaction, TransactionRunner
    from synapse_modules.retention.model import Author

__all__ = [
    "TRIGGERS",
    "HoldStore",
    "copies_in_room",
    "copies_without_hold",
    "drop_copies_without_hold",
    "holds_on_room",
    "holds_on_rooms",
    "require_triggers",
]

TRIGGERS: Mapping[str, frozenset[str]] = {
    Dialect.SQLITE: frozenset(
        f"governance_hold_{name}"
        for name in (
            "events_refuse", "json_refuse", "events_copy", "json_copy", "json_rewrite", "events_identity",
            "json_identity", "events_replace", "json_replace", "events_replace_moved", "json_replace_moved",
        )
    ),
    Dialect.POSTGRES: frozenset(
        f"governance_hold_{name}"
        for name in (
            "events_delete", "json_delete", "json_rewrite", "events_identity", "json_identity", "events_truncate",
            "json_truncate",
        )
    ),
}  # fmt: skip
"""The triggers on Synapse's tables without which no hold is in force."""

_SQL = StatementHome("retention.holds", database="homeserver")

_COLUMNS = "hold_id, kind, subject, case_id, owner, reason, created_ms, released_ms, released_by, release_reason"
_RAISE_VERSION = _SQL.add("raise version", "UPDATE governance_hold_state SET version = version + 1")
_INSERT = _SQL.add(
    "insert hold",
    """
    INSERT INTO governance_holds (hold_id, kind, subject, case_id, owner, reason, created_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    """,
)
_RELEASE = _SQL.add(
    "release hold",
    "UPDATE governance_holds SET released_ms = ?, released_by = ?, release_reason = ? WHERE hold_id = ?",
)
_HOLD = _SQL.add("hold", f"SELECT {_COLUMNS} FROM governance_holds WHERE hold_id = ?")
_PAGE = _SQL.add(
    "page of holds",
    f"""
    SELECT {_COLUMNS} FROM governance_holds
    WHERE created_ms > ? OR (created_ms = ? AND hold_id > ?)
    ORDER BY created_ms, hold_id LIMIT ?
    """,
)
_IN_FORCE = _SQL.add(
    "holds in force",
    "SELECT kind, subject, case_id FROM governance_holds WHERE released_ms IS NULL ORDER BY created_ms, hold_id",
)
_ON_ROOMS = _SQL.add(
    "holds on rooms",
    """
    SELECT subject, hold_id FROM governance_holds WHERE released_ms IS NULL AND kind = 'room'
    ORDER BY created_ms, hold_id
    """,
)
_ON_ROOM = _SQL.add(
    "holds on a room",
    """
    SELECT hold_id FROM governance_holds WHERE released_ms IS NULL AND kind = 'room' AND subject = ?
    ORDER BY created_ms, hold_id
    """,
)
_ROOM_KNOWN = _SQL.add("room known", "SELECT 1 FROM rooms WHERE room_id = ?")
_USER_KNOWN = _SQL.add(
    "user known",
    """
    SELECT 1 FROM users WHERE name = ?
    UNION ALL
    SELECT 1 FROM room_memberships WHERE user_id = ? LIMIT 1
    """,
)
_TRIGGERS = _SQL.add(
    "triggers on events",
    "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ('events', 'event_json')",
    postgres="""
    SELECT tgname FROM pg_trigger
    WHERE tgrelid IN ('events'::regclass, 'event_json'::regclass) AND tgenabled IN ('O', 'A') AND NOT tgisinternal
    """,
)
_WITHOUT_HOLD = """
    FROM governance_held_events
    WHERE NOT EXISTS (
        SELECT 1 FROM governance_holds AS h
        WHERE
            h.released_ms IS NULL
            AND (
                (h.kind = 'room' AND h.subject = governance_held_events.room_id)
                OR (h.kind = 'user' AND h.subject = governance_held_events.sender)
            )
    )
"""
_COUNT_WITHOUT_HOLD = _SQL.add("copies without a hold", f"SELECT COUNT(*) {_WITHOUT_HOLD}")
_DROP_WITHOUT_HOLD = _SQL.add("drop copies without a hold", f"DELETE {_WITHOUT_HOLD}")
_COPIES = _SQL.add("copies in a room", "SELECT COUNT(*) FROM governance_held_events WHERE room_id = ?")


class HoldStore:
    """The stored holds.

    Args:
        database: the homeserver's. audit: where holds are recorded, in the same transaction.
    """

    def __init__(self, database: TransactionRunner, audit: AuditSink) -> None:
        self._database = database
        self._audit = audit

    async def create(self, hold: Hold, author: Author) -> Hold:
        """Place ``hold``; it is in force when this returns.

        Waits for deletions that are going on, so that none of them can pass it.

        Raises:
            NotFound: this homeserver does not know the room or user.
            Unavailable: the triggers that would enforce it are missing.
        """

        def work(transaction: Transaction) -> Hold:
            _RAISE_VERSION.run(transaction)
            require_triggers(transaction)
            _require_subject(transaction, hold)
            _INSERT.run(transaction, hold[:7])
            self._audit.record_in(transaction, hold_created_event(hold, author, hold.created_ms))
            return hold

        return await self._database.run("hold_create", work)

    async def release(self, hold_id: str, *, reason: str, author: Author, now_ms: int) -> Hold:
        """End a hold.

        Raises:
            NotFound: there is no such hold.
            Conflict: it was released before.
        """

        def work(transaction: Transaction) -> Hold:
            _RAISE_VERSION.run(transaction)  # takes the lock, so that of two callers one finds it released
            if _hold(transaction, hold_id).released_ms is not None:
                raise Conflict(f"hold {hold_id} was released before")
            _RELEASE.run(transaction, (now_ms, author.user_id, reason, hold_id))
            released = _hold(transaction, hold_id)
            self._audit.record_in(transaction, hold_released_event(released, author, now_ms))
            return released

        return await self._database.run("hold_release", work)

    async def get(self, hold_id: str) -> Hold:
        """One hold, in force or released.

        Raises:
            NotFound: there is no such hold.
        """
        return await self._database.run("hold_get", lambda transaction: _hold(transaction, hold_id))

    async def page(self, *, after: tuple[int, str], limit: int) -> list[Hold]:
        """At most ``limit`` holds placed after ``after``, the moment and the id of a hold, in that order."""
        parameters = (after[0], *after, limit)
        rows = await self._database.run("hold_page", lambda transaction: _PAGE.rows(transaction, parameters))
        return [_from_row(row) for row in rows]

    async def held(self) -> list[HeldSubject]:
        """What is under hold now; makes this object a :class:`~synapse_modules.core.ports.HoldSource`."""
        rows = await self._database.run("holds_in_force", _IN_FORCE.rows)
        return [HeldSubject(*row) for row in rows]


def require_triggers(transaction: Transaction) -> None:
    """Refuse to go on where holds would not be in force.

    Raises:
        Unavailable: a trigger is missing or switched off, after a restore or an upgrade that made tables anew.
    """
    missing = TRIGGERS[transaction.dialect] - {row[0] for row in _TRIGGERS.rows(transaction)}
    if missing:
        raise Unavailable(f"legal holds are not in force, missing triggers: {', '.join(sorted(missing))}")


def holds_on_rooms(transaction: Transaction) -> dict[str, tuple[str, ...]]:
    """Ids of the holds in force on each held room, oldest first."""
    found: dict[str, tuple[str, ...]] = {}
    for room_id, hold_id in _ON_ROOMS.rows(transaction):
        found[room_id] = (*found.get(room_id, ()), hold_id)
    return found


def holds_on_room(transaction: Transaction, room_id: str) -> tuple[str, ...]:
    """Ids of the holds in force on a room, oldest first."""
    return tuple(row[0] for row in _ON_ROOM.rows(transaction, (room_id,)))


def copies_in_room(transaction: Transaction, room_id: str) -> int:
    """How many copies there are of events of a room."""
    return int(_COPIES.rows(transaction, (room_id,))[0][0])


def copies_without_hold(transaction: Transaction) -> int:
    """How many copies no hold covers any more."""
    return int(_COUNT_WITHOUT_HOLD.rows(transaction)[0][0])


def drop_copies_without_hold(transaction: Transaction) -> int:
    """Delete the copies that no hold covers any more, and return how many."""
    return _DROP_WITHOUT_HOLD.run(transaction)


def _hold(transaction: Transaction, hold_id: str) -> Hold:
    for row in _HOLD.rows(transaction, (hold_id,)):
        return _from_row(row)
    raise NotFound(f"there is no hold {hold_id}")


def _from_row(row: Sequence[Any]) -> Hold:
    return Hold(row[0], HoldKind(row[1]), *row[2:])


def _require_subject(transaction: Transaction, hold: Hold) -> None:
    statement, count = (_ROOM_KNOWN, 1) if hold.kind is HoldKind.ROOM else (_USER_KNOWN, 2)
    if not statement.rows(transaction, (hold.subject,) * count):
        raise NotFound(f"this homeserver knows no {hold.kind.value} {hold.subject}")
