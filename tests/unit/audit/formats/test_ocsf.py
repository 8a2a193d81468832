"""OCSF events against the schema that its authors publish, in the JSON Schema that ocsf-json-schema makes of it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from synapse_modules.audit.formats.ocsf import ocsf_event
from synapse_modules.audit.formats.ocsf_classes import PLACES, VERSIONS
from synapse_modules.core.actions import Action, Outcome
from tests.unit.audit.formats.made_entries import entries, every_entry, make_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synapse_modules.audit.formats.entry import Entry

OLD, NEW = VERSIONS
SCHEMA = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=OLD))


@functools.cache
def validator(class_uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    name = SCHEMA.lookup_class_name_from_uid(class_uid)
    return Draft202012Validator(SCHEMA.get_class_schema(name, list(profiles)))


def mistakes(event: dict[str, Any]) -> list[str]:
    """What the schema of 1.8 does not allow, unknown attributes included."""
    profiles = tuple(event["metadata"].get("profiles", ()))
    found = validator(event["class_uid"], profiles).iter_errors(event)
    return [f"{event['metadata']['event_code']}: {error.json_path}: {error.message}" for error in found]


def attributes(class_uid: int, profiles: tuple[str, ...] = ()) -> dict[str, Any]:
    """What 1.8 knows of each attribute of a class."""
    schema: Any = validator(class_uid, profiles).schema
    return dict(schema["properties"])


def deprecated(event: dict[str, Any]) -> list[str]:
    """Attributes of ``event`` that 1.8 advises against."""
    known = attributes(event["class_uid"], tuple(event["metadata"].get("profiles", ())))
    return [name for name in event if known[name].get("deprecated")]


def test_every_action_has_a_place() -> None:
    assert set(PLACES) == {action.value for action in Action}


def test_every_action_makes_an_event_that_the_published_schema_allows() -> None:
    for entry in every_entry():
        event = ocsf_event(entry)
        assert mistakes(event) == []
        assert deprecated(event) == []


def test_the_schema_is_strict_or_the_tests_above_prove_nothing() -> None:
    event = ocsf_event(make_entry(Action.AUTH_LOGIN, actor="@a:x"))
    assert mistakes(event | {"unheard_of": 1})
    assert mistakes(event | {"activity_id": 77})
    assert mistakes({key: value for key, value in event.items() if key != "user"})


@given(entries())
def test_hostile_text_makes_events_that_the_published_schema_allows(entry: Entry) -> None:
    assert mistakes(ocsf_event(entry)) == []


def test_an_action_of_a_later_version_is_a_base_event() -> None:
    entry = make_entry(Action.AUTH_LOGIN, actor="@a:x", address="192.0.2.1", user_agent="x", device_id="D")
    event = ocsf_event(entry._replace(action="of.a.later.version"))
    assert event["type_uid"] == 99
    assert event["activity_name"] == "of.a.later.version"
    assert mistakes(event) == []


TYPES = {
    # action: type in 1.8, type in 1.9, as the two schemas number them
    Action.AUTH_LOGIN: (300201, 300201),
    Action.AUTH_LOGOUT: (300202, 300202),
    Action.USER_REGISTER: (300101, 300701),
    Action.USER_DEACTIVATE: (300105, 300705),
    Action.USER_ERASE: (300106, 300703),
    Action.USER_PASSWORD_RESET: (300104, 300709),
    Action.USER_PASSWORD_CHANGE: (300103, 300708),
    Action.DEVICE_DELETE: (300404, 300404),
    Action.ROOM_CREATE: (300606, 300606),
    Action.ROOM_DELETE: (300605, 300605),
    Action.ROOM_JOIN: (300603, 300603),
    Action.ROOM_LEAVE: (300604, 300604),
    Action.ROOM_KICK: (300604, 300604),
    Action.ROOM_INVITE: (300699, 300699),
    Action.ROOM_BAN: (300699, 300699),
    Action.ROOM_UNBAN: (300699, 300699),
    Action.ROOM_POWER_RAISE: (300501, 300714),
    Action.ROOM_POWER_LOWER: (300502, 300715),
    Action.ROOM_POWER_DEFAULTS: (300699, 300609),
    Action.ROOM_SETTING_CHANGE: (300699, 300609),
    Action.MESSAGE_SEND: (600101, 600101),
    Action.MESSAGE_EDIT: (600103, 600103),
    Action.MESSAGE_REDACT: (600104, 600104),
    Action.MEDIA_UPLOAD: (600601, 600601),
    Action.MEDIA_DOWNLOAD: (600602, 600602),
    Action.MEDIA_QUARANTINE: (600610, 600610),
    Action.MEDIA_UNQUARANTINE: (600611, 600611),
    Action.MEDIA_DELETE: (600604, 600604),
    Action.ROLE_GRANT: (300501, 300716),
    Action.ROLE_REVOKE: (300502, 300717),
    Action.ROLE_DEFINE: (300401, 300801),
    Action.ROLE_UPDATE: (300403, 300802),
    Action.ROLE_DELETE: (300404, 300803),
    Action.POLICY_CHANGE: (300403, 300403),
    Action.CONFIG_CHANGE: (300403, 300403),
    Action.HOLD_CREATE: (300408, 300408),
    Action.HOLD_RELEASE: (300409, 300409),
    Action.RETENTION_PURGE: (600507, 600507),
    Action.EXPORT_CONTENT: (600107, 600107),
    Action.AUDIT_EXPORT: (100803, 100803),
    Action.AUDIT_PRUNE: (100802, 100802),
    Action.AUDIT_START: (100806, 100806),
    Action.AUDIT_STOP: (100807, 100807),
    Action.AUDIT_GAP: (100899, 100899),
    Action.AUDIT_ROLLBACK: (100899, 100899),
}


@pytest.mark.parametrize(("action", "types"), TYPES.items())
def test_an_action_has_its_type_in_each_version(action: Action, types: tuple[int, int]) -> None:
    entry = make_entry(action)
    assert tuple(ocsf_event(entry, version)["type_uid"] for version in VERSIONS) == types


@pytest.mark.parametrize(
    ("method", "type_uid"),
    [("POST", 600301), ("GET", 600302), ("PUT", 600303), ("DELETE", 600304), ("BREW", 600399), (None, 600399)],
)
def test_a_call_of_the_administration_api_has_the_type_of_its_method(method: str | None, type_uid: int) -> None:
    entry = make_entry(Action.ADMIN_API, details={"method": method, "route": "GET /v1/rooms"})
    assert ocsf_event(entry)["type_uid"] == type_uid


def test_a_role_that_is_given_to_a_group_is_a_change_of_the_group() -> None:
    entry = make_entry(Action.ROLE_GRANT, details={"group": "staff", "role": "guest"})
    old, new = (ocsf_event(entry, version) for version in VERSIONS)
    assert (old["type_uid"], old["group"], old["privileges"]) == (300601, {"name": "staff", "type": "group"}, ["guest"])
    assert (new["type_uid"], new["iam_roles"]) == (300612, [{"name": "guest"}])
    assert "privileges" not in new


def test_a_log_that_is_not_whole_is_critical() -> None:
    assert ocsf_event(make_entry(Action.AUDIT_GAP))["severity_id"] == 5


def test_a_purge_counts_what_it_deleted() -> None:
    assert ocsf_event(make_entry(Action.RETENTION_PURGE, details={"deleted": 41}))["count"] == 41


@pytest.mark.parametrize(("outcome", "status"), [(Outcome.SUCCESS, 1), (Outcome.DENIED, 2), (Outcome.FAILURE, 2)])
def test_what_was_denied_or_failed_is_a_failure(outcome: Outcome, status: int) -> None:
    event = ocsf_event(make_entry(Action.AUTH_LOGIN, outcome, reason="No."))
    assert (event["status_id"], event["status_code"], event["status_detail"]) == (status, outcome.value, "No.")


def test_people_who_were_erased_are_told_from_those_who_never_were_named() -> None:
    erased = make_entry(
        Action.ROOM_KICK, actor="@a:x", target="@b:x", address="192.0.2.1", erased=("actor", "target", "address")
    )
    event = ocsf_event(erased)
    assert event["actor"]["user"] == {"name": "[erased]"}
    assert event["user"] == {"name": "[erased]"}
    assert event["src_endpoint"] == {"svc_name": "[erased]"}
    event = ocsf_event(make_entry(Action.USER_ERASE))
    assert event["actor"] == {"app_name": "synapse-governance"}
    assert event["user"] == {"name": "[unknown]"}


# ------------------------------------------------------------------------------------------- 1.9

# 1.9 is not among the published schemas that ocsf-json-schema carries: what it adds is written down here.
NEW_CLASSES: Mapping[int, tuple[set[str], set[str], set[int]]] = {
    # class: attributes that are required, attributes that there may be beside those of every class, activities
    3006: ({"group"}, {"group", "users", "iam_roles", "privileges", "updated_group"}, {*range(14), 99}),
    3007: ({"user"}, {"user", "iam_roles", "privileges", "resources", "updated_user"}, {*range(20), 99}),
    3008: ({"iam_role"}, {"iam_role", "privileges", "resources", "updated_role"}, {*range(12), 99}),
}


def new_mistakes(event: dict[str, Any]) -> Iterator[str]:
    required, own, activities = NEW_CLASSES[event["class_uid"]]
    every = set(attributes(3003)) - {"privileges", "session", "user", "group"}
    if event["activity_id"] not in activities:
        yield f"activity {event['activity_id']}"
    yield from (f"{name} is missing" for name in required - event.keys())
    yield from (f"{name} is unknown" for name in event.keys() - every - own)


def test_every_event_of_1_9_is_one_of_1_8_or_of_the_classes_that_replaced_some() -> None:
    for entry in every_entry():
        event = ocsf_event(entry, NEW)
        assert event["class_uid"] not in {3001, 3005}
        assert event["metadata"]["version"] == NEW
        if event["class_uid"] in NEW_CLASSES:
            assert list(new_mistakes(event)) == []
        else:
            event["metadata"] = event["metadata"] | {"version": OLD}
            assert event == ocsf_event(entry, OLD)
