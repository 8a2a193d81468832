"""Keeps all anchors fed and watches for a rollback: one thread for each anchor, none of which anybody waits for.

An anchor that fails is tried again, with growing pauses; the others and the log go on. What the log must not do is told
by :meth:`AnchorKeeper.may_sign`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from synapse_modules.audit.anchors.feeder import Feeder, Surroundings
from synapse_modules.audit.anchors.model import PROMISED_S
from synapse_modules.audit.anchors.offer import Offer
from synapse_modules.audit.discontinuity import RolledBack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse_modules.audit.anchors.feeder import AnchorStatus
    from synapse_modules.audit.anchors.model import Anchor
    from synapse_modules.audit.checkpoint import VerifierKey
    from synapse_modules.audit.discontinuity import Contradiction
    from synapse_modules.core.clock import Clock
    from synapse_modules.storage.database import Database

__all__ = ["AnchorKeeper"]

logger = logging.getLogger(__name__)
_http_log = logging.getLogger("httpx")

_START_S = 10.0
_AFTER_A_BUG_S = 60.0


class AnchorKeeper:
    """The anchors of one log. To be run by the one process that signs.

    Args:
        database: the audit log's. key: what the log signs with.
        anchors: each with how often it gets something new, in seconds. None at all is allowed, and protects nothing.
        server_name: for the metrics. clock: for receipts. monotonic: for intervals.
    """

    def __init__(
        self,
        database: Database,
        key: VerifierKey,
        anchors: Mapping[Anchor, float],
        *,
        server_name: str,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        around = Surroundings(database, key, server_name, clock, monotonic)
        self._monotonic = monotonic
        self._offer = Offer(database, key, min(anchors.values(), default=PROMISED_S), monotonic)
        self.feeders = [
            Feeder(anchor, interval_s, self._offer, around, self._may_publish) for anchor, interval_s in anchors.items()
        ]
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._ready_at = monotonic() + _START_S

    def start(self) -> None:
        """Begin. Call it after the process has forked for the last time."""
        self._ready_at = self._monotonic() + _START_S
        if _http_log.level == logging.NOTSET:
            _http_log.setLevel(logging.WARNING)  # else it tells of every single request
        for feeder in self.feeders:
            name = f"governance-anchor-{feeder.anchor.name}"
            thread = threading.Thread(target=self._run, args=(feeder,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Hand over the newest checkpoint everywhere, and end; whether that was possible in time."""
        self._offer.expire()
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def may_sign(self) -> bool:
        """Whether the log may sign now. No, for some seconds after the start, until every anchor has been asked.

        Raises:
            RolledBack: an anchor holds a checkpoint that the log does not continue.
        """
        contradiction = self.contradiction()
        if contradiction is not None:
            raise RolledBack(contradiction)
        return all(feeder.asked for feeder in self.feeders) or self._monotonic() >= self._ready_at

    def contradiction(self) -> Contradiction | None:
        """A checkpoint outside that the log does not continue, as far as is known."""
        found = [self._offer.contradiction, *(feeder.contradiction for feeder in self.feeders)]
        return next((each for each in found if each is not None), None)

    def status(self) -> list[AnchorStatus]:
        """How every anchor is."""
        return [feeder.status for feeder in self.feeders]

    def _may_publish(self) -> bool:
        try:
            return self.may_sign()
        except RolledBack:
            return False

    def _run(self, feeder: Feeder) -> None:
        while not self._stopping.is_set():
            try:
                pause_s = feeder.step()
            except Exception:
                logger.exception("feeding anchor %s failed", feeder.anchor.name)
                pause_s = _AFTER_A_BUG_S
            self._stopping.wait(pause_s)
        feeder.finish()
        feeder.anchor.close()
