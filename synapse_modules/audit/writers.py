"""Whose records the sequencer follows, and from which number on.

A writer is known by its first record, number 0; the standing ones are always known. It is followed until its closing
record has an index. A process that was killed leaves no closing record: once its successor has begun and it has been
silent for a minute, it is closed for it, under its next number; if it was alive after all, its own next record meets
that number taken and it goes on under a new name (:mod:`synapse_modules.audit.intake`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_modules.audit.record import Recorder
    from synapse_modules.core.ports import Transaction

__all__ = ["Writers", "count_unordered"]

logger = logging.getLogger(__name__)

_LATELY_MS = 24 * 3600 * 1000  # far beyond any difference between the clocks of one homeserver's machines
_FULL_SEARCH_MS = 3600 * 1000
_SILENCE_MS = 60 * 1000


@dataclass(slots=True)
class _Writer:
    """``next``: the first number without an index. ``began_ms``: its first record. ``active_ms``: last seen writing."""

    next: int
    began_ms: int
    active_ms: int


class Writers:
    """The writers that are followed."""

    def __init__(self) -> None:
        self._writers: dict[str, _Writer] = {}
        self._ended: set[str] = set()
        self._searched_ms = 0

    def load(self, transaction: Transaction, now_ms: int) -> None:
        """Find all writers that have not ended, among all there ever were."""
        self._searched_ms = now_ms
        for writer in store.STANDING_WRITERS:
            self._follow(transaction, writer, now_ms, now_ms)
        for writer, began_ms in store.active_writers(transaction):
            self._follow(transaction, writer, began_ms, now_ms)

    def discover(self, transaction: Transaction, now_ms: int) -> None:
        """Find writers that have begun since; safe to repeat."""
        if now_ms - self._searched_ms > _FULL_SEARCH_MS:
            self.load(transaction, now_ms)
        for writer, began_ms in store.new_writers(transaction, now_ms - _LATELY_MS):
            self._follow(transaction, writer, began_ms, now_ms)

    def following(self) -> list[tuple[str, int]]:
        """Each writer, and the first number of it that has no index."""
        return [(name, writer.next) for name, writer in self._writers.items()]

    def advance(self, runs: Iterable[store.Run], now_ms: int) -> None:
        """Note that ``runs`` have got their indexes."""
        for run in runs:
            writer = self._writers[run.writer]
            writer.next, writer.active_ms = run.last + 1, now_ms
            if run.closes:
                del self._writers[run.writer]
                self._ended.add(run.writer)

    def end_superseded(self, transaction: Transaction, recorder: Recorder, now_ms: int) -> None:
        """Close a writer whose process has begun anew, if there is one that has been silent since.

        One of which records are missing is left as it is: its next number is the gap, and nothing may fill that.
        """
        for name, writer in self._writers.items():
            silent = now_ms - writer.active_ms > _SILENCE_MS
            if silent and self._has_successor(name, writer) and store.next_wseq(transaction, name) == writer.next:
                logger.warning("the process behind the audit writer %s ended without saying so", name)
                event = AuditEvent(
                    Action.AUDIT_STOP,
                    Outcome.FAILURE,
                    reason="The process ended without a closing record; its successor has begun.",
                    details={"writer": name, "records": writer.next},
                )
                record = recorder.record(event, now_ms)
                store.insert_records(transaction, name, writer.next, [record], closes=True)
                return

    def _follow(self, transaction: Transaction, name: str, began_ms: int, now_ms: int) -> None:
        if name not in self._writers and name not in self._ended:
            self._writers[name] = _Writer(store.next_sealed(transaction, name), began_ms, now_ms)

    def _has_successor(self, name: str, writer: _Writer) -> bool:
        process, separator, _ = name.rpartition(":")
        return bool(separator) and any(
            other.began_ms > writer.began_ms and other_name.rpartition(":")[0] == process
            for other_name, other in self._writers.items()
        )


def count_unordered(transaction: Transaction) -> int:
    """How many records have no index. Asks about each writer that has not ended: not for every second."""
    writers = {*store.STANDING_WRITERS, *(writer for writer, _ in store.active_writers(transaction))}
    return sum(store.next_wseq(transaction, name) - store.next_sealed(transaction, name) for name in writers)
