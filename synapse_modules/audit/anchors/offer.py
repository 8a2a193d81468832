"""The checkpoint that all anchors are offered at one time, so that what several of them give comes together on it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.anchors.model import Held
from synapse_modules.audit.anchors.rollback import check_held

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.audit.checkpoint import VerifierKey
    from synapse_modules.audit.discontinuity import Contradiction
    from synapse_modules.storage.database import Database

__all__ = ["Offer"]

_OWN_MEMORY = "memory of this process"


class Offer:
    """The newest checkpoint, as of the last tick. Safe to use from several threads.

    It is compared with the one before: a database that is set back under a running process is noticed here.

    Args:
        database: the audit log's. key: what the log signs with. tick_s: how long an offer stands.
        monotonic: seconds that only grow.

    Attributes:
        contradiction: how the log contradicts what it was at the last tick.
    """

    def __init__(self, database: Database, key: VerifierKey, tick_s: float, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._key = key
        self._tick_s = tick_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._head: store.SignedHead | None = None
        self._until = monotonic()
        self.contradiction: Contradiction | None = None

    def current(self) -> store.SignedHead | None:
        """What is offered now; None while the log is empty, and while it contradicts what was offered before."""
        with self._lock:
            if self._monotonic() >= self._until:
                self._renew()
                self._until = self._monotonic() + self._tick_s
            return None if self.contradiction is not None else self._head

    def next_in(self) -> float:
        """Seconds until there may be another one."""
        return max(0.0, self._until - self._monotonic())

    def expire(self) -> None:
        """Take the newest checkpoint as soon as somebody asks."""
        with self._lock:
            self._until = self._monotonic()

    def _renew(self) -> None:
        if self._head is not None:
            held = Held(self._head.size, self._head.note)
            self.contradiction = check_held(self._database, _OWN_MEMORY, held, self._key)
        if self.contradiction is None:
            self._head = self._database.run(store.checkpoint, read_only=True)
