"""When everything that was durable at some moment has its index."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.audit import store
from synapse_modules.audit.outbox import waiting_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["Settling", "Unplaced"]


class Unplaced(NamedTuple):
    """A writer's records ``first`` to ``last``, which get no index."""

    writer: str
    first: int
    last: int


class Settling:
    """Follows the records that were durable when this was made until each has its index.

    Args:
        log: the audit log's database. own: the homeserver's, with the outbox.

    Attributes:
        stuck: records that never get one, because earlier ones of their writer are missing; complete once
            :meth:`settled` is true.
    """

    def __init__(self, log: Database, own: Database) -> None:
        self._log = log
        self._own = own
        self._outbox = own.run(waiting_ids, read_only=True)
        self._last: dict[str, int] | None = None
        self.stuck: list[Unplaced] = []

    def settled(self) -> bool:
        """Whether they have; to be asked again until it is true."""
        if self._outbox is not None and self._waits(self._outbox[1]):
            return False
        self._outbox = None
        if self._last is None:
            self._last = self._log.run(_last_numbers, read_only=True)
        last = self._last
        missing = self._log.run(lambda transaction: _missing(transaction, last), read_only=True)
        self.stuck = [unplaced for unplaced, stuck in missing if stuck]
        return len(self.stuck) == len(missing)

    def _waits(self, newest: int) -> bool:
        waiting = self._own.run(waiting_ids, read_only=True)
        return waiting is not None and waiting[0] <= newest


def _last_numbers(transaction: Transaction) -> dict[str, int]:
    """The last number of each writer that may have records without an index."""
    names = {*store.STANDING_WRITERS, *(name for name, _ in store.active_writers(transaction))}
    return {name: store.next_wseq(transaction, name) - 1 for name in names}


def _missing(transaction: Transaction, last: Mapping[str, int]) -> list[tuple[Unplaced, bool]]:
    """What of the records up to ``last`` has no index, and whether it never gets one."""
    found = []
    for writer, number in last.items():
        first = store.next_sealed(transaction, writer)
        if first <= number:
            runs = store.runs(transaction, [(writer, first)], store.RUN_LIMIT)
            found.append((Unplaced(writer, first, number), not runs or not runs[0].whole))
    return found
