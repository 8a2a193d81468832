"""Nobody fills the log by failing, and nothing that failed is missing from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.repetitions import MANY, Repetitions
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent
from tests.support.audit_log import HandClock

if TYPE_CHECKING:
    from synapse_modules.core.canonical import JsonValue

MINUTE = 60_000


def login(
    account: str | None = "@alice:x", address: str = "10.0.0.1", status: int = 403, number: int = 1
) -> AuditEvent:
    """A login that failed."""
    details: dict[str, JsonValue] = {"method": "POST", "route": "POST /login", "status": status}
    details["request_id"] = f"POST-{number}"
    return AuditEvent(Action.AUTH_LOGIN, Outcome.DENIED, actor=account, address=address, details=details)


def call(target: str, actor: str | None = "@bob:x", outcome: Outcome = Outcome.DENIED) -> AuditEvent:
    """A call of the administration API."""
    details: dict[str, JsonValue] = {"method": "GET", "route": "GET /users/{user}", "status": 403}
    return AuditEvent(Action.ADMIN_API, outcome, actor=actor, target=target, address="10.0.0.1", details=details)


def stands_for(event: AuditEvent) -> int:
    check_event(event)
    repeated = event.details.get("repeated", 0)
    assert isinstance(repeated, int)
    return 1 + repeated


def test_a_success_is_never_counted() -> None:
    repetitions = Repetitions(HandClock().now_ms)
    for _ in range(3):
        event = call("@a:x", outcome=Outcome.SUCCESS)
        assert repetitions.add(event) == [event]
    assert repetitions.drain() == []


def test_the_first_is_recorded_at_once_and_equal_ones_once_a_minute() -> None:
    clock = HandClock()
    repetitions = Repetitions(clock.now_ms)
    assert repetitions.add(login()) == [login()]
    for number in range(2, 12):
        assert repetitions.add(login(number=number)) == []
    assert repetitions.due() == []
    clock.ms += MINUTE
    (counted,) = repetitions.due()
    assert (stands_for(counted), "request_id" in counted.details) == (10, False)
    assert repetitions.add(login()) == []
    clock.ms += MINUTE
    (counted,) = repetitions.add(login())
    assert stands_for(counted) == 2


def test_one_that_is_over_is_forgotten_and_recorded_at_once_when_it_comes_back() -> None:
    clock = HandClock()
    repetitions = Repetitions(clock.now_ms)
    repetitions.add(login())
    clock.ms += MINUTE
    assert repetitions.due() == []
    assert repetitions.add(login()) == [login()]


def test_another_account_address_status_or_outcome_is_another() -> None:
    repetitions = Repetitions(HandClock().now_ms)
    different = [login(), login("@carol:x"), login(None), login(address="10.0.0.2"), login(status=429), call("@a:x")]
    for event in different:
        assert repetitions.add(event) == [event]
    assert [repetitions.add(event) for event in different] == [[]] * len(different)


def test_of_many_accounts_that_one_address_tries_some_are_told_apart_and_all_are_counted() -> None:
    repetitions = Repetitions(HandClock().now_ms, told_apart=5)
    recorded = [event for number in range(100) for event in repetitions.add(login(f"@user{number}:x"))]
    assert [event.actor for event in recorded] == [f"@user{number}:x" for number in range(5)] + [None]
    assert (recorded[-1].reason, recorded[-1].address, recorded[-1].details["status"]) == (MANY, "10.0.0.1", 403)
    (rest,) = repetitions.drain()
    assert stands_for(rest) + len(recorded) == 100
    assert repetitions.add(login("@user7:x", address="10.0.0.2"))[0].actor == "@user7:x"


def test_of_many_things_that_one_user_tries_the_user_stays_known() -> None:
    repetitions = Repetitions(HandClock().now_ms, told_apart=5)
    recorded = [event for number in range(100) for event in repetitions.add(call(f"@user{number}:x"))]
    assert [event.target for event in recorded] == [f"@user{number}:x" for number in range(5)] + [None]
    assert (recorded[-1].actor, recorded[-1].reason) == ("@bob:x", MANY)


def test_what_is_forgotten_for_want_of_room_is_recorded_first() -> None:
    repetitions = Repetitions(HandClock().now_ms, most=2)
    repetitions.add(login("@a:x"))
    repetitions.add(login("@a:x"))
    repetitions.add(login("@b:x"))
    first, second = repetitions.add(login("@c:x"))
    assert (first.actor, stands_for(first), second.actor) == ("@a:x", 1, "@c:x")


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    clock = HandClock()
    repetitions = Repetitions(clock.now_ms)
    repetitions.add(login())
    clock.ms -= 10 * MINUTE
    assert [stands_for(event) for event in repetitions.add(login())] == [1]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["@a:x", "@b:x", "@c:x", None]),
            st.sampled_from(["10.0.0.1", "10.0.0.2"]),
            st.booleans(),
            st.sampled_from([0, 0, 0, 1, 30_000, 61_000]),
        ),
        max_size=120,
    ),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_every_failure_is_in_exactly_one_record(
    requests: list[tuple[str | None, str, bool, int]], told_apart: int, most: int
) -> None:
    clock = HandClock()
    repetitions = Repetitions(clock.now_ms, told_apart=told_apart, most=most)
    recorded: list[AuditEvent] = []
    for account, address, is_login, later in requests:
        recorded += repetitions.add(login(account, address) if is_login else call("@t:x", account))
        clock.ms += later
        if later:
            recorded += repetitions.due()
    recorded += repetitions.drain()
    assert sum(map(stands_for, recorded)) == len(requests)
    assert sum(event.action is Action.AUTH_LOGIN for event in recorded) <= sum(each[2] for each in requests)
