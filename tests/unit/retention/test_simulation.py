"""A simulation says of made-up rooms what a model says that goes through them message by message."""

from __future__ import annotations

from hypothesis import given

from synapse_modules.retention.precedence import decide
from synapse_modules.retention.rules import Rule, Rules
from synapse_modules.retention.simulation import DueMessages, RoomPlan, Simulation, Totals, plan_room
from tests.unit.retention.histories import HELD_PEOPLE, ROOMS, RULES, Expected, MadeUpRoom, expected

NOW = 1_700_000_000_000


def _due(room: MadeUpRoom, cutoff_ms: int, held_people: frozenset[str]) -> DueMessages:
    """What the database would count: messages received before the cut-off."""
    old = [message for message in room.messages if NOW - message.age_ms < cutoff_ms]
    held = sum(message.sender in held_people for message in old)
    return DueMessages(len(old), sum(message.size for message in old), held)


def _plan(room: MadeUpRoom, rules: Rules, held_people: frozenset[str]) -> RoomPlan | None:
    verdict = decide(room.room_class, rules, room.holds)
    cutoff_ms = verdict.cutoff_ms(NOW)
    due = DueMessages(0, 0, 0) if cutoff_ms is None else _due(room, cutoff_ms, held_people)
    return plan_room(room.room_id, verdict, NOW, due)


def _simulated(rooms: tuple[MadeUpRoom, ...], rules: Rules, held_people: frozenset[str]) -> Simulation:
    plans = [_plan(room, rules, held_people) for room in rooms]
    return Simulation(NOW, 1, tuple(plan for plan in plans if plan is not None), 0)


@given(ROOMS, RULES, HELD_PEOPLE)
def test_every_room_fares_as_the_model_says(
    rooms: tuple[MadeUpRoom, ...], rules: Rules, held_people: frozenset[str]
) -> None:
    planned = {plan.room_id: plan.totals for plan in _simulated(rooms, rules, held_people).rooms}
    for room in rooms:
        share = planned.get(room.room_id, Totals())
        found = Expected(share.due, share.bytes_due, share.copied_for_hold, share.kept_by_hold)
        assert found == expected(room, rules, held_people)


@given(ROOMS, RULES, HELD_PEOPLE)
def test_sums_are_the_sums_of_their_parts(
    rooms: tuple[MadeUpRoom, ...], rules: Rules, held_people: frozenset[str]
) -> None:
    simulation = _simulated(rooms, rules, held_people)
    model = [expected(room, rules, held_people) for room in rooms]
    totals = simulation.totals
    assert totals.due == sum(each.due for each in model)
    assert totals.kept_by_hold == sum(each.kept for each in model)
    assert totals.rooms + totals.rooms_held == len(simulation.rooms)
    by_rule = list(simulation.by_rule.values())
    assert [sum(column) for column in zip(*by_rule, strict=True)] == (list(totals) if by_rule else [])


def test_a_room_with_nothing_due_is_no_part_of_a_plan() -> None:
    assert _plan(MadeUpRoom("!a:x", None, (), ()), Rules((), Rule(None, "1s")), frozenset()) is None
