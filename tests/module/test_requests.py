"""Requests of real clients in the audit log of a real homeserver."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit.request_events import NO_ACCOUNT
from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from tests.module.audit_module import ELSEWHERE, audited, log_of, service
from tests.module.support import inside
from tests.support.audit_log import rows, write_locked
from tests.support.client import MatrixClient
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synapse.module_api import ModuleApi

    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.client import Reply
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

PASSWORD = "wonderland"
EXTRA: dict[str, Any] = {
    "enable_registration": True,
    "enable_registration_without_verification": True,
    "room_list_publication_rules": [{"action": "allow"}],
    "login_via_existing_session": {"enabled": True, "require_ui_auth": False},
    "ui_auth": {"session_timeout": 0},
}
Record = dict[str, Any]


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One process, shared by the tests that leave it as it was."""
    return audited(deploy_shared, tmp_path_factory.mktemp("key"), extra=EXTRA)


@pytest.fixture(scope="module")
def log(deployment: Deployment) -> Database:
    return log_of(deployment, None)


@pytest.fixture(scope="module")
def root(deployment: Deployment) -> MatrixClient:
    return deployment.register("root", admin=True)


@pytest.fixture
def user(deployment: Deployment, request: pytest.FixtureRequest) -> MatrixClient:
    """A user of the test's own, with a device of the name ``TEAPOT``."""
    name = f"u{abs(hash(request.node.nodeid)):x}"
    deployment.register(name, password=PASSWORD)
    return MatrixClient(deployment.url).with_login(deployment.client().login(name, PASSWORD, device_id="TEAPOT"))


def records(log: Database) -> list[Record]:
    """All records so far, each with what its disclosures tell."""
    found = rows(log, "SELECT writer, wseq, leaf, disclosures FROM governance_audit_records ORDER BY writer, wseq")
    return [
        {**json.loads(leaf), **{name: value for name, (_, value) in json.loads(shown).items()}}
        for _, _, leaf, shown in found
    ]


def of(log: Database, action: Action, count: int = 1, **wanted: Any) -> list[Record]:
    """The records of ``action`` with these fields or details, once there are ``count``."""

    def matches(record: Record) -> bool:
        fields = {**record["details"], **record}
        return record["action"] == action.value and all(fields.get(key) == value for key, value in wanted.items())

    def look() -> list[Record]:
        found = [record for record in records(log) if matches(record)]
        return found if len(found) >= count else []

    return wait_until(look, what=f"{count} of {action} with {wanted}")


def one(log: Database, action: Action, **wanted: Any) -> Record:
    (found,) = of(log, action, **wanted)
    check_details(action, found["details"])
    return found


def settled(log: Database, user: MatrixClient) -> list[Record]:
    """What is recorded of ``user``, when everything that was done before this call is."""
    user.client("POST", "user", user.user_id, "openid", "request_token", body={}).expect()
    of(log, Action.CLIENT_REQUEST, actor=user.user_id, route=OPENID)
    return [record for record in records(log) if record.get("actor") == user.user_id]


OPENID = "POST /_matrix/client/{version}/user/{user}/openid/request_token"


def confirmed(user: MatrixClient, path: list[str], body: dict[str, Any], method: str = "POST") -> Reply:
    """A request that is confirmed with the user's password when it is asked for."""
    asked = user.client(method, *path, body=body)
    assert asked.status == 401
    identifier = {"type": "m.id.user", "user": user.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "session": asked.body["session"]}
    return user.client(method, *path, body={**body, "auth": {**auth, "password": PASSWORD}})


# --------------------------------------------------------------------------------------------------------- logins


def test_a_wrong_password_is_recorded_with_the_account_and_a_right_one_once(log: Database, user: MatrixClient) -> None:
    name = user.user_id[1:].partition(":")[0]
    assert MatrixClient(user.url).login(name.upper(), "wrong").status == 403
    denied = one(log, Action.AUTH_LOGIN, actor=user.user_id, outcome="denied")
    assert denied["details"] == {
        "login_type": "m.login.password",
        "method": "POST",
        "route": "POST /_matrix/client/{version}/login",
        "status": 403,
        "request_id": denied["details"]["request_id"],
    }
    assert (denied["address"], denied["process"]) == ("127.0.0.1", "main")
    assert denied["user_agent"]
    found = [record["outcome"] for record in settled(log, user) if record["action"] == "auth.login"]
    assert found == ["success", "denied"]


def test_a_name_that_is_no_account_is_not_repeated(deployment: Deployment, log: Database) -> None:
    typed = "correct horse battery staple"
    assert deployment.client().login(typed, "x").status == 403
    assert "actor" not in one(log, Action.AUTH_LOGIN, reason=NO_ACCOUNT)
    stored = rows(log, "SELECT leaf, disclosures FROM governance_audit_records")
    assert all(b"battery" not in leaf and "battery" not in shown for leaf, shown in stored)
    assert "battery" not in deployment.client().login(typed, "x").text


def test_a_login_of_a_kind_that_is_not_offered_has_an_address(deployment: Deployment, log: Database) -> None:
    headers = {"X-Forwarded-For": "203.0.113.77", "X-Forwarded-Proto": "https"}
    body = {"type": "org.matrix.login.jwt", "token": "x"}
    reply = deployment.client().request("POST", "/_matrix/client/v3/login", body, headers=headers)
    record = one(log, Action.AUTH_LOGIN, address="203.0.113.77")
    assert (record["outcome"], record["details"]["status"]) == ("failure", reply.status)
    assert "actor" not in record


def test_a_logout_is_recorded_and_one_of_all_sessions_says_so(log: Database, user: MatrixClient) -> None:
    name = user.user_id[1:].partition(":")[0]
    user.client("POST", "logout", body={}).expect()
    assert one(log, Action.AUTH_LOGOUT, actor=user.user_id)["details"]["everywhere"] is False
    again = user.with_login(user.login(name, PASSWORD))
    again.client("POST", "logout", "all", body={}).expect()
    assert one(log, Action.AUTH_LOGOUT, actor=user.user_id, everywhere=True)["outcome"] == "success"


# ------------------------------------------------------------------------------------------------------- accounts


def test_a_registration_is_recorded_once_with_who_and_from_where(deployment: Deployment, log: Database) -> None:
    body = {"username": "newcomer", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    new = deployment.client().with_login(deployment.client().client("POST", "register", body=body))
    record = one(log, Action.USER_REGISTER, target="@newcomer:synapse.test")
    assert (record["actor"], record["address"], record["outcome"]) == (new.user_id, "127.0.0.1", "success")
    settled(log, new)
    route = "POST /_matrix/client/{version}/register"
    assert [each for each in records(log) if each["details"].get("route") == route] == []
    assert deployment.client().client("POST", "register", body=body).status == 400
    assert one(log, Action.USER_REGISTER, outcome="failure")["details"]["status"] == 400


def test_an_account_made_by_an_administrator_is_the_administrators_doing(log: Database, root: MatrixClient) -> None:
    root.admin("PUT", "v2/users/@made:synapse.test", {"password": PASSWORD}).expect(201)
    assert one(log, Action.USER_REGISTER, target="@made:synapse.test")["actor"] == root.user_id
    call = one(log, Action.ADMIN_API, target="@made:synapse.test", status=201)
    assert (call["actor"], call["details"]["method"]) == (root.user_id, "PUT")


def test_a_password_change_is_recorded_once_and_being_asked_for_the_old_one_is_not(
    log: Database, user: MatrixClient
) -> None:
    confirmed(user, ["account", "password"], {"new_password": "looking-glass"}).expect()
    change = one(log, Action.USER_PASSWORD_CHANGE, actor=user.user_id)
    assert (change["target"], change["outcome"]) == (user.user_id, "success")
    assert "looking-glass" not in json.dumps(records(log))


def test_a_wrong_password_where_one_is_asked_again_is_a_denial(log: Database, user: MatrixClient) -> None:
    asked = user.client("POST", "delete_devices", body={"devices": ["TEAPOT"]})
    identifier = {"type": "m.id.user", "user": user.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "session": asked.body["session"], "password": "wrong"}
    assert user.client("POST", "delete_devices", body={"devices": ["TEAPOT"], "auth": auth}).status == 401
    denied = one(log, Action.DEVICE_DELETE, actor=user.user_id)
    assert (denied["outcome"], denied["details"]["status"]) == ("denied", 401)


def test_a_password_that_an_administrator_sets_is_a_reset(
    log: Database, root: MatrixClient, user: MatrixClient
) -> None:
    root.admin("POST", f"v1/reset_password/{user.user_id}", {"new_password": "looking-glass"}).expect()
    reset = one(log, Action.USER_PASSWORD_RESET, target=user.user_id)
    assert (reset["actor"], reset["outcome"]) == (root.user_id, "success")


@pytest.mark.parametrize(("erase", "action"), [(False, Action.USER_DEACTIVATE), (True, Action.USER_ERASE)])
def test_a_deactivation_is_recorded_once(
    log: Database, root: MatrixClient, user: MatrixClient, erase: bool, action: Action
) -> None:
    confirmed(user, ["account", "deactivate"], {"erase": erase}).expect()
    record = one(log, action, target=user.user_id)
    assert (record["actor"], record["address"]) == (user.user_id, "127.0.0.1")
    settled(log, root)
    route = "POST /_matrix/client/{version}/account/deactivate"
    assert [each for each in records(log) if each.get("actor") == user.user_id and _route(each) == route] == []


def _route(record: Record) -> str | None:
    route: str | None = record["details"].get("route")
    return route


def test_a_deactivation_by_whatever_call_of_an_administrator_is_one(
    log: Database, root: MatrixClient, user: MatrixClient
) -> None:
    root.admin("PUT", f"v2/users/{user.user_id}", {"deactivated": True}).expect()
    assert one(log, Action.USER_DEACTIVATE, target=user.user_id)["actor"] == root.user_id
    assert one(log, Action.ADMIN_API, target=user.user_id, actor=root.user_id)["outcome"] == "success"


# --------------------------------------------------------------------------------------- what users change of theirs

SEARCH = {"search_term": "hatter"}
OWN_CHANGES: dict[str, tuple[Action, Callable[[MatrixClient], Reply], dict[str, Any]]] = {
    "a display name": (
        Action.USER_DATA_CHANGE,
        lambda user: user.client("PUT", "profile", user.user_id, "displayname", body={"displayname": "Hatter"}),
        {"status": 200},
    ),
    "account data": (
        Action.USER_DATA_CHANGE,
        lambda user: user.client("PUT", "user", user.user_id, "account_data", "m.direct", body={"@hatter:x": ["!r"]}),
        {"event_type": "m.direct"},
    ),
    "a push rule": (
        Action.USER_DATA_CHANGE,
        lambda user: user.client(
            "PUT", "pushrules", "global", "content", "hatter", body={"pattern": "hatter", "actions": ["notify"]}
        ),
        {"event_type": "m.push_rules"},
    ),
    "an address that is refused": (
        Action.USER_DATA_CHANGE,
        lambda user: user.client("POST", "account", "3pid", "delete", body={"medium": "email", "address": "hatter@x"}),
        {"route": "POST /_matrix/client/{version}/account/3pid/delete"},
    ),
    "the name of a device": (
        Action.CLIENT_REQUEST,
        lambda user: user.client("PUT", "devices", "TEAPOT", body={"display_name": "Hatter's"}),
        {"device": "TEAPOT"},
    ),
    "a backup of keys": (
        Action.CLIENT_REQUEST,
        lambda user: user.client(
            "POST", "room_keys", "version", body={"algorithm": "m.megolm_backup.v1", "auth_data": {"x": "hatter"}}
        ),
        {"route": "POST /_matrix/client/{version}/room_keys/version"},
    ),
    "a token for another service": (
        Action.CLIENT_REQUEST,
        lambda user: user.client("POST", "user", user.user_id, "openid", "request_token", body={}),
        {"route": OPENID},
    ),
    "a search for messages": (
        Action.CLIENT_REQUEST,
        lambda user: user.client(
            "POST", "search", body={"search_categories": {"room_events": {"search_term": "hatter"}}}
        ),
        {"route": "POST /_matrix/client/{version}/search"},
    ),
    "where notifications go": (
        Action.CLIENT_REQUEST,
        lambda user: user.client("POST", "pushers", "set", body={"kind": None, "app_id": "x", "pushkey": "hatter"}),
        {"route": "POST /_matrix/client/{version}/pushers/set"},
    ),
    "a login token for another device": (
        Action.CLIENT_REQUEST,
        lambda user: user.request("POST", "/_matrix/client/v1/login/get_token", {}),
        {"route": "POST /_matrix/client/{version}/login/get_token"},
    ),
}


@pytest.mark.parametrize(("action", "change", "details"), OWN_CHANGES.values(), ids=OWN_CHANGES.keys())
def test_what_a_user_changes_is_recorded_without_what_they_wrote(
    log: Database,
    user: MatrixClient,
    action: Action,
    change: Callable[[MatrixClient], Reply],
    details: dict[str, Any],
) -> None:
    reply = change(user)
    record = one(log, action, actor=user.user_id, **details)
    assert record["outcome"] == ("success" if reply.ok else "failure")
    assert (record["address"], record["details"]["status"]) == ("127.0.0.1", reply.status)
    assert "hatter" not in json.dumps(record).lower()


def test_a_deleted_device_is_named(log: Database, user: MatrixClient) -> None:
    name = user.user_id[1:].partition(":")[0]
    user.login(name, PASSWORD, device_id="SPARE").expect()
    confirmed(user, ["devices", "SPARE"], {}, "DELETE").expect()
    record = one(log, Action.DEVICE_DELETE, actor=user.user_id)
    assert (record["target"], record["device"], record["outcome"]) == (user.user_id, "SPARE", "success")
    assert "SPARE" not in json.dumps(record["details"])


def test_new_signing_keys_of_a_user_are_recorded(log: Database, user: MatrixClient) -> None:
    reply = user.client("POST", "keys", "device_signing", "upload", body={"master_key": {"user_id": user.user_id}})
    record = one(log, Action.CLIENT_REQUEST, actor=user.user_id)
    assert (record["details"]["route"], record["details"]["status"]) == (
        "POST /_matrix/client/{version}/keys/device_signing/upload",
        reply.status,
    )


# ---------------------------------------------------------------------------------------------------------- rooms


def test_what_is_done_to_a_room_beside_its_events_names_the_room(log: Database, user: MatrixClient) -> None:
    room = user.create_room(preset="public_chat").expect()["room_id"]
    event = user.send(room, "hello").expect()["event_id"]
    alias = f"#{user.user_id[1:]}"
    user.client("PUT", "user", user.user_id, "rooms", room, "account_data", "m.fully_read", body={"event_id": event})
    user.client("PUT", "user", user.user_id, "rooms", room, "tags", "u.hatter", body={}).expect()
    user.client("PUT", "directory", "room", alias, body={"room_id": room}).expect()
    user.client("PUT", "directory", "list", "room", room, body={"visibility": "public"}).expect()
    user.client("DELETE", "directory", "room", alias).expect()
    user.client("POST", "rooms", room, "report", event, body={"reason": "hatter"}).expect()
    user.client("POST", "rooms", room, "report", body={"reason": "hatter"}).expect()
    user.client("POST", "rooms", room, "upgrade", body={"new_version": "10"}).expect()
    user.leave(room).expect()
    user.client("POST", "rooms", room, "forget", body={}).expect()
    found = [
        (each["action"], each["details"].get("method"), each.get("room"), each.get("target"))
        for each in settled(log, user)
        if "route" in each["details"]
    ]
    own, aliased = user.user_id, alias
    assert found == [
        ("user.data.change", "PUT", room, own),
        ("user.data.change", "PUT", room, own),
        ("client.request", "PUT", None, aliased),
        ("client.request", "PUT", room, None),
        ("client.request", "DELETE", None, aliased),
        ("report.create", "POST", room, None),
        ("report.create", "POST", room, None),
        ("client.request", "POST", room, None),
        ("client.request", "POST", room, None),
        ("client.request", "POST", None, own),
    ]
    reports = of(log, Action.REPORT_CREATE, 2, actor=user.user_id)
    assert [(each["details"]["kind"], each["details"].get("event_id")) for each in reports] == [
        ("event", event),
        ("room", None),
    ]
    assert "hatter" not in json.dumps(found)


def test_a_report_of_a_user_names_the_user(log: Database, user: MatrixClient, root: MatrixClient) -> None:
    user.client("POST", "users", root.user_id, "report", body={"reason": "hatter"}).expect()
    record = one(log, Action.REPORT_CREATE, actor=user.user_id)
    assert (record["target"], record["details"]["kind"]) == (root.user_id, "user")


def test_a_message_is_recorded_as_the_event_that_it_is_and_a_refused_one_as_a_refusal(
    log: Database, user: MatrixClient, root: MatrixClient
) -> None:
    room = root.create_room(name="tea").expect()["room_id"]
    assert user.send(room, "let me in").status == 403
    assert user.join(room).status == 403
    own = user.create_room().expect()["room_id"]
    user.send(own, "hello").expect()
    user.sync().expect()
    user.messages(own).expect()
    found = [each for each in settled(log, user) if "route" in each["details"] and _route(each) != OPENID]
    assert [(each["action"], each["outcome"], each.get("room")) for each in found] == [
        ("client.request", "denied", room),
        ("client.request", "denied", room),
    ]
    assert len(of(log, Action.MESSAGE_SEND, actor=user.user_id, room=own)) == 1


# ---------------------------------------------------------------------------------------------------------- media


def test_a_file_is_followed_from_upload_to_deletion(
    deployment: Deployment, log: Database, user: MatrixClient, root: MatrixClient
) -> None:
    uri = user.upload(b"tea" * 1000).expect()["content_uri"]
    media = uri.rpartition("/")[2]
    server = deployment.server_name
    upload = one(log, Action.MEDIA_UPLOAD, media_id=media)
    assert (upload["actor"], upload["outcome"], upload["details"]["status"]) == (user.user_id, "success", 200)

    path = f"/_matrix/client/v1/media/download/{server}/{media}/hatter.txt"
    root.request("GET", path).expect()
    download = one(log, Action.MEDIA_DOWNLOAD, media_id=media)
    assert (download["actor"], download["details"]["bytes"]) == (root.user_id, 3000)
    assert "hatter" not in json.dumps(download)

    root.admin("POST", f"v1/media/quarantine/{server}/{media}", {}).expect()
    assert user.request("GET", path).status == 404
    failed = one(log, Action.MEDIA_DOWNLOAD, media_id=media, actor=user.user_id)
    assert (failed["outcome"], "bytes" in failed["details"]) == ("failure", False)
    root.admin("POST", f"v1/media/unquarantine/{server}/{media}", {}).expect()
    root.admin("DELETE", f"v1/media/{server}/{media}").expect()
    for action in (Action.MEDIA_QUARANTINE, Action.MEDIA_UNQUARANTINE, Action.MEDIA_DELETE):
        assert one(log, action, media_id=media)["actor"] == root.user_id


def test_a_thumbnail_is_a_download_and_a_look_at_the_headers_too(log: Database, user: MatrixClient) -> None:
    media = user.upload(b"no image", content_type="image/png").expect()["content_uri"].rpartition("/")[2]
    server = user.user_id.partition(":")[2]
    user.request("GET", f"/_matrix/client/v1/media/thumbnail/{server}/{media}?width=32&height=32&method=scale")
    user.request("HEAD", f"/_matrix/client/v1/media/download/{server}/{media}")
    found = of(log, Action.MEDIA_DOWNLOAD, 2, actor=user.user_id, media_id=media)
    assert [each["details"]["method"] for each in found] == ["GET", "HEAD"]


def test_nobody_without_a_token_leaves_a_record_by_asking_for_files(
    deployment: Deployment, log: Database, user: MatrixClient
) -> None:
    before = len(records(log))
    for number in range(20):
        anonymous = deployment.client()
        assert anonymous.request("GET", f"/_matrix/client/v1/media/download/x.test/nothing{number}").status == 401
    settled(log, user)
    assert [each for each in records(log)[before:] if each["action"] == "media.download"] == []


# ------------------------------------------------------------------------------------------------- administration


@dataclass(frozen=True)
class Call:
    """One call; ``{user}``, ``{room}`` and ``{event}`` are those of the test."""

    method: str
    path: str
    body: dict[str, Any] | None
    action: Action
    fields: dict[str, Any]
    anonymous: bool = False


CALLS: dict[str, Call] = {
    "a list of users": Call("GET", "v2/users?limit=5&name=hatter", None, Action.ADMIN_API, {"query": {"limit": "5"}}),
    "a user": Call("GET", "v2/users/{user}", None, Action.ADMIN_API, {"target": "{user}"}),
    "a token to act as a user": Call("POST", "v1/users/{user}/login", {}, Action.ADMIN_API, {"target": "{user}"}),
    "a user's devices": Call(
        "POST",
        "v2/users/{user}/delete_devices",
        {"devices": ["TEAPOT"]},
        Action.DEVICE_DELETE,
        {"target": "{user}"},
    ),
    "a room's messages": Call("GET", "v1/rooms/{room}/messages?dir=b", None, Action.ADMIN_API, {"room": "{room}"}),
    "a purge": Call(
        "POST",
        "v1/purge_history/{room}",
        {"purge_up_to_ts": 1, "delete_local_events": True},
        Action.ADMIN_API,
        {"room": "{room}"},
    ),
    "an event": Call("GET", "v1/fetch_event/{event}", None, Action.ADMIN_API, {"event_id": "{event}"}),
    "a room's end": Call("DELETE", "v2/rooms/{room}", {"purge": True}, Action.ROOM_DELETE, {"room": "{room}"}),
    "old files": Call(
        "POST",
        "v1/media/delete?before_ts=1000000000000&size_gt=0",
        {},
        Action.MEDIA_DELETE,
        {"query": {"before_ts": "1000000000000", "size_gt": "0"}},
    ),
    "what nobody knows": Call(
        "POST",
        "v9/brand_new/@hatter:x?access_token=hatter",
        {"x": "hatter"},
        Action.ADMIN_API,
        {"route": "POST /_synapse/admin/v9/brand_new/<rest>"},
        anonymous=True,
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_of_the_administration_api_is_recorded(
    log: Database, root: MatrixClient, user: MatrixClient, call: Call
) -> None:
    room = user.create_room().expect()["room_id"]
    names = {"user": user.user_id, "room": room, "event": user.send(room).expect()["event_id"]}
    reply = root.admin(call.method, call.path.format(**names), call.body)
    fields: dict[str, Any] = {
        key: value.format(**names).replace("<rest>", "{rest}") if isinstance(value, str) else value
        for key, value in call.fields.items()
    }
    if not call.anonymous:
        fields["actor"] = root.user_id
    found = of(log, call.action, method=call.method, status=reply.status, **fields)[-1]
    check_details(call.action, found["details"])
    assert found["outcome"] == ("success" if reply.ok else "failure")
    assert "hatter" not in json.dumps(found)


def test_whoever_may_not_administer_is_recorded_trying(
    deployment: Deployment, log: Database, user: MatrixClient
) -> None:
    assert user.admin("GET", "v1/rooms").status == 403
    denied = one(log, Action.ADMIN_API, actor=user.user_id)
    assert (denied["outcome"], denied["details"]["status"]) == ("denied", 403)
    headers = {"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "https"}
    deployment.client().request("GET", "/_synapse/admin/v1/rooms", headers=headers)
    assert one(log, Action.ADMIN_API, address="203.0.113.5")["details"]["status"] == 401


def test_what_an_administrator_does_in_a_users_name_is_the_administrators_doing(
    log: Database, root: MatrixClient, user: MatrixClient
) -> None:
    token = root.admin("POST", f"v1/users/{user.user_id}/login", {}).expect()["access_token"]
    puppet = MatrixClient(user.url, user.user_id, token)
    puppet.client("PUT", "profile", user.user_id, "displayname", body={"displayname": "x"}).expect()
    record = one(log, Action.USER_DATA_CHANGE, target=user.user_id)
    assert record["actor"] == root.user_id


def elsewhere(_api: ModuleApi, prefix: str, here: bool) -> None:
    (ELSEWHERE.add if here else ELSEWHERE.discard)(prefix)


def test_a_gateway_that_makes_its_own_records_replaces_these(
    deployment: Deployment, log: Database, root: MatrixClient, user: MatrixClient
) -> None:
    inside(deployment.url, elsewhere, prefix="/_synapse/admin/", here=True)
    root.admin("GET", f"v1/whois/{user.user_id}").expect()
    inside(deployment.url, elsewhere, prefix="/_synapse/admin/", here=False)
    root.admin("GET", f"v2/users/{user.user_id}").expect()
    one(log, Action.ADMIN_API, target=user.user_id)


# -------------------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    "name",
    [
        "%00%ff",
        "%252e%252e%252f",
        "..%2f..%2fetc",
        "%E2%80%AE%F0%9F%AB%96",
        "%s%n{0}",
        "'%22%3B--",
        "x" * 9_000,
        "=cmd()",
    ],
)
def test_a_hostile_path_is_recorded_and_harms_nothing(log: Database, root: MatrixClient, name: str) -> None:
    before = len(of(log, Action.ADMIN_API))
    root.request("GET", f"/_synapse/admin/v2/users/{name}")
    found = of(log, Action.ADMIN_API, before + 1)[before:]
    assert _route(found[0]) == "GET /_synapse/admin/{version}/users/{user}"
    assert len(found[0].get("target") or "") <= 255


# ------------------------------------------------------------------------------------------- the log configuration


def test_requests_are_recorded_however_the_operator_logs_and_show_only_where_asked_for(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = audited(deploy, tmp_path)
    log = log_of(deployment, None)
    anna = deployment.register("anna")
    config = deployment.folder / "log.yaml"
    written = json.loads(config.read_text())
    for round_number, changed in enumerate(
        [
            {**written, "disable_existing_loggers": True},
            {**written, "loggers": {"synapse.access": {"level": "WARNING"}}},
            {**written, "root": {**written["root"], "level": "ERROR"}},
            {**written, "loggers": {"synapse.access": {"level": "INFO"}}},
        ],
        start=1,
    ):
        config.write_text(json.dumps(changed))
        lines = _lines(deployment)
        os.kill(deployment.main.process.pid, signal.SIGHUP)
        _set_name(anna, f"round {round_number}")
        of(log, Action.USER_DATA_CHANGE, round_number)
        if round_number < LAST_ROUND:
            assert _lines(deployment) - lines <= 1  # the one that may have come before the signal
    shown = _lines(deployment)
    _set_name(anna, "shown again")
    wait_until(lambda: _lines(deployment) > shown, what="the line is shown again")
    assert [each for each in records(log) if each["action"] == "audit.gap"] == []


LAST_ROUND = 4


def _set_name(user: MatrixClient, name: str) -> None:
    user.client("PUT", "profile", user.user_id, "displayname", body={"displayname": name}).expect()


def _lines(deployment: Deployment) -> int:
    return deployment.main.log().count("Processed request")


def mute(_api: ModuleApi) -> None:
    """What nobody should do: another module switches the request log off."""
    import logging  # noqa: PLC0415

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("synapse.access.")]:
        logging.getLogger(name).disabled = True


def test_a_request_log_that_somebody_cuts_off_is_a_gap_and_is_heard_again(deploy: Deploy, tmp_path: Path) -> None:
    deployment = audited(deploy, tmp_path)
    log = log_of(deployment, None)
    inside(deployment.url, mute)
    gap = one(log, Action.AUDIT_GAP)
    assert "was cut off for up to 500 ms" in gap["reason"]
    assert gap["details"]["until_ms"] >= gap["details"]["since_ms"]
    deployment.client().login("nobody", "x")
    one(log, Action.AUTH_LOGIN)


# ------------------------------------------------------------------------------------------------- what can be lost


def test_a_flood_of_requests_is_counted_and_keeps_nobody_from_logging_in(deploy: Deploy, tmp_path: Path) -> None:
    config = {"queue_capacity": 20, "ack_timeout_ms": 4_000}
    deployment = audited(deploy, tmp_path, config=config)
    log = log_of(deployment, None)
    root = deployment.register("root", admin=True)
    of(log, Action.ADMIN_API, 2)
    with write_locked(log):
        for _ in range(60):
            root.admin("GET", "v1/server_version").expect()
        assert inside(deployment.url, queue_length) <= 11
    assert deployment.client().login("root", PASSWORD).ok
    gap = one(log, Action.AUDIT_GAP)
    recorded = len(of(log, Action.ADMIN_API, route="GET /_synapse/admin/{version}/server_version"))
    assert recorded + gap["details"]["records"] == 60
    assert gap["details"]["records"] > 30
    assert (gap["outcome"], "too many records wait" in gap["reason"]) == ("failure", True)
    assert "requests are missing from the audit log: too many records wait" in deployment.main.log()


def test_a_flood_of_failures_is_counted_and_all_of_it_is_in_the_log(deploy: Deploy, tmp_path: Path) -> None:
    deployment = audited(deploy, tmp_path)
    log = log_of(deployment, None)
    anna = deployment.register("anna", password=PASSWORD)
    for _ in range(40):
        assert deployment.client().login("anna", "wrong").status == 403
        assert anna.admin("GET", "v1/rooms").status == 403
    deployment.stop()
    for action in (Action.AUTH_LOGIN, Action.ADMIN_API):
        first, rest = of(log, action, 2, actor=anna.user_id, outcome="denied")
        assert ("repeated" in first["details"], rest["details"]["repeated"]) == (False, 38)
        check_details(action, rest["details"])


async def queue_length(_api: ModuleApi) -> int:
    return len(service()._intake)


def test_what_was_heard_before_a_stop_in_good_order_is_recorded(deploy: Deploy, tmp_path: Path) -> None:
    deployment = audited(deploy, tmp_path)
    log = log_of(deployment, None)
    anna = deployment.register("anna")
    for number in range(30):
        _set_name(anna, str(number))
    deployment.stop()
    assert len([each for each in records(log) if each["action"] == "user.data.change"]) == 30
    deployment.start()
    _set_name(anna, "again")
    of(log, Action.USER_DATA_CHANGE, 31)


def test_a_killed_process_loses_the_newest_requests_at_most_and_no_login(deploy: Deploy, tmp_path: Path) -> None:
    deployment = audited(deploy, tmp_path)
    log = log_of(deployment, None)
    anna = deployment.register("anna", password=PASSWORD)
    for number in range(30):
        _set_name(anna, str(number))
    of(log, Action.USER_DATA_CHANGE, 30)
    started = time.monotonic()
    _set_name(anna, "the last")
    assert deployment.client().login("anna", PASSWORD).ok
    deployment.main.kill()
    assert time.monotonic() - started < 5
    kept = records(log)
    assert len([each for each in kept if each["action"] == "auth.login"]) == 1
    assert len([each for each in kept if each["action"] == "user.data.change"]) in {30, 31}
    deployment.main.start()
    _set_name(anna, "again")
    of(log, Action.USER_DATA_CHANGE, 31)


# --------------------------------------------------------------------------------------------------------- workers


def test_a_request_is_recorded_by_the_process_that_served_it(
    deploy: Deploy, postgres: Postgres, tmp_path: Path
) -> None:
    deployment = audited(deploy, tmp_path, workers=2, extra=EXTRA)
    log = log_of(deployment, postgres)
    worker = deployment.workers[0]
    body = {"username": "newcomer", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    new = deployment.client(worker.url).with_login(deployment.client(worker.url).client("POST", "register", body=body))
    made = one(log, Action.USER_REGISTER, target=new.user_id)
    assert (made["process"], made["actor"], made["address"]) == ("worker1", new.user_id, "127.0.0.1")
    for each in (deployment.main, *deployment.workers):
        assert deployment.client(each.url).login("newcomer", "wrong").status == 403
        _set_name(new.at(each.url), each.name)
    for action, fields in ((Action.AUTH_LOGIN, {"outcome": "denied"}), (Action.USER_DATA_CHANGE, {})):
        found = of(log, action, 3, actor=new.user_id, **fields)
        assert sorted(each["process"] for each in found) == ["main", "worker1", "worker2"]
    deployment.client().login("nobody", "wrong")  # through nginx
    assert one(log, Action.AUTH_LOGIN, reason=NO_ACCOUNT)["address"] == "127.0.0.1"
    paths = {_route(each) or "" for each in records(log)}
    assert not any("replication" in path for path in paths)
    assert [path for path in paths if path.endswith("/register")] == []


def test_an_effect_in_another_process_is_recorded_there_and_the_request_where_it_came(
    deploy: Deploy, postgres: Postgres, tmp_path: Path
) -> None:
    deployment = audited(deploy, tmp_path, workers=1, extra=EXTRA)
    log = log_of(deployment, postgres)
    gone = deployment.register("gone", password=PASSWORD).at(deployment.workers[0].url)
    confirmed(gone, ["account", "deactivate"], {}).expect()
    effect = one(log, Action.USER_DEACTIVATE, target=gone.user_id)
    assert (effect["process"], effect["actor"], "address" in effect) == ("main", gone.user_id, False)
    request = one(log, Action.CLIENT_REQUEST, route="POST /_matrix/client/{version}/account/deactivate")
    assert (request["process"], request["actor"], request["address"]) == ("worker1", gone.user_id, "127.0.0.1")
