"""Retention and legal hold of one homeserver process: what the HTTP interface and the wiring talk to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.core.clock import new_id
from synapse_modules.core.errors import Conflict, Elsewhere
from synapse_modules.retention.bootstrap import InitialRules
from synapse_modules.retention.executor import Executor
from synapse_modules.retention.holds import HoldStore
from synapse_modules.retention.model import Author, Hold, HoldKind, Run, RunState
from synapse_modules.retention.planner import Planner
from synapse_modules.retention.records import simulation_event
from synapse_modules.retention.rules import changes_in_words
from synapse_modules.retention.runs import RunStore
from synapse_modules.retention.store import RuleStore, StoredRules

if TYPE_CHECKING:
    from synapse_modules.core.ports import AuditSink, EventsLane, RoomClassSource
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.retention.config import RetentionConfig
    from synapse_modules.retention.rules import Rules
    from synapse_modules.retention.simulation import Simulation
    from synapse_modules.retention.store import AppliedRules

__all__ = ["RetentionService", "RulesPlan"]

logger = logging.getLogger(__name__)

_TICK_MS = 30_000
_HOUR_MS = 3_600_000


class RulesPlan(NamedTuple):
    """What applying rules would change.

    Attributes:
        from_version: the version it is compared with. changes: sentences; none where there is no difference.
        after: what a run would do now under the new rules.
    """

    from_version: int
    changes: tuple[str, ...]
    after: Simulation


class RetentionService:
    """Rules, holds, simulations and runs. Everything but a run works in every process.

    Args:
        homeserver: this process. config: what the operator set. audit: where everything is recorded.
        classes: the room classes in force. lane: how far the audit log has followed room events.

    Raises:
        InvalidInput: the rules file cannot be read, or anything in it is wrong.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        config: RetentionConfig,
        audit: AuditSink,
        classes: RoomClassSource,
        lane: EventsLane,
    ) -> None:
        self._homeserver = homeserver
        self._audit = audit
        self._every_ms = None if config.run_every_hours is None else config.run_every_hours * _HOUR_MS
        self._rules = RuleStore(homeserver.database, audit)
        self._runs = RunStore(homeserver.database, audit)
        self._planner = Planner(homeserver, classes)
        self._executor = Executor(homeserver, self._runs, self._planner, lane)
        self._initial = InitialRules(homeserver, self._rules, self._planner, config)
        self.holds = HoldStore(homeserver.database, audit)

    def start(self) -> None:
        """Apply the first rules; in the process with background tasks, also settle interrupted runs and run on time."""
        self._initial.start()
        if self._homeserver.runs_background_tasks:
            self._homeserver.start("governance_retention_start", self._tick)
            self._homeserver.every(_TICK_MS, "governance_retention_tick", self._tick)

    async def rules(self) -> StoredRules:
        """The rules in force."""
        return await self._rules.read()

    async def plan_rules(self, new: Rules, root: str) -> RulesPlan:
        """What applying ``new`` would change; ``root`` begins the paths in errors.

        Raises:
            InvalidInput: a rule is for a class that does not exist.
            Unavailable: the room classes are not known just now.
        """
        await self._planner.check(new, root)
        stored = await self._rules.read()
        now_ms = self._homeserver.now_ms()
        after = await self._planner.plan(StoredRules(stored.version, new), now_ms)
        return RulesPlan(stored.version, changes_in_words(stored.rules, new), after)

    async def apply_rules(self, new: Rules, root: str, *, expected_version: int, author: Author) -> AppliedRules:
        """Put ``new`` in force, if the author has seen the rules that are.

        Raises:
            InvalidInput: a rule is for a class that does not exist. Conflict: other rules are in force by now.
            Unavailable: the room classes are not known just now.
        """
        await self._planner.check(new, root)
        now_ms = self._homeserver.now_ms()
        return await self._rules.apply(new, expected_version=expected_version, author=author, now_ms=now_ms)

    async def simulate(self, author: Author) -> Simulation:
        """What a run would do now. That somebody looked is on record before they see it.

        Raises:
            Conflict: the rules name a class that the access policy no longer defines.
            Unavailable: the room classes are not known just now, or the record cannot be written.
        """
        simulation = await self._planner.plan(await self._rules.read(), self._homeserver.now_ms())
        await self._audit.record(simulation_event(simulation, author))
        return simulation

    async def run(self, author: Author) -> Run:
        """Begin to delete what is due, in the background; :meth:`run_by_id` tells how far it is.

        Raises:
            Elsewhere: this process has no background tasks. Conflict: a run is going on.
        """
        if not self._homeserver.runs_background_tasks:
            raise Elsewhere(
                f"the process {self._homeserver.process_name} does not delete",
                advice="Send this request to the process that has Synapse's background tasks, by default the main one",
            )
        stored = await self._rules.read()
        run = Run(new_id(), RunState.RUNNING, stored.version, self._homeserver.now_ms(), author.user_id)
        await self._runs.begin(run)
        self._homeserver.start("governance_retention_run", lambda: self._executor.carry_out(run, stored, author))
        return run

    async def run_by_id(self, run_id: str) -> Run:
        """How far a run is, or what it did.

        Raises:
            NotFound: there is no such run.
        """
        return await self._runs.get(run_id)

    async def create_hold(self, kind: HoldKind, subject: str, *, case_id: str, reason: str, author: Author) -> Hold:
        """Place a room or a user under hold; it is in force when this returns.

        Raises:
            NotFound: this homeserver does not know the room or user. Unavailable: no hold can be in force here.
        """
        now_ms = self._homeserver.now_ms()
        hold = Hold(new_id(), kind, subject, case_id, author.user_id or "", reason, now_ms)
        return await self.holds.create(hold, author)

    async def release_hold(self, hold_id: str, *, reason: str, author: Author) -> Hold:
        """End a hold.

        Raises:
            NotFound: there is no such hold. Conflict: it was released before.
        """
        return await self.holds.release(hold_id, reason=reason, author=author, now_ms=self._homeserver.now_ms())

    async def _tick(self) -> None:
        await self._executor.settle_abandoned()
        if self._every_ms is None:
            return
        last_ms = await self._runs.last_start_ms()
        if last_ms is None or self._homeserver.now_ms() - last_ms >= self._every_ms:
            try:
                await self.run(Author())
            except Conflict:
                logger.info("no retention run on time: one is going on")
