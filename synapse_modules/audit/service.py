"""The audit log in one process of the homeserver: where features leave events, and what runs behind them."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synapse_modules import __version__
from synapse_modules.audit import metrics, store
from synapse_modules.audit.anchors.factory import anchor_warnings, make_anchors
from synapse_modules.audit.anchors.keeper import AnchorKeeper
from synapse_modules.audit.background import Background, Steps
from synapse_modules.audit.config import Reaction, log_origin, signing_key_paths
from synapse_modules.audit.event_check import EventCheck
from synapse_modules.audit.follower import Follower
from synapse_modules.audit.heartbeat import Heartbeat, Unrecorded
from synapse_modules.audit.intake import Intake
from synapse_modules.audit.key_file import load_key
from synapse_modules.audit.log_key import keys_of_log, marking
from synapse_modules.audit.outbox import OutboxDrain, leave_in_outbox, number_on
from synapse_modules.audit.presence import Presence
from synapse_modules.audit.problems import DAMAGE, open_problems
from synapse_modules.audit.receipts import newest_receipts
from synapse_modules.audit.record import Recorder
from synapse_modules.audit.refusals import Refusals
from synapse_modules.audit.request_notes import RequestNotes
from synapse_modules.audit.sequencer import Sequencer
from synapse_modules.audit.signs import newest_signs
from synapse_modules.audit.watch import PROCESS, Watch
from synapse_modules.audit.writers import count_unordered
from synapse_modules.core.action_specs import SPECS
from synapse_modules.core.actions import Action
from synapse_modules.core.clock import new_id, system_random
from synapse_modules.core.errors import InvalidInput, Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.deadline import DeadlineExceeded, within
from synapse_modules.homeserver.handoff import Handoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from synapse_modules.audit.checkpoint import SigningKey, VerifierKey
    from synapse_modules.audit.config import AuditConfig
    from synapse_modules.audit.presence import Seen
    from synapse_modules.audit.record import Record
    from synapse_modules.core.ports import Transaction, TransactionRunner
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.storage.database import Database

__all__ = ["AuditService"]

logger = logging.getLogger(__name__)

_FULL_QUEUE_STEP_MS = 20
_CATCH_UP_S = 30.0
_CATCH_UP_STEP_MS = 100
_CLOSE_S = 5.0
_SETTLE_EVERY_MS = 10_000
_SILENT_AFTER = 1.8
"""Intervals without a sign after which a process is silent: a heartbeat may be late, and two must not be missed."""
_SIGNS_IN_STATUS = 300


class AuditService:
    """An :class:`~synapse_modules.core.ports.AuditSink` and :class:`~synapse_modules.core.ports.EventsLane`.

    Args:
        homeserver: this process. config: what the operator set.
        log: the audit log's database. own: our own connections to the homeserver's.
        modules: the names of the modules that are loaded; asked once all are.

    Attributes:
        reader: reads the log. notes: what of requests that are being served was learnt or recorded.

    Raises:
        InvalidInput: the signing key cannot be had; in the process with background tasks alone, which needs it.
        GovernanceError: the key has signed a log, and this one is empty.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        config: AuditConfig,
        log: Database,
        own: Database,
        modules: Callable[[], Sequence[str]] = lambda: ("AuditModule",),
    ) -> None:
        self._homeserver = homeserver
        self._config = config
        self._log = log
        self._origin = log_origin(config, homeserver.server_name)
        self._key_paths = signing_key_paths(config, own.location)
        self._keys: tuple[SigningKey, ...] = ()
        self.notes = RequestNotes(internals.current_request)
        self._recorder = Recorder(homeserver.server_name, homeserver.process_name, system_random)
        self._threads = homeserver.threads("governance-audit", 3)
        self.reader: TransactionRunner = homeserver.threaded(log, self._threads, read_only=True)
        self._intake = self._make_intake()
        self._modules = modules
        self._unrecorded = Unrecorded()
        self._refusals = Refusals(self._record, homeserver)
        self._heartbeat = Heartbeat(
            homeserver, self.leave, self._intake, self._unrecorded, modules, config.heartbeat_interval_s * 1000
        )
        own.run(number_on)
        self._follower = Follower(own, log, self._recorder, homeserver)
        self._background = self._make_background(own) if homeserver.runs_background_tasks else None

    def start(self) -> None:
        """Record from now on; everything else begins when the reactor runs."""
        self._submit(self._about_this_process(Action.AUDIT_START))
        self._homeserver.start("governance_audit", self._run)
        self._homeserver.every(_SETTLE_EVERY_MS, "governance_audit_refusals", self._refusals.settle)
        self._homeserver.before_shutdown(self._end)

    # ------------------------------------------------------------------ the sink

    async def record(self, event: AuditEvent) -> None:
        """Return once ``event`` is durable, or where the operator lets its class pass unrecorded.

        A refusal that repeats is counted: :class:`~synapse_modules.audit.refusals.Refusals`.

        Raises:
            Unavailable: it is not durable in time, or this process is stopping. It may be stored all the same.
            InvalidInput: no record can be made of it.
        """
        if Refusals.takes(event):
            await self._refusals.record(event)
            self.notes.here().recorded.add(event.action)
        else:
            await self._record(event)

    async def _record(self, event: AuditEvent) -> None:
        record = self._recorder.record(event, self._homeserver.now_ms())
        try:
            await self._store(record)
        except Unavailable as error:
            self._react(event, error)
        else:
            self.notes.here().recorded.add(event.action)

    async def record_effect(self, event: AuditEvent) -> None:
        """Record what has happened and cannot be refused: return once it is durable, or waits longer than it should.

        Raises:
            Unavailable: there is no room for it, or this process is stopping.
            InvalidInput: no record can be made of it.
        """
        keyed = replace(event, key=new_id())  # so that it is stored once, whatever came of the first attempt
        try:
            await self._store(self._recorder.record(keyed, self._homeserver.now_ms()))
        except Unavailable as error:
            if not self.leave(keyed, lambda _: None):
                raise
            logger.warning("%s is not recorded yet: %s", event.action, error)
        self.notes.here().recorded.add(event.action)

    def leave(self, event: AuditEvent, ended: Callable[[Exception | None], None]) -> bool:
        """Take an event that nobody waits for; False when there is no room, which is when half of the queue is full.

        ``ended`` is called in another thread, with None once the event is durable, or with why it never will be.

        Raises:
            Unavailable: this process is stopping.
            InvalidInput: no record can be made of it.
        """
        if len(self._intake) >= max(1, self._config.queue_capacity // 2):
            return False
        record = self._recorder.record(event, self._homeserver.now_ms())
        return self._intake.submit(record, ended) is not None

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        """Write ``event`` in the caller's homeserver-database transaction: both commit or neither does."""
        leave_in_outbox(transaction, self._recorder.record(event, self._homeserver.now_ms()))

    # ------------------------------------------------------------------ the events lane

    async def catch_up(self) -> None:
        """Return once every event that this process knows to be persisted is durable in the log.

        Raises:
            Unavailable: that took longer than half a minute, or the log's database does not answer.
        """
        positions = internals.event_positions(self._homeserver.api)
        deadline = time.monotonic() + _CATCH_UP_S
        while not await self._homeserver.in_pool(self._threads, lambda: self._follower.caught_up(positions)):
            if time.monotonic() > deadline:
                raise Unavailable("the audit log has not followed the room events in time")
            if self._background is not None:
                self._background.wake()
            await self._homeserver.sleep_ms(_CATCH_UP_STEP_MS)

    # ------------------------------------------------------------------ for the API

    @property
    def signing_keys(self) -> Sequence[SigningKey]:
        """What the log signs with, the newest first; those whose files this process can read."""
        if not self._keys:
            found = (self._readable_key(path) for path in self._key_paths)
            self._keys = tuple(key for key in found if key is not None)
        return self._keys[::-1]

    async def status(self) -> dict[str, Any]:
        """How the log is: the newest checkpoint, what waits, and what is wrong.

        ``queue_length`` and ``process`` are of the answering process, everything else is of the whole log. ``damage``
        is set where the log contradicts itself or has lost records; ``problems`` tells everything that is wrong.

        Raises:
            Unavailable: the log's database does not answer.
        """
        stored = await self.reader.run("audit_status", _stored_status)
        return {
            **stored,
            "origin": self._origin,
            "process": self._homeserver.process_name,
            "queue_length": len(self._intake),
            "queue_problem": self._intake.problem,
        }

    # ------------------------------------------------------------------ inside

    async def _store(self, record: Record) -> None:
        deadline = time.monotonic() + self._config.ack_timeout_ms / 1000
        arrived = Handoff()
        while (ticket := self._intake.submit(record, arrived.deliver)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(f"{len(self._intake)} audit records wait already, as many as may")
            await self._homeserver.sleep_ms(_FULL_QUEUE_STEP_MS)
        try:
            await arrived.wait(max(0.0, deadline - time.monotonic()) * 1000)
        except DeadlineExceeded:
            self._intake.withdraw(ticket)
            cause = f": {self._intake.problem}" if self._intake.problem else ""
            raise Unavailable(f"no audit record within {self._config.ack_timeout_ms} ms{cause}") from None

    def _react(self, event: AuditEvent, error: Unavailable) -> None:
        reaction = self._config.on_unavailable.reaction_to(event.action)
        action_class = SPECS[event.action].action_class.value
        metrics.UNRECORDED.labels(self._homeserver.server_name, action_class, reaction.value).inc()
        allowed = reaction is Reaction.ALLOW_AND_ALARM
        self._unrecorded.add(action_class, self._homeserver.now_ms(), allowed=allowed)
        if reaction is Reaction.DENY:
            raise error
        logger.error("goes ahead although it is not recorded: %s (%s): %s", event.action, event.outcome, error)

    def _submit(self, event: AuditEvent) -> None:
        """Leave an event that nobody waits for."""

        def ended(error: Exception | None) -> None:
            if error is not None:
                logger.error("%s was not recorded: %s", event.action, error)

        self._intake.submit(self._recorder.record(event, self._homeserver.now_ms()), ended)

    def _about_this_process(self, action: Action) -> AuditEvent:
        details = {"writer": self._intake.writer}
        if action is Action.AUDIT_START:
            details["product_version"] = __version__
        return AuditEvent(action, details=details)

    async def _run(self) -> None:
        self._intake.start()
        await self._heartbeat.start()
        if self._background is not None:
            await self._background.run()

    async def _end(self) -> None:
        """Store what waits and the closing record, and seal it, within some seconds."""
        try:
            if self._background is not None:
                self._background.stop()
            for counted in self._refusals.drain():
                self._submit(counted)
            last = self._recorder.record(self._about_this_process(Action.AUDIT_STOP), self._homeserver.now_ms())
            if not await self._homeserver.in_pool(self._threads, lambda: self._intake.close(last, _CLOSE_S)):
                logger.error("the audit log could not be closed in good order: its last record is missing")
            if self._background is not None:
                await within(_CLOSE_S * 1000, self._background.turn)
                await self._background.close(_CLOSE_S)
        except Exception:
            logger.exception("the audit log could not be closed in good order")

    def _make_intake(self) -> Intake:
        server = self._homeserver.server_name
        intake = Intake(
            self._log,
            self._homeserver.process_name,
            system_random,
            capacity=self._config.queue_capacity,
            on_commit=metrics.COMMIT_SECONDS.labels(server).observe,
        )
        metrics.QUEUE_LENGTH.labels(server).set_function(lambda: len(intake))
        return intake

    def _make_background(self, own: Database) -> Background:
        self._keys = keys_of_log(self._log, self._key_paths, self._origin, system_random)
        keeper = self._make_keeper(self._keys[0].verifier)
        may_sign = marking(self._key_paths, keeper.may_sign)
        sequencer = Sequencer(
            self._log,
            self._keys[0],
            self._recorder,
            self._homeserver,
            may_sign,
            next_key=self._keys[1] if len(self._keys) > 1 else None,
        )
        drain = OutboxDrain(own, self._log)
        interval_ms = self._config.seal_interval_ms
        check = EventCheck(own, self._log, self._recorder, self._homeserver)
        steps = Steps(self._follower, check, drain, sequencer, self._make_watch(), keeper)
        return Background(self._homeserver, self._log, steps, interval_ms)

    def _readable_key(self, path: Path) -> SigningKey | None:
        try:
            return load_key(path, self._origin)
        except InvalidInput as error:
            logger.warning("this process cannot sign exports of the audit log with this key: %s", error)
            return None

    def _make_watch(self) -> Watch:
        silence_s = self._config.heartbeat_interval_s * _SILENT_AFTER
        expected = internals.configured_processes(self._homeserver.api)
        return Watch(
            self._log,
            self._homeserver.server_name,
            self._homeserver,
            self.leave,
            lambda: Presence(expected, __version__, self._modules(), silence_s),
            self._config.quiet_interval_s * 1000,
        )

    def _make_keeper(self, key: VerifierKey) -> AnchorKeeper:
        for warning in anchor_warnings(self._config.anchors, self._log.location):
            logger.warning("%s", warning)
        anchors = make_anchors(self._config.anchors, self._origin, self._log, self._homeserver)
        server_name = self._homeserver.server_name
        return AnchorKeeper(self._log, key, anchors, server_name=server_name, clock=self._homeserver)


def _stored_status(transaction: Transaction) -> dict[str, Any]:
    signed = store.checkpoint(transaction)
    problems = open_problems(transaction)
    return {
        "size": signed.size if signed else 0,
        "root": signed.root.hex() if signed else None,
        "checkpoint_ms": signed.created_ms if signed else None,
        "keys": list(reversed(store.keys(transaction))),
        "unordered": count_unordered(transaction),
        "anchors": [
            {"name": each.anchor, "kind": each.kind, "size": each.size, "anchored_ms": each.anchored_ms}
            for each in newest_receipts(transaction)
        ],
        "processes": _processes(transaction, problems),
        "problems": problems,
        "damage": problems.get(DAMAGE),
    }


def _processes(transaction: Transaction, problems: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every process that has shown itself lately, or is missing: what it runs, and what is wrong with it."""
    presence = Presence((), "", (), 0)
    presence.saw(newest_signs(transaction, -1, _SIGNS_IN_STATUS))
    wrong = {source.removeprefix(PROCESS): text for source, text in problems.items() if source.startswith(PROCESS)}
    seen = presence.seen()
    return [_process(name, seen.get(name), wrong.get(name)) for name in sorted({*seen, *wrong})]


def _process(name: str, seen: Seen | None, problem: str | None) -> dict[str, Any]:
    sign = seen.sign if seen is not None else None
    return {
        "process": name,
        "recording": sign is not None and sign.alive,
        "seen_ms": sign.time_ms if sign else None,
        "product_version": seen.version if seen else None,
        "modules": list(seen.modules or ()) if seen else [],
        "problem": problem,
    }
