"""The events lane: room events are read from Synapse's own events table, so that a killed process loses nothing.

A cycle reads what is new up to the positions that Synapse reports, makes records of it, and inserts them into the log
in the transaction that moves the cursor. Killed anywhere, the next start goes on where the log says; of two followers
one loses the compare-and-swap of the cursor and does nothing. Every record has the event's id as its key.

The first cycle ever begins at the present positions and says so in a record; the history before is not imported. What
the cursors are, and what becomes of ids that come late: :mod:`synapse_modules.audit.event_cursor`. What is recorded of
an event: :mod:`synapse_modules.audit.room_events`.

Nothing can be recorded of an event that was deleted from Synapse's tables before it was read here: whoever deletes
events waits for :meth:`Follower.caught_up` first, as far as it is in our hands.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.audit import store
from synapse_modules.audit.event_cursor import Cursors
from synapse_modules.audit.event_lanes import anything_late, read_lanes
from synapse_modules.audit.event_records import events_of, insert_new
from synapse_modules.core.actions import Action
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synapse_modules.audit.record import Record, Recorder
    from synapse_modules.core.clock import Clock
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["EVENTS_STREAM", "Follower"]

logger = logging.getLogger(__name__)

EVENTS_STREAM = "events"


class _Found(NamedTuple):
    """What a cycle found: what to record, where the cursors are when it is, and whether there is more at once."""

    events: list[AuditEvent]
    cursors: Cursors
    unfinished: bool


class Follower:
    """Copies room events into the audit log.

    Args:
        homeserver_database: Synapse's database. log: the audit log's.
        recorder: makes the records. clock: says when following began.

    Attributes:
        unfinished: the last cycle has left something that the next one finds at once, however few records it made.
    """

    def __init__(self, homeserver_database: Database, log: Database, recorder: Recorder, clock: Clock) -> None:
        self._homeserver = homeserver_database
        self._log = log
        self._recorder = recorder
        self._clock = clock
        self._known: Cursors | None = None
        self.unfinished = False

    def run_cycle(self, positions: Mapping[str, int]) -> int:
        """Copy events up to ``positions``, at most about 500 of each writer; returns how many records it made.

        Nothing left to do is :meth:`caught_up`; a cycle may move a cursor without making a record.

        Args:
            positions: by writer, the id up to which all its events are committed.
        """
        self.unfinished = False
        generation, cursors = self._cursors()
        if cursors is None:
            return self._begin(generation, positions)
        self._known = present = cursors.moved_to(positions)
        if backwards := present.fallen_behind(cursors):
            logger.info("Synapse's position is behind what was followed; read again: %s", ", ".join(backwards))
        if present == cursors and not cursors.gaps and not cursors.behind(positions):
            return 0
        found = self._homeserver.run(lambda transaction: self._read(transaction, present, positions), read_only=True)
        self.unfinished = found.unfinished
        if found.cursors == cursors and not found.events:
            return 0
        made = self._advance(generation, found.cursors, self._records(found.events))
        self._known = found.cursors
        return made

    def behind(self, positions: Mapping[str, int]) -> dict[str, int]:
        """By lane, how many positions up to ``positions`` were not read by the last cycle that could read any."""
        if self._known is None:
            return {}
        left = {span.lane.name: span.upto - span.after for span in self._known.moved_to(positions).behind(positions)}
        return {name: left.get(name, 0) for name in self._known.reached}

    def caught_up(self, positions: Mapping[str, int]) -> bool:
        """Whether everything up to ``positions`` is in the log, late ids that are there by now included.

        It does not matter by which process, nor whether that has gone on beyond ``positions`` meanwhile.
        """
        _, cursors = self._cursors()
        if cursors is None:
            return False
        present = cursors.moved_to(positions)
        if present.behind(positions) or any(gap.coarse for gap in present.gaps):
            return False
        return not self._homeserver.run(lambda transaction: anything_late(transaction, present.gaps), read_only=True)

    # ------------------------------------------------------------------ the log

    def _cursors(self) -> tuple[int, Cursors | None]:
        generation, text = self._log.run(lambda transaction: store.cursor(transaction, EVENTS_STREAM), read_only=True)
        return generation, None if text is None else Cursors.parse(text)

    def _begin(self, generation: int, positions: Mapping[str, int]) -> int:
        begun = AuditEvent(
            Action.AUDIT_START,
            details={
                "writer": store.EVENTS_WRITER,
                "positions": [[name, positions[name]] for name in sorted(positions)],
            },
        )
        return self._advance(generation, Cursors.starting_at(positions), self._records([begun]))

    def _records(self, events: Iterable[AuditEvent]) -> list[Record]:
        now_ms = self._clock.now_ms()
        return [self._recorder.record(event, now_ms) for event in events]

    def _advance(self, generation: int, cursors: Cursors, records: Sequence[Record]) -> int:
        """Move the cursor and insert ``records``, or neither; 0 when another follower has moved it."""

        def work(transaction: Transaction) -> int:
            store.advance_cursor(transaction, EVENTS_STREAM, generation, cursors.text())
            return insert_new(transaction, records)

        try:
            return self._log.run(work)
        except Exception as error:
            if not store.is_conflict(error):
                raise
            logger.info("another process follows the events too: %s", error)
            return 0

    # ------------------------------------------------------------------ Synapse's tables

    def _read(self, transaction: Transaction, cursors: Cursors, positions: Mapping[str, int]) -> _Found:
        lanes = read_lanes(transaction, cursors, positions)
        events = events_of(transaction, lanes.rows, self._recorder.server)
        return _Found(events, lanes.cursors, lanes.unfinished)
