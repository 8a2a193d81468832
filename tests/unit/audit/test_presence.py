"""Which processes are there, record and run the same: the rules."""

from __future__ import annotations

import pytest

from synapse_modules.audit.presence import Presence, Sign
from synapse_modules.core.action_specs import check_event

MODULES = ("AuditModule", "RbacModule")


def presence(*expected: str) -> Presence:
    return Presence(expected, "2.0", MODULES, silence_s=54)


def sign(
    process: str,
    start: str = "1",
    *,
    index: int = 0,
    alive: bool = True,
    version: str | None = "2.0",
    modules: tuple[str, ...] | None = MODULES,
) -> Sign:
    return Sign(index, 1_700_000_000_000 + index, f"{process}:{start}", alive, version, modules)


def test_nothing_is_known_of_an_empty_homeserver_and_nothing_is_wrong() -> None:
    found = presence()
    found.pass_time(1000)
    assert (dict(found.seen()), found.problems(), list(found.gaps())) == ({}, {}, [])


def test_a_process_that_shows_itself_in_time_is_well() -> None:
    found = presence("main", "worker1")
    for number in range(10):
        found.pass_time(50)
        found.saw([sign("main", index=number), sign("worker1", index=number)])
    found.pass_time(54)
    assert found.problems() == {}


def test_a_configured_process_that_never_shows_itself_is_a_problem_and_a_gap() -> None:
    found = presence("main", "worker1")
    found.saw([sign("main")])
    found.pass_time(54)
    assert found.problems() == {}
    found.saw([sign("main", index=1)])
    found.pass_time(0.1)
    assert list(found.problems()) == ["worker1"]
    assert "is AuditModule missing there" in found.problems()["worker1"]
    (gap,) = found.gaps()
    check_event(gap)
    assert gap.details == {"process": "worker1"}


def test_a_process_that_was_seen_and_falls_silent_is_a_problem_until_it_is_back() -> None:
    found = presence("main")
    found.saw([sign("main"), sign("worker7", index=5)])
    found.pass_time(55)
    found.saw([sign("main", index=6)])
    assert "it has recorded nothing since 2023-11-14T22:13:20.005" in found.problems()["worker7"]
    (gap,) = found.gaps()
    check_event(gap)
    assert (gap.details["writer"], gap.details["since_ms"]) == ("worker7:1", 1_700_000_000_005)
    assert gap.key == "silent:worker7:5"
    text = found.problems()["worker7"]
    found.pass_time(10)
    assert found.problems()["worker7"] == text, "the same problem has the same text"
    found.saw([sign("worker7", "2", index=9)])
    assert found.problems() == {}


def test_a_process_that_ended_well_is_forgotten_unless_it_is_configured() -> None:
    found = presence("main", "worker1")
    for process in ("main", "worker1", "worker7"):
        found.saw([sign(process), sign(process, index=1, alive=False, version=None, modules=None)])
    found.saw([sign("main", "2", index=2)])
    found.pass_time(54)
    assert found.problems() == {}
    assert set(found.seen()) == {"main", "worker1"}
    found.pass_time(1)
    found.saw([sign("main", "2", index=3)])
    assert list(found.problems()) == ["worker1"]
    assert "has not begun to record again" in found.problems()["worker1"]


def test_a_silent_process_that_is_not_configured_is_forgotten_after_a_day() -> None:
    found = presence("main")
    found.saw([sign("worker7")])
    for _ in range(24):
        found.pass_time(3600)
        found.saw([sign("main")])
    assert list(found.problems()) == ["worker7"]
    found.pass_time(1)
    assert set(found.seen()) == {"main"}


def test_the_end_of_an_earlier_start_says_nothing_about_the_present_one() -> None:
    found = presence("main")
    found.saw([sign("main"), sign("main", "2", index=1), sign("main", "1", index=2, alive=False, modules=None)])
    seen = found.seen()["main"]
    assert seen.sign is not None
    assert (seen.sign.writer, seen.sign.alive) == ("main:2", True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": "1.9"}, "it runs version 1.9, the process that orders the log 2.0"),
        ({"modules": ("AuditModule",)}, "it has not loaded RbacModule"),
        ({"modules": (*MODULES, "RetentionModule")}, "it has loaded RetentionModule, the process that orders"),
        ({"version": "1.9", "modules": ()}, "log 2.0; it has not loaded AuditModule, RbacModule"),
    ],
)
def test_a_process_that_runs_something_else_is_a_problem_and_no_gap(changes: dict[str, object], problem: str) -> None:
    found = presence("main")
    found.saw([sign("main"), sign("worker1", **changes)])  # type: ignore[arg-type]  # as the parameters say
    assert list(found.problems()) == ["worker1"]
    assert problem in found.problems()["worker1"]
    assert list(found.gaps()) == []
    found.saw([sign("worker1", "2", index=1)])
    assert found.problems() == {}


def test_what_the_start_says_holds_until_the_heartbeat_says_more() -> None:
    found = presence("main")
    found.saw([sign("main", modules=None)])
    assert found.problems() == {}
    found.saw([sign("main", index=1, version=None, modules=("RbacModule",))])
    assert "AuditModule" in found.problems()["main"]
    found.saw([sign("main", "2", index=2, version=None, modules=None)])
    assert found.problems() == {}, "a new start says anew what it runs"


def test_writers_that_are_no_process_are_left_aside() -> None:
    found = presence()
    found.saw([Sign(0, 0, "events"), Sign(1, 0, "")])
    assert dict(found.seen()) == {}
