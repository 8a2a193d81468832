"""Heartbeats: each process says again and again that it is there, what it runs and how much it has recorded.

With them travels what must not be forgotten: actions that were let through although they could not be recorded become
``audit.gap`` records as soon as records can be written again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules import __version__
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import GovernanceError
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_modules.audit.intake import Intake
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["Heartbeat", "Unrecorded"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LetThrough:
    """How many actions of a class were let through unrecorded, and since when."""

    action_class: str
    count: int
    since_ms: int


class Unrecorded:
    """What could not be recorded in time. Belongs to the reactor's thread."""

    def __init__(self) -> None:
        self.count = 0
        self._let_through: dict[str, _LetThrough] = {}

    def add(self, action_class: str, now_ms: int, *, allowed: bool) -> None:
        """One more action that was refused or, if ``allowed``, let through."""
        self.count += 1
        if allowed:
            self.put_back(_LetThrough(action_class, 1, now_ms))

    def take(self) -> list[_LetThrough]:
        """What was let through; afterwards there is none."""
        taken, self._let_through = list(self._let_through.values()), {}
        return taken

    def put_back(self, lost: _LetThrough) -> None:
        """It was not recorded after all."""
        known = self._let_through.get(lost.action_class)
        if known is not None:
            lost = replace(known, count=known.count + lost.count, since_ms=min(known.since_ms, lost.since_ms))
        self._let_through[lost.action_class] = lost


class Heartbeat:
    """The heartbeat of one process.

    Args:
        homeserver: this process.
        leave: takes an event that nobody waits for, and tells later, in another thread, whether it is durable; False
            when it is too full.
        intake: whose records are counted.
        unrecorded: what could not be recorded.
        modules: the names of the modules that are loaded; asked at each beat.
        interval_ms: between two beats.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        leave: Callable[[AuditEvent, Callable[[Exception | None], None]], bool],
        intake: Intake,
        unrecorded: Unrecorded,
        modules: Callable[[], Sequence[str]],
        interval_ms: float,
    ) -> None:
        self._homeserver = homeserver
        self._leave = leave
        self._intake = intake
        self._unrecorded = unrecorded
        self._modules = modules
        self._interval_ms = interval_ms
        self._waiting = False
        self._beat_ms = homeserver.now_ms()
        self._stored = self._failed = 0

    async def start(self) -> None:
        """Beat now, and from now on."""
        self._homeserver.every(self._interval_ms, "governance_audit_heartbeat", self.beat)
        await self.beat()

    async def beat(self) -> None:
        """Leave one heartbeat, unless the last one still waits to be stored, and what was let through."""
        try:
            self._report_let_through()
            if not self._waiting:
                self._waiting = self._leave(self._event(), self._ended)
        except GovernanceError as error:  # this process is stopping; its closing record says so
            logger.debug("no heartbeat: %s", error)

    def _ended(self, error: Exception | None) -> None:
        """Called in the committing thread."""
        self._waiting = False
        if error is not None:
            logger.error("a heartbeat was not recorded: %s", error)

    def _event(self) -> AuditEvent:
        now_ms, stored, failed = self._homeserver.now_ms(), self._intake.stored, self._unrecorded.count
        event = AuditEvent(
            Action.AUDIT_HEARTBEAT,
            details={
                "writer": self._intake.writer,
                "product_version": __version__,
                "modules": sorted(self._modules()),
                "since_ms": self._beat_ms,
                "records": stored - self._stored,
                "unrecorded": failed - self._failed,
            },
        )
        self._beat_ms, self._stored, self._failed = now_ms, stored, failed
        return event

    def _report_let_through(self) -> None:
        now_ms = self._homeserver.now_ms()
        for lost in self._unrecorded.take():
            if self._intake.problem is not None or not self._leave(_gap(lost, now_ms), lambda _: None):
                self._unrecorded.put_back(lost)


def _gap(lost: _LetThrough, now_ms: int) -> AuditEvent:
    return AuditEvent(
        Action.AUDIT_GAP,
        Outcome.FAILURE,
        reason="Actions went ahead although they could not be recorded, as the operator allows for their class.",
        details={
            "action_class": lost.action_class,
            "records": lost.count,
            "since_ms": lost.since_ms,
            "until_ms": now_ms,
            "allowed": True,
        },
    )
