from __future__ import annotations

from typing import Any

import pytest

from synapse_modules.audit.power_levels import changed_defaults, changed_users


def test_who_is_not_named_has_the_level_that_everybody_has() -> None:
    assert changed_users({"users_default": 10}, {"users": {"@a:b": 50}, "users_default": 10}) == [("@a:b", 10, 50)]
    assert changed_users({"users": {"@a:b": 50}}, {"users_default": 50}) == []


def test_a_level_that_a_type_of_events_takes_goes_by_the_name_of_the_type() -> None:
    former = {"events": {"m.room.name": 50, "m.room.topic": 50}}
    content = {"events": {"m.room.name": 60}, "notifications": {"room": 20}, "invite": 0}
    assert changed_defaults(former, content) == [
        ("events.m.room.name", 50, 60),
        ("events.m.room.topic", 50, None),
        ("invite", None, 0),
        ("notifications.room", None, 20),
    ]


@pytest.mark.parametrize(
    ("written", "level"),
    [
        *(("50", 50), (" +50 ", 50), ("-1", -1), (50.9, 50)),  # as early rooms may have it
        *((True, None), ("many", None), (None, None), ([50], None), (float("inf"), None), (float("nan"), None)),
        (10**30, 2**53 - 1),
        (-(10**30), 1 - 2**53),
    ],
)
def test_a_level_is_read_as_far_as_it_is_one(written: Any, level: int | None) -> None:
    assert changed_defaults({}, {"ban": written}) == ([] if level is None else [("ban", None, level)])


@pytest.mark.parametrize("users", [None, [], "everybody", 7])
def test_users_that_are_no_mapping_are_nobody(users: Any) -> None:
    assert changed_users({"users": users}, {"users": users}) == []
