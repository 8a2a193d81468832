"""A daily look whether every room event has its record, by the events' names and not by the cursors.

The follower trusts its cursors, what Synapse says about positions, and that a late id is found while it is looked for.
Should one of them ever be wrong, an event would be without a record, and nobody would know. A *pass* goes through the
events of the last days, a page at a time, and asks the log for their keys. What is missing is recorded now, after a
record that says so. Nothing but names and keys is read of an event that has its record.

A pass begins where the last pass but one had ended, so that every event is looked at twice; the first begins where
following began. It ends where everything was followed when it began. Ids that are still being looked for are left
to the follower.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.audit import event_source, store
from synapse_modules.audit.event_cursor import Cursors
from synapse_modules.audit.event_records import events_of, insert_new
from synapse_modules.audit.follower import EVENTS_STREAM
from synapse_modules.audit.recorded_keys import known_keys_among
from synapse_modules.audit.room_events import record_key
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import BACKFILL, AuditEvent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_modules.audit.record import Recorder
    from synapse_modules.core.clock import Clock
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["EventCheck"]

logger = logging.getLogger(__name__)

_STREAM = "events-check"
_EVERY_MS = 86_400_000
_PAGE = 2_000


class Stretch(NamedTuple):
    """What of a stream is still to be looked at in this pass, and where the last two passes ended.

    Attributes:
        after, upto: ids after ``after``, up to and with ``upto``. former, latest: ends of passes.
    """

    after: int
    upto: int
    former: int
    latest: int


@dataclass(frozen=True, slots=True)
class Pass:
    """How far the check is.

    Attributes:
        begun_ms: when this pass began, in milliseconds since the epoch. stretches: by stream.
    """

    begun_ms: int
    stretches: Mapping[str, Stretch]

    @classmethod
    def parse(cls, text: str) -> Pass:
        """What :meth:`text` has written."""
        state = json.loads(text)
        return cls(state["begun_ms"], {name: Stretch(*stretch) for name, stretch in state["stretches"].items()})

    def text(self) -> str:
        """As JSON, to be stored."""
        return json.dumps({"begun_ms": self.begun_ms, "stretches": self.stretches}, sort_keys=True)

    @property
    def next_stream(self) -> str | None:
        """A stream of which something is left; None when the pass is over."""
        return next((name for name, stretch in self.stretches.items() if stretch.after < stretch.upto), None)

    def looked_at(self, stream: str, upto: int) -> Pass:
        """The same, once ``stream`` was looked at up to ``upto``."""
        return replace(self, stretches={**self.stretches, stream: self.stretches[stream]._replace(after=upto)})

    def following(self, cursors: Cursors, now_ms: int) -> Pass:
        """The next pass."""
        return Pass(now_ms, {stream: self._next(stream, cursors) for stream in cursors.begin})

    def _next(self, stream: str, cursors: Cursors) -> Stretch:
        begin, upto = cursors.begin[stream], cursors.followed(stream)
        last = self.stretches.get(stream, Stretch(begin, begin, begin, begin))
        return Stretch(min(last.former, upto), upto, last.latest, upto)


_NEVER = Pass(-_EVERY_MS, {})


class EventCheck:
    """Checks one log. Belongs to one thread.

    Args:
        homeserver_database: Synapse's database. log: the audit log's.
        recorder: makes the records. clock: tells when a day is over.
    """

    def __init__(self, homeserver_database: Database, log: Database, recorder: Recorder, clock: Clock) -> None:
        self._homeserver = homeserver_database
        self._log = log
        self._recorder = recorder
        self._clock = clock
        self._known: Pass | None = None

    def run_cycle(self) -> int:
        """Look at the next page, if a pass is due or under way; returns how many records were missing."""
        if self._known is not None and self._known.next_stream is None and not self._due(self._known):
            return 0
        generation, present, cursors = self._log.run(_state, read_only=True)
        if cursors is None:
            return 0
        begins = present.next_stream is None and self._due(present)
        self._known = present = present.following(cursors, self._clock.now_ms()) if begins else present
        stream = present.next_stream
        if stream is not None:
            return self._look(generation, present, stream, cursors)
        return self._record(generation, present, BACKFILL, ()) if begins else 0

    def _due(self, last: Pass) -> bool:
        # A clock that was set back does not put it off for longer than that.
        return abs(self._clock.now_ms() - last.begun_ms) >= _EVERY_MS

    def _look(self, generation: int, present: Pass, stream: str, cursors: Cursors) -> int:
        stretch = present.stretches[stream]
        end = min(stretch.upto, cursors.followed(stream))  # the database may have been set back meanwhile
        page = self._homeserver.run(
            lambda transaction: event_source.names(transaction, stream, stretch.after, end, _PAGE), read_only=True
        )
        after = present.looked_at(stream, page[-1][0] if len(page) == _PAGE else stretch.upto)
        settled = [event_id for position, event_id in page if not cursors.looks_for(stream, position)]
        missing = self._missing(settled)
        events = self._homeserver.run(lambda transaction: self._events(transaction, missing), read_only=True)
        made = self._record(generation, after, stream, events)
        self._known = after
        return made

    def _missing(self, event_ids: Sequence[str]) -> list[str]:
        known = self._log.run(
            lambda transaction: known_keys_among(transaction, map(record_key, event_ids)), read_only=True
        )
        return [event_id for event_id in event_ids if record_key(event_id) not in known]

    def _events(self, transaction: Transaction, event_ids: Sequence[str]) -> list[AuditEvent]:
        rows = event_source.events_named(transaction, event_ids)
        return events_of(transaction, rows, self._recorder.server)

    def _record(self, generation: int, after: Pass, stream: str, events: Sequence[AuditEvent]) -> int:
        """Remember how far the check is, and record ``events``, or neither; 0 where another process was faster."""
        now_ms = self._clock.now_ms()
        lost = [_gap(stream, events)] if events else []
        records = [self._recorder.record(event, now_ms) for event in (*lost, *events)]

        def work(transaction: Transaction) -> None:
            store.advance_cursor(transaction, _STREAM, generation, after.text())
            insert_new(transaction, records)

        try:
            self._log.run(work)
        except Exception as error:
            if not store.is_conflict(error):
                raise
            logger.info("another process checks the events too: %s", error)
            return 0
        if events:
            logger.error("%d records of room events were missing from the audit log; they are there now", len(events))
        return len(events)


def _state(transaction: Transaction) -> tuple[int, Pass, Cursors | None]:
    """The generation and state of the check, and how far events were followed."""
    generation, text = store.cursor(transaction, _STREAM)
    _, followed = store.cursor(transaction, EVENTS_STREAM)
    return (
        generation,
        _NEVER if text is None else Pass.parse(text),
        None if followed is None else Cursors.parse(followed),
    )


def _gap(stream: str, events: Sequence[AuditEvent]) -> AuditEvent:
    times = [event.occurred_ms for event in events if event.occurred_ms is not None]
    kind = "imported" if stream == BACKFILL else "live"
    return AuditEvent(
        Action.AUDIT_GAP,
        Outcome.FAILURE,
        reason=f"The daily check found {kind} room events without a record. Their records follow this one.",
        details={
            "writer": store.EVENTS_WRITER,
            "records": len(events),
            "since_ms": min(times, default=None),
            "until_ms": max(times, default=None),
        },
        key=f"events-check:{events[0].key}",
    )
