"""What the audit log keeps of a change of policy is what its vocabulary allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given

from synapse_modules.core.action_specs import check_event
from synapse_modules.core.canonical import canonical_text
from synapse_modules.rbac.changes import differences, successor
from synapse_modules.rbac.records import Author, policy_events
from tests.unit.rbac.policies import policies

if TYPE_CHECKING:
    from synapse_modules.rbac.model import Policy

AUTHOR = Author("@admin:x", "DEVICE", "192.0.2.1", "govctl", "C-1")


@given(policies(), policies())
def test_every_difference_between_two_policies_is_recorded_in_the_words_of_the_vocabulary(
    old: Policy, new: Policy
) -> None:
    changes = differences(old, successor(old, new))
    events = list(policy_events(changes, AUTHOR, version=2, now_ms=1))
    for event in events:
        check_event(event)
        assert (event.actor, event.address, event.occurred_ms) == ("@admin:x", "192.0.2.1", 1)
    assert events[0].details["changes"] == len(changes)


@given(policies(), policies())
def test_no_member_of_a_group_is_named_outside_the_personal_fields(old: Policy, new: Policy) -> None:
    people = {member for policy in (old, new) for group in policy.groups.values() for member in group.members}
    for event in policy_events(differences(old, successor(old, new)), AUTHOR, version=2, now_ms=1):
        text = canonical_text(event.details)
        assert [person for person in people if person in text] == []
