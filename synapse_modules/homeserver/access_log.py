"""The requests that this process has answered, heard from the loggers with which Synapse writes its request log.

A filter on each of these loggers hears every line, wherever the operator sends it. A logger that the operator has made
too quiet for that (a higher level, or switched off) is made to speak again, but its lines then end at our filter:
nobody finds more in a log file than they asked for. Synapse may read its log configuration anew (SIGHUP); what that
undoes is done again before the next request. Whatever else undoes it is found by :meth:`AccessLog.repair`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from synapse_modules.homeserver import internals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synapse_modules.core.served_requests import ServedRequest
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["AccessLog", "Listener"]

logger = logging.getLogger(__name__)

_Wanted = TypeVar("_Wanted")

_FORCED = logging.INFO - 1
"""The level of a logger that we made speak: one that nobody else sets."""
_NEVER = logging.CRITICAL + 1


class Listener(Protocol[_Wanted]):
    """Who hears the requests, on the reactor's thread. Its methods must be quick and must not raise."""

    def wanted(self, method: str, uri: str, status: int | None) -> _Wanted | None:
        """Asked of every request; what it is wanted for, or None."""

    def take(self, request: ServedRequest, wanted: _Wanted) -> None:
        """Told all about a request that is wanted."""

    def missed(self, problem: str) -> None:
        """Told that a request could not be heard or taken, and why."""


class AccessLog(Generic[_Wanted]):
    """The request log of one process.

    Args:
        loggers: the names of those that write it. listener: who hears.
        after_reload: takes a function that is to be called whenever the log configuration was read anew.
    """

    def __init__(
        self,
        loggers: Iterable[str],
        listener: Listener[_Wanted],
        after_reload: Callable[[Callable[[], None]], None],
    ) -> None:
        self._listener = listener
        self._after_reload = after_reload
        self._taps = [_Tap(name, self._hear) for name in sorted(loggers)]

    @classmethod
    def of(cls, homeserver: Homeserver, listener: Listener[_Wanted]) -> AccessLog[_Wanted]:
        """That of ``homeserver``'s process."""
        api = homeserver.api
        return cls(internals.access_loggers(api), listener, lambda again: internals.after_log_reload(api, again))

    def open(self) -> None:
        """Hear every request from now on."""
        for tap in self._taps:
            tap.attach()
            if tap.quiet:
                logger.info("%s is heard although it is set to say nothing of requests, and shows none", tap.name)
        self._after_reload(self._reattach)

    def repair(self) -> list[str]:
        """Hear again what somebody has cut off. The names of the loggers that could not be heard for a while."""
        return [tap.name for tap in self._taps if tap.attach()]

    def _reattach(self) -> None:
        for tap in self._taps:
            tap.attach(reloaded=True)

    def _hear(self, record: logging.LogRecord) -> None:
        try:
            self._listen(record)
        except Exception:  # one that left the filter would end the request's own bookkeeping in Synapse
            logger.exception("a request could not be heard")
            self._listener.missed("a line of the request log could not be read")

    def _listen(self, record: logging.LogRecord) -> None:
        line = internals.answered_line(record)
        if line is None:
            if record.levelno >= logging.INFO:
                self._listener.missed(f"{record.name} wrote a line of another form than was expected")
            return
        wanted = self._listener.wanted(*line)
        if wanted is not None:
            self._listener.take(internals.served_request(record, line), wanted)


class _Tap(logging.Filter):
    """On one logger. Lets pass what the operator wants to see."""

    def __init__(self, name: str, hear: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(name)
        self._hear = hear
        self._muted = False
        self._shown_from = 0

    @property
    def quiet(self) -> bool:
        """Whether the operator sees no requests."""
        return self._shown_from > logging.INFO

    def filter(self, record: logging.LogRecord) -> bool:
        """Hear the line, then say whether it goes on to the operator's handlers."""
        self._hear(record)
        return record.levelno >= self._shown_from

    def attach(self, *, reloaded: bool = False) -> bool:
        """Make sure that every request is heard; whether it would not have been.

        Args:
            reloaded: whether the log configuration was just read anew, so that it says now what the operator wants.
        """
        log = logging.getLogger(self.name)
        deaf = self not in log.filters or not log.isEnabledFor(logging.INFO)
        self._muted = log.disabled or (self._muted and not reloaded)
        self._shown_from = _NEVER if self._muted else _operators_level(log)
        if self not in log.filters:
            log.addFilter(self)
        log.disabled = False
        if not log.isEnabledFor(logging.INFO):
            log.setLevel(_FORCED)
        if not log.isEnabledFor(logging.INFO):
            logger.error("%s cannot be heard: logging is switched off as a whole", self.name)
        return deaf


def _operators_level(log: logging.Logger) -> int:
    """The level from which the operator wants to see lines of ``log``, ours left aside."""
    asked = log.parent if log.level == _FORCED else log
    return logging.NOTSET if asked is None else asked.getEffectiveLevel()
