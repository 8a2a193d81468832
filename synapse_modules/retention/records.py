"""What the audit log keeps of rules, holds and runs. No names of people outside the personal fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent
from synapse_modules.retention.model import HoldKind
from synapse_modules.retention.rules import rules_document

if TYPE_CHECKING:
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.retention.model import Author, Hold, Run
    from synapse_modules.retention.rules import Rules
    from synapse_modules.retention.simulation import Simulation

__all__ = [
    "RoomOutcome",
    "hold_created_event",
    "hold_released_event",
    "room_event",
    "rules_event",
    "run_event",
    "simulation_event",
]


class RoomOutcome(NamedTuple):
    """What a run did in one room.

    Attributes:
        room_id: the room. room_class: its class. rule: what decided: ``class:<name>``, ``default`` or ``hold:<id>``.
        cutoff_ms: messages received before this moment were due. due, deleted, left: how many were, went and stayed.
        kept_by_hold: how many stayed because the room is under hold; these count neither as due nor as left.
        copied_for_hold: how many were copied first, because their sender is under hold.
        problem: why something is left; None where nothing is, or nobody said.
    """

    room_id: str
    room_class: str | None
    rule: str
    cutoff_ms: int
    due: int = 0
    deleted: int = 0
    kept_by_hold: int = 0
    copied_for_hold: int = 0
    problem: str | None = None

    @property
    def left(self) -> int:
        """How many messages that were due are still there."""
        return self.due - self.deleted

    @property
    def succeeded(self) -> bool:
        """Whether everything due is gone."""
        return self.left == 0 and self.problem is None


def rules_event(before: Rules | None, after: Rules, version: int, author: Author, now_ms: int) -> AuditEvent:
    """New rules are in force; ``before`` is None for the first."""
    details: dict[str, JsonValue] = {
        "version": version,
        "before": None if before is None else rules_document(before),
        "after": rules_document(after),
    }
    return _event(Action.RETENTION_RULES_CHANGE, author, now_ms, details=details)


def hold_created_event(hold: Hold, author: Author, now_ms: int) -> AuditEvent:
    """A hold was placed."""
    details: dict[str, JsonValue] = {"before": None, "after": "in force"}
    return _hold_event(Action.HOLD_CREATE, hold, author, now_ms, hold.reason, details)


def hold_released_event(hold: Hold, author: Author, now_ms: int) -> AuditEvent:
    """A hold was released."""
    details: dict[str, JsonValue] = {"before": "in force", "after": "released"}
    return _hold_event(Action.HOLD_RELEASE, hold, author, now_ms, hold.release_reason, details)


def simulation_event(simulation: Simulation, author: Author) -> AuditEvent:
    """Somebody looked at what a run would do."""
    totals = simulation.totals
    details: dict[str, JsonValue] = {
        "rules_version": simulation.rules_version,
        "rooms": totals.rooms,
        "due": totals.due,
        "kept_by_hold": totals.kept_by_hold,
        "copied_for_hold": totals.copied_for_hold,
        "copies_dropped": simulation.copies_to_drop,
    }
    return _event(Action.RETENTION_SIMULATE, author, simulation.now_ms, details=details)


def room_event(run: Run, outcome: RoomOutcome, author: Author, now_ms: int) -> AuditEvent:
    """What a run did in one room."""
    details: dict[str, JsonValue] = {
        "run": run.run_id,
        "rules_version": run.rules_version,
        "room_class": outcome.room_class,
        "cutoff_ms": outcome.cutoff_ms,
        "due": outcome.due,
        "deleted": outcome.deleted,
        "kept_by_hold": outcome.kept_by_hold,
        "copied_for_hold": outcome.copied_for_hold,
        "problem": outcome.problem,
    }
    return _purge_event(
        outcome.succeeded, author, now_ms, f"{run.run_id}:{outcome.room_id}", details, outcome.room_id, outcome.rule
    )


def run_event(run: Run, author: Author, now_ms: int) -> AuditEvent:
    """What a run did in all."""
    details: dict[str, JsonValue] = {
        "run": run.run_id,
        "rules_version": run.rules_version,
        "rooms": run.rooms_done,
        "due": run.due,
        "deleted": run.deleted,
        "kept_by_hold": run.kept_by_hold,
        "copied_for_hold": run.copied_for_hold,
        "copies_dropped": run.copies_dropped,
        "problems": run.problems,
        "problem": run.problem,
    }
    return _purge_event(run.succeeded, author, now_ms, run.run_id, details)


def _purge_event(
    ok: bool,
    author: Author,
    now_ms: int,
    key: str,
    details: dict[str, JsonValue],
    room_id: str | None = None,
    rule: str | None = None,
) -> AuditEvent:
    outcome = Outcome.SUCCESS if ok else Outcome.FAILURE
    fields = {"room_id": room_id, "rule": rule, "key": f"retention:{key}"}
    return _event(Action.RETENTION_PURGE, author, now_ms, outcome=outcome, details=details, **fields)


def _hold_event(
    action: Action, hold: Hold, author: Author, now_ms: int, reason: str | None, states: dict[str, JsonValue]
) -> AuditEvent:
    return _event(
        action,
        author,
        now_ms,
        target=hold.subject if hold.kind is HoldKind.USER else None,
        room_id=hold.subject if hold.kind is HoldKind.ROOM else None,
        case_id=hold.case_id,
        reason=reason,
        details={"hold": hold.hold_id, "kind": hold.kind.value, **states},
    )


def _event(
    action: Action, author: Author, now_ms: int, *, outcome: Outcome = Outcome.SUCCESS, **fields: Any
) -> AuditEvent:
    return AuditEvent(
        action,
        outcome,
        actor=author.user_id,
        address=author.address,
        user_agent=author.user_agent,
        device_id=author.device_id,
        occurred_ms=now_ms,
        **fields,
    )
