"""The transactional lane: a record stands in the homeserver's database in the transaction that makes the change.

The drain copies every row that it sees into the log and afterwards deletes exactly those rows. There is no cursor, so
it does not matter in which order transactions commit; a copy that is made twice is recognised by its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.record import Record, restore
from synapse_modules.audit.recorded_keys import known_keys_among
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Rows, Transaction
    from synapse_modules.storage.database import Database

__all__ = ["OutboxDrain", "leave_in_outbox", "number_on", "waiting_ids"]

_PAGE = 500

_SQL = StatementHome("audit.outbox", database="homeserver")

_LEAVE = _SQL.add(
    "leave a record",
    "INSERT INTO governance_audit_outbox (record_id, leaf, disclosures, dedupe_key) VALUES (?, ?, ?, ?)",
)
_WAITING = _SQL.add(
    "records that wait",
    "SELECT id, record_id, leaf, disclosures, dedupe_key FROM governance_audit_outbox ORDER BY id LIMIT ?",
)
_BOUNDS = _SQL.add("the oldest and the newest that wait", "SELECT MIN(id), MAX(id) FROM governance_audit_outbox")
_DELETE = _SQL.add("delete a record that was copied", "DELETE FROM governance_audit_outbox WHERE id = ?")
_NUMBER_ON = _SQL.add(
    "number on after the newest that waits",
    "SELECT 0",
    postgres="""
    SELECT setval(numbers, newest) FROM (
        SELECT MAX(id) AS newest, CAST(pg_get_serial_sequence('governance_audit_outbox', 'id') AS regclass) AS numbers
        FROM governance_audit_outbox
    ) AS waiting
    WHERE newest > COALESCE(pg_sequence_last_value(numbers), 0)
    """,
)


def leave_in_outbox(transaction: Transaction, record: Record) -> None:
    """Write ``record`` in the caller's transaction of the homeserver's database."""
    if transaction.dialect == Dialect.POSTGRES:
        # Synapse may be configured to let commits return before they are on disk.
        transaction.execute("SET LOCAL synchronous_commit TO ON")
    values = (record.record_id, record.leaf, record.disclosures, record.key)
    transaction.execute(_LEAVE.text(transaction.dialect), values)


def number_on(transaction: Transaction) -> None:
    """Let new records get numbers above those that wait, which may have been copied here from SQLite with theirs.

    SQLite sees to that by itself.
    """
    _NUMBER_ON.rows(transaction)


def waiting_ids(transaction: Transaction) -> tuple[int, int] | None:
    """The numbers of the oldest and of the newest record that waits; None where none does."""
    ((oldest, newest),) = _BOUNDS.rows(transaction)
    return None if oldest is None else (int(oldest), int(newest))


class OutboxDrain:
    """Copies waiting records into the log.

    Args:
        homeserver: the database with the outbox. log: the audit log's database.
    """

    def __init__(self, homeserver: Database, log: Database) -> None:
        self._homeserver = homeserver
        self._log = log

    def run_cycle(self) -> int:
        """Copy what waits, at most some hundreds, then delete it; returns how many rows there were.

        A conflict means that another process does the same just now: what it leaves over is there at the next call.
        """
        rows = self.waiting()
        if not rows:
            return 0
        try:
            self.copy(rows)
        except Exception as error:
            if not store.is_conflict(error):
                raise
            return 0
        self.delete(rows)
        return len(rows)

    def waiting(self) -> Rows:
        """The rows that are visible now."""

        def read(transaction: Transaction) -> Rows:
            transaction.execute(_WAITING.text(transaction.dialect), (_PAGE,))
            return transaction.fetchall()

        return self._homeserver.run(read, read_only=True)

    def copy(self, rows: Rows) -> None:
        """Make the records of ``rows`` durable in the log, each once."""
        records = [
            restore(leaf, disclosures, key or f"outbox:{record_id}") for _, record_id, leaf, disclosures, key in rows
        ]
        self._log.run(lambda transaction: _copy(transaction, records))

    def delete(self, rows: Rows) -> None:
        """Delete exactly ``rows``."""
        ids = [(row[0],) for row in rows]
        self._homeserver.run(lambda transaction: transaction.executemany(_DELETE.text(transaction.dialect), ids))


def _copy(transaction: Transaction, records: list[Record]) -> None:
    known = known_keys_among(transaction, [str(record.key) for record in records])
    fresh = {record.key: record for record in reversed(records) if record.key not in known}
    first = store.next_wseq(transaction, store.OUTBOX_WRITER)
    store.insert_records(transaction, store.OUTBOX_WRITER, first, list(reversed(fresh.values())))
