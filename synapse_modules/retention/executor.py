"""Carries out what is due, room after room, in the background.

Rules: nothing is deleted before the audit log has followed every event that exists; a room under hold is left alone,
and the triggers stop what would pass a hold that was placed meanwhile; each purge is announced before and recorded
after, as counted in the database; a run that loses its lock stops.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synapse_modules.core.errors import GovernanceError
from synapse_modules.homeserver.internals import cutoff_at, purge_history_before
from synapse_modules.retention.due import count_due
from synapse_modules.retention.holds import copies_in_room, drop_copies_without_hold, holds_on_room, require_triggers
from synapse_modules.retention.model import Author, Run, RunState
from synapse_modules.retention.records import RoomOutcome
from synapse_modules.retention.runs import HEARTBEAT_MS, Intent

if TYPE_CHECKING:
    from synapse_modules.core.ports import EventsLane, Transaction
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.retention.planner import Planner
    from synapse_modules.retention.runs import RunStore
    from synapse_modules.retention.simulation import RoomPlan
    from synapse_modules.retention.store import StoredRules

__all__ = ["Executor"]

logger = logging.getLogger(__name__)

_LONGEST_PROBLEM = 200


class Executor:
    """Runs, in the one process that has background tasks.

    Args:
        homeserver: that process. runs: where runs stand. planner: finds what is due.
        lane: how far the audit log has followed.
    """

    def __init__(self, homeserver: Homeserver, runs: RunStore, planner: Planner, lane: EventsLane) -> None:
        self._homeserver = homeserver
        self._runs = runs
        self._planner = planner
        self._lane = lane
        self._alive: str | None = None

    async def carry_out(self, run: Run, stored: StoredRules, author: Author) -> None:
        """Carry out a run that has begun, under the rules ``stored``, and end it whatever happens."""
        self._alive = run.run_id
        self._homeserver.start("governance_retention_heartbeat", self._beat)
        try:
            dropped = await self._purge_all(run, stored, author)
            await self._finish(run, RunState.DONE, author, dropped)
        except GovernanceError as error:
            logger.warning("retention run %s stopped: %s", run.run_id, error)
            await self._finish(run, RunState.FAILED, author, problem=error.sentence())
        except Exception as error:
            logger.exception("retention run %s stopped", run.run_id)
            problem = f"it stopped at an error ({type(error).__name__}); the homeserver's log has more"
            await self._finish(run, RunState.FAILED, author, problem=problem)
        finally:
            self._alive = None

    async def settle_abandoned(self) -> None:
        """Record what runs have done whose process died, and end them."""
        for run, intents in await self._runs.abandoned(self._homeserver.now_ms()):
            if run.run_id == self._alive:
                continue
            logger.warning("retention run %s was interrupted; what it has done is put on record", run.run_id)
            author = Author(run.started_by)
            for intent in intents:
                await self._settle(intent, await self._left(intent), "the run was interrupted", author)
            await self._finish(run, RunState.INTERRUPTED, author, problem="its process ended")

    async def _purge_all(self, run: Run, stored: StoredRules, author: Author) -> int:
        await self._homeserver.database.run("retention_triggers", require_triggers)
        await self._lane.catch_up()
        simulation = await self._planner.plan(stored, run.started_ms, sized=False)
        await self._runs.planned(run.run_id, len(simulation.rooms))
        for plan in simulation.rooms:
            await self._purge(run, plan, author)
        return await self._homeserver.database.run("retention_drop_copies", drop_copies_without_hold)

    async def _purge(self, run: Run, plan: RoomPlan, author: Author) -> None:
        await self._lane.catch_up()
        intent = await self._announce(run, plan, author)
        if intent is not None:
            result = await purge_history_before(self._homeserver.api, plan.room_id, plan.cutoff_ms)
            problem = None if result.problem is None else result.problem.splitlines()[0][:_LONGEST_PROBLEM]
            await self._settle(intent, result.left, problem, author)

    async def _announce(self, run: Run, plan: RoomPlan, author: Author) -> Intent | None:
        """Announce the purge of a room; None where there is nothing to do, or a hold that is then on record."""
        cutoff = await cutoff_at(self._homeserver.api, plan.cutoff_ms)
        now_ms = self._homeserver.now_ms()

        def work(transaction: Transaction) -> Intent | None:
            due = count_due(transaction, plan.room_id, cutoff)
            holds = holds_on_room(transaction, plan.room_id)
            verdict = plan.verdict._replace(holds=holds)
            if holds or not due:
                kept = due if holds else 0
                outcome = RoomOutcome(
                    plan.room_id, verdict.room_class, verdict.winner, plan.cutoff_ms, kept_by_hold=kept
                )
                self._runs.keep_lock(transaction, run.run_id, now_ms)
                self._runs.add(transaction, run.run_id, outcome, author, now_ms)
                return None
            copies = copies_in_room(transaction, plan.room_id)
            place = (run.run_id, plan.room_id, verdict.room_class, verdict.rule)
            intent = Intent(*place, plan.cutoff_ms, due, copies)
            self._runs.announce(transaction, intent, now_ms)
            return intent

        return await self._homeserver.database.run("retention_announce", work)

    async def _settle(self, intent: Intent, left: int, problem: str | None, author: Author) -> None:
        now_ms = self._homeserver.now_ms()
        await self._runs.settle(intent, left=left, problem=problem, author=author, now_ms=now_ms)

    async def _left(self, intent: Intent) -> int:
        cutoff = await cutoff_at(self._homeserver.api, intent.cutoff_ms)
        return await self._homeserver.database.run(
            "retention_left", lambda transaction: count_due(transaction, intent.room_id, cutoff)
        )

    async def _finish(
        self, run: Run, state: RunState, author: Author, copies_dropped: int = 0, problem: str | None = None
    ) -> None:
        await self._runs.finish(
            run.run_id,
            state,
            author=author,
            now_ms=self._homeserver.now_ms(),
            copies_dropped=copies_dropped,
            problem=problem,
        )

    async def _beat(self) -> None:
        """Show that the run is alive until it has ended; the run itself notices when it has lost its lock."""
        run_id = self._alive
        while run_id is not None and self._alive == run_id:
            try:
                await self._runs.beat(run_id, self._homeserver.now_ms())
            except Exception:
                logger.exception("retention run %s could not show that it is alive", run_id)
            await self._homeserver.sleep_ms(HEARTBEAT_MS)
