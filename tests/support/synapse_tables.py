"""Synapse's tables without Synapse: rooms and events as its store writes them, for tests of what stands beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_modules.core.ports import AuditEvent, Rows, Transaction
    from synapse_modules.storage.database import Database

__all__ = ["Message", "Recorder", "Runner", "add_messages", "add_room", "add_user", "execute", "query", "set_newest"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Message:
    """One event of a room. Without a ``state_key`` it is a message; without a ``depth``, ``ordering`` is that too."""

    event_id: str
    room_id: str
    sender: str
    ordering: int
    received_ms: int = 0
    text: str = "hello"
    state_key: str | None = None
    depth: int | None = None

    @property
    def place(self) -> int:
        """Its depth in the room."""
        return self.ordering if self.depth is None else self.depth

    @property
    def json(self) -> str:
        """What Synapse keeps of it."""
        content = {"body": self.text}
        return json.dumps({"type": "m.room.message", "sender": self.sender, "content": content}, sort_keys=True)


class Runner:
    """Runs transactions at once, as isolated from one another as Synapse runs them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""
        return self._database.dialect

    async def run(self, name: str, function: Callable[[Transaction], _Result]) -> _Result:
        """Run ``function`` in REPEATABLE READ."""
        del name

        def isolated(transaction: Transaction) -> _Result:
            if transaction.dialect == Dialect.POSTGRES:
                transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return function(transaction)

        return self._database.run(isolated)


class Recorder:
    """An audit sink that leaves its events in the outbox's table, readable, in the caller's transaction."""

    def __init__(self, database: Database | None = None) -> None:
        self._database = database
        self.recorded: list[AuditEvent] = []

    async def record(self, event: AuditEvent) -> None:
        """Remember ``event``."""
        self.recorded.append(event)

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        """Write ``event`` as JSON."""
        names = ("action", "outcome", "actor", "target", "room_id", "reason", "rule", "case_id", "key")
        text = json.dumps({name: getattr(event, name) for name in names} | {"details": dict(event.details)})
        transaction.execute("SELECT COUNT(*) FROM governance_audit_outbox")
        count = (transaction.fetchone() or (0,))[0]
        transaction.execute(
            "INSERT INTO governance_audit_outbox (record_id, leaf, disclosures, dedupe_key) VALUES (?, ?, ?, ?)",
            (f"record {count}", b"", text, event.key),
        )

    @staticmethod
    def in_outbox(database: Database) -> list[dict[str, Any]]:
        """What was recorded in transactions, in order."""
        return [json.loads(text) for (text,) in query(database, _OUTBOX)]


_OUTBOX = "SELECT disclosures FROM governance_audit_outbox ORDER BY id"


def query(database: Database, sql: str, parameters: Sequence[Any] = ()) -> Rows:
    """The rows of one SELECT."""

    def read(transaction: Transaction) -> Rows:
        transaction.execute(sql, parameters)
        return transaction.fetchall()

    return database.run(read)


def execute(database: Database, sql: str, parameters: Sequence[Any] = ()) -> int:
    """Run one statement as somebody with SQL access would; returns the rows it changed."""

    def write(transaction: Transaction) -> int:
        transaction.execute(sql, parameters)
        return transaction.rowcount

    return database.run(write)


def add_user(database: Database, user_id: str) -> None:
    """A local user."""
    execute(database, "INSERT INTO users (name, creation_ts) VALUES (?, 0)", (user_id,))


def add_room(database: Database, room_id: str) -> None:
    """A room without events."""
    sql = "INSERT INTO rooms (room_id, is_public, creator, room_version, has_auth_chain_index) VALUES (?, ?, ?, ?, ?)"
    execute(database, sql, (room_id, False, "@creator:x", "10", True))


def add_messages(database: Database, messages: Sequence[Message]) -> None:
    """Events with their JSON."""

    def write(transaction: Transaction) -> None:
        for message in messages:
            _add(transaction, message)

    database.run(write)


def set_newest(database: Database, message: Message) -> None:
    """Make ``message`` the only forward extremity of its room. It can then not be deleted by itself."""
    execute(database, "DELETE FROM event_forward_extremities WHERE room_id = ?", (message.room_id,))
    sql = "INSERT INTO event_forward_extremities (event_id, room_id) VALUES (?, ?)"
    execute(database, sql, (message.event_id, message.room_id))


def _add(transaction: Transaction, message: Message) -> None:
    transaction.execute(
        """
        INSERT INTO events (
            event_id, room_id, sender, type, state_key, stream_ordering, topological_ordering, depth, processed,
            outlier, origin_server_ts, received_ts, instance_name
        ) VALUES (?, ?, ?, 'm.room.message', ?, ?, ?, ?, ?, ?, ?, ?, 'master')
        """,
        (
            message.event_id, message.room_id, message.sender, message.state_key, message.ordering, message.place,
            message.place, True, False, message.received_ms, message.received_ms,
        ),
    )  # fmt: skip
    transaction.execute(
        "INSERT INTO event_json (event_id, room_id, internal_metadata, json, format_version) VALUES (?, ?, '{}', ?, 3)",
        (message.event_id, message.room_id, message.json),
    )
    if message.state_key is not None:
        transaction.execute(
            "INSERT INTO state_events (event_id, room_id, type, state_key) VALUES (?, ?, 'm.room.message', ?)",
            (message.event_id, message.room_id, message.state_key),
        )
