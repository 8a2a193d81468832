"""Refusals that repeat: counted, so that whoever tries the same again and again fills no log.

Rules: the first refusal is durable before its answer. Equal ones that follow are counted, and recorded once a minute by
one record whose ``repeated`` says for how many more it stands; at the latest when the process ends. Somebody who is
refused ever different things has some of them told apart, and the rest counted by permission. Nothing is lost but the
moments of repetitions, and those of the last minute when a process is killed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules.audit.tally import EVERY_MS, MOST, TOLD_APART, Key, Tally
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_modules.core.clock import Clock

__all__ = ["Refusals"]

_ACTIONS = frozenset({Action.ACCESS_DENIED, Action.AUTH_LOGIN})
_MANY = "More different things were refused than are told apart."


@dataclass(slots=True)
class _Refused:
    """What was refused: as it was first, when it was last recorded, and how often since."""

    event: AuditEvent
    recorded_ms: int | None = None
    waiting: int = 0
    writing: bool = False


class Refusals:
    """The refusals of one process.

    Args:
        write: records an event, durably when it returns. clock: tells the time.
        every_ms: how long equal refusals are only counted. told_apart: how many different ones of one actor are.
        most: how many are remembered.
    """

    def __init__(
        self,
        write: Callable[[AuditEvent], Awaitable[None]],
        clock: Clock,
        *,
        every_ms: int = EVERY_MS,
        told_apart: int = TOLD_APART,
        most: int = MOST,
    ) -> None:
        self._write_event = write
        self._clock = clock
        self._every_ms = every_ms
        self._known: Tally[_Refused] = Tally(told_apart, most)

    @staticmethod
    def takes(event: AuditEvent) -> bool:
        """Whether ``event`` is a refusal by policy."""
        return event.outcome is Outcome.DENIED and event.action in _ACTIONS

    async def record(self, event: AuditEvent) -> None:
        """Return once ``event`` is durable, or counted together with one that is.

        Raises:
            Unavailable: it could not be recorded. It is counted all the same, unless no more can be remembered.
        """
        refused = self._known.get(_key(event)) or await self._remembered(event)
        refused.waiting += 1
        if self._is_due(refused):
            await self._write(refused)

    async def settle(self) -> None:
        """Record what has waited for long enough, and forget what is over; to be called every few seconds."""
        for key, refused in self._known:
            if not self._is_due(refused):
                continue
            if refused.waiting:
                await self._write(refused)
            else:
                self._known.forget(key)

    def drain(self) -> list[AuditEvent]:
        """All that was counted and is in no record yet; the caller records it, and nothing is refused any more."""
        waiting = [(refused.event, refused.waiting) for _, refused in self._known if refused.waiting]
        self._known.clear()
        return [_counted(event, count) for event, count in waiting]

    # ------------------------------------------------------------------ inside

    async def _remembered(self, event: AuditEvent) -> _Refused:
        """What ``event`` is counted with from now on."""
        if self._known.crowded(event.actor):
            event = _by_permission(event)
        key = _key(event)
        if key not in self._known and self._known.full:
            await self._make_room()
        known = self._known.get(key)  # once more, after others had their turn
        return known or self._known.add(key, event.actor, _Refused(event))

    async def _make_room(self) -> None:
        key, oldest = self._known.oldest()
        if oldest.waiting and not oldest.writing:
            await self._write(oldest)
        self._known.forget(key)

    def _is_due(self, refused: _Refused) -> bool:
        if refused.writing:
            return False
        since_ms = refused.recorded_ms
        return since_ms is None or not 0 <= self._clock.now_ms() - since_ms < self._every_ms

    async def _write(self, refused: _Refused) -> None:
        """Record all that waits in one record; what comes meanwhile waits for the next."""
        count, refused.waiting = refused.waiting, 0
        refused.writing = True
        written = False
        try:
            await self._write_event(_counted(refused.event, count))
            written = True
        finally:
            refused.writing = False
            if written:
                refused.recorded_ms = self._clock.now_ms()
            else:
                refused.waiting += count


def _key(event: AuditEvent) -> Key:
    """Equal refusals: of the same thing to the same person, in the same place, by the same rule, from one address."""
    what = tuple(event.details.items())
    return event.action, event.actor, what, event.room_id, event.target, event.rule, event.address


def _by_permission(event: AuditEvent) -> AuditEvent:
    """What all refusals of one permission to one person have in common."""
    details = {"permission": event.details.get("permission")}
    return AuditEvent(event.action, event.outcome, actor=event.actor, reason=_MANY, details=details)


def _counted(event: AuditEvent, count: int) -> AuditEvent:
    return event if count == 1 else replace(event, details={**event.details, "repeated": count - 1})
