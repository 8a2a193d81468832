"""What the process that orders the log watches beside: which processes record, whether anything happens, what is lost.

It takes a turn after each of the sequencer's and reads what that has placed. What it finds is a problem, which the
status and the metrics show, and a record, which is made once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from synapse_modules.audit import metrics, store
from synapse_modules.audit.problems import open_problems
from synapse_modules.audit.signs import is_quiet, newest_signs
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from synapse_modules.audit.presence import Presence
    from synapse_modules.core.clock import Clock
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["PROCESS", "Watch"]

PROCESS = "process "
"""Begins the source of a problem with a process; its name follows."""

_REMEMBERED = 500
_LONGEST_STEP_S = 5.0
_QUIET_CHECK_MS = 60_000


class Watch:
    """Watches one log. Belongs to one thread.

    Args:
        log: the audit log's database. server_name: for the metrics. clock: for records.
        leave: takes an event that nobody waits for, and tells later whether it is durable; False when it is too full.
        presence: made at the first turn, when all modules are loaded.
        quiet_ms: after so long without anything a record says so.
        monotonic: for intervals.
    """

    def __init__(
        self,
        log: Database,
        server_name: str,
        clock: Clock,
        leave: Callable[[AuditEvent, Callable[[Exception | None], None]], bool],
        presence: Callable[[], Presence],
        quiet_ms: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._server_name = server_name
        self._leave = leave
        self._make_presence = presence
        self._presence: Presence | None = None
        self._names: set[str] = set()
        self._monotonic = monotonic
        self._turn_at = monotonic()
        self._read = -1
        self._recorded: set[str] = set()
        self._quiet = _Quiet(log, clock, quiet_ms)

    def run_cycle(self, missing: Mapping[str, tuple[int, int]]) -> int:
        """Look at what is new; returns 0: it never has more to do at once.

        Args:
            missing: writers of which records are missing, and between which numbers.
        """
        presence = self._presence or self._begin()
        signs = self._log.run(lambda transaction: newest_signs(transaction, self._read, _REMEMBERED), read_only=True)
        now = self._monotonic()
        presence.pass_time(min(now - self._turn_at, _LONGEST_STEP_S))
        self._turn_at = now
        presence.saw(signs)
        self._read = max((sign.index for sign in signs), default=self._read)
        for event in (*presence.gaps(), *_missing(missing)):
            self._record(event)
        self._quiet.run_cycle(self._record)
        self._show(presence)
        return 0

    def stand_still(self) -> None:
        """No signs can be read just now: that makes nobody silent."""
        self._turn_at = self._monotonic()

    def problems(self) -> dict[str, str | None]:
        """By source, what is wrong, or None where nothing is any more."""
        found = {} if self._presence is None else self._presence.problems()
        self._names |= found.keys()
        return {PROCESS + name: found.get(name) for name in sorted(self._names)}

    # ------------------------------------------------------------------ inside

    def _begin(self) -> Presence:
        """The presence as far as the log remembers it, and the problems that were open before."""
        known = self._log.run(open_problems, read_only=True)
        self._names = {source.removeprefix(PROCESS) for source in known if source.startswith(PROCESS)}
        self._presence = self._make_presence()
        self._turn_at = self._monotonic()
        return self._presence

    def _record(self, event: AuditEvent) -> None:
        name = event.key or f"{event.action}:{event.details}"
        if name in self._recorded:
            return

        def ended(error: Exception | None) -> None:
            if error is not None:
                self._recorded.discard(name)

        self._recorded.add(name)
        if not self._leave(event, ended):
            self._recorded.discard(name)

    def _show(self, presence: Presence) -> None:
        wrong = presence.problems()
        seen = presence.seen()
        for name in self._names - seen.keys():
            _forget(self._server_name, name)
        for name, process in seen.items():
            self._names.add(name)
            metrics.HEARTBEAT_AGE.labels(self._server_name, name).set(process.silent_s)
            metrics.PROCESS_PROBLEM.labels(self._server_name, name).set(int(name in wrong))


class _Quiet:
    """When the log was last known to be quiet, and since when."""

    def __init__(self, log: Database, clock: Clock, interval_ms: int) -> None:
        self._log = log
        self._clock = clock
        self._interval_ms = interval_ms
        self._begin: int | None = None
        self._since_ms = self._checked_ms = clock.now_ms()

    def run_cycle(self, record: Callable[[AuditEvent], None]) -> None:
        """Record that the log was quiet for an interval, if it was."""
        now_ms = self._clock.now_ms()
        if self._begin is not None and 0 <= now_ms - self._checked_ms < min(_QUIET_CHECK_MS, self._interval_ms):
            return
        quiet, size = self._log.run(self._look, read_only=True)
        self._checked_ms = now_ms
        if self._begin is None or not quiet or now_ms < self._since_ms:
            self._begin, self._since_ms = size, now_ms
        elif now_ms - self._since_ms >= self._interval_ms:
            record(_quiet(self._since_ms, now_ms, self._begin, size))
            self._begin, self._since_ms = size, now_ms

    def _look(self, transaction: Transaction) -> tuple[bool, int]:
        head = store.head(transaction)
        size = 0 if head is None else head.size
        return is_quiet(transaction, size if self._begin is None else self._begin), size


def _quiet(since_ms: int, until_ms: int, begin: int, size: int) -> AuditEvent:
    details = {"since_ms": since_ms, "until_ms": until_ms, "begin": begin, "tree_size": size}
    return AuditEvent(Action.AUDIT_QUIET, details=details)


def _missing(gaps: Mapping[str, tuple[int, int]]) -> Iterable[AuditEvent]:
    """A record for each writer of which records are missing, with a key of its own."""
    for writer, (first, last) in sorted(gaps.items()):
        yield AuditEvent(
            Action.AUDIT_GAP,
            Outcome.FAILURE,
            reason=f"Records of this writer were deleted before they had an index, between its {first} and {last}.",
            details={"writer": writer},
            key=f"missing:{writer}:{first}",
        )


def _forget(server_name: str, process: str) -> None:
    for gauge in (metrics.HEARTBEAT_AGE, metrics.PROCESS_PROBLEM):
        try:
            gauge.remove(server_name, process)
        except KeyError:
            continue
