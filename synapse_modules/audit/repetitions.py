"""Requests that fail again and again: counted, so that nobody fills the log by failing.

The first is recorded at once. Equal ones that follow are counted, and recorded once a minute by one record whose
``repeated`` says for how many more it stands. Whoever fails in ever different ways has some of them told apart; the
rest are counted by route and status. A success is never counted: each has its own record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules.audit.tally import EVERY_MS, MOST, TOLD_APART, Key, Tally
from synapse_modules.core.action_specs import SPECS, RecordField
from synapse_modules.core.actions import Action, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.core.ports import AuditEvent

__all__ = ["MANY", "Repetitions"]

MANY = "More different requests failed than are told apart."

_WHAT = ("method", "route", "status")


@dataclass(slots=True)
class _Failed:
    """What failed: as it was first, when it was last recorded, and how often since."""

    event: AuditEvent
    recorded_ms: int
    waiting: int = 0


class Repetitions:
    """The requests that failed in one process. Used on the reactor's thread alone.

    Args:
        now_ms: tells the time. every_ms: how long equal requests are only counted.
        told_apart: how many different ones of one source are: of a user, or of an address where nobody is known.
        most: how many are remembered.
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        every_ms: int = EVERY_MS,
        told_apart: int = TOLD_APART,
        most: int = MOST,
    ) -> None:
        self._now_ms = now_ms
        self._every_ms = every_ms
        self._known: Tally[_Failed] = Tally(told_apart, most)

    def add(self, event: AuditEvent) -> list[AuditEvent]:
        """What is to be recorded now that ``event`` happened: mostly itself, or nothing if it is counted."""
        if event.outcome is Outcome.SUCCESS:
            return [event]
        source, key = _source(event), _key(event)
        if key not in self._known and self._known.crowded(source):
            event = _coarse(event)
            key = _key(event)
        failed = self._known.get(key)
        if failed is None:
            forgotten = self._make_room()
            self._known.add(key, source, _Failed(event, self._now_ms()))
            return [*forgotten, event]
        failed.waiting += 1
        return [self._counted(failed)] if self._is_due(failed) else []

    def due(self) -> list[AuditEvent]:
        """What has waited for long enough; to be called every few seconds. What is over is forgotten."""
        found = []
        for key, failed in self._known:
            if self._is_due(failed):
                if failed.waiting:
                    found.append(self._counted(failed))
                else:
                    self._known.forget(key)
        return found

    def drain(self) -> list[AuditEvent]:
        """All that was counted and is in no record yet."""
        found = [self._counted(failed) for _, failed in self._known if failed.waiting]
        self._known.clear()
        return found

    def _make_room(self) -> list[AuditEvent]:
        """Forget the oldest where as much is remembered as may be; what has to be recorded because of that."""
        if not self._known.full:
            return []
        key, oldest = self._known.oldest()
        self._known.forget(key)
        return [self._counted(oldest)] if oldest.waiting else []

    def _is_due(self, failed: _Failed) -> bool:
        return not 0 <= self._now_ms() - failed.recorded_ms < self._every_ms

    def _counted(self, failed: _Failed) -> AuditEvent:
        """One record for all that waits."""
        count, failed.waiting, failed.recorded_ms = failed.waiting, 0, self._now_ms()
        details = {key: value for key, value in failed.event.details.items() if key != "request_id"}
        if count > 1:
            details["repeated"] = count - 1
        return replace(failed.event, details=details)


def _source(event: AuditEvent) -> str | None:
    """Whose doing it was: the actor's, but nobody proved to be the actor of a login that failed."""
    return event.address if event.actor is None or event.action is Action.AUTH_LOGIN else event.actor


def _key(event: AuditEvent) -> Key:
    what = tuple((name, value) for name, value in event.details.items() if name in _WHAT)
    named = (event.target, event.room_id, event.device_id, event.details.get("event_id"), event.details.get("media_id"))
    return event.action, event.outcome, event.actor, event.address, event.reason, what, named


def _coarse(event: AuditEvent) -> AuditEvent:
    """What all requests of one route with one status from one source have in common."""
    login = event.action is Action.AUTH_LOGIN
    return replace(
        event,
        actor=None if login else event.actor,
        target=None,
        room_id=None,
        device_id=None,
        reason=MANY if RecordField.REASON in SPECS[event.action].fields else None,
        address=event.address if login or event.actor is None else None,
        user_agent=None,
        details={name: value for name, value in event.details.items() if name in _WHAT},
    )
