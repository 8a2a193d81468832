"""What stock Synapse itself does with a module callback that raises or hangs: why ours are wrapped.

Nothing of the product runs here. When a new release of Synapse turns one of these red, read what changed before the
release is called supported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from synapse.module_api import NOT_SPAM
from twisted.internet.defer import Deferred

from tests.module.support import inside, probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.synapse import Deployment

_BROKEN: dict[str, str] = {}  # inside the homeserver: callback name -> "raise" or "hang"


def _callback(name: str, answer: Any) -> Callable[..., Any]:
    async def callback(*_arguments: Any, **_named: Any) -> Any:
        if _BROKEN.get(name) == "raise":
            raise RuntimeError("the policy is broken")
        if _BROKEN.get(name) == "hang":
            await Deferred()
        return answer

    return callback


def _register(api: ModuleApi) -> None:
    spam = ("check_login_for_spam", "user_may_create_room", "user_may_invite", "user_may_join_room")
    api.register_spam_checker_callbacks(**{name: _callback(name, NOT_SPAM) for name in (*spam, "check_event_for_spam")})
    rules = ("check_can_deactivate_user", "check_can_shutdown_room", "check_visibility_can_be_modified")
    api.register_third_party_rules_callbacks(
        on_create_room=_callback("on_create_room", None), **{name: _callback(name, True) for name in rules}
    )


def _set_broken(_api: ModuleApi, broken: dict[str, str]) -> None:
    _BROKEN.clear()
    _BROKEN.update(broken)


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy) -> Deployment:
    return deploy_shared(modules=[probe(_register)], extra={"room_list_publication_rules": [{"action": "allow"}]})


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


@pytest.fixture
def broken(deployment: Deployment, room: str) -> Any:
    del room  # made while nothing is broken
    yield lambda **broken: inside(deployment.url, _set_broken, broken=broken)
    inside(deployment.url, _set_broken, broken={})


def test_a_login_callback_that_raises_answers_500(broken: Any, alice: MatrixClient) -> None:
    broken(check_login_for_spam="raise")
    _assert_answers_500(alice.login("alice", "rabbit-hole"))


def test_a_room_creation_callback_that_raises_answers_500(broken: Any, alice: MatrixClient) -> None:
    broken(user_may_create_room="raise")
    _assert_answers_500(alice.create_room())


def test_a_room_creation_rule_that_raises_refuses_in_words_of_synapses_own(broken: Any, alice: MatrixClient) -> None:
    broken(on_create_room="raise")
    reply = alice.create_room()
    assert (reply.status, reply.error) == (403, "Room creation forbidden with these parameters")


def test_an_administrator_passes_the_creation_callback_but_not_the_creation_rule(
    broken: Any, admin: MatrixClient
) -> None:
    broken(user_may_create_room="raise")
    assert admin.create_room().ok
    broken(on_create_room="raise")
    assert admin.create_room().status == 403


def test_an_invitation_callback_that_raises_answers_500(
    broken: Any, alice: MatrixClient, bob: MatrixClient, room: str
) -> None:
    broken(user_may_invite="raise")
    _assert_answers_500(alice.invite(room, bob.user_id))


def test_an_administrator_passes_the_invitation_and_the_join_callback(
    broken: Any, admin: MatrixClient, bob: MatrixClient, room: str
) -> None:
    broken(user_may_invite="raise", user_may_join_room="raise")
    assert admin.join(room).ok
    assert admin.invite(admin.create_room().expect()["room_id"], bob.user_id).ok


def test_a_join_callback_that_raises_answers_500(broken: Any, bob: MatrixClient, room: str) -> None:
    broken(user_may_join_room="raise")
    _assert_answers_500(bob.join(room))


def test_a_knock_is_asked_about_nowhere_but_where_the_whole_state_is_loaded(
    broken: Any, alice: MatrixClient, bob: MatrixClient
) -> None:
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = alice.create_room(initial_state=[rules]).expect()["room_id"]
    broken(check_event_for_spam="raise", user_may_join_room="raise", user_may_invite="raise")
    assert bob.client("POST", "knock", room, body={}).ok


def test_an_event_callback_that_raises_answers_500(broken: Any, alice: MatrixClient, room: str) -> None:
    broken(check_event_for_spam="raise")
    _assert_answers_500(alice.send(room))


def test_an_event_callback_that_hangs_hangs_the_client(broken: Any, alice: MatrixClient, room: str) -> None:
    broken(check_event_for_spam="hang")
    url = f"{alice.url}/_matrix/client/v3/rooms/{room}/send/m.room.message/hangs"
    message = {"msgtype": "m.text", "body": "hello"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.put(url, json=message, headers={"Authorization": f"Bearer {alice.token}"}, timeout=1, trust_env=False)


def test_a_deactivation_callback_that_raises_lets_the_deactivation_pass(
    broken: Any, deployment: Deployment, admin: MatrixClient
) -> None:
    victim = deployment.register("victim")
    broken(check_can_deactivate_user="raise")
    assert admin.admin("POST", f"v1/deactivate/{victim.user_id}", {}).ok
    assert victim.whoami().status == 401


def test_a_shutdown_callback_that_raises_lets_the_shutdown_pass(
    broken: Any, alice: MatrixClient, admin: MatrixClient
) -> None:
    doomed = alice.create_room().expect()["room_id"]
    broken(check_can_shutdown_room="raise")
    assert admin.admin("DELETE", f"v1/rooms/{doomed}", {}).ok


def test_a_directory_callback_that_raises_lets_the_publication_pass(
    broken: Any, alice: MatrixClient, room: str
) -> None:
    broken(check_visibility_can_be_modified="raise")
    assert alice.client("PUT", "directory", "list", "room", room, body={"visibility": "public"}).ok


def _assert_answers_500(reply: Reply) -> None:
    assert (reply.status, reply.errcode, reply.error) == (500, "M_UNKNOWN", "Internal server error")
