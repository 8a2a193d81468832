"""The private symbols of Synapse behind the doors: who asks about an event, and which ways in are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from synapse.api.room_versions import RoomVersions
from synapse.crypto.event_signing import add_hashes_and_signatures
from synapse.events import make_event_from_dict
from synapse.module_api import NOT_SPAM

from synapse_modules.homeserver import internals
from synapse_modules.homeserver.provenance import Provenance
from tests.module.support import inside, probe

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.synapse import Deployment

_ARRIVED: list[bool] = []


def _look(api: ModuleApi) -> None:
    provenance = Provenance()

    async def look(event: Any) -> str:
        _ARRIVED.append(provenance.arrived())
        return await later(event)

    async def later(event: Any) -> str:
        del event
        await api.sleep(0.01)
        return NOT_SPAM

    api.register_spam_checker_callbacks(check_event_for_spam=later)  # the other one is asked after it has slept
    api.register_spam_checker_callbacks(check_event_for_spam=look)


def _arrived(_api: ModuleApi) -> list[bool]:
    found = [*_ARRIVED]
    _ARRIVED.clear()
    return found


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy) -> Deployment:
    return deploy_shared(modules=[probe(_look)])


def test_an_event_that_is_created_here_is_known_by_who_asks(deployment: Deployment) -> None:
    alice = deployment.register("alice")
    room = alice.create_room(room_version="11").expect()["room_id"]
    event_id = alice.send(room).expect()["event_id"]
    alice.set_state(room, "m.room.topic", {"topic": "tea"}).expect()
    alice.redact(room, event_id).expect()
    assert inside(deployment.url, _arrived) == [False, False, False]


async def _receive(api: ModuleApi, way: str) -> None:
    homeserver = api._hs
    event: dict[str, Any] = {
        "type": "m.room.message",
        "room_id": "!far:elsewhere.test",
        "sender": "@gone:synapse.test",
        "content": {"body": "hello"},
        "depth": 1,
        "prev_events": [],
        "auth_events": [],
        "origin_server_ts": 1,
    }
    add_hashes_and_signatures(RoomVersions.V10, event, homeserver.hostname, homeserver.signing_key)
    pdu = make_event_from_dict(event, RoomVersions.V10)
    if way == "pushed":
        await homeserver.get_federation_server()._check_sigs_and_hash(RoomVersions.V10, pdu)
    else:
        client = homeserver.get_federation_client()
        await client._check_sigs_and_hash_for_pulled_events_and_fetch("elsewhere.test", [pdu, pdu], RoomVersions.V10)


@pytest.mark.parametrize(("way", "events"), [("pushed", 1), ("pulled", 2)])
def test_an_event_from_another_server_is_known_by_who_asks(deployment: Deployment, way: str, events: int) -> None:
    inside(deployment.url, _receive, way=way)
    assert inside(deployment.url, _arrived) == [True] * events


def _ways_in(api: ModuleApi) -> dict[str, bool]:
    return internals.ways_in(api)._asdict()


def test_by_default_no_other_way_in_is_open(deployment: Deployment) -> None:
    assert inside(deployment.url, _ways_in) == {"delegated": False, "registration": False, "guests": False}


def test_open_registration_and_guests_are_known(deploy: Deploy) -> None:
    extra = {"enable_registration": True, "enable_registration_without_verification": True, "allow_guest_access": True}
    found = inside(deploy(modules=[probe()], extra=extra).url, _ways_in)
    assert found == {"delegated": False, "registration": True, "guests": True}


def test_delegated_authentication_is_known(deploy: Deploy) -> None:
    service = {"enabled": True, "endpoint": "http://127.0.0.1:1", "secret": "not asked in this test"}
    extra = {"matrix_authentication_service": service, "password_config": {"enabled": False}}
    found = inside(deploy(modules=[probe()], extra=extra).url, _ways_in)
    assert found == {"delegated": True, "registration": False, "guests": False}
