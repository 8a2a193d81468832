"""What is done for one anchor, step by step: ask what it holds, compare, hand over what is new, keep the receipt."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules.audit.anchors import metrics
from synapse_modules.audit.anchors.model import AnchorContradicts, AnchorFailed, Held
from synapse_modules.audit.anchors.rollback import ask, check_held, judge
from synapse_modules.audit.receipts import Receipt, insert_receipt, newest_receipt, waiting_since
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.audit.anchor_config import AnchorKind
    from synapse_modules.audit.anchors.model import Anchor
    from synapse_modules.audit.anchors.offer import Offer
    from synapse_modules.audit.checkpoint import VerifierKey
    from synapse_modules.audit.discontinuity import Contradiction
    from synapse_modules.core.clock import Clock
    from synapse_modules.storage.database import Database

__all__ = ["AnchorStatus", "Feeder", "Surroundings"]

logger = logging.getLogger(__name__)

_CHECK_S = 30.0
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 60.0
_SLACK = 0.9
"""A part of its interval after which an anchor takes an offer: offers do not come to the millisecond."""


@dataclass(frozen=True, slots=True)
class AnchorStatus:
    """How an anchor is.

    Attributes:
        name, kind: which one.
        size: of the newest checkpoint that it took, 0 before the first. anchored_ms: when that was, 0 before the first.
        waiting_ms: since when the oldest checkpoint beyond has waited; None while it has the newest.
        failures: how often it failed in a row. problem: why, in words; None while it works.
        contradiction: how it contradicts the log; None as it should be.
    """

    name: str
    kind: AnchorKind
    size: int = 0
    anchored_ms: int = 0
    waiting_ms: int | None = None
    failures: int = 0
    problem: str | None = None
    contradiction: Contradiction | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all feeders of a process share.

    Attributes:
        database: the audit log's. key: what the log signs with. server_name: for the metrics.
        clock: for receipts. monotonic: for intervals, so that a clock that jumps changes nothing.
    """

    database: Database
    key: VerifierKey
    server_name: str
    clock: Clock
    monotonic: Callable[[], float]


class _Task:
    """Something that is due again and again; while it fails, after ``pause_s`` seconds and then ever longer ones."""

    def __init__(self, work: Callable[[], None], pause_s: float, monotonic: Callable[[], float]) -> None:
        self._work = work
        self._pause_s = pause_s
        self._monotonic = monotonic
        self.due_at = monotonic()
        self.failures = 0
        self.problem: str | None = None

    def run(self) -> bool:
        """Do it if it is due; whether it was and failed."""
        if self._monotonic() < self.due_at:
            return False
        try:
            self._work()
        except GovernanceError as error:
            self.problem = str(error)
            self.failures += 1
            longest = max(self._pause_s, _LONGEST_PAUSE_S)
            self.again_in(min(self._pause_s * 2.0 ** min(self.failures - 1, 16), longest))
            return True
        self.failures, self.problem = 0, None
        return False

    def again_in(self, seconds: float) -> None:
        """It is due again then."""
        self.due_at = self._monotonic() + seconds


class Feeder:
    """Feeds one anchor. Everything but reading :attr:`status` and :attr:`contradiction` belongs to one thread.

    Args:
        anchor: whom. interval_s: how often it gets something new.
        offer: what it is offered. around: what it needs besides.
        may_publish: whether the log may be shown to anybody.

    Attributes:
        asked: whether it has been tried to ask the anchor what it holds.
        status: how it is. contradiction: how the anchor contradicts the log.
    """

    def __init__(
        self,
        anchor: Anchor,
        interval_s: float,
        offer: Offer,
        around: Surroundings,
        may_publish: Callable[[], bool],
    ) -> None:
        self.anchor = anchor
        self.asked = False
        self.contradiction: Contradiction | None = None
        self.status = AnchorStatus(anchor.name, anchor.kind)
        self._interval_s = interval_s
        self._offer = offer
        self._around = around
        self._may_publish = may_publish
        self._known = False
        self._taken = 0
        self._published_at = around.monotonic() - interval_s
        self._check = _Task(self._compare, interval_s, around.monotonic)
        self._publish = _Task(self._hand_over, interval_s, around.monotonic)
        self._labels = (around.server_name, anchor.name, anchor.kind.value)
        self._show_metrics()

    def step(self) -> float:
        """Do what is due; returns the seconds until there is something to do again."""
        failed = self._check.run()
        self.asked = True
        if self._known:
            failed |= self._publish.run()
        self._note(failed)
        now = self._around.monotonic()
        next_at = min(self._check.due_at, max(self._publish.due_at, now + self._offer.next_in()))
        return max(_SHORTEST_PAUSE_S, next_at - now)

    def finish(self) -> None:
        """Hand over the newest checkpoint, whatever the interval says: this process ends."""
        self._published_at -= self._interval_s
        self._publish.again_in(0)
        if self._known:
            self._note(self._publish.run())

    # ------------------------------------------------------------------ comparing

    def _compare(self) -> None:
        around = self._around
        head = self._offer.current()
        held, found = ask(around.database, self.anchor, around.key, None if head is None else head.note)
        self._known = True
        receipt = around.database.run(lambda transaction: newest_receipt(transaction, self.anchor.name), read_only=True)
        if found is None and receipt is not None:
            kept = Held(receipt.size, receipt.note)
            found = check_held(around.database, self.anchor.name, kept, around.key)
        self._set_contradiction(found)
        self._check.again_in(max(_CHECK_S, self._interval_s))
        self._learn(held, receipt)

    def _learn(self, held: Held | None, receipt: Receipt | None) -> None:
        """Find out what the anchor has taken, and whether it still has it.

        Raises:
            AnchorFailed: it lost something, or the receipt is not genuine.
        """
        if receipt is None:
            return
        self.status = replace(self.status, size=receipt.size, anchored_ms=receipt.anchored_ms)
        self._taken = receipt.size
        if not self.anchor.check_receipt(receipt.note, receipt.data):
            raise AnchorFailed(
                f"the receipt kept for {receipt.size} entries is not one that it gives",
                where=self.anchor.name,
                advice="Was the anchor's key or certificate replaced, or the log's database altered?",
            )
        if self.anchor.remembers and (held is None or held.size < receipt.size):
            self._taken = 0
            found = "nothing" if held is None else f"{held.size} entries"
            raise AnchorFailed(f"it took {receipt.size} entries and now has {found}", where=self.anchor.name)

    def _set_contradiction(self, found: Contradiction | None) -> None:
        if found is not None and found != self.contradiction:
            logger.error("anchor %s contradicts the log: %s. Nothing is signed", found.anchor, found.problem)
        self.contradiction = found

    # ------------------------------------------------------------------ handing over

    def _hand_over(self) -> None:
        around = self._around
        head = self._offer.current()
        since = around.database.run(lambda transaction: waiting_since(transaction, self._taken), read_only=True)
        self.status = replace(self.status, waiting_ms=since)
        is_due = around.monotonic() - self._published_at >= self._interval_s * _SLACK
        if head is None or head.size <= self._taken or not is_due or not self._may_publish():
            return
        try:
            data = self.anchor.publish(head.note)
        except AnchorContradicts as refusal:
            self._set_contradiction(judge(around.database, self.anchor.name, refusal, around.key))
            return
        now_ms = around.clock.now_ms()
        receipt = Receipt(self.anchor.name, head.size, self.anchor.kind, head.note, now_ms, data)
        around.database.run(lambda transaction: insert_receipt(transaction, receipt))
        self._published_at, self._taken = around.monotonic(), head.size
        self.status = replace(self.status, size=head.size, anchored_ms=now_ms, waiting_ms=None)

    # ------------------------------------------------------------------ telling

    def _note(self, failed: bool) -> None:
        problem = self._publish.problem or self._check.problem
        failures = max(self._publish.failures, self._check.failures)
        self.status = replace(self.status, failures=failures, problem=problem, contradiction=self.contradiction)
        if failed:
            metrics.FAILURES.labels(*self._labels).inc()

    def _show_metrics(self) -> None:
        metrics.FAILURES.labels(*self._labels)
        metrics.SIZE.labels(*self._labels).set_function(lambda: self.status.size)
        metrics.CONTRADICTION.labels(*self._labels).set_function(lambda: self.contradiction is not None)
        metrics.AGE.labels(*self._labels).set_function(lambda: self._seconds_since(self.status.anchored_ms or None))
        metrics.WAITING.labels(*self._labels).set_function(lambda: self._seconds_since(self.status.waiting_ms, 0.0))

    def _seconds_since(self, since_ms: int | None, otherwise: float = float("nan")) -> float:
        return otherwise if since_ms is None else (self._around.clock.now_ms() - since_ms) / 1000
