"""Records requests that no callback tells of, from the homeserver's own request log.

A request is heard after its answer was sent, so nothing can be refused and nobody waits for its record: it is queued,
and durable a moment later. A process that is killed takes what it had queued with it. When the queue is half full, or a
record cannot be stored, requests are counted instead; the count is a metric, an error in the log and, a few seconds
after there is room, an ``audit.gap`` record. The other half of the queue is left to those who wait for their records,
so that a flood of requests keeps nobody from logging in. Requests that fail again and again are counted too
(:mod:`synapse_modules.audit.repetitions`), and are all in the log, within a minute.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from synapse_modules.audit import metrics
from synapse_modules.audit.repetitions import Repetitions
from synapse_modules.audit.request_events import event_of, succeeded
from synapse_modules.audit.request_routes import find_route
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import GovernanceError
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from synapse_modules.audit.request_notes import RequestNotes
    from synapse_modules.audit.request_routes import RouteMatch
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.served_requests import ServedRequest
    from synapse_modules.homeserver.access_log import AccessLog
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["RequestLog"]

logger = logging.getLogger(__name__)

_CHECK_EVERY_MS = 10_000


class RequestLog:
    """A :class:`~synapse_modules.homeserver.access_log.Listener` that leaves requests with the audit log.

    Args:
        homeserver: this process.
        leave: takes an event that nobody waits for, and tells later whether it is durable; False when it is too full.
        notes: what callbacks learn of requests.
        elsewhere: beginnings of paths whose requests somebody else records. It may grow at any time.
        check_every_ms: how often what was lost is recorded, and what keeps requests from being heard is looked for.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        leave: Callable[[AuditEvent, Callable[[Exception | None], None]], bool],
        notes: RequestNotes,
        elsewhere: Collection[str] = (),
        *,
        check_every_ms: int = _CHECK_EVERY_MS,
    ) -> None:
        self._homeserver = homeserver
        self._leave = leave
        self._notes = notes
        self._elsewhere = elsewhere
        self._check_every_ms = check_every_ms
        self._lost = _Lost()
        self._repetitions = Repetitions(homeserver.now_ms)
        self._metric = metrics.REQUESTS_LOST.labels(homeserver.server_name)

    def start(self, access_log: AccessLog[RouteMatch]) -> None:
        """Hear and record every request from now on."""
        access_log.open()
        self._homeserver.every(self._check_every_ms, "governance_request_log", lambda: self._check(access_log))
        self._homeserver.before_shutdown(self._close)

    # ------------------------------------------------------------------ the listener

    def wanted(self, method: str, uri: str, status: int | None) -> RouteMatch | None:
        """The route of a request that may have to be recorded."""
        match = find_route(method, uri, succeeded(status))
        if match is None and self._notes:
            self._notes.take()
        return match

    def take(self, request: ServedRequest, wanted: RouteMatch) -> None:
        """Record the request, if there is something to record."""
        learnt = self._notes.take()
        if any(wanted.path.startswith(prefix) for prefix in self._elsewhere):
            return
        event = event_of(request, wanted, learnt, self._homeserver.server_name)
        if event is not None:
            self._submit(self._repetitions.add(event))

    def missed(self, problem: str) -> None:
        """Count a request that could not be heard."""
        self._lose(1, problem)

    # ------------------------------------------------------------------ inside

    def _submit(self, events: Iterable[AuditEvent]) -> None:
        for event in events:
            count = 1 + _repeated(event)
            try:
                if not self._leave(event, partial(self._ended, count)):
                    self._lose(count, "too many records wait")
            except GovernanceError as error:
                self._lose(count, error.sentence())

    def _ended(self, count: int, error: Exception | None) -> None:
        """Called in the committing thread."""
        if error is not None:
            self._lose(count, str(error))

    def _lose(self, count: int, problem: str) -> None:
        self._metric.inc(count)
        if self._lost.add(count, problem, self._homeserver.now_ms()):
            logger.error("requests are missing from the audit log: %s", problem)

    def _report_lost(self) -> None:
        """Leave a record of the requests that were lost, if there were any and there is room for it."""
        lost = self._lost.take()
        if lost is None:
            return

        def ended(error: Exception | None) -> None:
            if error is not None:
                self._lost.add(lost.count, lost.problem, lost.since_ms)

        try:
            left = self._leave(_gap(lost, self._homeserver.now_ms()), ended)
        except GovernanceError:  # this process is stopping; its log has an error about it
            left = False
        if not left:
            self._lost.add(lost.count, lost.problem, lost.since_ms)

    async def _close(self) -> None:
        self._submit(self._repetitions.drain())
        self._report_lost()

    async def _check(self, access_log: AccessLog[RouteMatch]) -> None:
        self._submit(self._repetitions.due())
        deaf = access_log.repair()
        if deaf:
            self._lose(0, f"{', '.join(deaf)} was cut off for up to {self._check_every_ms} ms")
        self._report_lost()


@dataclass(frozen=True, slots=True)
class _Loss:
    """How many requests were lost, why at first, and since when."""

    count: int
    problem: str
    since_ms: int


class _Lost:
    """What was lost and not yet recorded to be; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loss: _Loss | None = None

    def add(self, count: int, problem: str, since_ms: int) -> bool:
        """Add to it; whether it was empty."""
        with self._lock:
            known = self._loss
            if known is None:
                self._loss = _Loss(count, problem, since_ms)
            else:
                self._loss = replace(known, count=known.count + count, since_ms=min(known.since_ms, since_ms))
            return known is None

    def take(self) -> _Loss | None:
        """All of it; afterwards it is empty."""
        if self._loss is None:  # as nearly always
            return None
        with self._lock:
            taken, self._loss = self._loss, None
            return taken


def _repeated(event: AuditEvent) -> int:
    repeated = event.details.get("repeated", 0)
    return repeated if isinstance(repeated, int) else 0


def _gap(lost: _Loss, now_ms: int) -> AuditEvent:
    details: dict[str, JsonValue] = {"since_ms": lost.since_ms, "until_ms": now_ms}
    if lost.count:
        details["records"] = lost.count
    reason = f"Requests were not recorded: {lost.problem}."
    return AuditEvent(Action.AUDIT_GAP, Outcome.FAILURE, reason=reason, details=details)
