"""The access policy at the doors of a real homeserver, through real HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.module.rbac_module import apply, assert_refused, break_audit, governed, recorded, run_sql
from tests.module.support import inside
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

PASSWORD = "wonderland"
ASK = "Ask the security officer if you need it."
UNANSWERED = "The access policy could not be consulted; please try again. If this goes on, tell your administrator."

POLICY: dict[str, Any] = {
    "version": 1,
    "room_classes": [
        {"name": "regulated", "match": {"name": "Regulated*"}},
        {"name": "secret", "match": {"name": "Secret*"}},
        {"name": "open", "match": {"public": True, "name": "Open*"}},
    ],
    "groups": {
        "employees": {"members": ["@alice:synapse.test", "@bob:synapse.test", "@officer:synapse.test"]},
        "externals": {"members": ["@guest:synapse.test", "@root:synapse.test"]},
    },
    "roles": {
        "member": {"allow": ["login", "room.join", "message.send"]},
        "employee": {"inherits": ["member"], "allow": ["room.create"]},
        "host": {"allow": ["room.invite"]},
        "guest": {"inherits": ["member"], "deny": ["room.create", "room.invite"]},
        "outsider": {"deny": ["room.join", "message.send"]},
        "reserved": {"deny": ["room.create"]},
        "officer": {"allow": ["governance.policy.read", "governance.policy.write"]},
    },
    "bindings": [
        {"role": "employee", "group": "employees", "scope": "server"},
        {"role": "host", "group": "employees", "scope": "users:employees"},
        {"role": "guest", "group": "externals", "scope": "server"},
        {"role": "outsider", "group": "externals", "scope": "class:regulated"},
        {"role": "reserved", "group": "employees", "scope": "class:secret"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
    ],
}


OPEN = {
    "enable_registration": True,
    "enable_registration_without_verification": True,
    "allow_guest_access": True,
    "rc_registration": {"per_second": 1000, "burst_count": 1000},
}
"""Anybody may register, and guests may come, as far as Synapse goes."""


def _with(*bindings: dict[str, Any], **roles: dict[str, Any]) -> dict[str, Any]:
    """POLICY with more in it."""
    return POLICY | {"roles": POLICY["roles"] | roles, "bindings": [*POLICY["bindings"], *bindings]}


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(yaml.safe_dump(POLICY))
    config = {"policy_file": str(path), "poll_seconds": 1, "stale_seconds": 5}
    return governed(config, deploy_shared, postgres=engine == "postgres", extra=OPEN)


@pytest.fixture(scope="module")
def cluster(engine: str, request: pytest.FixtureRequest) -> Postgres | None:
    """Where the homeserver's database is; None for SQLite."""
    return request.getfixturevalue("postgres") if engine == "postgres" else None


@pytest.fixture(scope="module")
def people(deployment: Deployment) -> dict[str, MatrixClient]:
    """Everybody, with an access token that no door was passed for."""
    names = ("alice", "bob", "guest", "officer", "nobody")
    found = {name: deployment.register(name, password=PASSWORD) for name in names}
    return found | {"root": deployment.register("root", admin=True, password=PASSWORD)}


@pytest.fixture(scope="module")
def alice(people: dict[str, MatrixClient]) -> MatrixClient:
    return people["alice"]


@pytest.fixture(scope="module")
def bob(people: dict[str, MatrixClient]) -> MatrixClient:
    return people["bob"]


@pytest.fixture(scope="module")
def guest(people: dict[str, MatrixClient]) -> MatrixClient:
    return people["guest"]


@pytest.fixture(scope="module")
def officer(people: dict[str, MatrixClient]) -> MatrixClient:
    return people["officer"]


@pytest.fixture
def policy(officer: MatrixClient) -> Any:
    """Applies another policy for the time of a test."""
    yield lambda document: apply(officer, document)
    apply(officer, POLICY)


Policy = Callable[[dict[str, Any]], int]


def _room(owner: MatrixClient, **body: Any) -> str:
    return str(owner.create_room(**{"preset": "public_chat", **body}).expect()["room_id"])


# ---------------------------------------------------------------------------------------- the doors, open and shut


@pytest.mark.usefixtures("people")
def test_whoever_has_a_role_that_allows_it_logs_in(deployment: Deployment) -> None:
    assert deployment.client().login("alice", PASSWORD).ok


@pytest.mark.usefixtures("people")
def test_nobody_logs_in_whom_no_role_lets(deployment: Deployment) -> None:
    reply = deployment.client().login("nobody", PASSWORD, device_id="TEACUP")
    assert_refused(reply, f"None of your roles lets you log in to this server. {ASK}", "default", "login")


def test_a_room_is_created_by_whoever_may(alice: MatrixClient) -> None:
    assert alice.create_room(name="Talk").ok


def test_a_room_is_not_created_by_whoever_may_not(guest: MatrixClient) -> None:
    rule = "role:guest deny room.create (binding N, scope server)"
    assert_refused(guest.create_room(), f"Your role 'guest' may not create rooms. {ASK}", rule, "room.create")


def test_an_invitation_depends_on_the_invited_person(
    alice: MatrixClient, bob: MatrixClient, guest: MatrixClient
) -> None:
    room = _room(alice)
    assert alice.invite(room, bob.user_id).ok
    error = f"None of your roles lets you invite people. {ASK}"
    assert_refused(alice.invite(room, guest.user_id), error, "default", "room.invite")


def test_an_invitation_is_denied_by_a_role(alice: MatrixClient, guest: MatrixClient) -> None:
    room = _room(alice)
    guest.join(room).expect()
    rule = "role:guest deny room.invite (binding N, scope server)"
    reply = guest.invite(room, "@bob:synapse.test")
    assert_refused(reply, f"Your role 'guest' may not invite people. {ASK}", rule, "room.invite")


def test_a_join_depends_on_the_class_of_the_room(alice: MatrixClient, guest: MatrixClient) -> None:
    assert guest.join(_room(alice, name="Talk")).ok
    rule = "role:outsider deny room.join (binding N, scope class:regulated)"
    reply = guest.join(_room(alice, name="regulated deals"))
    assert_refused(reply, f"Your role 'outsider' may not join this room. {ASK}", rule, "room.join")


def test_a_message_depends_on_the_room(policy: Policy, alice: MatrixClient, guest: MatrixClient) -> None:
    quiet, loud = _room(alice), _room(alice)
    for room in (quiet, loud):
        guest.join(room).expect()
    policy(_with({"role": "mute", "group": "externals", "scope": f"room:{quiet}"}, mute={"deny": ["message.send"]}))
    assert guest.send(loud).ok
    rule = f"role:mute deny message.send (binding N, scope room:{quiet})"
    error = f"Your role 'mute' may not send messages to this room. {ASK}"
    assert_refused(guest.send(quiet), error, rule, "message.send")
    assert_refused(guest.send_event(quiet, "m.reaction", {}), error, rule, "message.send")
    assert alice.send(quiet).ok


def test_a_role_that_is_inherited_names_where_the_permission_is_written(
    policy: Policy, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = _room(alice)
    bob.join(room).expect()
    base = {"mute": {"deny": ["message.send"]}, "trainee": {"inherits": ["mute"]}}
    policy(_with({"role": "trainee", "user": bob.user_id, "scope": "server"}, **base))
    rule = "role:mute deny message.send (binding N of role trainee, scope server)"
    assert_refused(bob.send(room), f"Your role 'mute' may not send messages. {ASK}", rule, "message.send")


MUTE = {"role": "mute", "group": "employees", "scope": "server"}


def test_who_may_not_send_a_message_cannot_send_it_as_state(
    policy: Policy, deployment: Deployment, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = _room(alice, room_version="11")
    event_id = alice.send(room, "still here").expect()["event_id"]
    policy(_with(MUTE, mute={"deny": ["message.send"]}))
    rule = "role:mute deny message.send (binding N, scope server)"
    error = f"Your role 'mute' may not send messages. {ASK}"
    text = {"msgtype": "m.text", "body": "hello"}
    before = len(recorded(deployment.url))
    for kind, content in (("m.room.message", text), ("m.room.redaction", {"redacts": event_id}), ("org.x.y", text)):
        assert_refused(alice.set_state(room, kind, content, key="k"), error, rule, "message.send")
    assert [event["details"]["permission"] for event in recorded(deployment.url)[before:]] == ["message.send"] * 3
    assert alice.set_state(room, "m.room.topic", {"topic": "tea"}).ok
    assert alice.texts(room) == ["still here"]
    for kind in ("m.room.message", "org.x.y"):
        state = [{"type": kind, "state_key": "k", "content": text}]
        assert_refused(bob.create_room(initial_state=state), error, rule, "message.send")
    assert bob.create_room(initial_state=[{"type": "m.room.topic", "content": {"topic": "tea"}}]).ok


def test_a_change_of_a_rooms_class_counts_with_the_next_message(alice: MatrixClient, guest: MatrixClient) -> None:
    room = _room(alice, name="Talk")
    guest.join(room).expect()
    rule = "role:outsider deny message.send (binding N, scope class:regulated)"
    error = f"Your role 'outsider' may not send messages to this room. {ASK}"
    for _ in range(3):
        guest.send(room).expect()
        alice.set_state(room, "m.room.name", {"name": "Regulated talk"}).expect()
        assert_refused(guest.send(room), error, rule, "message.send")
        alice.set_state(room, "m.room.name", {"name": "Talk"}).expect()


def test_who_may_no_longer_join_still_changes_their_profile_where_they_are(
    deployment: Deployment, policy: Policy, alice: MatrixClient, bob: MatrixClient
) -> None:
    rooms = [_room(alice) for _ in range(3)]
    for room in rooms:
        bob.join(room).expect()
    policy(_with({"role": "stay", "user": bob.user_id, "scope": "server"}, stay={"deny": ["room.join"]}))
    before = recorded(deployment.url)
    name = {"displayname": "Robert"}
    bob.client("PUT", "profile", bob.user_id, "displayname", body=name).expect()
    for room in rooms:
        changed = wait_until(partial(_named, alice, room, bob, "Robert"), what="the name is known")
        assert changed is not None
        assert changed["membership"] == "join"
    assert recorded(deployment.url) == before
    bob.leave(rooms[0]).expect()
    rule = "role:stay deny room.join (binding N, scope server)"
    assert_refused(bob.join(rooms[0]), f"Your role 'stay' may not join rooms. {ASK}", rule, "room.join")
    assert len(recorded(deployment.url)) == len(before) + 1


def _named(reader: MatrixClient, room: str, somebody: MatrixClient, name: str) -> dict[str, Any] | None:
    content = reader.state(room, "m.room.member", somebody.user_id).expect()
    return content if content.get("displayname") == name else None


# ------------------------------------------------------------------------------------------------ ways to a session


def _register(deployment: Deployment, name: str | None, **more: Any) -> Reply:
    body = {"password": PASSWORD, "auth": {"type": "m.login.dummy"}, **({"username": name} if name else {})}
    return deployment.client().client("POST", "register", body=body, **more)


def test_an_account_is_registered_by_whoever_may_log_in(deployment: Deployment, policy: Policy) -> None:
    error = f"None of your roles lets you log in to this server. {ASK}"
    assert_refused(_register(deployment, "carol"), error, "default", "login")
    (event,) = recorded(deployment.url, actor="@carol:synapse.test")
    assert (event["action"], event["outcome"], event["address"]) == ("access.denied", "denied", "127.0.0.1")
    policy(_with({"role": "member", "user": "@carol:synapse.test", "scope": "server"}))
    carol = deployment.client().with_login(_register(deployment, "carol"))
    assert carol.whoami().expect()["user_id"] == "@carol:synapse.test"


def test_guests_and_people_without_a_name_are_not_everyone(deployment: Deployment, policy: Policy) -> None:
    policy(_with({"role": "member", "group": "everyone", "scope": "server"}))
    error = f"None of your roles lets you log in to this server. {ASK}"
    assert_refused(_register(deployment, None, kind="guest"), error, "default", "login")
    assert_refused(_register(deployment, None), error, "default", "login")
    assert _register(deployment, "anybody").ok


def test_open_ways_in_are_warned_of_at_start(deployment: Deployment) -> None:
    log = deployment.main.log()
    assert "anybody may register" in log
    assert "guests may come" in log
    assert "another service logs people in" not in log


# ------------------------------------------------------------------------------------------------ rooms to be made


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Secret plans"},
        {"name": "Secret plans", "preset": "public_chat", "visibility": "public"},
        {"initial_state": [{"type": "m.room.name", "content": {"name": "secret plans"}}]},
    ],
    ids=["by its name", "whatever else it is", "by its initial state"],
)
def test_a_room_of_a_class_is_not_created_by_whoever_may_not(alice: MatrixClient, body: dict[str, Any]) -> None:
    rule = "role:reserved deny room.create (binding N, scope class:secret)"
    error = f"Your role 'reserved' may not create rooms of this kind. {ASK}"
    assert_refused(alice.create_room(**body), error, rule, "room.create")


def test_an_upgrade_makes_no_room_of_a_class_that_is_denied(alice: MatrixClient) -> None:
    room = _room(alice, name="Talk")
    alice.set_state(room, "m.room.name", {"name": "Secret talk"}).expect()
    reply = alice.client("POST", "rooms", room, "upgrade", body={"new_version": "11"})
    rule = "role:reserved deny room.create (binding N, scope class:secret)"
    error = f"Your role 'reserved' may not create rooms of this kind. {ASK}"
    assert_refused(reply, error, rule, "room.create")


def test_a_room_that_invites_the_wrong_person_is_not_created_at_all(alice: MatrixClient, guest: MatrixClient) -> None:
    before = alice.client("GET", "joined_rooms").expect()
    error = f"None of your roles lets you invite people. {ASK}"
    reply = alice.create_room(invite=["@bob:synapse.test", guest.user_id])
    assert_refused(reply, error, "default", "room.invite")
    assert alice.client("GET", "joined_rooms").expect() == before
    assert alice.create_room(invite=["@bob:synapse.test"]).ok


def test_a_room_that_invites_a_mail_address_is_denied_to_whoever_may_not_invite_just_anybody(
    alice: MatrixClient,
) -> None:
    address = {"medium": "email", "address": "x@example.org", "id_server": "localhost", "id_access_token": "x"}
    error = f"None of your roles lets you invite people. {ASK}"
    assert_refused(alice.create_room(invite_3pid=[address]), error, "default", "room.invite")


async def _invite_by_address(api: ModuleApi, inviter: str, room_id: str) -> Any:
    """What Synapse's handler asks once the identity server does not know the address."""
    ask = api._callbacks.spam_checker.user_may_send_3pid_invite
    return await ask(inviter, "email", "somebody@example.org", room_id)


def test_an_invitation_by_a_mail_address_is_denied_and_recorded_without_the_address(
    deployment: Deployment, alice: MatrixClient
) -> None:
    before = len(recorded(deployment.url))
    question: dict[str, Any] = {"inviter": alice.user_id, "room_id": _room(alice)}
    code, fields = inside(deployment.url, _invite_by_address, **question)
    assert (code, fields["governance"]) == ("M_FORBIDDEN", {"rule": "default", "permission": "room.invite"})
    (event,) = recorded(deployment.url)[before:]
    assert (event["actor"], event["target"]) == (alice.user_id, None)
    assert "somebody@example.org" not in str(event)


# --------------------------------------------------------------------------------------------------- administrators


def test_the_policy_holds_for_server_administrators_where_synapse_asks(
    deployment: Deployment, policy: Policy, people: dict[str, MatrixClient]
) -> None:
    root = people["root"]
    room = _room(people["alice"])
    root.join(room).expect()
    rule = "role:guest deny room.create (binding N, scope server)"
    assert_refused(root.create_room(), f"Your role 'guest' may not create rooms. {ASK}", rule, "room.create")
    policy(_with({"role": "off", "user": root.user_id, "scope": "server"}, off={"deny": ["login", "message.send"]}))
    off = "role:off deny {} (binding N, scope server)"
    error = f"Your role 'off' may not send messages. {ASK}"
    assert_refused(root.send(room), error, off.format("message.send"), "message.send")
    error = f"Your role 'off' may not log in to this server. {ASK}"
    assert_refused(deployment.client().login("root", PASSWORD), error, off.format("login"), "login")


# ---------------------------------------------------------------------------------------------------- what is recorded


def test_a_denied_login_is_recorded_as_a_login(deployment: Deployment, people: dict[str, MatrixClient]) -> None:
    deployment.client().login("nobody", PASSWORD, device_id="SAUCER").expect(403)
    (event,) = recorded(deployment.url, action="auth.login", device_id="SAUCER")
    user_agent = event.pop("user_agent")
    assert user_agent.startswith("python-httpx/")
    assert event == {
        "action": "auth.login",
        "outcome": "denied",
        "actor": people["nobody"].user_id,
        "target": None,
        "room_id": None,
        "reason": "None of your roles lets you log in to this server.",
        "rule": "default",
        "address": "127.0.0.1",
        "device_id": "SAUCER",
        "case_id": None,
        "details": {"permission": "login"},
        "occurred_ms": None,
        "key": None,
    }


def test_every_other_denial_is_recorded_with_who_what_where_and_why(
    deployment: Deployment, policy: Policy, alice: MatrixClient, guest: MatrixClient
) -> None:
    room = _room(alice, name="Regulated records")
    talk = _room(alice)
    guest.join(talk).expect()
    mute = {"role": "mute", "group": "externals", "scope": "server"}
    policy(_with(mute, mute={"deny": ["message.send"]}))
    attempts: dict[str, tuple[Callable[[], Reply], str | None, str | None]] = {
        "room.create": (guest.create_room, None, None),
        "room.invite": (lambda: guest.invite(talk, alice.user_id), talk, alice.user_id),
        "room.join": (lambda: guest.join(room), room, None),
        "message.send": (lambda: guest.send(talk), talk, None),
    }
    for permission, (attempt, room_id, target) in attempts.items():
        before = len(recorded(deployment.url))
        governance = attempt().expect(403)["governance"]
        (event,) = recorded(deployment.url)[before:]
        assert (event["action"], event["outcome"]) == ("access.denied", "denied")
        assert (event["actor"], event["target"], event["room_id"]) == (guest.user_id, target, room_id)
        assert event["rule"] == governance["rule"]
        assert event["details"] == {"permission": permission}
        assert event["reason"].startswith("Your role '")
        assert event["address"] == "127.0.0.1"
        assert event["user_agent"].startswith("python-httpx/")


def test_what_is_allowed_leaves_no_denial(deployment: Deployment, alice: MatrixClient) -> None:
    before = recorded(deployment.url)
    alice.send(_room(alice)).expect()
    assert recorded(deployment.url) == before


def test_a_denial_that_cannot_be_recorded_is_a_denial(deployment: Deployment, guest: MatrixClient) -> None:
    break_audit(deployment.url, broken=True)
    try:
        reply = guest.create_room()
    finally:
        break_audit(deployment.url, broken=False)
    rule = "role:guest deny room.create (binding N, scope server)"
    assert_refused(reply, f"Your role 'guest' may not create rooms. {ASK}", rule, "room.create")


# ------------------------------------------------------------------------------------------------------------- time


def _in(milliseconds: int) -> tuple[float, str]:
    """A moment from now: as Python's time, and as a policy writes it."""
    moment = datetime.now(UTC) + timedelta(milliseconds=milliseconds)
    return moment.timestamp(), moment.isoformat(timespec="milliseconds")


def test_what_a_binding_gives_ends_with_it_while_the_homeserver_runs(
    policy: Policy, alice: MatrixClient, people: dict[str, MatrixClient]
) -> None:
    room, nobody = _room(alice), people["nobody"]
    ends, text = _in(1500)
    binding = {"role": "member", "user": nobody.user_id, "scope": "server", "expires": text}
    policy(_with(binding))
    nobody.join(room).expect()
    refused = wait_until(lambda: _unless_ok(nobody.send(room)), what="the binding is over")
    assert time.time() >= ends - 0.05
    assert refused is not None
    assert_refused(refused, f"None of your roles lets you send messages. {ASK}", "default", "message.send")


def test_what_a_binding_takes_begins_with_it_while_the_homeserver_runs(
    policy: Policy, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = _room(alice)
    bob.join(room).expect()
    begins, text = _in(1500)
    binding = {"role": "mute", "user": bob.user_id, "scope": "server", "not_before": text}
    policy(_with(binding, mute={"deny": ["message.send"]}))
    assert bob.send(room).ok
    wait_until(lambda: _unless_ok(bob.send(room)), what="the binding has begun")
    assert time.time() >= begins - 0.05


def _unless_ok(reply: Reply) -> Reply | None:
    return None if reply.ok else reply


# ----------------------------------------------------------------------------------------------------- fail closed

_HIDE = ("ALTER TABLE governance_rbac_state RENAME TO hidden", "ALTER TABLE hidden RENAME TO governance_rbac_state")
_NEWER = (
    "UPDATE governance_rbac_state SET version = version + 1",
    "UPDATE governance_rbac_roles SET allows = '[\"brew.tea\"]' WHERE name = 'host'",
    "UPDATE governance_rbac_roles SET allows = '[\"room.invite\"]' WHERE name = 'host'",
)


@pytest.mark.parametrize(
    ("break_it", "mend_it"),
    [(_HIDE[:1], _HIDE[1:]), (_NEWER[:2], _NEWER[2:])],
    ids=["the store does not answer", "a newer release wrote what this one does not know"],
)
def test_a_policy_that_is_not_known_any_more_denies_everything_until_it_is(
    deployment: Deployment,
    cluster: Postgres | None,
    people: dict[str, MatrixClient],
    break_it: tuple[str, ...],
    mend_it: tuple[str, ...],
) -> None:
    alice = people["alice"]
    room = _room(alice)
    run_sql(deployment, cluster, *break_it)
    try:
        wait_until(lambda: _unless_ok(alice.send(room)), what="the policy is stale")
        before = len(recorded(deployment.url))
        attempts: dict[str, Callable[[], Reply]] = {
            "message.send": lambda: alice.send(room),
            "room.create": alice.create_room,
            "room.invite": lambda: alice.invite(room, people["bob"].user_id),
            "room.join": lambda: people["bob"].join(room),
            "login": lambda: deployment.client().login("alice", PASSWORD),
        }
        for permission, attempt in attempts.items():
            assert_refused(attempt(), UNANSWERED, "fail-closed", permission)
        assert people["officer"].governance("GET", "rbac/roles").body["governance"]["rule"] == "fail-closed"
        events = recorded(deployment.url)[before:]
        assert [event["details"]["permission"] for event in events] == [*attempts, "governance.policy.read"]
        assert {event["rule"] for event in events} == {"fail-closed"}
    finally:
        run_sql(deployment, cluster, *mend_it)
    wait_until(lambda: alice.send(room).ok, what="the policy is known again")
