"""ECS documents against the published lists of fields and of categories with their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from synapse_modules.audit.formats.ecs import CATEGORIES, document
from synapse_modules.core.actions import Action, Outcome
from tests.unit.audit.formats.made_entries import entries, every_entry, make_entry

if TYPE_CHECKING:
    from synapse_modules.audit.formats.entry import Entry

EXPECTED_TYPES = {
    "api": {"access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info", "start", "user"},
    "authentication": {"start", "end", "info"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "database": {"access", "change", "info", "error"},
    "file": {"access", "change", "creation", "deletion", "info"},
    "iam": {"admin", "change", "creation", "deletion", "group", "info", "user"},
    "session": {"start", "end", "info"},
}
FIELDS = {
    "@timestamp", "ecs.version", "message", "event.kind", "event.category", "event.type", "event.action", "event.id",
    "event.outcome", "event.sequence", "event.severity", "event.provider", "event.dataset", "event.reason",
    "service.type", "service.node.name", "organization.id", "user.id", "user.name", "user.target.id",
    "user.target.name", "source.address", "source.ip", "user_agent.original", "rule.name", "group.id",
}  # fmt: skip
OWN = {"outcome": str, "time_ms": int, "case": str, "device": str, "details": str, "erased": list}


def paths(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from paths(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def mistakes(entry: Entry) -> Iterator[str]:
    """What ECS does not know, or does not put together."""
    found = document(entry)
    for name, value in found.pop("synapse_governance").items():
        if not isinstance(value, OWN[name]):
            yield f"synapse_governance.{name} is {value!r}"
    yield from (f"{path} is unknown" for path in paths(found) if path not in FIELDS)
    event = found["event"]
    allowed = {each for category in event["category"] for each in EXPECTED_TYPES[category]}
    yield from (f"{each} with {event['category']}" for each in event["type"] if each not in allowed)
    if event["outcome"] not in {"success", "failure"}:
        yield f"outcome {event['outcome']}"


def test_every_action_has_a_category_and_types_that_belong_to_it() -> None:
    assert set(CATEGORIES) == {action.value for action in Action}
    for entry in every_entry():
        assert list(mistakes(entry)) == []
        assert document(entry)["event"]["category"]


@given(entries())
def test_hostile_text_makes_documents_that_ecs_knows(entry: Entry) -> None:
    assert list(mistakes(entry)) == []


@pytest.mark.parametrize(
    ("action", "category", "types"),
    [
        (Action.AUTH_LOGIN, ["authentication"], ["start"]),
        (Action.USER_REGISTER, ["iam"], ["user", "creation"]),
        (Action.DEVICE_DELETE, ["iam", "session"], ["user", "deletion", "end"]),
        (Action.ROOM_KICK, ["iam"], ["user", "change"]),
        (Action.MESSAGE_REDACT, ["api"], ["deletion"]),
        (Action.MEDIA_DOWNLOAD, ["file"], ["access"]),
        (Action.ROLE_GRANT, ["iam"], ["user", "admin", "change"]),
        (Action.HOLD_RELEASE, ["configuration"], ["deletion"]),
        (Action.RETENTION_PURGE, ["database"], ["change"]),
        (Action.AUDIT_ROLLBACK, ["database"], ["error"]),
    ],
)
def test_an_action_has_its_category_and_types(action: Action, category: list[str], types: list[str]) -> None:
    event = document(make_entry(action))["event"]
    assert (event["category"], event["type"]) == (category, types)


@pytest.mark.parametrize(
    ("method", "outcome", "types"),
    [
        ("POST", Outcome.SUCCESS, ["admin", "creation"]),
        ("GET", Outcome.SUCCESS, ["admin", "access"]),
        ("PUT", Outcome.FAILURE, ["admin", "change"]),
        ("DELETE", Outcome.DENIED, ["admin", "deletion", "denied"]),
        ("BREW", Outcome.SUCCESS, ["admin", "info"]),
    ],
)
def test_a_call_of_the_administration_api_has_the_type_of_its_method_and_says_when_it_was_denied(
    method: str, outcome: Outcome, types: list[str]
) -> None:
    assert document(make_entry(Action.ADMIN_API, outcome, details={"method": method}))["event"]["type"] == types


def test_only_an_address_is_an_ip() -> None:
    assert document(make_entry(Action.AUTH_LOGIN, address="2001:db8::1"))["source"]["ip"] == "2001:db8::1"
    for address in ("fe80::1%eth0", "unix:/run/socket", "192.0.2.1:80", ""):
        assert document(make_entry(Action.AUTH_LOGIN, address=address))["source"] == {"address": address}


def test_a_time_that_no_calendar_has_is_the_nearest_that_it_has() -> None:
    for time_ms, text in ((-1, "1970-01-01T00:00:00.000Z"), (2**53 - 1, "9999-12-31T23:59:59.999Z")):
        found = document(make_entry(Action.AUTH_LOGIN, occurred_ms=time_ms))
        assert (found["@timestamp"], found["synapse_governance"]["time_ms"]) == (text, time_ms)
    assert document(make_entry(Action.AUTH_LOGIN))["@timestamp"] == "2025-01-02T00:00:00.123Z"
