"""What a room looks like now, from Synapse's tables.

Read from ``current_state_events``, which changes in the transaction that persists an event; ``room_stats_state`` would
be cheaper but lags behind, and a policy decides by these facts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from synapse_modules.core.ports import RoomFacts
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_modules.core.ports import Transaction

__all__ = ["FACT_TYPES", "is_joined", "room_facts", "room_facts_after"]

FACT_TYPES = ("m.room.create", "m.room.name", "m.room.canonical_alias", "m.room.join_rules", "m.room.encryption")
"""The types of state that facts are read from."""

_SQL = StatementHome("homeserver.rooms", database="homeserver")

_TYPES = ", ".join(f"'{name}'" for name in FACT_TYPES)

_ONE = _SQL.add(
    "facts of one room",
    f"""
    SELECT r.room_id, r.is_public, c.type, j.json
    FROM rooms AS r
    LEFT JOIN current_state_events AS c ON c.room_id = r.room_id AND c.state_key = '' AND c.type IN ({_TYPES})
    LEFT JOIN event_json AS j ON j.event_id = c.event_id
    WHERE r.room_id = ?
    """,
)

_PAGE = _SQL.add(
    "facts of a page of rooms",
    f"""
    SELECT r.room_id, r.is_public, c.type, j.json
    FROM (SELECT room_id, is_public FROM rooms WHERE room_id > ? ORDER BY room_id LIMIT ?) AS r
    LEFT JOIN current_state_events AS c ON c.room_id = r.room_id AND c.state_key = '' AND c.type IN ({_TYPES})
    LEFT JOIN event_json AS j ON j.event_id = c.event_id
    ORDER BY r.room_id
    """,
)

_JOINED = _SQL.add(
    "whether a local user has joined",
    "SELECT 1 FROM local_current_membership WHERE room_id = ? AND user_id = ? AND membership = 'join'",
)


def room_facts(transaction: Transaction, room_id: str) -> RoomFacts | None:
    """The facts of one room, or None when this homeserver does not know it."""
    transaction.execute(_ONE.text(transaction.dialect), (room_id,))
    return next(iter(_rooms(transaction.fetchall())), None)


def room_facts_after(transaction: Transaction, room_id: str, limit: int) -> list[RoomFacts]:
    """The facts of at most ``limit`` rooms whose ids sort after ``room_id``, in that order; ``""`` begins."""
    transaction.execute(_PAGE.text(transaction.dialect), (room_id, limit))
    return _rooms(transaction.fetchall())


def is_joined(transaction: Transaction, user_id: str, room_id: str) -> bool:
    """Whether a user of this homeserver is a member of the room already."""
    transaction.execute(_JOINED.text(transaction.dialect), (room_id, user_id))
    return transaction.fetchone() is not None


def _rooms(rows: Iterable[tuple[Any, ...]]) -> list[RoomFacts]:
    published: dict[str, bool] = {}
    state: dict[str, dict[str, Any]] = {}
    for room_id, is_public, kind, text in rows:
        published[room_id] = bool(is_public)
        events = state.setdefault(room_id, {})
        if text is not None:
            events[kind] = json.loads(text)
    return [_facts(room_id, published[room_id], events) for room_id, events in state.items()]


def _facts(room_id: str, published: bool, events: dict[str, Any]) -> RoomFacts:
    create = events.get("m.room.create", {})
    return RoomFacts(
        room_id=room_id,
        name=_text(events, "m.room.name", "name"),
        alias=_text(events, "m.room.canonical_alias", "alias"),
        creator=create.get("sender"),
        join_rule=_text(events, "m.room.join_rules", "join_rule"),
        # Encryption cannot be turned off: an event without a readable algorithm still counts.
        encrypted="m.room.encryption" in events,
        federated=create.get("content", {}).get("m.federate") is not False,
        published=published,
    )


def _text(events: dict[str, Any], kind: str, key: str) -> str | None:
    """A key of a state event's content; whoever may set state may write anything there, so only text counts."""
    value = events.get(kind, {}).get("content", {}).get(key)
    return value if isinstance(value, str) and value else None
