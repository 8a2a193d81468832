"""What one process of the homeserver does for all: follow the room events, copy the outbox, order and sign.

Beside that it watches whether every process records, and whether anything happens at all. Anchors are fed by threads of
their own. All else runs in one thread, about once a second while something is new, in
batches. A step that fails is tried again in the next turn and keeps the others from nothing; its problem is logged when
it begins, changes or ends.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit import metrics
from synapse_modules.audit.discontinuity import RolledBack
from synapse_modules.audit.problems import DAMAGE, report_problem
from synapse_modules.audit.search_index import SearchIndex
from synapse_modules.audit.sequencer import LogDamaged, WrongKey
from synapse_modules.audit.writers import count_unordered
from synapse_modules.core.errors import GovernanceError
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.deadline import DeadlineExceeded
from synapse_modules.homeserver.handoff import Handoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse_modules.audit.anchors.keeper import AnchorKeeper
    from synapse_modules.audit.event_check import EventCheck
    from synapse_modules.audit.follower import Follower
    from synapse_modules.audit.outbox import OutboxDrain
    from synapse_modules.audit.sequencer import Sequencer
    from synapse_modules.audit.watch import Watch
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.storage.database import Database

__all__ = ["Background", "Steps"]

logger = logging.getLogger(__name__)

_MUCH = 200  # what so much was found of is looked at again at once
_COUNT_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a turn, in this order, so that what one finds is sealed, seen and anchored in the same.

    Attributes:
        follower, check, drain: bring records. sequencer: seals them. watch: looks at what is sealed.
        keeper: takes it to the anchors.
    """

    follower: Follower
    check: EventCheck
    drain: OutboxDrain
    sequencer: Sequencer
    watch: Watch
    keeper: AnchorKeeper


class Background:
    """The turns of the background process.

    Args:
        homeserver: this process. log: the audit log's database, where problems are noted.
        steps: what is done in a turn.
        interval_ms: between the end of a turn and the next one.
    """

    def __init__(self, homeserver: Homeserver, log: Database, steps: Steps, interval_ms: int) -> None:
        self._homeserver = homeserver
        self._log = log
        self._follower = steps.follower
        self._check = steps.check
        self._drain = steps.drain
        self._sequencer = steps.sequencer
        self._watch = steps.watch
        self._keeper = steps.keeper
        self._index = SearchIndex(log)
        self._interval_ms = interval_ms
        self._thread = homeserver.threads("governance-audit-order", 1)
        self._pause: Handoff | None = None
        self._stopping = False
        self._logged: dict[str, str | None] = {}
        self._noted: dict[str, str | None] = {}
        self._followed: Mapping[str, int] | None = None
        self._followed_at = time.monotonic()
        self._counted_at = 0.0
        self._ordered = False
        self._ordered_at = time.monotonic()
        self._export_metrics()

    async def run(self) -> None:
        """Take turns until :meth:`stop`."""
        self._keeper.start()
        while not self._stopping:
            if not await self.turn():
                await self._wait()

    def wake(self) -> None:
        """Begin the next turn now."""
        if self._pause is not None:
            self._pause.deliver()

    def stop(self) -> None:
        """Begin no further turn by itself."""
        self._stopping = True
        self.wake()

    async def close(self, timeout_s: float) -> None:
        """Take the newest checkpoint to the anchors, after the last turn; only so long as ``timeout_s``."""
        await self._homeserver.in_pool(self._thread, lambda: self._keeper.stop(timeout_s))

    async def turn(self) -> bool:
        """Take one turn, after the one that runs already; whether much is left to do."""
        positions = internals.event_positions(self._homeserver.api)
        return await self._homeserver.in_pool(self._thread, lambda: self._work(positions))

    async def _wait(self) -> None:
        self._pause = Handoff()
        try:
            await self._pause.wait(self._interval_ms)
        except DeadlineExceeded:
            return  # as nearly always: nobody was in a hurry
        finally:
            self._pause = None

    # ------------------------------------------------------------------ in the thread

    def _work(self, positions: Mapping[str, int]) -> bool:
        steps: tuple[tuple[str, Callable[[], int]], ...] = (
            ("events", lambda: self._follow(positions)),
            ("events check", self._check_events),
            ("outbox", self._drain.run_cycle),
            ("sequencer", self._order),
            ("search index", self._index.run_cycle),
            ("watch", self._look),
        )
        found = [self._attempt(source, step) for source, step in steps]
        for source, problem in self._watch.problems().items():
            self._report(source, problem)
        for status in self._keeper.status():
            self._report(f"anchor {status.name}", status.problem)
        return max(found) >= _MUCH

    def _attempt(self, source: str, step: Callable[[], int]) -> int:
        try:
            found = step()
        except (LogDamaged, RolledBack, WrongKey) as error:
            self._report(DAMAGE, error.sentence())
        except GovernanceError as error:
            self._report(source, error.sentence())
        except Exception as error:  # noqa: BLE001  whatever it is: it is reported, and the other steps go on
            self._report(source, _first_line(error), error)
        else:
            self._report(source, None)
            return found
        return 0

    def _follow(self, positions: Mapping[str, int]) -> int:
        try:
            found = self._follower.run_cycle(positions)
        finally:
            for lane, behind in self._follower.behind(positions).items():
                metrics.EVENTS_BEHIND.labels(self._homeserver.server_name, lane).set(behind)
        if found or self._followed != positions:
            self._followed = positions if self._follower.caught_up(positions) else None
        if self._followed is not None:
            self._followed_at = time.monotonic()
        return max(found, _MUCH) if self._follower.unfinished else found

    def _check_events(self) -> int:
        missed = self._check.run_cycle()
        metrics.EVENTS_MISSED.labels(self._homeserver.server_name).inc(missed)
        return missed

    def _order(self) -> int:
        self._ordered = False
        try:
            placed = self._sequencer.run_cycle()
        except RolledBack:
            self._ordered = True  # all but the signing goes on
            raise
        except Exception:
            self._count_unordered()
            raise
        self._ordered = True
        if placed < _MUCH:
            self._ordered_at = time.monotonic()
        metrics.UNORDERED.labels(self._homeserver.server_name).set(0)
        self._keeper.may_sign()  # raises while an anchor contradicts the log, although nothing was to be signed
        self._report(DAMAGE, _missing(self._sequencer.gaps))
        return placed

    def _look(self) -> int:
        if self._ordered:
            return self._watch.run_cycle(self._sequencer.gaps)
        self._watch.stand_still()
        return 0

    def _count_unordered(self) -> None:
        if time.monotonic() - self._counted_at > _COUNT_EVERY_S:
            self._counted_at = time.monotonic()
            count = self._log.run(count_unordered, read_only=True)
            metrics.UNORDERED.labels(self._homeserver.server_name).set(count)

    # ------------------------------------------------------------------ problems

    def _report(self, source: str, problem: str | None, error: Exception | None = None) -> None:
        """Log and note what is wrong with ``source``, or that nothing is any more, if that is news."""
        if self._logged.get(source) != problem:
            if problem is None:
                logger.warning("audit log, %s: works again", source)
            else:
                logger.error("audit log, %s: %s", source, problem, exc_info=error)
            self._logged[source] = problem
        if self._noted.get(source, "") != problem:
            self._note(source, problem)

    def _note(self, source: str, problem: str | None) -> None:
        now_ms = self._homeserver.now_ms()
        try:
            self._log.run(lambda transaction: report_problem(transaction, source, problem, now_ms))
        except Exception as error:  # noqa: BLE001  of what cannot be noted now it was logged, and the next turn tries
            logger.debug("audit log, %s: not noted: %s", source, _first_line(error))
        else:
            self._noted[source] = problem

    def _export_metrics(self) -> None:
        server = self._homeserver.server_name
        metrics.EVENTS_LAG.labels(server).set_function(lambda: time.monotonic() - self._followed_at)
        metrics.ORDER_LAG.labels(server).set_function(lambda: time.monotonic() - self._ordered_at)
        metrics.CHECKPOINT_AGE.labels(server).set_function(self._checkpoint_age)
        metrics.DAMAGED.labels(server).set_function(lambda: int(self._logged.get(DAMAGE) is not None))

    def _checkpoint_age(self) -> float:
        signed_ms = self._sequencer.signed_ms
        return 0.0 if signed_ms is None else max(0, self._homeserver.now_ms() - signed_ms) / 1000


def _missing(gaps: Mapping[str, tuple[int, int]]) -> str | None:
    if not gaps:
        return None
    places = ", ".join(f"{writer} between {first} and {last}" for writer, (first, last) in sorted(gaps.items()))
    return f"records were deleted before they had an index: of {places}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
