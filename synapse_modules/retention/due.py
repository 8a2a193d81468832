"""What of a room is due, counted in Synapse's tables beside the holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.homeserver.history import depth_to_keep
from synapse_modules.retention.simulation import NOTHING_DUE, DueMessages
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction

__all__ = ["due_messages"]

_SQL = StatementHome("retention.due", database="homeserver")

_OF_HELD_USER = """
    EXISTS (
        SELECT 1 FROM governance_holds AS h
        WHERE h.released_ms IS NULL AND h.kind = 'user' AND h.subject = e.sender
    )
"""
_FROM = """
    FROM events AS e
    JOIN event_json AS j ON j.event_id = e.event_id
    LEFT JOIN state_events AS s ON s.event_id = e.event_id
    WHERE e.room_id = ? AND e.topological_ordering < ? AND s.event_id IS NULL
"""
_DUE = _SQL.add(
    "due messages",
    f"""
    SELECT
        COUNT(*), COALESCE(SUM(LENGTH(CAST(j.json AS BLOB))), 0), COALESCE(SUM(CASE WHEN {_OF_HELD_USER} THEN 1 END), 0)
    {_FROM}
    """,
    postgres=f"""
    SELECT
        COUNT(*), CAST(COALESCE(SUM(OCTET_LENGTH(j.json)), 0) AS BIGINT), COUNT(CASE WHEN {_OF_HELD_USER} THEN 1 END)
    {_FROM}
    """,
)


def due_messages(transaction: Transaction, room_id: str, ordering: int) -> DueMessages:
    """What a purge would delete of the room so that the event with stream ordering ``ordering`` and later ones stay."""
    depth = depth_to_keep(transaction, transaction.dialect, room_id, ordering)
    if depth is None:
        return NOTHING_DUE
    ((events, size, of_held_users),) = _DUE.rows(transaction, (room_id, depth))
    return DueMessages(events, size, of_held_users)
