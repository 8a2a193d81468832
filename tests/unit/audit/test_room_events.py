from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.record import MAX_LEAF_BYTES, Recorder
from synapse_modules.audit.room_events import READ_TYPES, EventRow, audit_events, read_event
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.clock import system_random

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.core.ports import AuditEvent

SERVER = "synapse.test"
ALICE, BOB = "@alice:synapse.test", "@bob:synapse.test"
RECORDER = Recorder(SERVER, "main", system_random)


def made(
    kind: str,
    content: Any = None,
    *,
    former: Mapping[str, Any] | None = None,
    metadata: Any = None,
    unsigned: Any = None,
    **row: Any,
) -> list[AuditEvent]:
    """The audit events of an event of type ``kind`` that Alice has sent; ``content`` None is not read."""
    document = None if content is None else json.dumps({"content": content, "unsigned": unsigned})
    fields = {"position": 7, "event_id": "$event", "room_id": "!room", "sender": ALICE, "received_ms": 5, **row}
    read = read_event(EventRow(type=kind, metadata=json.dumps(metadata), document=document, **fields))
    events = [] if read is None else audit_events(read, former, SERVER)
    for event in events:
        check_event(event)
    return events


def only(*arguments: Any, **options: Any) -> AuditEvent:
    """The one audit event."""
    (event,) = made(*arguments, **options)
    return event


def facts(event: AuditEvent) -> dict[str, Any]:
    """Its details but for the event's own id and type."""
    return {name: value for name, value in event.details.items() if name not in {"event_id", "event_type"}}


# ------------------------------------------------------------------------------------------------- messages


def test_a_message_is_recorded_with_who_where_when_and_by_which_device_and_never_its_content() -> None:
    event = only(
        "m.room.message",
        {"body": "secret", "msgtype": "m.text"},
        origin_ms=4,
        metadata={"device_id": "PHONE", "token_id": 3},
    )
    assert event.action is Action.MESSAGE_SEND
    assert event.outcome is Outcome.SUCCESS
    assert (event.actor, event.room_id, event.device_id, event.target) == (ALICE, "!room", "PHONE", None)
    assert (event.occurred_ms, event.key) == (5, "$event")
    assert event.details == {"event_id": "$event", "event_type": "m.room.message", "encrypted": False, "sent_ms": 4}


def test_an_encrypted_message_is_marked() -> None:
    assert facts(only("m.room.encrypted")) == {"encrypted": True}


def test_a_reaction_says_what_it_relates_to() -> None:
    event = only("m.reaction", relation="m.annotation", related="$tea")
    assert event.action is Action.MESSAGE_SEND
    assert facts(event) == {"encrypted": False, "relation": "m.annotation", "related": "$tea"}


def test_an_edit_is_an_action_of_its_own() -> None:
    event = only("m.room.encrypted", relation="m.replace", related="$tea")
    assert event.action is Action.MESSAGE_EDIT
    assert facts(event) == {"encrypted": True, "replaces": "$tea"}


def test_the_relation_of_a_message_that_was_redacted_before_it_was_read_is_taken_from_the_message() -> None:
    content = {"body": "* secret", "m.relates_to": {"rel_type": "m.replace", "event_id": "$tea"}}
    event = only("m.room.message", content)
    assert (event.action, facts(event)) == (Action.MESSAGE_EDIT, {"encrypted": False, "replaces": "$tea"})


@pytest.mark.parametrize("related", ["a whole sentence", "$with spaces", "", "$" + "x" * 255, "$\x00", 7, None, []])
def test_what_is_no_event_id_is_not_recorded_as_one(related: Any) -> None:
    content = {"m.relates_to": {"rel_type": "m.replace", "event_id": related}}
    assert facts(only("m.room.message", content)) == {"encrypted": False}


def test_a_relation_that_is_free_text_is_left_out() -> None:
    event = only("m.room.message", relation="see you at eight", related="$tea")
    assert facts(event) == {"encrypted": False, "relation": None, "related": "$tea"}


def test_a_type_that_is_free_text_is_left_out() -> None:
    assert only("see you at eight").details == {"event_id": "$event", "encrypted": False}


def test_a_redaction_says_whose_event_was_removed() -> None:
    event = only("m.room.redaction", redacts="$tea", redacted_sender=BOB)
    assert (event.action, event.target, facts(event)) == (Action.MESSAGE_REDACT, BOB, {"redacts": "$tea"})


@pytest.mark.parametrize("kind", ["m.room.message", "m.room.encrypted", "m.sticker", "org.matrix.msc3381.poll.start"])
def test_state_that_is_no_setting_is_a_message(kind: str) -> None:
    event = only(kind, {"body": "secret"}, state_key="k")
    assert (event.action, facts(event)) == (Action.MESSAGE_SEND, {"encrypted": kind == "m.room.encrypted"})


def test_a_redaction_in_the_shape_of_state_is_a_redaction() -> None:
    event = only("m.room.redaction", state_key="k", redacts="$tea", redacted_sender=BOB)
    assert (event.action, event.target, facts(event)) == (Action.MESSAGE_REDACT, BOB, {"redacts": "$tea"})


def test_a_redaction_of_nothing_that_is_known_is_still_recorded() -> None:
    event = only("m.room.redaction")
    assert (event.action, event.target, facts(event)) == (Action.MESSAGE_REDACT, None, {"redacts": None})


# ------------------------------------------------------------------------------------------------ creation


def test_the_creation_of_a_room_tells_its_version_and_whether_others_may_take_part() -> None:
    event = only("m.room.create", {"room_version": "12", "m.federate": False}, state_key="")
    assert event.action is Action.ROOM_CREATE
    assert facts(event) == {"room_version": "12", "federated": False}


def test_a_room_that_names_no_version_has_version_1_and_is_open_to_others() -> None:
    assert facts(only("m.room.create", {"creator": ALICE}, state_key="")) == {"room_version": "1", "federated": True}


# ------------------------------------------------------------------------------------------------ memberships

MOVES = {
    "an invitation": ("invite", None, BOB, Action.ROOM_INVITE),
    "an invitation of somebody who had left": ("invite", "leave", BOB, Action.ROOM_INVITE),
    "a join": ("join", "invite", ALICE, Action.ROOM_JOIN),
    "a join whose former membership is not known": ("join", None, ALICE, Action.ROOM_JOIN),
    "a leave": ("leave", "join", ALICE, Action.ROOM_LEAVE),
    "an invitation refused": ("leave", "invite", ALICE, Action.ROOM_LEAVE),
    "a kick": ("leave", "join", BOB, Action.ROOM_KICK),
    "an invitation withdrawn": ("leave", "invite", BOB, Action.ROOM_KICK),
    "a knock refused": ("leave", "knock", BOB, Action.ROOM_KICK),
    "a kick whose former membership is not known": ("leave", None, BOB, Action.ROOM_KICK),
    "a ban": ("ban", "join", BOB, Action.ROOM_BAN),
    "a ban of a stranger": ("ban", None, BOB, Action.ROOM_BAN),
    "an unban": ("leave", "ban", BOB, Action.ROOM_UNBAN),
    "a knock": ("knock", None, ALICE, Action.ROOM_KNOCK),
}


@pytest.mark.parametrize(("now", "before", "whose", "action"), MOVES.values(), ids=MOVES.keys())
def test_what_a_change_of_membership_is(now: str, before: str | None, whose: str, action: Action) -> None:
    former = None if before is None else {"membership": before}
    event = only("m.room.member", {"membership": now, "displayname": "Secret"}, former=former, state_key=whose)
    assert (event.action, event.actor, event.target) == (action, ALICE, whose)
    assert facts(event) == {"before": before, "after": now}


def test_a_change_of_profile_is_no_join() -> None:
    former = {"membership": "join", "displayname": "A"}
    assert made("m.room.member", {"membership": "join", "displayname": "B"}, former=former, state_key=ALICE) == []


def test_what_a_membership_replaces_is_taken_from_what_synapse_noted() -> None:
    document = json.dumps({"content": {"membership": "join"}, "unsigned": {"replaces_state": "$before"}})
    member = EventRow(7, "$event", "m.room.member", "!room", ALICE, ALICE, document=document)
    name = member._replace(type="m.room.name", state_key="")
    assert [read.replaces for read in map(read_event, (member, name)) if read is not None] == ["$before", None]


@pytest.mark.parametrize("membership", ["dance", 7, None, {}, ["join"]])
def test_a_membership_that_nobody_knows_is_a_change_of_state(membership: Any) -> None:
    event = only("m.room.member", {"membership": membership}, state_key=BOB)
    assert (event.action, event.target, facts(event)) == (Action.ROOM_SETTING_CHANGE, None, {})


def test_a_message_of_the_type_of_a_membership_is_a_message() -> None:
    assert only("m.room.member").action is Action.MESSAGE_SEND


# ----------------------------------------------------------------------------------------------- other state


def test_a_setting_with_a_closed_list_of_values_tells_them() -> None:
    event = only("m.room.join_rules", {"join_rule": "public"}, former={"join_rule": "invite"}, state_key="")
    assert (event.action, facts(event)) == (Action.ROOM_SETTING_CHANGE, {"before": "invite", "after": "public"})


def test_a_value_outside_the_list_is_not_repeated() -> None:
    event = only("m.room.history_visibility", {"history_visibility": "my secret"}, state_key="")
    assert facts(event) == {"before": None, "after": "other"}


def test_of_other_state_only_its_type_is_recorded() -> None:
    event = only("m.room.topic", {"topic": "secret"}, state_key="")
    assert event.action is Action.ROOM_SETTING_CHANGE
    assert event.details == {"event_id": "$event", "event_type": "m.room.topic"}


def test_power_levels_make_a_record_for_each_user_who_got_more_or_less_and_one_for_the_rest() -> None:
    former = {"users": {ALICE: 100, BOB: 50, "@eve:synapse.test": 10}, "ban": 50, "kick": 50}
    content = {"users": {ALICE: 100, BOB: 100}, "ban": 60, "kick": 50}
    events = made("m.room.power_levels", content, former=former, state_key="")
    assert [(event.action, event.target, facts(event)) for event in events] == [
        (Action.ROOM_POWER_RAISE, BOB, {"before": 50, "after": 100}),
        (Action.ROOM_POWER_LOWER, "@eve:synapse.test", {"before": 10, "after": 0}),
        (Action.ROOM_POWER_DEFAULTS, None, {"before": {"ban": 50}, "after": {"ban": 60}, "changes": 3}),
    ]
    assert [event.key for event in events] == ["$event", "$event 1", "$event 2"]


def test_power_levels_that_change_nothing_are_recorded_all_the_same() -> None:
    event = only("m.room.power_levels", {"ban": 50}, former={"ban": 50}, state_key="")
    assert (event.action, facts(event)) == (Action.ROOM_POWER_DEFAULTS, {"before": {}, "after": {}, "changes": 0})


def test_of_very_many_changes_of_power_the_first_are_recorded_and_all_are_counted() -> None:
    users = {f"@{number}{'x' * 230}:synapse.test": 100 for number in range(500)}
    named = {f"{number:03}{'x' * 252}": number for number in range(500)}
    events = made("m.room.power_levels", {"users": users, "events": named, "notifications": named}, state_key="")
    assert [event.action for event in events] == [Action.ROOM_POWER_RAISE] * 80 + [Action.ROOM_POWER_DEFAULTS]
    assert events[-1].details["changes"] == 1500
    assert all(len(RECORDER.record(event, 1).leaf) <= MAX_LEAF_BYTES for event in events)


# --------------------------------------------------------------------------------------------- how events come


def test_an_event_of_another_homeserver_says_of_which() -> None:
    assert facts(only("m.room.message", sender="@eve:far.example:8448"))["origin"] == "far.example:8448"
    assert "origin" not in only("m.room.message").details


ARRIVALS: dict[str, tuple[dict[str, Any], str, Outcome]] = {
    "backfilled": ({"position": -7}, "backfilled", Outcome.SUCCESS),
    "rejected": ({"rejected": True}, "rejected", Outcome.DENIED),
    "soft-failed": ({"metadata": {"soft_failed": True}}, "soft_failed", Outcome.DENIED),
    "backfilled and rejected": ({"position": -7, "rejected": True}, "backfilled", Outcome.DENIED),
}


@pytest.mark.parametrize(("how", "arrival", "outcome"), ARRIVALS.values(), ids=ARRIVALS.keys())
def test_how_an_event_came_is_recorded(how: dict[str, Any], arrival: str, outcome: Outcome) -> None:
    event = only("m.room.message", **how)
    assert (event.details["arrival"], event.outcome) == (arrival, outcome)


def test_an_outlier_makes_no_record() -> None:
    assert made("m.room.member", {"membership": "join"}, state_key=ALICE, outlier=True) == []
    assert made("m.room.member", {"membership": "join"}, state_key=ALICE, outlier=True, rejected=True) == []


def test_an_invitation_over_federation_is_an_outlier_that_makes_one() -> None:
    event = only(
        "m.room.member",
        {"membership": "invite"},
        state_key=ALICE,
        sender="@eve:far.example",
        outlier=True,
        metadata={"outlier": True, "out_of_band_membership": True},
    )
    assert (event.action, event.target, event.details["arrival"]) == (Action.ROOM_INVITE, ALICE, "outlier")


def test_what_synapse_sends_by_itself_makes_no_record_and_nobody_else_can_pass_for_it() -> None:
    assert made("org.matrix.dummy_event", metadata={"proactively_send": False}) == []
    assert only("org.matrix.dummy_event").action is Action.MESSAGE_SEND


# ------------------------------------------------------------------------------------------------- nonsense

# Lone surrogates, NUL, floats and huge numbers, whatever JSON can carry.
texts = st.text(st.characters(), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
known_keys = st.sampled_from(
    [
        *("algorithm", "ban", "events", "history_visibility", "join_rule", "m.federate", "m.relates_to", "membership"),
        *("notifications", "room_version", "users", "users_default"),
    ]
)
contents = st.dictionaries(known_keys | texts, values | st.dictionaries(texts, values, max_size=3), max_size=6)
kinds = st.sampled_from([*READ_TYPES, "m.room.redaction", "m.room.message", "m.room.name"]) | texts
long_texts = texts | st.text(st.characters(codec="utf-8"), min_size=250, max_size=300)


@given(
    kind=kinds,
    content=contents,
    former=st.none() | contents,
    metadata=values,
    unsigned=values,
    sender=st.none() | long_texts,
    state_key=st.none() | st.just("") | long_texts,
    event_id=long_texts,
    room_id=long_texts,
    relation=st.none() | texts,
    related=st.none() | long_texts,
    redacts=st.none() | long_texts,
    redacted_sender=st.none() | long_texts,
    origin_ms=st.none() | st.integers(-(2**63), 2**63),
    outlier=st.booleans(),
    rejected=st.booleans(),
    position=st.integers(-(2**63), 2**63),
)
def test_whatever_is_in_an_event_it_can_be_recorded(kind: str, content: Any, former: Any, **row: Any) -> None:
    for event in made(kind, content, former=former, **row):
        record = RECORDER.record(event, now_ms=1)
        assert len(record.leaf) <= MAX_LEAF_BYTES
        assert record.key is not None
        assert "\x00" not in record.key


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", '"x"', "[" * 100_000, '{"content": 7}', '{"content": null}']
)
def test_json_that_is_no_event_is_no_obstacle(text: str) -> None:
    row = EventRow(7, "$event", "m.room.member", "!room", ALICE, BOB, metadata=text, document=text)
    read = read_event(row)
    assert read is not None
    assert read.replaces is None
    (event,) = audit_events(read, None, SERVER)
    assert event.action is Action.ROOM_SETTING_CHANGE


def test_a_row_without_anything_but_its_names_is_recorded() -> None:
    read = read_event(EventRow(7, "$event", "m.room.create", "!room", state_key=""))
    assert read is not None
    (event,) = audit_events(read, None, SERVER)
    assert (event.action, event.actor, event.occurred_ms) == (Action.ROOM_SETTING_CHANGE, None, None)
