"""What is recorded of a request, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.record import Recorder
from synapse_modules.audit.request_events import NO_ACCOUNT, Learnt, event_of, succeeded
from synapse_modules.audit.request_routes import RULES, find_route
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.clock import system_random
from synapse_modules.core.ports import AuditEvent
from synapse_modules.core.served_requests import ServedRequest

SERVER = "synapse.test"
ALICE, ROOT = "@alice:synapse.test", "@root:synapse.test"
CLIENT = "/_matrix/client/v3"
ADMIN = "/_synapse/admin"


def served(method: str, uri: str, status: int | None = 200, user: str | None = ALICE, **more: Any) -> ServedRequest:
    """A request of Alice's that was answered."""
    fields: dict[str, Any] = {"sent_bytes": 2, "address": "10.0.0.1", "user_agent": "teacup/1", "request_id": "GET-7"}
    return ServedRequest(method, uri, status, user_id=user, entity=more.pop("entity", user), **{**fields, **more})


def recorded(request: ServedRequest, learnt: Learnt | None = None) -> AuditEvent | None:
    """The event of ``request``, held to the specification of its action."""
    match = find_route(request.method, request.uri, succeeded(request.status))
    event = None if match is None else event_of(request, match, learnt or Learnt(), SERVER)
    if event is not None:
        check_event(event)
    return event


def must_be_recorded(request: ServedRequest, learnt: Learnt | None = None) -> AuditEvent:
    event = recorded(request, learnt)
    assert event is not None
    return event


# ------------------------------------------------------------------------------------------------ who and what


def test_a_record_tells_who_from_where_what_and_how_it_ended() -> None:
    event = must_be_recorded(served("DELETE", f"{CLIENT}/devices/TEAPOT"))
    assert event == AuditEvent(
        Action.DEVICE_DELETE,
        Outcome.SUCCESS,
        actor=ALICE,
        target=ALICE,
        address="10.0.0.1",
        user_agent="teacup/1",
        device_id="TEAPOT",
        details={
            "method": "DELETE",
            "route": "DELETE /_matrix/client/{version}/devices/{device}",
            "status": 200,
            "request_id": "GET-7",
        },
    )


def test_who_really_acts_is_the_actor_and_in_whose_name_the_target() -> None:
    event = must_be_recorded(served("POST", f"{CLIENT}/logout", user=ALICE, entity=ROOT))
    assert (event.actor, event.target) == (ROOT, ALICE)
    own = must_be_recorded(served("POST", f"{CLIENT}/logout"))
    assert (own.actor, own.target) == (ALICE, None)


def test_another_homeserver_is_the_actor_of_what_it_fetches() -> None:
    uri = "/_matrix/federation/v1/media/download/abc"
    event = must_be_recorded(served("GET", uri, user="remote.test", entity="remote.test", sent_bytes=70_000))
    assert (event.action, event.actor, event.target) == (Action.MEDIA_DOWNLOAD, "remote.test", None)
    assert (event.details["media_id"], event.details["bytes"]) == ("abc", 70_000)


NAMED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a user": ("GET", f"{ADMIN}/v2/users/%40bob%3Asynapse.test", {"target": "@bob:synapse.test"}),
    "a room": ("POST", f"{CLIENT}/rooms/%21r%3Asynapse.test/forget", {"room_id": "!r:synapse.test"}),
    "a room without a domain": ("POST", f"{CLIENT}/rooms/!abc_-0/forget", {"room_id": "!abc_-0"}),
    "an alias": ("PUT", f"{CLIENT}/directory/room/%23tea%3Asynapse.test", {"target": "#tea:synapse.test"}),
    "an alias for a room": ("POST", f"{ADMIN}/v1/join/%23tea%3Asynapse.test", {"target": "#tea:synapse.test"}),
    "an address": ("GET", f"{ADMIN}/v1/threepid/email/users/a%40b.test", {"target": "a@b.test"}),
    "a server": ("GET", f"{ADMIN}/v1/federation/destinations/remote.test", {"target": "remote.test"}),
    "what stands in the place of a room and is none": ("POST", f"{CLIENT}/rooms/@bob:x/forget", {"room_id": None}),
    "a room that is too long": ("POST", f"{CLIENT}/rooms/!{'x' * 300}/forget", {"room_id": None}),
    "a user who is too long": ("GET", f"{ADMIN}/v2/users/@{'x' * 300}:y", {"target": None}),
    "nobody": ("GET", f"{ADMIN}/v2/users", {"target": None}),
}


@pytest.mark.parametrize(("method", "uri", "fields"), NAMED.values(), ids=NAMED.keys())
def test_what_the_path_names_stands_in_its_field(method: str, uri: str, fields: dict[str, Any]) -> None:
    event = must_be_recorded(served(method, uri))
    assert {name: getattr(event, name) for name in fields} == fields


DETAILS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a file of another homeserver": (
        "GET",
        "/_matrix/client/v1/media/download/remote.test/abc/secret.pdf",
        {"origin": "remote.test", "media_id": "abc", "bytes": 2},
    ),
    "a file of this homeserver": (
        "GET",
        "/_matrix/client/v1/media/thumbnail/synapse.test/abc?width=32",
        {"origin": None, "media_id": "abc", "query": None},
    ),
    "what is no file's id": ("GET", "/_matrix/client/v1/media/download/a.test/%40bob%3Ax", {"media_id": None}),
    "a previewed page": (
        "GET",
        "/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fsecret.test",
        {"query": None, "media_id": None},
    ),
    "an event": ("GET", f"{ADMIN}/v1/fetch_event/%24event", {"event_id": "$event"}),
    "what is no event": ("GET", f"{ADMIN}/v1/fetch_event/%24event%20of%20mine", {"event_id": None}),
    "a reported room": ("POST", f"{CLIENT}/rooms/!r:x/report", {"kind": "room", "event_id": None}),
    "a reported event": ("POST", f"{CLIENT}/rooms/!r:x/report/%24e", {"kind": "event", "event_id": "$e"}),
    "a reported user": ("POST", f"{CLIENT}/users/@bob:x/report", {"kind": "user"}),
    "a known type of account data": ("PUT", f"{CLIENT}/user/@a:x/account_data/m.direct", {"event_type": "m.direct"}),
    "a type that names a device": (
        "PUT",
        f"{CLIENT}/user/@a:x/account_data/org.matrix.msc3890.local_notification_settings.TEAPOT",
        {"event_type": None},
    ),
    "a tag, which is somebody's own word": (
        "PUT",
        f"{CLIENT}/user/@a:x/rooms/!r:x/tags/u.lovers",
        {"event_type": "m.tag"},
    ),
    "switches and numbers": (
        "POST",
        f"{ADMIN}/v1/media/synapse.test/delete?before_ts=1700&size_gt=5&keep_profiles=false",
        {"query": {"before_ts": "1700", "size_gt": "5", "keep_profiles": "false"}},
    ),
    "a search by name": ("GET", f"{ADMIN}/v2/users?name=bob&limit=10&from=abc", {"query": {"limit": "10"}}),
    "a switch with a text in it": ("GET", f"{ADMIN}/v2/users?guests=@bob:x&dir=b", {"query": {"dir": "b"}}),
    "a token that Synapse would not know": (
        "GET",
        f"{ADMIN}/v2/users?access%5Ftoken=syt_secret&token=syt_secret",
        {"query": None},
    ),
    "too many parameters": ("GET", f"{ADMIN}/v2/users?{'limit=1&' * 200}", {"query": None}),
    "a secret in the path": (
        "GET",
        f"{ADMIN}/v1/registration_tokens/syt_secret",
        {"route": "GET /_synapse/admin/{version}/registration_tokens/{token}"},
    ),
    "a route that nobody knows": (
        "GET",
        f"{ADMIN}/v9/new_thing/@bob:x",
        {"route": "GET /_synapse/admin/v9/new_thing/{rest}"},
    ),
    "a route that is a name": ("GET", f"{ADMIN}/v9/@bob:x", {"route": "GET /_synapse/admin/{rest}"}),
}


@pytest.mark.parametrize(("method", "uri", "details"), DETAILS.values(), ids=DETAILS.keys())
def test_details_hold_what_is_certain_to_be_no_text(method: str, uri: str, details: dict[str, Any]) -> None:
    event = must_be_recorded(served(method, uri))
    assert {key: event.details.get(key) for key in details} == details
    assert "secret" not in json.dumps(dict(event.details))
    assert "bob" not in json.dumps(dict(event.details))


@pytest.mark.parametrize(
    ("given_id", "kept"), [("POST-12", True), ("GET-a.b:c_d", True), ("GET-a b", False), ("x", False)]
)
def test_a_request_id_that_a_client_may_have_chosen_is_kept_if_it_is_one(given_id: str, kept: bool) -> None:
    event = must_be_recorded(served("POST", f"{CLIENT}/logout", request_id=given_id))
    assert ("request_id" in event.details) == kept


# ------------------------------------------------------------------------------------------------ how it ended


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SUCCESS),
        (302, Outcome.SUCCESS),
        (401, Outcome.DENIED),
        (403, Outcome.DENIED),
        (404, Outcome.FAILURE),
        (429, Outcome.FAILURE),
        (500, Outcome.FAILURE),
        (None, Outcome.FAILURE),
    ],
)
def test_the_status_says_how_it_ended(status: int | None, outcome: Outcome) -> None:
    event = must_be_recorded(served("GET", f"{ADMIN}/v1/rooms", status))
    assert (event.outcome, event.details["status"]) == (outcome, status)


def test_nobody_is_recorded_who_was_refused_without_a_token_except_at_the_doors() -> None:
    assert recorded(served("GET", "/_matrix/client/v1/media/download/a/b", 401, user=None)) is None
    assert recorded(served("GET", "/_matrix/media/v3/download/a/b", 404, user=None)) is None
    assert recorded(served("GET", "/_matrix/media/v3/download/a/b", 200, user=None)) is not None
    for uri in (f"{ADMIN}/v1/rooms", f"{ADMIN}/v9/unknown"):
        event = must_be_recorded(served("GET", uri, 401, user=None))
        assert (event.actor, event.outcome) == (None, Outcome.DENIED)
    assert recorded(served("POST", f"{CLIENT}/refresh", 403, user=None)) is not None


def test_a_password_that_was_wrong_names_the_account() -> None:
    failed = served("POST", f"{CLIENT}/login", 403, user=None)
    event = must_be_recorded(failed, Learnt(account=ALICE, password_given=True))
    assert (event.action, event.outcome, event.actor, event.reason) == (Action.AUTH_LOGIN, Outcome.DENIED, ALICE, None)
    assert event.details["login_type"] == "m.login.password"


def test_an_account_that_does_not_exist_is_told_and_not_named() -> None:
    event = must_be_recorded(served("POST", f"{CLIENT}/login", 403, user=None), Learnt(password_given=True))
    assert (event.actor, event.reason) == (None, NO_ACCOUNT)


def test_a_login_that_nothing_is_known_of_has_an_address() -> None:
    for status, outcome in ((429, Outcome.FAILURE), (403, Outcome.DENIED)):
        event = must_be_recorded(served("POST", f"{CLIENT}/login", status, user=None))
        assert (event.actor, event.reason, event.address, event.outcome) == (None, None, "10.0.0.1", outcome)


def test_to_be_asked_for_a_password_is_no_denial_and_a_wrong_one_is() -> None:
    for method, path in (("POST", "account/password"), ("POST", "delete_devices"), ("POST", "account/deactivate")):
        asked = served(method, f"{CLIENT}/{path}", 401)
        assert recorded(asked) is None
        event = must_be_recorded(asked, Learnt(account=ALICE, password_given=True))
        assert (event.outcome, event.actor, event.target) == (Outcome.DENIED, ALICE, ALICE)
    assert recorded(served("POST", f"{CLIENT}/register", 401, user=None)) is None
    assert recorded(served("POST", f"{CLIENT}/register", 403, user=None)) is not None


@pytest.mark.parametrize("status", [400, 404, 429, 500, None])
def test_of_what_becomes_a_room_event_only_a_refusal_is_recorded(status: int | None) -> None:
    uri = f"{CLIENT}/rooms/!r:x/send/m.room.message/1"
    assert recorded(served("PUT", uri, status)) is None
    refused = must_be_recorded(served("PUT", uri, 403))
    assert (refused.action, refused.outcome, refused.room_id) == (Action.CLIENT_REQUEST, Outcome.DENIED, "!r:x")


def test_more_than_the_route_has_is_recorded_only_where_it_was_served() -> None:
    assert recorded(served("POST", f"{CLIENT}/delete_devicesX", 404)) is None
    assert must_be_recorded(served("POST", f"{CLIENT}/delete_devicesX", 200)).action is Action.DEVICE_DELETE


# --------------------------------------------------------------------------------------- what is recorded already

KNOWN: dict[str, tuple[str, str, int, Action, bool]] = {
    "a login that the policy refused": ("POST", f"{CLIENT}/login", 403, Action.ACCESS_DENIED, True),
    "a login that failed after its record": ("POST", f"{CLIENT}/login", 500, Action.AUTH_LOGIN, True),
    "a room that the policy refused": ("POST", f"{CLIENT}/createRoom", 403, Action.ACCESS_DENIED, True),
    "an account that was made": ("POST", f"{CLIENT}/register", 200, Action.USER_REGISTER, True),
    "an account that was deactivated": ("POST", f"{CLIENT}/account/deactivate", 200, Action.USER_DEACTIVATE, True),
    "an account that was erased": ("POST", f"{CLIENT}/account/deactivate", 200, Action.USER_ERASE, True),
    "a call that a gateway recorded": ("GET", f"{ADMIN}/v1/rooms", 200, Action.ADMIN_API, True),
    "a call that a gateway refused": ("GET", f"{ADMIN}/v1/rooms", 403, Action.ACCESS_DENIED, True),
    "a call that made an account": ("PUT", f"{ADMIN}/v2/users/@b:x", 201, Action.USER_REGISTER, False),
    "a call that succeeded after a refusal": ("GET", f"{ADMIN}/v1/rooms", 200, Action.ACCESS_DENIED, False),
}


@pytest.mark.parametrize(("method", "uri", "status", "action", "known"), KNOWN.values(), ids=KNOWN.keys())
def test_what_has_a_better_record_is_not_recorded_again(
    method: str, uri: str, status: int, action: Action, known: bool
) -> None:
    request = served(method, uri, status)
    assert recorded(request) is not None
    assert (recorded(request, Learnt(recorded={action})) is None) == known


def test_an_account_that_another_process_made_leaves_the_request_a_record_of_its_own() -> None:
    event = must_be_recorded(served("POST", f"{CLIENT}/register", 200, user=None))
    assert (event.action, event.address) == (Action.CLIENT_REQUEST, "10.0.0.1")


def test_the_id_of_an_uploaded_file_is_what_a_callback_learnt() -> None:
    event = must_be_recorded(served("POST", "/_matrix/media/v3/upload"), Learnt(media_id="abc"))
    assert (event.action, event.details["media_id"]) == (Action.MEDIA_UPLOAD, "abc")


# --------------------------------------------------------------------------------------------------- hostile

hostile = st.text(max_size=400) | st.sampled_from(
    ["", "%00", "%2e%2e%2f", "%252F", "\ufffd" * 50, "=cmd()", "@", "!", "$", "#", "\r\nX: y", "x" * 16_000]
)


@given(st.sampled_from([rule for rule in RULES if rule.recorded]), st.data())
def test_whatever_stands_in_a_path_a_record_can_be_made_of_it(rule: Any, data: st.DataObject) -> None:
    path = rule.path.replace("{version}", "v1", 1)
    while "{" in path:
        path = path.replace(path[path.index("{") : path.index("}") + 1], data.draw(hostile).replace("{", ""), 1)
    method = min(rule.methods)
    status = data.draw(st.sampled_from([200, 403, 404, None]))
    agent = data.draw(hostile)
    request = served(method, f"{path}?{data.draw(hostile)}", status, user_agent=agent, address=data.draw(hostile))
    event = recorded(request, Learnt(password_given=True))
    if event is not None:
        record = Recorder(SERVER, "main", system_random).record(event, 0)
        assert len(record.leaf) < 4_000


def test_an_actor_and_an_address_that_are_too_long_are_left_out() -> None:
    request = replace(served("POST", f"{CLIENT}/logout"), entity="@" + "x" * 300, address="1" * 100)
    event = must_be_recorded(request)
    assert (event.actor, event.address) == (None, None)
