"""Refusals in the audit log of a homeserver with all modules: each once, however often, and by one record each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.governance import all_modules
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment

POLICY: dict[str, Any] = {
    "version": 1,
    "roles": {
        "member": {"allow": ["login", "room.create", "room.join", "room.invite", "message.send"]},
        "mute": {"deny": ["message.send"]},
        "officer": {"allow": ["audit.read"]},
    },
    "bindings": [
        {"role": "member", "group": "everyone", "scope": "server"},
        {"role": "mute", "user": "@mute:synapse.test", "scope": "server"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
    ],
}
OPEN = {"enable_registration": True, "enable_registration_without_verification": True, "allow_guest_access": True}


@pytest.fixture
def deployment(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy(modules=all_modules(tmp_path_factory.mktemp("governance"), POLICY), extra=OPEN)


def _entries(officer: MatrixClient, **conditions: Any) -> list[dict[str, Any]]:
    found = officer.governance("GET", "audit/entries", case="C-1", limit=500, **conditions).expect()["entries"]
    return list(reversed(found))


def _sealed(officer: MatrixClient, count: int, **conditions: Any) -> list[dict[str, Any]]:
    """The entries that meet ``conditions``, once there are ``count``."""
    return wait_until(
        lambda: found if len(found := _entries(officer, **conditions)) >= count else [], what="they are in the log"
    )


def test_a_flood_of_refusals_makes_two_records_and_is_wholly_counted(deployment: Deployment) -> None:
    mute, officer = deployment.register("mute"), deployment.register("officer")
    room = mute.create_room().expect()["room_id"]
    assert {mute.send(room).status for _ in range(40)} == {403}
    later = mute.create_room().expect()["room_id"]
    assert mute.send(later).status == 403
    (first, _) = _sealed(officer, 2, actor=mute.user_id, outcome="denied")
    assert (first["action"], first["room"], first["details"]) == (
        "access.denied",
        room,
        {"permission": "message.send"},
    )
    deployment.stop()
    deployment.start()
    entries = _sealed(officer, 3, actor=mute.user_id, outcome="denied")
    assert [(each["action"], each["room"], each["details"].get("repeated")) for each in entries] == [
        ("access.denied", room, None),
        ("access.denied", later, None),
        ("access.denied", room, 38),
    ]


def test_a_registration_is_one_record_of_an_account_and_one_of_a_login(deployment: Deployment) -> None:
    officer = deployment.register("officer")
    body = {"username": "carol", "password": "wonderland", "auth": {"type": "m.login.dummy"}}
    deployment.client().client("POST", "register", body=body).expect()
    entries = _sealed(officer, 2, actor="@carol:synapse.test")
    assert sorted((each["action"], each["outcome"]) for each in entries) == [
        ("auth.login", "success"),
        ("user.register", "success"),
    ]


def test_a_registration_that_is_refused_is_one_record(deployment: Deployment) -> None:
    officer = deployment.register("officer")
    guest = deployment.client().client("POST", "register", body={}, kind="guest")
    assert (guest.status, guest.body["governance"]["permission"]) == (403, "login")
    officer.create_room().expect()
    _sealed(officer, 1, action="room.create")
    denied = [(each["action"], each["actor"]) for each in _entries(officer, outcome="denied")]
    assert denied == [("access.denied", None)]


def test_a_message_in_the_shape_of_state_is_recorded_as_a_message(deployment: Deployment) -> None:
    officer = deployment.register("officer")
    room = officer.create_room(room_version="11").expect()["room_id"]
    sent = officer.send(room).expect()["event_id"]
    officer.set_state(room, "m.room.message", {"msgtype": "m.text", "body": "x"}, key="k").expect()
    officer.set_state(room, "m.room.redaction", {"redacts": sent}, key="k").expect()
    (redaction,) = _sealed(officer, 1, room=room, action="message.redact")
    assert redaction["details"]["redacts"] == sent
    assert len(_entries(officer, room=room, action="message.send")) == 2
