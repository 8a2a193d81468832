"""The process lane: records of this process, durable before their callers go on.

One thread commits in order. Whatever has come in while it was committing goes into the next transaction (group commit).
Records are numbered without gaps under a writer name that is new at every start, so a batch whose acknowledgement was
lost is tried again under the same numbers and cannot be stored twice. Nothing is ever dropped: when the queue is full
callers wait, and give up with an error when it lasts too long.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.recorded_keys import known_keys_among
from synapse_modules.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.audit.record import Record
    from synapse_modules.core.clock import RandomBytes
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["Intake", "Ticket", "writer_name"]

logger = logging.getLogger(__name__)

_BATCH = 500
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_ATTEMPTS_AT_CONFLICTS = 8


def writer_name(process: str, random: RandomBytes) -> str:
    """A writer name that no other start of this process has."""
    return f"{process}:{random(8).hex()}"


@dataclass(slots=True, eq=False)
class Ticket:
    """One record on its way.

    Attributes:
        record: what is to be stored. done: called at most once, in the committing thread, with None when the record is
            durable, or with the error that says why it never will be; for a withdrawn record perhaps not at all.
        withdrawn: whether its caller has given up: nothing is written for it any more.
        known: whether its key was recorded before.
        place: writer and number under which it stands, once it does.
    """

    record: Record
    done: Callable[[Exception | None], None]
    withdrawn: bool = False
    known: bool = False
    place: tuple[str, int] | None = None


class Intake:
    """The queue and the committing thread of one process.

    Args:
        database: the audit log's. process: this process's name. random: where the writer's name comes from.
        capacity: records that may wait. batch: records in one transaction.
        on_commit: told, in the committing thread, how many seconds each batch took.

    Attributes:
        writer: the name under which records are stored now. problem: why records wait; None while all is well.
        stored: how many records were made durable, under whatever name.
    """

    def __init__(
        self,
        database: Database,
        process: str,
        random: RandomBytes,
        *,
        capacity: int = 10_000,
        batch: int = _BATCH,
        on_commit: Callable[[float], None] | None = None,
    ) -> None:
        self._database = database
        self._process = process
        self._random = random
        self._capacity = capacity
        self._batch = batch
        self._on_commit = on_commit
        self._queue: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._last: Ticket | None = None
        self._thread: threading.Thread | None = None
        self.writer = writer_name(process, random)
        self._next = 0
        self.stored = 0
        self.problem: str | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        """Begin to commit. Call it after the process has forked for the last time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="governance-audit-intake", daemon=True)
            self._thread.start()

    def submit(self, record: Record, done: Callable[[Exception | None], None]) -> Ticket | None:
        """Queue ``record``; None when there is no room, and the caller must wait and try again.

        Raises:
            Unavailable: this process is stopping.
        """
        with self._changed:
            if self._stopping:
                raise Unavailable("the audit log takes no more records: this process is stopping")
            if len(self._queue) >= self._capacity:
                return None
            ticket = Ticket(record, done)
            self._queue.append(ticket)
            self._changed.notify()
            return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Take a record back whose caller has given up. One that is just being written may still be stored."""
        with self._changed:
            ticket.withdrawn = True
            with contextlib.suppress(ValueError):
                self._queue.remove(ticket)

    def close(self, last: Record, timeout_s: float) -> bool:
        """Commit what waits, then ``last``, which ends this writer; whether that was possible in time."""
        finished = threading.Event()
        with self._changed:
            self._stopping = True
            self._last = Ticket(last, lambda error: finished.set() if error is None else None)
            self._changed.notify()
        if self._thread is None:
            return False
        self._thread.join(timeout_s)
        return finished.is_set()

    # ------------------------------------------------------------------ the committing thread

    def _run(self) -> None:
        while True:
            batch, stopping = self._take()
            if batch:
                started = time.perf_counter()
                self._commit(batch)
                if self._on_commit is not None:
                    self._on_commit(time.perf_counter() - started)
            elif stopping:
                break
        if self._last is not None:
            self._commit([self._last], closes=True)

    def _take(self) -> tuple[list[Ticket], bool]:
        """The next batch, waiting for one; empty only when stopping."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            batch: list[Ticket] = []
            while self._queue and len(batch) < self._batch:
                batch.append(self._queue.popleft())
            return batch, self._stopping and not self._queue

    def _commit(self, batch: list[Ticket], *, closes: bool = False) -> None:
        """Make ``batch`` durable however long it takes, and tell the callers."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                self._write(batch, closes)
            except Unavailable as error:
                self._report(error.sentence())
                if self._give_up(pause):
                    return _tell(batch, error)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            except Exception as error:
                logger.exception("%d audit records cannot be stored as one batch", len(batch))
                return self._commit_singly(batch, error, closes)
            else:
                self._report(None)
                return _tell(batch, None)

    def _report(self, problem: str | None) -> None:
        """Log that records wait, or wait no more: once, not at every attempt."""
        if problem is not None and self.problem is None:
            logger.error("audit records wait, and so do their callers: %s", problem)
        if problem is None and self.problem is not None:
            logger.warning("audit records are stored again")
        self.problem = problem

    def _commit_singly(self, batch: list[Ticket], error: Exception, closes: bool) -> None:
        """One record that cannot be stored must not keep the others out."""
        if len(batch) == 1:
            return _tell(batch, Unavailable(f"the record cannot be stored: {type(error).__name__}"))
        for ticket in batch:
            self._commit([ticket], closes=closes and ticket is batch[-1])
        return None

    def _give_up(self, pause: float) -> bool:
        """Wait before the next attempt; True when this process is stopping instead."""
        with self._changed:
            if not self._stopping:
                self._changed.wait_for(lambda: self._stopping, timeout=pause)
                return False
        return True

    def _write(self, batch: list[Ticket], closes: bool) -> None:
        for _ in range(_ATTEMPTS_AT_CONFLICTS):
            left = _still_wanted(batch)
            if not left:
                return None
            try:
                return self._insert(left, closes)
            except Exception as error:
                if not store.is_conflict(error):
                    raise
            self._resolve(batch)
        raise Unavailable("other processes record the same keys again and again")

    def _insert(self, tickets: list[Ticket], closes: bool) -> None:
        records = [ticket.record for ticket in tickets]
        self._database.run(
            lambda transaction: store.insert_records(transaction, self.writer, self._next, records, closes=closes)
        )
        for number, ticket in enumerate(tickets, self._next):
            ticket.place = (self.writer, number)
        self._next += len(tickets)
        self.stored += len(tickets)

    def _resolve(self, batch: list[Ticket]) -> None:
        """Find out what of a batch that met a conflict is recorded. The conflict has ended our transaction."""
        own, known = self._database.run(lambda transaction: self._what_stands_there(transaction, batch), read_only=True)
        tickets = {ticket.record.leaf: ticket for ticket in batch}
        foreign = False
        for number, leaf in sorted(own.items()):
            ticket = tickets.get(leaf)
            if ticket is None:
                foreign = True
            else:  # a commit had succeeded, only its acknowledgement was lost
                ticket.place, self._next = (self.writer, number), number + 1
                self.stored += 1
        if foreign:
            # Most likely somebody took this process for dead, and ended this writer in its name.
            logger.warning("a number of the audit writer %s was taken: going on under a new name", self.writer)
            self.writer, self._next = writer_name(self._process, self._random), 0
        for ticket in batch:
            ticket.known = ticket.record.key in known

    def _what_stands_there(self, transaction: Transaction, batch: list[Ticket]) -> tuple[dict[int, bytes], set[str]]:
        """The leaves that stand under the batch's own numbers, and which of its keys are recorded at all."""
        stored = store.stored_leaves(transaction, self.writer, self._next, self._next + len(batch) - 1)
        keys = [ticket.record.key for ticket in batch if ticket.record.key is not None]
        return stored, known_keys_among(transaction, keys)


def _still_wanted(batch: list[Ticket]) -> list[Ticket]:
    """What of ``batch`` is not recorded and not withdrawn; of several tickets with the same key, the first."""
    keys: set[str] = set()
    wanted = []
    for ticket in batch:
        key = ticket.record.key
        if ticket.known or ticket.place or ticket.withdrawn or key in keys:
            continue
        if key is not None:
            keys.add(key)
        wanted.append(ticket)
    return wanted


def _tell(batch: list[Ticket], error: Exception | None) -> None:
    for ticket in batch:
        ticket.done(error)
