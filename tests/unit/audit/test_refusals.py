"""Refusals that repeat: what is recorded at once, what is counted, and that nothing is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.refusals import Refusals
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE = 60_000
DENIED = AuditEvent(
    Action.ACCESS_DENIED,
    Outcome.DENIED,
    actor="@a:x",
    room_id="!r:x",
    rule="default",
    address="192.0.2.1",
    details={"permission": "message.send"},
)


class Place:
    """The refusals of a process, with a log that can be slow or broken, and a clock that the test moves."""

    def __init__(self, **options: int) -> None:
        self.ms = 1_000
        self.written: list[AuditEvent] = []
        self.broken = False
        self.open = asyncio.Event()
        self.open.set()
        self.refusals = Refusals(self.write, self, **options)

    def now_ms(self) -> int:
        return self.ms

    async def write(self, event: AuditEvent) -> None:
        check_event(event)
        await self.open.wait()
        if self.broken:
            raise Unavailable("the log does not answer")
        self.written.append(event)

    async def refuse(self, times: int = 1, **changed: Any) -> None:
        for _ in range(times):
            await self.refusals.record(replace(DENIED, **changed))

    @property
    def repeated(self) -> list[Any]:
        """What each record says of how often more it was so."""
        return [event.details.get("repeated") for event in self.written]


def count(events: list[AuditEvent]) -> int:
    """How many refusals ``events`` stand for."""
    return sum(1 + int(str(event.details.get("repeated", 0))) for event in events)


def played(story: Callable[[Place], Any], **options: int) -> None:
    async def play() -> None:
        await asyncio.wait_for(story(Place(**options)), 10)

    asyncio.run(play())


def test_the_first_is_recorded_as_it_is_and_the_rest_of_a_minute_in_one_record() -> None:
    async def story(place: Place) -> None:
        await place.refuse(300)
        assert place.written == [DENIED]
        place.ms += MINUTE - 1
        await place.refusals.settle()
        assert place.repeated == [None]
        place.ms += 1
        await place.refusals.settle()
        assert place.repeated == [None, 298]
        assert replace(place.written[1], details=DENIED.details) == DENIED
        assert count(place.written) == 300

    played(story)


def test_a_flood_that_goes_on_makes_one_record_a_minute() -> None:
    async def story(place: Place) -> None:
        for second in range(5 * 60):
            place.ms = 1_000 + second * 1_000
            await place.refuse(10)
            await place.refusals.settle()
        assert len(place.written) == 5
        assert count(place.written) + count(place.refusals.drain()) == 3_000

    played(story)


@pytest.mark.parametrize(
    "changed",
    [
        {"actor": "@b:x"},
        {"room_id": "!s:x"},
        {"target": "@b:x"},
        {"rule": "role:a deny message.send"},
        {"address": "192.0.2.2"},
        {"action": Action.AUTH_LOGIN, "room_id": None},
        {"details": {"permission": "room.join"}},
        {"details": {"permission": "message.send", "route": "GET /x"}},
    ],
    ids=str,
)
def test_what_differs_is_recorded_at_once(changed: dict[str, Any]) -> None:
    async def story(place: Place) -> None:
        await place.refuse()
        await place.refuse(2, **changed)
        assert place.written == [DENIED, replace(DENIED, **changed)]

    played(story)


def test_a_refusal_after_a_quiet_minute_is_recorded_at_once() -> None:
    async def story(place: Place) -> None:
        await place.refuse()
        for _ in range(3):
            place.ms += MINUTE
            await place.refusals.settle()
            await place.refuse()
        assert place.repeated == [None] * 4

    played(story)


def test_what_comes_while_the_first_is_being_recorded_is_counted() -> None:
    async def story(place: Place) -> None:
        place.open.clear()
        first = asyncio.ensure_future(place.refuse())
        await asyncio.sleep(0)
        await place.refuse(3)  # waits for nothing
        place.open.set()
        await first
        assert place.repeated == [None]
        assert count(place.refusals.drain()) == 3

    played(story)


def test_what_could_not_be_recorded_is_told_and_counted_with_the_next() -> None:
    async def story(place: Place) -> None:
        place.broken = True
        for _ in range(3):
            with pytest.raises(Unavailable):
                await place.refuse()
        place.broken = False
        await place.refuse()
        assert place.repeated == [3]

    played(story)


def test_what_is_counted_is_there_when_the_process_ends() -> None:
    async def story(place: Place) -> None:
        await place.refuse(5)
        await place.refuse(room_id="!s:x")
        assert [event.details.get("repeated") for event in place.refusals.drain()] == [3]
        assert place.refusals.drain() == []

    played(story)


def test_who_is_refused_ever_different_things_has_some_told_apart_and_the_rest_counted_by_permission() -> None:
    async def story(place: Place) -> None:
        for number in range(1_000):
            await place.refuse(room_id=f"!{number}:x")
        assert len(place.written) == 101
        rest = place.written[-1]
        assert (rest.actor, rest.room_id, rest.rule, rest.address) == ("@a:x", None, None, None)
        assert rest.details == {"permission": "message.send"}
        await place.refuse(actor="@b:x")
        assert place.written[-1].actor == "@b:x"
        assert count(place.written) + count(place.refusals.drain()) == 1_001

    played(story)


def test_who_has_been_quiet_is_told_apart_again() -> None:
    async def story(place: Place) -> None:
        for number in range(150):
            await place.refuse(room_id=f"!{number}:x")
        for _ in range(2):  # what was counted by permission is recorded first
            place.ms += MINUTE
            await place.refusals.settle()
        await place.refuse(room_id="!new:x")
        assert place.written[-1].room_id == "!new:x"

    played(story)


def test_what_is_remembered_has_an_end() -> None:
    async def story(place: Place) -> None:
        for actor in "abcabc":
            await place.refuse(2, actor=actor)
        assert count(place.written) + count(place.refusals.drain()) == 12
        assert [event.actor for event in place.written] == [*"abacbacbac"]

    played(story, most=2)


def test_when_no_more_can_be_remembered_nor_recorded_that_is_told() -> None:
    async def story(place: Place) -> None:
        await place.refuse(2)
        place.broken = True
        with pytest.raises(Unavailable):
            await place.refuse(actor="@b:x")
        assert count(place.refusals.drain()) == 1

    played(story, most=1)


def test_only_refusals_by_policy_are_counted() -> None:
    assert Refusals.takes(DENIED)
    assert Refusals.takes(replace(DENIED, action=Action.AUTH_LOGIN))
    assert not Refusals.takes(replace(DENIED, outcome=Outcome.SUCCESS))
    assert not Refusals.takes(replace(DENIED, action=Action.RETENTION_PURGE))


steps = st.one_of(
    st.tuples(st.just("refuse"), st.sampled_from("ab"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["settle", "break", "mend"]), st.just(""), st.just(0)),
    st.tuples(st.just("wait"), st.just(""), st.sampled_from([-MINUTE, 1, 30_000, MINUTE])),
)


@given(st.lists(steps, max_size=40))
def test_whatever_happens_each_refusal_is_recorded_or_counted(history: list[tuple[str, str, int]]) -> None:
    async def story(place: Place) -> None:
        refused = 0
        for step, actor, number in history:
            place.broken = {"break": True, "mend": False}.get(step, place.broken)
            try:
                if step == "refuse":
                    refused += 1
                    await place.refuse(actor=actor, room_id=f"!{number}:x")
                elif step == "settle":
                    await place.refusals.settle()
            except Unavailable:
                assert place.broken
            place.ms += number if step == "wait" else 0
        assert count(place.written) + count(place.refusals.drain()) == refused

    played(story, told_apart=2)
