"""What of a room is due, counted in Synapse's tables beside the holds.

Counting reads the rows of ``events`` alone. How many bytes of JSON there are, which lie in another table, is summed
only where somebody wants to see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.homeserver.history import count_messages, depth_to_keep
from synapse_modules.retention.simulation import NOTHING_DUE, DueMessages
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction
    from synapse_modules.homeserver.history import Cutoff

__all__ = ["count_due", "due_messages"]

_SQL = StatementHome("retention.due", database="homeserver")

_BEFORE = """
    LEFT JOIN state_events AS s ON s.event_id = e.event_id
    WHERE e.room_id = ? AND e.topological_ordering < ? AND s.event_id IS NULL
"""
_DUE = _SQL.add(
    "due messages",
    f"""
    SELECT COUNT(*), COUNT(CASE WHEN e.sender IN (
        SELECT subject FROM governance_holds WHERE released_ms IS NULL AND kind = 'user'
    ) THEN 1 END)
    FROM events AS e {_BEFORE}
    """,
)
_BYTES = _SQL.add(
    "bytes of due messages",
    f"""
    SELECT COALESCE(SUM(LENGTH(CAST(j.json AS BLOB))), 0)
    FROM events AS e JOIN event_json AS j ON j.event_id = e.event_id {_BEFORE}
    """,
    # The length stands beside a value that is stored apart: it need not be fetched.
    postgres=f"""
    SELECT CAST(COALESCE(SUM(OCTET_LENGTH(j.json)), 0) AS BIGINT)
    FROM events AS e JOIN event_json AS j ON j.event_id = e.event_id {_BEFORE}
    """,
)


def due_messages(transaction: Transaction, room_id: str, cutoff: Cutoff, *, sized: bool = False) -> DueMessages:
    """What a purge would delete of the room so that what was received since ``cutoff`` stays.

    Args:
        transaction: on the homeserver's database.
        room_id: the room.
        cutoff: what is old.
        sized: how large it is, too; otherwise that is 0.
    """
    depth = depth_to_keep(transaction, transaction.dialect, room_id, cutoff)
    if depth is None:
        return NOTHING_DUE
    ((events, of_held_users),) = _DUE.rows(transaction, (room_id, depth))
    size = _BYTES.rows(transaction, (room_id, depth))[0][0] if sized and events else 0
    return DueMessages(events, size, of_held_users)


def count_due(transaction: Transaction, room_id: str, cutoff: Cutoff) -> int:
    """How many messages a purge would delete of the room so that what was received since ``cutoff`` stays."""
    depth = depth_to_keep(transaction, transaction.dialect, room_id, cutoff)
    return 0 if depth is None else count_messages(transaction, transaction.dialect, room_id, depth)
