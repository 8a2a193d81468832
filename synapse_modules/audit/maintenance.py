"""Erasing and pruning in one process of the homeserver, over connections that may do it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from synapse_modules.audit import maintenance_store as stored
from synapse_modules.audit import store
from synapse_modules.audit.eraser import Eraser
from synapse_modules.audit.pruner import DAY_MS, Pruner, Pruning
from synapse_modules.audit.record import Recorder
from synapse_modules.audit.settling import Settling
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import Conflict, Elsewhere, InvalidInput
from synapse_modules.storage.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.audit.config import AuditConfig
    from synapse_modules.audit.eraser import ErasureStep
    from synapse_modules.audit.pruner import PruneStep
    from synapse_modules.audit.record import Record
    from synapse_modules.core.ports import AuditEvent, HoldSource
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["Maintenance", "PruneOrder"]

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_SETTLE_S = 20.0
_SETTLE_STEP_MS = 100


@dataclass(frozen=True, slots=True)
class PruneOrder:
    """How far somebody wants to prune; one of the two is given.

    Attributes:
        before_index: everything below it. older_than_days: what was sealed longer ago.
    """

    before_index: int | None = None
    older_than_days: int | None = None


class Maintenance:
    """Erases and prunes.

    Args:
        homeserver: this process. config: what the operator set.
        log: the audit log's database, by the everyday role. own: our own connections to the homeserver's.
        holds: what is under legal hold.
    """

    def __init__(
        self, homeserver: Homeserver, config: AuditConfig, log: Database, own: Database, holds: HoldSource
    ) -> None:
        self._homeserver = homeserver
        self._config = config
        self._log = log
        self._own = own
        self._holds = holds
        self._recorder = Recorder(homeserver.server_name, homeserver.process_name, system_random)
        location = config.maintenance_database.location() if config.maintenance_database else log.location
        self._database = Database(location)
        self._thread = homeserver.threads("governance-audit-maintenance", 1)

    async def count(self, event: AuditEvent, subject: str) -> int:
        """How many entries an erasure of ``subject`` would change. Raises as :meth:`begin_erasure`."""
        eraser = await self._eraser(event, subject)
        await self._in_thread(eraser.check)
        return await self._in_thread(eraser.count)

    async def begin_erasure(self, event: AuditEvent, subject: str) -> ErasureStep:
        """The first step of erasing ``subject``.

        Args:
            event: the beginning of each record of it.
            subject: the person, as they stand in ``actor`` and ``target``.

        Raises:
            Elsewhere: this process may not change the log.
            Conflict: a hold forbids it, or records wait for their index and do not get it.
        """
        eraser = await self._eraser(event, subject)
        await self._in_thread(eraser.check)
        settling = await self._in_thread(lambda: Settling(self._log, self._own))
        await self._settle(settling)
        return await self._ended(await self._in_thread(lambda: eraser.begin(settling.stuck)))

    async def go_on_erasing(self, event: AuditEvent, subject: str, begin: int, end: int) -> ErasureStep:
        """A later step, from ``following`` of the step before. Raises as :meth:`begin_erasure`."""
        eraser = await self._eraser(event, subject)
        return await self._ended(await self._in_thread(lambda: eraser.step(begin, end)))

    async def prune(self, event: AuditEvent, order: PruneOrder, *, dry_run: bool) -> PruneStep:
        """A step of pruning; with ``dry_run`` what there is to do.

        Raises:
            Elsewhere: this process may not change the log.
            InvalidInput: the wanted index is beyond what may go.
            Conflict: a hold forbids it, or what is to go is not what was signed.
        """
        await self._require_rights()
        pruning = Pruning(
            before_index=order.before_index,
            older_than_ms=None if order.older_than_days is None else order.older_than_days * DAY_MS,
            youngest_ms=self._config.prune_after_days * DAY_MS,
            anchors=tuple(anchor.name for anchor in self._config.anchors),
            held=await self._holds.held(),
            now_ms=self._homeserver.now_ms(),
        )
        pruner = Pruner(self._database, self._record, event, pruning)
        step = await self._in_thread(pruner.plan if dry_run else pruner.step)
        if not dry_run and step.removed and not step.left:
            await self._in_thread(self._database.empty_journal)
        return step

    # ------------------------------------------------------------------ inside

    async def _eraser(self, event: AuditEvent, subject: str) -> Eraser:
        await self._require_rights()
        return Eraser(self._database, self._record, event, subject, await self._holds.held())

    async def _ended(self, step: ErasureStep) -> ErasureStep:
        if step.following is None:
            await self._in_thread(self._database.empty_journal)
        return step

    async def _settle(self, settling: Settling) -> None:
        deadline = time.monotonic() + _SETTLE_S
        while not await self._in_thread(settling.settled):
            if time.monotonic() > deadline:
                raise Conflict(
                    "records wait for their index and do not get it",
                    advice="Nothing is erased. Does the process with background tasks run? See the status of the log",
                )
            await self._homeserver.sleep_ms(_SETTLE_STEP_MS)

    async def _require_rights(self) -> None:
        if not await self._in_thread(lambda: self._database.run(stored.may_change, read_only=True)):
            raise Elsewhere(
                "the database role of this process may not change the audit log",
                advice="Give AuditModule a maintenance_database, with the role that the operator's guide describes",
            )
        if self._config.maintenance_database is not None:
            await self._in_thread(self._check_database)

    def _check_database(self) -> None:
        """Refuse to change another log than this one."""
        if self._database.run(store.keys, read_only=True) != self._log.run(store.keys, read_only=True):
            found = str(self._database.location)
            raise InvalidInput("config.maintenance_database", found, f"the log's own, {self._log.location}")

    def _record(self, event: AuditEvent) -> Record:
        return self._recorder.record(event, self._homeserver.now_ms())

    async def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        return await self._homeserver.in_pool(self._thread, function)
