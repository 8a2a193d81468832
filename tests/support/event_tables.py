"""Rows in Synapse's event tables, as its event persisters write them, for tests that need no Synapse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from synapse_modules.storage.database import CursorTransaction, connect

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["EventTables", "OpenTransaction", "add_event"]


def add_event(
    transaction: Transaction,
    ordering: int,
    event_id: str | None = None,
    kind: str = "m.room.message",
    *,
    writer: str | None = "master",
    content: Any = None,
    unsigned: Any = None,
    state_key: str | None = None,
    sender: str = "@alice:synapse.test",
    room_id: str = "!room",
    metadata: Any = None,
    outlier: bool = False,
    rejection: str | None = None,
) -> str:
    """Store one event with the id ``ordering``; returns its event id, ``$<ordering>`` if none is given."""
    event_id = event_id or f"${ordering}"
    transaction.execute(
        "INSERT INTO events (stream_ordering, topological_ordering, depth, event_id, type, room_id, processed, outlier,"
        " origin_server_ts, received_ts, sender, contains_url, instance_name, state_key, rejection_reason)"
        " VALUES (?, 1, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(ordering, event_id, kind, room_id, True, outlier, 1_700_000_000_000, 1_700_000_000_001, sender),
            *(False, writer, state_key, rejection),
        ),
    )
    document = json.dumps({"type": kind, "content": content or {}, "unsigned": unsigned or {}})
    transaction.execute(
        "INSERT INTO event_json (event_id, room_id, internal_metadata, json, format_version) VALUES (?, ?, ?, ?, 3)",
        (event_id, room_id, json.dumps(metadata or {}), document),
    )
    return event_id


class EventTables:
    """Synapse's event tables in one database; each call is a transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, ordering: int, *arguments: Any, **options: Any) -> str:
        """Store one event, see :func:`add_event`."""
        return self.database.run(lambda transaction: add_event(transaction, ordering, *arguments, **options))

    def add_many(self, orderings: range, **options: Any) -> None:
        """Store many messages."""

        def work(transaction: Transaction) -> None:
            for ordering in orderings:
                add_event(transaction, ordering, **options)

        self.database.run(work)

    def execute(self, sql: str, *parameters: Any) -> None:
        """Change something else."""
        self.database.run(lambda transaction: transaction.execute(sql, parameters))

    def include(self, ordering: int, event_id: str, *, writer: str | None = "master") -> None:
        """An outlier is one no longer: it is under ``ordering`` that the others get to know."""
        self.execute("UPDATE events SET outlier = ? WHERE event_id = ?", False, event_id)
        self.execute(
            "INSERT INTO ex_outlier_stream (event_stream_ordering, event_id, state_group, instance_name)"
            " VALUES (?, ?, 1, ?)",
            *(ordering, event_id, writer),
        )


class OpenTransaction:
    """A transaction on a connection of its own that ends when the test says so. It is one already: it has a number."""

    def __init__(self, database: Database) -> None:
        self._connection = connect(database.location)
        self.transaction: Transaction = CursorTransaction(self._connection.cursor(), database.location.dialect)
        self.transaction.execute("SELECT pg_current_xact_id()")

    def commit(self) -> None:
        """End it for good."""
        self._connection.commit()

    def close(self) -> None:
        """End it without effect, if it has not ended."""
        self._connection.close()
