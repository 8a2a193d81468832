"""Every audited action is specified, and producers are held to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit.record import PERSONAL_FIELDS
from synapse_modules.core.action_details import DETAILS, Kind
from synapse_modules.core.action_specs import (
    COMMON_DETAILS,
    SPECS,
    ActionClass,
    RecordField,
    Severity,
    check_details,
    check_event,
    severity_of,
)
from synapse_modules.core.actions import DESCRIPTIONS, Action, Outcome
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from synapse_modules.core.canonical import JsonValue


def test_every_action_has_a_spec_in_the_order_of_the_vocabulary() -> None:
    assert list(SPECS) == list(Action)
    assert [spec.action for spec in SPECS.values()] == list(Action)
    assert all(spec.sentence == DESCRIPTIONS[action] for action, spec in SPECS.items())


def test_every_class_of_actions_has_actions() -> None:
    assert {spec.action_class for spec in SPECS.values()} == set(ActionClass)


def test_the_fields_that_are_personal_are_those_that_records_commit_to() -> None:
    assert {field.value for field in RecordField if field.personal} == set(PERSONAL_FIELDS)


def test_every_key_of_details_is_known_and_no_known_key_is_without_use() -> None:
    used = {key for spec in SPECS.values() for key in spec.details} | COMMON_DETAILS
    assert used == set(DETAILS)


def test_meanings_are_phrases_and_no_two_are_the_same() -> None:
    meanings = [detail.meaning for detail in DETAILS.values()]
    assert len(set(meanings)) == len(meanings)
    assert [meaning for meaning in meanings if meaning.endswith(".") or "|" in meaning] == []


def test_a_change_tells_before_and_after() -> None:
    for spec in SPECS.values():
        assert ("before" in spec.details) == ("after" in spec.details) == spec.change


@pytest.mark.parametrize(
    ("action", "outcome", "severity"),
    [
        ("message.send", "success", Severity.INFO),
        ("auth.login", "success", Severity.LOW),
        ("auth.login", "denied", Severity.MEDIUM),
        ("audit.stop", "failure", Severity.MEDIUM),
        ("admin.api", "denied", Severity.HIGH),
        ("hold.release", "denied", Severity.HIGH),
        ("audit.gap", "success", Severity.CRITICAL),
        ("audit.rollback", "failure", Severity.CRITICAL),
        ("of.a.later.version", "success", Severity.LOW),
    ],
)
def test_what_failed_counts_one_step_more_but_never_as_much_as_a_broken_log(
    action: str, outcome: str, severity: Severity
) -> None:
    assert severity_of(action, outcome) is severity


def test_only_a_log_that_is_not_whole_is_critical() -> None:
    critical = {action for action in Action for outcome in Outcome if severity_of(action, outcome) is Severity.CRITICAL}
    assert critical == {Action.AUDIT_GAP, Action.AUDIT_ROLLBACK}


def test_details_that_the_action_may_have_pass() -> None:
    check_details(Action.ROLE_GRANT, {"binding": 7, "role": "guest", "before": None, "request_id": "POST-1"})
    check_details(Action.AUDIT_START, {})


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ({"bindings": 7}, r"role\.grant\.details\.bindings: .* Did you mean 'binding'\?"),
        ({"event_id": "$1"}, r"role\.grant\.details\.event_id: found 'event_id', expected one of after, before, "),
        ({"binding": "7"}, r"role\.grant\.details\.binding: found '7', expected number"),
        ({"binding": True}, r"expected number"),
        ({"role": 1}, r"expected text"),
    ],
)
def test_details_that_the_action_may_not_have_are_refused(details: dict[str, JsonValue], error: str) -> None:
    with pytest.raises(InvalidInput, match=error):
        check_details(Action.ROLE_GRANT, details)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (Kind.TEXT, "x", 1),
        (Kind.NUMBER, 1, "1"),
        (Kind.FLAG, True, 1),
        (Kind.LIST, [1], "1"),
        (Kind.MAPPING, {"a": 1}, [1]),
    ],
)
def test_a_kind_allows_null_and_its_own_values_only(kind: Kind, right: object, wrong: object) -> None:
    assert kind.allows(None)
    assert kind.allows(right)
    assert not kind.allows(wrong)


def test_a_field_that_the_action_may_not_have_is_refused() -> None:
    check_event(AuditEvent(Action.HOLD_CREATE, actor="@a:x", case_id="C-1", details={"hold": "1"}))
    with pytest.raises(InvalidInput, match=r"audit\.start\.actor: found '@a:x'"):
        check_event(AuditEvent(Action.AUDIT_START, actor="@a:x"))
    with pytest.raises(InvalidInput, match=r"audit\.start\.details\.hold"):
        check_event(AuditEvent(Action.AUDIT_START, details={"hold": "1"}))
