"""A filled audit log for tests that read it: real records, real indexes, real checkpoints."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from synapse_modules.audit import store
from synapse_modules.audit.export import ExportOrder, bundle_chunks, plan_export, plan_resumption
from synapse_modules.audit.search import EntryFilter
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent
from synapse_modules.storage.migrations import migrate
from tests.support.anchored_log import forget_newest
from tests.support.audit_log import KEY, RECORDER, HandClock, sequencer_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["FilledLog", "SameThread", "finished", "sample_event", "sample_events"]

_BATCH = 500
_Result = TypeVar("_Result")


class SameThread:
    """A ``TransactionRunner`` over a database, for tests without a reactor."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""
        return self._database.dialect

    async def run(self, name: str, function: Callable[[Transaction], _Result]) -> _Result:
        """Run ``function`` in a read-only transaction."""
        del name
        return self._database.run(function, read_only=True)


def sample_event(number: int) -> AuditEvent:
    """One of four kinds of event, a second after the one before."""
    time_ms = 1_700_000_000_000 + 1_000 * number
    match number % 4:
        case 0:
            return AuditEvent(
                Action.AUTH_LOGIN,
                actor=f"@user{number % 10}:synapse.test",
                address="192.0.2.1",
                user_agent="Éléonore \u2028 1.0",
                device_id="DEVICE",
                occurred_ms=time_ms,
            )
        case 1:
            return AuditEvent(
                Action.ACCESS_DENIED,
                Outcome.DENIED,
                actor="@bob:synapse.test",
                target="@alice:synapse.test",
                room_id="!room:synapse.test",
                rule="default",
                reason='Nothing "allows" it\n',
                details={"permission": "room.invite"},
                occurred_ms=time_ms,
            )
        case 2:
            return AuditEvent(
                Action.MESSAGE_SEND,
                actor="@alice:synapse.test",
                room_id=f"!room{number % 3}:synapse.test",
                details={"event_id": f"${number}"},
                occurred_ms=time_ms,
            )
        case _:
            return AuditEvent(Action.AUDIT_START, details={"nested": [1, None, {"a": True}]}, occurred_ms=time_ms)


def sample_events(count: int) -> list[AuditEvent]:
    """Events of every kind."""
    return [sample_event(number) for number in range(count)]


class FilledLog:
    """An audit log that can be filled.

    Args:
        database: an empty one.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.reader = SameThread(database)
        self._clock = HandClock()
        self._written = 0
        migrate(database, "audit", self._clock)
        self.sequencer = sequencer_of(database, self._clock)

    def write(self, events: Iterable[AuditEvent]) -> None:
        """Record ``events``, without giving them an index."""
        records = [RECORDER.record(event, self._clock.now_ms()) for event in events]
        for start in range(0, len(records), _BATCH):
            batch = records[start : start + _BATCH]
            self.database.run(
                functools.partial(store.insert_records, writer="main:1", first=self._written, records=batch)
            )
            self._written += len(batch)

    def seal(self) -> None:
        """Give an index to all, and sign."""
        while self.sequencer.run_cycle():
            pass

    def fill(self, events: Iterable[AuditEvent]) -> None:
        """Record ``events`` and seal them."""
        self.write(events)
        self.seal()

    def set_back(self, size: int) -> None:
        """Bring the database back to where it had the checkpoint of ``size``, as an older backup does."""
        forget_newest(self.database, size)
        self._written = size
        self.sequencer = sequencer_of(self.database, self._clock)

    def export(self, wanted: EntryFilter | None = None, **changes: Any) -> bytes:
        """A bundle: a range, or with a filter a selection; ``changes`` are laid over its order."""
        return b"".join(self.export_pieces(wanted, **changes))

    def export_pieces(
        self, wanted: EntryFilter | None = None, keys: Sequence[SigningKey] = (KEY,), **changes: Any
    ) -> list[bytes]:
        """The same, in the pieces in which it is made."""
        given: dict[str, Any] = {
            "kind": "range" if wanted is None or not wanted.given() else "selection",
            "wanted": wanted or EntryFilter(),
            "requester": "@officer:synapse.test",
            "case_id": "CASE-1",
            "bundle_id": "b" * 32,
            "made_ms": 5,
        }

        async def pieces() -> list[bytes]:
            export = await plan_export(self.reader, keys, ExportOrder(**given | changes))
            return [piece async for piece in bundle_chunks(self.reader, export, keys)]

        return finished(pieces())

    def resume(self, partial: bytes, requester: str = "@officer:synapse.test") -> bytes:
        """The rest of a bundle, after the last part line of which all is there."""
        lines = partial.splitlines(keepends=True)
        part = next(line for line in reversed(lines) if line.startswith(b'{"counts":') and line.endswith(b"\n"))

        async def pieces() -> bytes:
            export = await plan_resumption(self.reader, [KEY], requester, lines[0], part)
            return b"".join([piece async for piece in bundle_chunks(self.reader, export, [KEY])])

        return partial[: partial.index(part) + len(part)] + finished(pieces())


def finished(work: Awaitable[_Result]) -> _Result:
    """The result of ``work``, without a reactor."""

    async def run() -> _Result:
        return await work

    return asyncio.run(run())
