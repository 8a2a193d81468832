"""Makes records of rows that were read from Synapse's tables, and stores those that are not stored yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit import event_source, store
from synapse_modules.audit.recorded_keys import known_keys_among
from synapse_modules.audit.room_events import audit_events, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.record import Record
    from synapse_modules.audit.room_events import EventRow
    from synapse_modules.core.ports import AuditEvent, Transaction

__all__ = ["events_of", "insert_new"]


def events_of(transaction: Transaction, rows: list[EventRow], server: str) -> list[AuditEvent]:
    """What the log has to say about ``rows``, in the order of their positions.

    Args:
        transaction: on the homeserver's database.
        rows: as read there.
        server: the homeserver's name.
    """
    rows.sort(key=lambda row: (row.position < 0, abs(row.position)))
    events = [event for event in map(read_event, rows) if event is not None]
    former = event_source.contents(transaction, [event.replaces for event in events if event.replaces is not None])
    return [made for event in events for made in audit_events(event, former.get(event.replaces or ""), server)]


def insert_new(transaction: Transaction, records: Sequence[Record]) -> int:
    """Insert those of ``records`` whose keys are new into the log; returns how many."""
    known = known_keys_among(transaction, [record.key for record in records if record.key is not None])
    fresh = {record.key: record for record in reversed(records) if record.key not in known}
    first = store.next_wseq(transaction, store.EVENTS_WRITER)
    store.insert_records(transaction, store.EVENTS_WRITER, first, list(reversed(fresh.values())))
    return len(fresh)
