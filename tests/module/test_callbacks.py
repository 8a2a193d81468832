"""Guards at the doors of a real homeserver: what they refuse, and that a broken guard refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from synapse.api.errors import SynapseError
from synapse.api.room_versions import RoomVersions
from synapse.crypto.event_signing import add_hashes_and_signatures
from synapse.events import make_event_from_dict
from synapse.module_api import NOT_SPAM
from twisted.internet.defer import Deferred

from synapse_modules.core.clock import new_id
from synapse_modules.homeserver.callbacks import CallbackHub, Refusal, Seam
from synapse_modules.homeserver.public import Homeserver
from tests.module.support import inside, probe
from tests.support.client import MatrixClient

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.client import Reply
    from tests.support.synapse import Deployment

TIMEOUT_MS = 300
REFUSAL = {"message": "Guests may not do this. Ask Olivia if you need it.", "rule": "role:guest", "permission": "x.y"}
UNANSWERED = "The access policy could not be consulted; please try again. If this goes on, tell your administrator."
PERMISSIONS = {
    "login": "login",
    "register": "login",
    "room_create": "room.create",
    "invite": "room.invite",
    "join": "room.join",
    "send": "message.send",
}

# ---------------------------------------------------------------------------------------- inside the homeserver

_BEHAVIOUR: dict[str, str] = {}
_ASKED: list[list[Any]] = []


class _ScriptedGuard:
    """Does at each seam what the test told it; writes down what it was asked."""

    def __init__(self, name: str, api: ModuleApi) -> None:
        self._name = name
        self._api = api

    async def _answer(self, seam: str, *question: Any) -> Any:
        _ASKED.append([self._name, seam, *question])
        behaviour = _BEHAVIOUR.get(f"{self._name}:{seam}", "allow")
        if behaviour == "raise":
            raise RuntimeError("the policy is broken")
        if behaviour == "raise later":
            await self._api.sleep(0.01)
            raise RuntimeError("the policy is broken")
        if behaviour == "hang":
            await Deferred()
        if behaviour == "answer late":
            await self._api.sleep(0.1)
        if behaviour == "hesitate and refuse":
            await self._api.sleep(0.1)
            return Refusal(**REFUSAL)
        return {"refuse": Refusal(**REFUSAL), "nonsense": False}.get(behaviour)

    async def may_log_in(self, attempt: Any) -> Any:
        details = [attempt.user_id, attempt.device_id, attempt.address, attempt.user_agent, attempt.provider]
        return await self._answer("login", *details)

    async def may_register(self, registration: Any) -> Any:
        return await self._answer("register", registration.user_id, registration.provider)

    async def may_create_room(self, user_id: str, config: Any, server_admin: bool) -> Any:
        return await self._answer("room_create", user_id, sorted(config), server_admin)

    async def may_invite(self, inviter: str, invitee: str | None, room_id: str) -> Any:
        return await self._answer("invite", inviter, invitee, room_id)

    async def may_join(self, user_id: str, room_id: str, invited: bool) -> Any:
        return await self._answer("join", user_id, room_id, invited)

    async def may_send(self, event: Any) -> Any:
        return await self._answer("send", event.sender, event.room_id, event.type, event.redacts)


def _add_guards(api: ModuleApi) -> None:
    hub = CallbackHub(Homeserver(api), timeout_ms=TIMEOUT_MS)
    hub.add(_ScriptedGuard("second", api), seams=frozenset(Seam), order=90)
    hub.add(_ScriptedGuard("first", api), seams=frozenset(Seam), order=10)


def _behave(_api: ModuleApi, behaviour: dict[str, str]) -> None:
    _BEHAVIOUR.clear()
    _BEHAVIOUR.update(behaviour)
    _ASKED.clear()


def _asked(_api: ModuleApi) -> list[list[Any]]:
    return _ASKED


# ------------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy) -> Deployment:
    extra = {
        "server_notices": {"system_mxid_localpart": "notices"},
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "allow_guest_access": True,
    }
    return deploy_shared(modules=[probe(_add_guards)], extra=extra)


@pytest.fixture(scope="module")
def admin(deployment: Deployment) -> MatrixClient:
    return deployment.register("admin", admin=True)


@pytest.fixture(scope="module")
def alice(deployment: Deployment) -> MatrixClient:
    return deployment.register("alice", password="rabbit-hole")


@pytest.fixture(scope="module")
def bob(deployment: Deployment) -> MatrixClient:
    return deployment.register("bob")


@pytest.fixture(scope="module")
def room(alice: MatrixClient) -> str:
    return str(alice.create_room(preset="public_chat").expect()["room_id"])


Guards = Callable[[dict[str, str]], None]


@pytest.fixture
def guards(deployment: Deployment, room: str) -> Any:
    """Sets what the guards do, such as ``{"first:login": "refuse"}``."""
    del room  # made before any guard refuses
    inside(deployment.url, _behave, behaviour={})
    yield lambda behaviour: inside(deployment.url, _behave, behaviour=behaviour)
    inside(deployment.url, _behave, behaviour={})


@pytest.fixture(params=list(PERMISSIONS))
def seam(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def knock(seam: str, alice: MatrixClient, bob: MatrixClient, room: str) -> Callable[[], Reply]:
    """Tries to pass the door of ``seam`` as a real client does."""
    actions: dict[str, Callable[[], Reply]] = {
        "login": lambda: alice.login("alice", "rabbit-hole", device_id="TEACUP"),
        "register": lambda: _register(alice, f"newcomer-{new_id()}".lower()),
        "room_create": lambda: alice.create_room(name="tea party"),
        "invite": lambda: alice.invite(room, bob.user_id),
        "join": lambda: bob.join(room),
        "send": lambda: alice.send(room, "hello"),
    }
    return actions[seam]


def _register(somebody: MatrixClient, name: str | None, **more: Any) -> Reply:
    """Registers an account as anybody may."""
    body = {"password": "rabbit-hole", "auth": {"type": "m.login.dummy"}, **({"username": name} if name else {})}
    return MatrixClient(somebody.url).client("POST", "register", body=body, **more)


def _left(bob: MatrixClient, room: str) -> None:
    bob.leave(room)


# -------------------------------------------------------------------------------------------------------- doors


def test_a_door_opens_when_no_guard_objects(
    guards: Guards, knock: Callable[[], Reply], bob: MatrixClient, room: str
) -> None:
    guards({})
    assert knock().ok
    _left(bob, room)


def test_a_refusal_reaches_the_client_with_its_words_and_its_rule(
    guards: Guards, seam: str, knock: Callable[[], Reply]
) -> None:
    guards({f"first:{seam}": "refuse"})
    _assert_refused(knock(), REFUSAL["message"], REFUSAL["rule"], REFUSAL["permission"])


def test_a_refusal_after_some_thought_is_a_refusal(guards: Guards, seam: str, knock: Callable[[], Reply]) -> None:
    guards({f"first:{seam}": "hesitate and refuse"})
    _assert_refused(knock(), REFUSAL["message"], REFUSAL["rule"], REFUSAL["permission"])


@pytest.mark.parametrize("fault", ["raise", "raise later", "hang", "nonsense"])
@pytest.mark.parametrize("guard", ["first", "second"])
def test_a_guard_that_cannot_answer_refuses(
    guards: Guards, seam: str, knock: Callable[[], Reply], guard: str, fault: str
) -> None:
    guards({f"{guard}:{seam}": fault})
    started = time.monotonic()
    _assert_refused(knock(), UNANSWERED, "fail-closed", PERMISSIONS[seam])
    assert time.monotonic() - started < 10 * TIMEOUT_MS / 1000


def test_an_answer_within_the_time_limit_counts(
    guards: Guards, seam: str, knock: Callable[[], Reply], bob: MatrixClient, room: str
) -> None:
    guards({f"first:{seam}": "answer late"})
    assert knock().ok
    _left(bob, room)


def test_the_first_refusal_ends_the_questions(
    guards: Guards, seam: str, knock: Callable[[], Reply], deployment: Deployment
) -> None:
    guards({f"first:{seam}": "refuse"})
    assert not knock().ok
    assert [name for name, at, *_ in inside(deployment.url, _asked) if at == seam] == ["first"]


def _assert_refused(reply: Reply, message: str, rule: str, permission: str) -> None:
    assert reply.status == 403
    assert reply.body == {
        "errcode": "M_FORBIDDEN",
        "error": message,
        "governance": {"rule": rule, "permission": permission},
    }


# ------------------------------------------------------------------------------------------------- what is asked


def _questions(deployment: Deployment, seam: str) -> list[list[Any]]:
    return [question for name, at, *question in inside(deployment.url, _asked) if (name, at) == ("first", seam)]


def test_a_login_is_asked_with_device_address_and_client(
    guards: Guards, deployment: Deployment, alice: MatrixClient
) -> None:
    guards({})
    alice.login("alice", "rabbit-hole", device_id="TEACUP").expect()
    ((user_id, device_id, address, user_agent, provider),) = _questions(deployment, "login")
    assert (user_id, device_id, address, provider) == ("@alice:synapse.test", "TEACUP", "127.0.0.1", None)
    assert user_agent.startswith("python-httpx/")


def test_a_wrong_password_never_reaches_a_guard(guards: Guards, deployment: Deployment, alice: MatrixClient) -> None:
    guards({})
    assert alice.login("alice", "wrong").status == 403
    assert _questions(deployment, "login") == []


def test_a_server_administrator_is_asked_about_when_creating_a_room(
    guards: Guards, deployment: Deployment, admin: MatrixClient
) -> None:
    guards({"first:room_create": "refuse"})
    assert admin.create_room(name="mine").status == 403
    assert _questions(deployment, "room_create") == [["@admin:synapse.test", ["name"], True]]


def test_synapse_does_not_ask_about_invitations_and_joins_of_server_administrators(
    guards: Guards, admin: MatrixClient, bob: MatrixClient, room: str
) -> None:
    guards({"first:invite": "refuse", "first:join": "refuse"})
    assert admin.join(room).ok
    own = admin.create_room().expect()["room_id"]
    assert admin.invite(own, bob.user_id).ok


def test_an_upgrade_of_a_room_is_asked_as_a_creation(guards: Guards, alice: MatrixClient) -> None:
    guards({})
    room = alice.create_room().expect()["room_id"]
    guards({"first:room_create": "refuse"})
    reply = alice.client("POST", "rooms", room, "upgrade", body={"new_version": "11"})
    _assert_refused(reply, REFUSAL["message"], REFUSAL["rule"], REFUSAL["permission"])


def test_an_upgrade_by_a_server_administrator_is_asked_as_a_creation(
    guards: Guards, deployment: Deployment, admin: MatrixClient
) -> None:
    guards({})
    room = admin.create_room().expect()["room_id"]
    guards({"first:room_create": "refuse"})
    assert admin.client("POST", "rooms", room, "upgrade", body={"new_version": "11"}).status == 403
    assert _questions(deployment, "room_create") == [
        ["@admin:synapse.test", ["creation_content", "initial_state"], True]
    ]


def test_a_join_is_asked_with_whether_there_was_an_invitation(
    guards: Guards, deployment: Deployment, alice: MatrixClient, bob: MatrixClient
) -> None:
    guards({})
    room = alice.create_room(preset="private_chat", invite=[bob.user_id]).expect()["room_id"]
    bob.join(room).expect()
    assert _questions(deployment, "invite") == [[alice.user_id, bob.user_id, room]]
    assert _questions(deployment, "join") == [[bob.user_id, room, True]]


def test_messages_reactions_and_redactions_are_asked_and_state_is_not(
    guards: Guards, deployment: Deployment, alice: MatrixClient, room: str
) -> None:
    guards({})
    event_id = alice.send(room).expect()["event_id"]
    relates = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "+"}}
    alice.send_event(room, "m.reaction", relates).expect()
    alice.redact(room, event_id).expect()
    alice.set_state(room, "m.room.topic", {"topic": "tea"}).expect()
    assert _questions(deployment, "send") == [
        [alice.user_id, room, "m.room.message", None],
        [alice.user_id, room, "m.reaction", None],
        [alice.user_id, room, "m.room.redaction", event_id],
    ]


SAID_AS_STATE: dict[str, dict[str, Any]] = {
    "m.room.message": {"msgtype": "m.text", "body": "hello"},
    "m.room.encrypted": {"algorithm": "m.megolm.v1.aes-sha2"},
    "m.room.redaction": {"redacts": "$nothing"},
    "m.sticker": {"body": "hello"},
    "m.reaction": {},
    "m.call.hangup": {"reason": "hello"},
    "org.matrix.msc3401.call.member": {},
    "m.poll.start": {},
    "org.matrix.msc3381.poll.start": {},
    "m.beacon_info": {"description": "hello"},
    "org.example.anything": {"text": "hello"},
}


@pytest.mark.parametrize("kind", SAID_AS_STATE)
def test_state_that_is_no_setting_is_asked_as_a_message(
    guards: Guards, deployment: Deployment, alice: MatrixClient, kind: str
) -> None:
    guards({})
    room = alice.create_room(room_version="11").expect()["room_id"]
    alice.set_state(room, kind, SAID_AS_STATE[kind], key="k").expect()
    ((sender, asked_room, asked_kind, _),) = _questions(deployment, "send")
    assert (sender, asked_room, asked_kind) == (alice.user_id, room, kind)
    guards({"first:send": "refuse"})
    content = {**SAID_AS_STATE[kind], "again": True}
    reply = alice.set_state(room, kind, content, key="k")
    _assert_refused(reply, REFUSAL["message"], REFUSAL["rule"], REFUSAL["permission"])


SETTINGS: dict[str, dict[str, Any]] = {
    "m.room.name": {"name": "Tea"},
    "m.room.topic": {"topic": "tea"},
    "m.room.pinned_events": {"pinned": []},
    "m.room.retention": {"max_lifetime": 86_400_000},
    "m.space.child": {},
    "im.vector.modular.widgets": {"type": "m.custom", "url": "https://example.org/"},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_setting_of_a_room_is_no_message(
    guards: Guards, deployment: Deployment, alice: MatrixClient, room: str, kind: str
) -> None:
    guards({"first:send": "refuse"})
    alice.set_state(room, kind, SETTINGS[kind]).expect()
    assert _questions(deployment, "send") == []


@pytest.mark.parametrize(("version", "status"), [("10", 500), ("11", 403), ("12", 403)])
def test_a_redaction_in_the_shape_of_state_that_is_refused_redacts_nothing(
    guards: Guards, alice: MatrixClient, version: str, status: int
) -> None:
    guards({})
    room = alice.create_room(room_version=version).expect()["room_id"]
    event_id = alice.send(room, "still here").expect()["event_id"]
    guards({"first:send": "refuse"})
    reply = alice.set_state(room, "m.room.redaction", {"redacts": event_id}, key="k")
    assert reply.status == status, "before version 11 Synapse itself cannot send such state, and answers 500"
    assert alice.event(room, event_id).expect()["content"]["body"] == "still here"


@pytest.mark.parametrize("version", ["10", "11"])
def test_the_target_of_a_redaction_is_known_in_every_room_version(
    guards: Guards, deployment: Deployment, alice: MatrixClient, version: str
) -> None:
    guards({})
    room = alice.create_room(room_version=version).expect()["room_id"]
    event_id = alice.send(room).expect()["event_id"]
    alice.redact(room, event_id).expect()
    assert _questions(deployment, "send")[-1] == [alice.user_id, room, "m.room.redaction", event_id]


def test_synapses_own_notices_are_not_asked_about(guards: Guards, deployment: Deployment, admin: MatrixClient) -> None:
    reader = deployment.register("reader")
    guards({f"first:{seam}": "refuse" for seam in PERMISSIONS})
    content = {"msgtype": "m.text", "body": "maintenance at noon"}
    notice = {"user_id": reader.user_id, "content": content}
    assert admin.admin("POST", "v1/send_server_notice", notice).ok


# ---------------------------------------------------------------------------------------------------- federation


async def _spam_check(api: ModuleApi, callback: str, event: dict[str, Any]) -> str:
    """What Synapse's handlers do with an event that arrives over federation."""
    verdict = await getattr(api._callbacks.spam_checker, callback)(make_event_from_dict(event, RoomVersions.V10))
    return "passes" if verdict == NOT_SPAM else str(verdict[1]["error"])


_REMOTE: dict[str, Any] = {
    "room_id": "!far:elsewhere.test",
    "sender": "@mallory:elsewhere.test",
    "depth": 1,
    "prev_events": [],
    "auth_events": [],
    "origin_server_ts": 1,
    "hashes": {},
    "signatures": {},
}


def test_a_remote_users_event_is_never_judged_by_local_policy(guards: Guards, deployment: Deployment) -> None:
    guards({"first:send": "refuse"})
    event = {**_REMOTE, "type": "m.room.message", "content": {"msgtype": "m.text", "body": "hello"}}
    assert inside(deployment.url, _spam_check, callback="check_event_for_spam", event=event) == "passes"
    assert _questions(deployment, "send") == []


def test_an_invitation_over_federation_is_asked_once(guards: Guards, deployment: Deployment) -> None:
    content = {"membership": "invite"}
    event = {**_REMOTE, "type": "m.room.member", "state_key": "@alice:synapse.test", "content": content}
    guards({"first:invite": "refuse"})
    verdict = inside(deployment.url, _spam_check, callback="federated_user_may_invite", event=event)
    assert verdict == REFUSAL["message"]
    assert _questions(deployment, "invite") == [
        ["@mallory:elsewhere.test", "@alice:synapse.test", "!far:elsewhere.test"]
    ]


async def _pull(api: ModuleApi, event: dict[str, Any]) -> dict[str, Any]:
    """What becomes of a local user's event that another server hands out as history, with our own signature on it."""
    homeserver = api._hs
    event = {**event, "sender": "@gone:synapse.test", "room_id": "!far:elsewhere.test"}
    add_hashes_and_signatures(RoomVersions.V10, event, homeserver.hostname, homeserver.signing_key)
    pulled = [make_event_from_dict(event, RoomVersions.V10)]
    check = homeserver.get_federation_client()._check_sigs_and_hash_for_pulled_events_and_fetch
    (kept,) = await check("elsewhere.test", pulled, RoomVersions.V10)
    return {"content": dict(kept.content), "soft_failed": kept.internal_metadata.is_soft_failed()}


@pytest.mark.parametrize("more", [{}, {"state_key": "k"}], ids=["a message", "a message in the shape of state"])
def test_what_a_local_user_once_wrote_comes_back_over_federation_as_it_was(
    guards: Guards, deployment: Deployment, more: dict[str, Any]
) -> None:
    guards({"first:send": "refuse"})
    content = {"msgtype": "m.text", "body": "before I left"}
    event = {**_REMOTE, "type": "m.room.message", "content": content, **more}
    assert inside(deployment.url, _pull, event=event) == {"content": content, "soft_failed": False}
    assert _questions(deployment, "send") == []


async def _send_inside(api: ModuleApi, room_id: str, sender: str) -> str:
    content = {"msgtype": "m.text", "body": "from a module"}
    sent = {"type": "m.room.message", "room_id": room_id, "sender": sender, "content": content}
    try:
        await api.create_and_send_event_into_room(sent)
    except SynapseError as error:
        return error.msg
    return "sent"


def test_what_is_created_here_without_any_request_of_its_senders_is_asked(
    guards: Guards, deployment: Deployment, alice: MatrixClient, room: str
) -> None:
    guards({"first:send": "refuse"})
    assert inside(deployment.url, _send_inside, room_id=room, sender=alice.user_id) != "sent"
    assert _questions(deployment, "send") == [[alice.user_id, room, "m.room.message", None]]


# ------------------------------------------------------------------------------------------------- registration


def test_a_registration_is_asked_with_the_name_of_the_account(
    guards: Guards, deployment: Deployment, alice: MatrixClient
) -> None:
    guards({})
    assert "access_token" in _register(alice, "carol").expect()
    assert _questions(deployment, "register") == [["@carol:synapse.test", None]]
    guards({"first:register": "refuse"})
    _assert_refused(_register(alice, "dave"), REFUSAL["message"], REFUSAL["rule"], REFUSAL["permission"])
    assert inside(deployment.url, _account, user_id="@dave:synapse.test") is None


async def _account(api: ModuleApi, user_id: str) -> str | None:
    return await api.check_user_exists(user_id)


def test_an_account_without_a_name_and_a_guest_are_asked_as_nobody(
    guards: Guards, deployment: Deployment, alice: MatrixClient
) -> None:
    guards({})
    _register(alice, None).expect()
    guest = _register(alice, None, kind="guest").expect()["user_id"]
    assert _questions(deployment, "register") == [[None, None], [None, None]]
    assert guest[1:].partition(":")[0].isdecimal()
    guards({"first:register": "refuse"})
    for more in ({}, {"kind": "guest"}):
        _assert_refused(_register(alice, None, **more), REFUSAL["message"], REFUSAL["rule"], REFUSAL["permission"])


def test_accounts_that_administrators_make_are_not_asked_about(
    guards: Guards, deployment: Deployment, admin: MatrixClient
) -> None:
    guards({"first:register": "refuse"})
    deployment.register("by-secret")
    assert admin.admin("PUT", "v2/users/@by-admin:synapse.test", {"password": "wonderland"}).status == 201
    assert _questions(deployment, "register") == []


# ------------------------------------------------------------------------------------------------- by an address


async def _invite_by_address(api: ModuleApi, inviter: str, room_id: str) -> Any:
    """What Synapse's handler asks once the identity server does not know the address."""
    ask = api._callbacks.spam_checker.user_may_send_3pid_invite
    return await ask(inviter, "email", "somebody@example.org", room_id)


def test_an_invitation_by_an_address_is_asked_as_one_to_nobody_known(
    guards: Guards, deployment: Deployment, alice: MatrixClient, room: str
) -> None:
    guards({})
    asked: dict[str, Any] = {"inviter": alice.user_id, "room_id": room}
    assert inside(deployment.url, _invite_by_address, **asked) == NOT_SPAM
    guards({"first:invite": "refuse"})
    code, fields = inside(deployment.url, _invite_by_address, **asked)
    assert (code, fields["error"]) == ("M_FORBIDDEN", REFUSAL["message"])
    assert _questions(deployment, "invite") == [[alice.user_id, None, room]]


# ------------------------------------------------------------------------------------------------- callbacks


def _registered(api: ModuleApi) -> dict[str, int]:
    spam, rules = api._callbacks.spam_checker, api._callbacks.third_party_event_rules
    found = {**vars(spam), **vars(rules)}
    return {name: len(value) for name, value in found.items() if name.endswith("_callbacks") and value}


def test_each_callback_is_registered_once_and_none_that_loads_room_state(deployment: Deployment) -> None:
    assert inside(deployment.url, _registered) == {
        "_check_login_for_spam_callbacks": 1,
        "_check_registration_for_spam_callbacks": 1,
        "_user_may_create_room_callbacks": 1,
        "_on_create_room_callbacks": 1,
        "_user_may_invite_callbacks": 1,
        "_user_may_send_3pid_invite_callbacks": 1,
        "_user_may_join_room_callbacks": 1,
        "_check_event_for_spam_callbacks": 1,
    }


def _hub_without_guards(api: ModuleApi) -> None:
    CallbackHub(Homeserver(api))


def test_a_seam_without_guards_is_not_registered(deploy: Deploy) -> None:
    assert inside(deploy(modules=[probe(_hub_without_guards)]).url, _registered) == {}


def test_failures_of_guards_are_counted(guards: Guards, alice: MatrixClient, room: str) -> None:
    guards({"first:send": "raise"})
    alice.send(room)
    metrics = alice.request("GET", "/_synapse/metrics").text
    lines = [line for line in metrics.splitlines() if line.startswith("synapse_governance_guard_failures_total{")]
    (line,) = [line for line in lines if 'kind="exception"' in line and 'seam="send"' in line]
    assert 'server_name="synapse.test"' in line
    assert float(line.rpartition(" ")[2]) >= 1
