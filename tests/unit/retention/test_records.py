"""What the audit log keeps of rules, holds and runs is what its vocabulary allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.retention import records
from synapse_modules.retention.model import Author, Hold, HoldKind, Run, RunState
from synapse_modules.retention.rules import parse_rules
from synapse_modules.retention.simulation import Simulation

if TYPE_CHECKING:
    from synapse_modules.core.ports import AuditEvent

AUTHOR = Author("@records:x", "DEVICE", "192.0.2.1", "govctl")
RULES = parse_rules(
    {"version": 1, "rules": [{"class": "project", "delete_after": "1d"}], "default": {"delete_after": None}}, "rules"
)
HOLD = Hold("h1", HoldKind.USER, "@bob:x", "C-1", "@legal:x", "Litigation.", 1, 2, "@legal:x", "Settled.")
RUN = Run("r1", RunState.FAILED, 3, 1, "@records:x", problem="The disk was full.")
OUTCOME = records.RoomOutcome("!room", "project", "class:project", 5, due=7, deleted=6, problem="One was locked.")

EVENTS = {
    "new rules": (records.rules_event(None, RULES, 1, AUTHOR, 9), Action.RETENTION_RULES_CHANGE, Outcome.SUCCESS),
    "other rules": (records.rules_event(RULES, RULES, 2, AUTHOR, 9), Action.RETENTION_RULES_CHANGE, Outcome.SUCCESS),
    "a hold": (records.hold_created_event(HOLD, AUTHOR, 9), Action.HOLD_CREATE, Outcome.SUCCESS),
    "a hold's end": (records.hold_released_event(HOLD, AUTHOR, 9), Action.HOLD_RELEASE, Outcome.SUCCESS),
    "a simulation": (
        records.simulation_event(Simulation(9, 1, (), 0), AUTHOR),
        Action.RETENTION_SIMULATE,
        Outcome.SUCCESS,
    ),
    "a room of a run": (records.room_event(RUN, OUTCOME, AUTHOR, 9), Action.RETENTION_PURGE, Outcome.FAILURE),
    "a run": (records.run_event(RUN, AUTHOR, 9), Action.RETENTION_PURGE, Outcome.FAILURE),
}


@pytest.mark.parametrize(("event", "action", "outcome"), EVENTS.values(), ids=EVENTS)
def test_an_event_is_recorded_in_the_words_of_the_vocabulary(
    event: AuditEvent, action: Action, outcome: Outcome
) -> None:
    check_event(event)
    assert (event.action, event.outcome, event.actor, event.occurred_ms) == (action, outcome, "@records:x", 9)


def test_whoever_is_under_hold_stands_in_the_personal_field_alone() -> None:
    event = records.hold_created_event(HOLD, AUTHOR, 9)
    assert (event.target, event.room_id, event.case_id) == ("@bob:x", None, "C-1")
    assert "@bob:x" not in str(event.details)
