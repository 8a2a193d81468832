"""How far back a room's history reaches, from Synapse's tables.

An event is as old as its ``received_ts`` says, whatever its place in the room. Live events have stream orderings in the
order in which they were received; history that was fetched from other servers has negative ones, so that only its
``received_ts`` tells. Synapse deletes by depth: the oldest place of an event that is to be kept is where it stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cutoff", "count_messages", "depth_to_keep"]

_SQL = StatementHome("homeserver.history", database="homeserver")

_FIRST_TO_KEEP = _SQL.add(
    "depths of the first live and the first fetched event to keep, and of the newest one",
    """
    SELECT
        (SELECT MIN(topological_ordering) FROM events WHERE room_id = ? AND stream_ordering >= ? AND NOT outlier),
        (
            SELECT MIN(topological_ordering) FROM events
            WHERE room_id = ? AND stream_ordering < 0 AND received_ts >= ? AND NOT outlier
        ),
        (
            SELECT MAX(e.topological_ordering)
            FROM event_forward_extremities AS f JOIN events AS e ON e.event_id = f.event_id
            WHERE f.room_id = ?
        )
    """,
)

_COUNT_MESSAGES = _SQL.add(
    "count the messages before a depth",
    """
    SELECT COUNT(*) FROM events AS e LEFT JOIN state_events AS s ON s.event_id = e.event_id
    WHERE e.room_id = ? AND e.topological_ordering < ? AND s.event_id IS NULL
    """,
)


class Cutoff(NamedTuple):
    """What was received before a moment is older.

    Attributes:
        moment_ms: the moment, in milliseconds since the epoch.
        ordering: the stream ordering of the first live event that was received since.
    """

    moment_ms: int
    ordering: int


class _Reader(Protocol):
    """What Synapse's own transactions and ours have in common."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> None: ...

    def fetchone(self) -> tuple[Any, ...] | None: ...


def depth_to_keep(transaction: _Reader, dialect: str, room_id: str, cutoff: Cutoff) -> int | None:
    """The depth before which everything may go, or None when the room has no events here.

    Args:
        transaction: on the homeserver's database.
        dialect: its engine.
        room_id: the room.
        cutoff: what was received since is to be kept. The newest events of the room are kept in any case, because
            Synapse could send no more into the room without them.
    """
    parameters = (room_id, cutoff.ordering, room_id, cutoff.moment_ms, room_id)
    transaction.execute(_FIRST_TO_KEEP.text(dialect), parameters)
    depths = transaction.fetchone() or ()
    return min((depth for depth in depths if depth is not None), default=None)


def count_messages(transaction: _Reader, dialect: str, room_id: str, depth: int) -> int:
    """How many events before ``depth`` a purge deletes: all but state."""
    transaction.execute(_COUNT_MESSAGES.text(dialect), (room_id, depth))
    row = transaction.fetchone()
    return int(row[0]) if row else 0
