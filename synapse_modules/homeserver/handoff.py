"""Waiting on the reactor for something that another thread brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from synapse.module_api import make_deferred_yieldable
from twisted.internet.defer import Deferred

from synapse_modules.homeserver.deadline import DeadlineExceeded

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["Handoff"]


class Handoff:
    """Used once: one side waits on the reactor's thread, the other delivers from any thread. Make it on the former."""

    def __init__(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415  importing it installs it: only ever inside Synapse

        self._reactor = cast("Any", reactor)
        self._arrived: Deferred[None] = Deferred()

    def deliver(self, error: Exception | None = None) -> None:
        """Let the waiting side go on, with ``error`` if there is one. Harmless after the first time and too late."""
        self._reactor.callFromThread(self._fire, error)

    async def wait(self, milliseconds: float) -> None:
        """Return when the other side has delivered, before or after this call.

        Raises:
            DeadlineExceeded: it has not in time. The error that it delivered.
        """
        late = DeadlineExceeded(f"nothing came within {milliseconds:g} ms")
        timer = self._reactor.callLater(milliseconds / 1000, self._fire, late)

        def ended(result: Failure | None) -> Failure | None:
            if timer.active():
                timer.cancel()
            return result

        self._arrived.addBoth(ended)
        await make_deferred_yieldable(self._arrived)

    def _fire(self, error: Exception | None) -> None:
        if self._arrived.called:
            return
        if error is None:
            self._arrived.callback(None)
        else:
            self._arrived.errback(error)
