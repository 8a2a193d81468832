"""Waiting for something, but not for ever."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

from synapse.module_api import make_deferred_yieldable, run_in_background
from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.python.failure import Failure

__all__ = ["DeadlineExceeded", "within"]

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class DeadlineExceeded(Exception):
    """There was no answer in time."""


async def within(milliseconds: float, function: Callable[[], Awaitable[_Result]]) -> _Result:
    """Await ``function()``, at most ``milliseconds`` long.

    Whatever runs on after the deadline is left to end by itself, because Synapse's own coroutines do not survive being
    cancelled; its late answer is dropped. A function that blocks the reactor's thread cannot be interrupted.

    Raises:
        DeadlineExceeded: no answer in time. Whatever ``function`` raises.
    """
    running = run_in_background(function)
    if running.called and not running.paused:
        return await running  # answered at once, as every decision from memory does: no timer is needed
    from twisted.internet import reactor  # noqa: PLC0415  importing it installs it: only ever inside Synapse

    outcome: Deferred[_Result] = Deferred()
    timer = cast("Any", reactor).callLater(
        milliseconds / 1000, outcome.errback, DeadlineExceeded(f"no answer within {milliseconds:g} ms")
    )

    def arrived(result: _Result | Failure) -> None:
        if outcome.called:
            logger.warning("an answer came after its deadline and was dropped: %r", result)
            return
        timer.cancel()
        outcome.callback(cast("_Result", result))

    running.addBoth(arrived)
    return await make_deferred_yieldable(outcome)
