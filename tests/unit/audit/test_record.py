from __future__ import annotations

import base64
import json
import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.record import MAX_LEAF_BYTES, PERSONAL_FIELDS, Recorder, check_disclosures, restore
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.canonical import JsonValue, canonical_bytes, canonical_text
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import AuditEvent

RECORDER = Recorder("synapse.test", "worker1", system_random)
# Lone surrogates too: JSON from clients can carry them.
hostile = st.text(st.characters(), max_size=60)
hostile_details = st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), hostile)


def test_a_leaf_holds_what_happened_and_names_nobody() -> None:
    event = AuditEvent(
        Action.ACCESS_DENIED,
        Outcome.DENIED,
        actor="@alice:synapse.test",
        target="@bob:synapse.test",
        room_id="!room:synapse.test",
        reason="No.",
        rule="default",
        address="192.0.2.7",
        user_agent="Element",
        device_id="ALICEPHONE",
        case_id="C-1",
        details={"permission": "room.invite"},
        occurred_ms=5,
    )
    record = RECORDER.record(event, now_ms=9)
    leaf = json.loads(record.leaf)
    assert {key: value for key, value in leaf.items() if key not in {"id", "personal"}} == {
        "v": 1,
        "action": "access.denied",
        "outcome": "denied",
        "time_ms": 5,
        "room": "!room:synapse.test",
        "rule": "default",
        "reason": "No.",
        "case": "C-1",
        "server": "synapse.test",
        "process": "worker1",
        "details": {"permission": "room.invite"},
    }
    assert set(leaf["personal"]) == set(PERSONAL_FIELDS)
    for secret in (b"alice", b"bob", b"192.0.2", b"Element", b"ALICEPHONE"):
        assert secret not in record.leaf
    assert record.leaf == canonical_bytes(leaf)


def test_a_commitment_is_the_hash_of_the_very_bytes_that_stand_in_the_disclosures() -> None:
    record = RECORDER.record(AuditEvent(Action.AUTH_LOGIN, actor='@"alice":synapse.test', device_id="D"), now_ms=1)
    actor, device = record.disclosures[1:-1].replace("],", "]\n").split("\n")
    assert re.fullmatch(r'"actor":\["[A-Za-z0-9_-]{22}","@\\"alice\\":synapse\.test"\]', actor)
    expected = {
        name: base64.urlsafe_b64encode(sha256(text.encode()).digest()).decode().rstrip("=")
        for name, text in (("actor", actor), ("device", device))
    }
    assert json.loads(record.leaf)["personal"] == expected


def test_disclosures_stay_the_same_bytes_when_one_of_them_is_erased() -> None:
    event = AuditEvent(Action.AUTH_LOGIN, actor="@é\u2028:synapse.test", address="192.0.2.1", user_agent='"\\\x00\x7f')
    record = RECORDER.record(event, now_ms=1)
    left = json.loads(record.disclosures)
    del left["address"]
    erased = canonical_text(left)
    assert all(f'"{name}":{canonical_text(left[name])}' in record.disclosures for name in ("actor", "user_agent"))
    assert check_disclosures(json.loads(record.leaf)["personal"], erased) == 2


def test_the_same_person_has_another_commitment_in_each_record() -> None:
    event = AuditEvent(Action.AUTH_LOGIN, actor="@alice:synapse.test", target="@alice:synapse.test")
    personal = [json.loads(RECORDER.record(event, now_ms=1).leaf)["personal"] for _ in range(2)]
    assert len({value for each in personal for value in each.values()}) == 4


def test_a_record_says_when_it_was_made_if_the_event_does_not_say_when_it_happened() -> None:
    assert RECORDER.record(AuditEvent(Action.AUDIT_START), now_ms=77).time_ms == 77


@given(hostile, hostile, hostile, hostile, hostile, hostile_details)
def test_hostile_text_in_any_field_is_recorded_and_its_disclosures_hold(
    actor: str, agent: str, reason: str, room: str, rule: str, details: dict[str, str]
) -> None:
    event = AuditEvent(
        Action.ACCESS_DENIED, actor=actor, user_agent=agent, reason=reason, room_id=room, rule=rule, details=details
    )
    record = RECORDER.record(event, now_ms=1)
    leaf = json.loads(record.leaf)
    check_disclosures(leaf["personal"], record.disclosures)
    assert canonical_text(json.loads(record.disclosures)) == record.disclosures
    assert b"\n" not in record.leaf
    assert "\n" not in record.disclosures
    assert "\x00" not in (record.actor or "") + (record.room_id or "")
    assert restore(record.leaf, record.disclosures, None) == record
    assert leaf["reason"] == reason.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("field", "text"),
    [("actor", "a" * 1025), ("reason", "é" * 2049), ("room_id", "!" * 1025), ("case_id", "c" * 257)],
)
def test_a_text_that_is_too_long_is_refused_and_the_field_is_named(field: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=rf"audit\.{field.removesuffix('_id')}: found '\d+ bytes'"):
        RECORDER.record(AuditEvent(Action.ACCESS_DENIED, **{field: text}), now_ms=1)  # type: ignore[arg-type]  # by name


def test_a_user_agent_that_is_too_long_is_cut_because_strangers_choose_it() -> None:
    record = RECORDER.record(AuditEvent(Action.AUTH_LOGIN, user_agent="x" * 9000), now_ms=1)
    assert json.loads(record.disclosures)["user_agent"][1] == "x" * 512


def test_details_that_are_too_long_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"audit\.details: found '70\d\d\d bytes'"):
        RECORDER.record(AuditEvent(Action.POLICY_CHANGE, details={"text": "x" * 70_000}), now_ms=1)
    largest = RECORDER.record(AuditEvent(Action.POLICY_CHANGE, details={"text": "x" * 59_700}), now_ms=1)
    assert len(largest.leaf) <= MAX_LEAF_BYTES


@pytest.mark.parametrize("details", [{"x": 1.5}, {"é": 1}, {"x": 2**53}, {"x": {1, 2}}, {"x": b"bytes"}])
def test_details_without_a_canonical_form_are_refused(details: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"audit\.details"):
        RECORDER.record(AuditEvent(Action.POLICY_CHANGE, details=details), now_ms=1)  # type: ignore[arg-type]  # wrong


@pytest.mark.parametrize(
    "disclosures",
    [
        {"actor": ["AAAAAAAAAAAAAAAAAAAAAA", "@eve:synapse.test"]},
        {"actor": ["AAAA", "@alice:synapse.test"]},
        {"target": ["AAAAAAAAAAAAAAAAAAAAAA", "@alice:synapse.test"]},
        {"actor": "@alice:synapse.test"},
        {"actor": []},
    ],
)
def test_a_disclosure_that_the_leaf_does_not_commit_to_is_refused(disclosures: dict[str, JsonValue]) -> None:
    record = RECORDER.record(AuditEvent(Action.AUTH_LOGIN, actor="@alice:synapse.test"), now_ms=1)
    with pytest.raises(InvalidInput, match="disclosures"):
        check_disclosures(json.loads(record.leaf)["personal"], canonical_text(disclosures))
