"""The events lane in real homeserver processes, on both engines: what real clients do is what the log says."""

from __future__ import annotations

import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from synapse.events.snapshot import EventContext
from synapse.types import create_requester

from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from tests.module.audit_module import audited, log_of, service
from tests.module.support import inside
from tests.support.audit_log import rows
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(engine: str, request: pytest.FixtureRequest) -> Postgres | None:
    """The PostgreSQL cluster, or None on SQLite."""
    found: Postgres | None = request.getfixturevalue("postgres") if engine == "postgres" else None
    return found


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, cluster: Postgres | None, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One process with the audit log."""
    return audited(deploy_shared, tmp_path_factory.mktemp("key"), postgres=cluster is not None)


@pytest.fixture
def log(deployment: Deployment, cluster: Postgres | None) -> Database:
    """Its log."""
    return log_of(deployment, cluster)


@pytest.fixture
def alice(deployment: Deployment) -> MatrixClient:
    return deployment.register(f"alice{next(_numbers)}")


@pytest.fixture
def bob(deployment: Deployment) -> MatrixClient:
    return deployment.register(f"bob{next(_numbers)}")


async def _catch_up(_api: ModuleApi) -> None:
    await service().catch_up()


def history(deployment: Deployment, log: Database, room: str) -> list[dict[str, Any]]:
    """What is recorded of ``room`` once everything is: leaves, with names in clear."""
    inside(deployment.main.url, _catch_up)
    found = rows(
        log,
        "SELECT leaf, disclosures FROM governance_audit_records WHERE writer = 'events' AND room_id = ? ORDER BY wseq",
        (room,),
    )
    leaves = [
        {**json.loads(leaf), **{name: value for name, (_, value) in json.loads(shown).items()}} for leaf, shown in found
    ]
    for leaf in leaves:
        check_details(Action(leaf["action"]), leaf["details"])
    return leaves


def story(deployment: Deployment, log: Database, room: str) -> list[tuple[str, str, str | None]]:
    """The same in short: action, actor and target."""
    return [(leaf["action"], leaf["actor"], leaf.get("target")) for leaf in history(deployment, log, room)]


# ------------------------------------------------------------------------------------------- what clients do


def test_the_life_of_a_room_is_told_action_by_action(
    deployment: Deployment, log: Database, alice: MatrixClient, bob: MatrixClient
) -> None:
    a, b = alice.user_id, bob.user_id
    room = alice.create_room(room_version="11", name="secret name", invite=[b]).expect()["room_id"]
    bob.join(room).expect()
    message = bob.send(room, "secret text").expect()["event_id"]
    replacement = {"msgtype": "m.text", "body": "secret edit"}
    edit = {**replacement, "m.new_content": replacement, "m.relates_to": {"rel_type": "m.replace", "event_id": message}}
    bob.send_event(room, "m.room.message", edit).expect()
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": message, "key": "+"}}
    alice.send_event(room, "m.reaction", reaction).expect()
    alice.redact(room, message, "secret reason").expect()
    alice.kick(room, b, "secret reason").expect()
    alice.ban(room, b).expect()
    alice.client("POST", "rooms", room, "unban", body={"user_id": b}).expect()
    alice.leave(room).expect()

    told = history(deployment, log, room)
    assert [(leaf["action"], leaf["actor"], leaf.get("target")) for leaf in told] == [
        ("room.create", a, None),
        ("room.join", a, a),
        ("room.power.raise", a, a),
        ("room.power.defaults", a, None),
        ("room.setting.change", a, None),
        ("room.setting.change", a, None),
        ("room.setting.change", a, None),
        ("room.setting.change", a, None),
        ("room.invite", a, b),
        ("room.join", b, b),
        ("message.send", b, None),
        ("message.edit", b, None),
        ("message.send", a, None),
        ("message.redact", a, b),
        ("room.kick", a, b),
        ("room.ban", a, b),
        ("room.unban", a, b),
        ("room.leave", a, a),
    ]
    assert b"secret" not in b"".join(leaf for (leaf,) in rows(log, "SELECT leaf FROM governance_audit_records"))
    assert told[0]["details"]["room_version"] == "11"
    assert told[0]["details"]["federated"] is True
    settings = {leaf["details"]["event_type"]: leaf["details"].get("after") for leaf in told[4:8]}
    assert settings == {
        "m.room.guest_access": "can_join",
        "m.room.history_visibility": "shared",
        "m.room.join_rules": "invite",
        "m.room.name": None,
    }
    assert told[11]["details"]["replaces"] == told[13]["details"]["redacts"] == message
    assert (told[12]["details"]["relation"], told[12]["details"]["related"]) == ("m.annotation", message)
    of_bob = [leaf["details"] for leaf in told if leaf.get("target") == b and leaf["action"].startswith("room.")]
    assert [(details["before"], details["after"]) for details in of_bob] == [
        (None, "invite"),
        ("invite", "join"),
        ("join", "leave"),
        ("leave", "ban"),
        ("ban", "leave"),
    ]
    assert all({*leaf["details"]}.isdisjoint({"origin", "arrival"}) for leaf in told)


def test_a_message_names_the_device_that_sent_it_and_when(
    deployment: Deployment, log: Database, alice: MatrixClient
) -> None:
    reply = alice.login(alice.user_id[1:].partition(":")[0], "wonderland", device_id="TEAPOT")
    room = alice.with_login(reply).create_room().expect()["room_id"]
    created = history(deployment, log, room)[0]
    assert created["device"] == "TEAPOT"
    assert abs(created["time_ms"] - created["details"]["sent_ms"]) < 60_000


def test_a_change_of_profile_is_no_join(deployment: Deployment, log: Database, alice: MatrixClient) -> None:
    room = alice.create_room().expect()["room_id"]
    alice.client("PUT", "profile", alice.user_id, "displayname", body={"displayname": "Secret"}).expect()
    alice.send(room).expect()
    told = story(deployment, log, room)
    assert told.count(("room.join", alice.user_id, alice.user_id)) == 1
    assert told[-1][0] == "message.send"


def test_knocks_refusals_and_withdrawn_invitations(
    deployment: Deployment, log: Database, alice: MatrixClient, bob: MatrixClient
) -> None:
    a, b = alice.user_id, bob.user_id
    room = alice.create_room().expect()["room_id"]
    alice.set_state(room, "m.room.join_rules", {"join_rule": "knock"}).expect()
    before = len(story(deployment, log, room))
    bob.client("POST", "knock", room, body={}).expect()
    alice.kick(room, b).expect()
    alice.invite(room, b).expect()
    bob.leave(room).expect()
    alice.invite(room, b).expect()
    alice.kick(room, b).expect()
    told = history(deployment, log, room)[before:]
    assert [(leaf["action"], leaf["actor"], leaf["target"], leaf["details"]["before"]) for leaf in told] == [
        ("room.knock", b, b, None),
        ("room.kick", a, b, "knock"),
        ("room.invite", a, b, "leave"),
        ("room.leave", b, b, "invite"),
        ("room.invite", a, b, "leave"),
        ("room.kick", a, b, "invite"),
    ]


def test_who_got_power_and_which_setting_changed_is_told_with_before_and_after(
    deployment: Deployment, log: Database, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = alice.create_room(room_version="11", invite=[bob.user_id]).expect()["room_id"]
    powers = alice.state(room, "m.room.power_levels").expect()
    before = len(story(deployment, log, room))
    powers["users"][bob.user_id] = 50
    powers["events"]["m.room.topic"] = 90
    alice.set_state(room, "m.room.power_levels", powers).expect()
    alice.set_state(room, "m.room.join_rules", {"join_rule": "public"}).expect()
    raised, defaults, setting = history(deployment, log, room)[before:]
    assert (raised["action"], raised["target"]) == ("room.power.raise", bob.user_id)
    assert (raised["details"]["before"], raised["details"]["after"]) == (0, 50)
    assert defaults["action"] == "room.power.defaults"
    assert defaults["details"]["after"] == {"events.m.room.topic": 90}
    assert (setting["details"]["before"], setting["details"]["after"]) == ("invite", "public")


# ------------------------------------------------------------------------------------------ what others send


async def _store_as(api: ModuleApi, sender: str, room_id: str, how: str) -> str:
    """Store a message as if it had come ``how``; returns its event id."""
    event, context = await _message(api, sender, room_id)
    hs = api._hs
    if how == "rejected":
        context.rejected = "auth_error"
    if how == "soft_failed":
        event.internal_metadata.soft_failed = True
    if how == "outlier":
        event.internal_metadata.outlier = True
        context = EventContext.for_outlier(hs.get_storage_controllers())
    persistence = hs.get_storage_controllers().persistence
    assert persistence is not None
    await persistence.persist_events([(event, context)], backfilled=how == "backfilled")
    return str(event.event_id)


async def _message(api: ModuleApi, sender: str, room_id: str) -> Any:
    content = {
        "type": "m.room.message",
        "room_id": room_id,
        "sender": sender,
        "content": {"msgtype": "m.text", "body": "x"},
    }
    made, unpersisted = await api._hs.get_event_creation_handler().create_event(create_requester(sender), content)
    return made, await unpersisted.persist(made)


@pytest.mark.parametrize(
    ("how", "outcome"), [("rejected", "denied"), ("soft_failed", "denied"), ("backfilled", "success")]
)
def test_how_an_event_came_is_recorded(
    deployment: Deployment, log: Database, alice: MatrixClient, how: str, outcome: str
) -> None:
    room = alice.create_room().expect()["room_id"]
    event_id = inside(deployment.url, _store_as, sender=alice.user_id, room_id=room, how=how)
    last = history(deployment, log, room)[-1]
    assert (last["action"], last["details"]["event_id"]) == ("message.send", event_id)
    assert (last["details"]["arrival"], last["outcome"]) == (how, outcome)


async def _store_outlier_then_include(api: ModuleApi, sender: str, room_id: str, include: bool) -> str:
    event, context = await _message(api, sender, room_id)
    persistence = api._hs.get_storage_controllers().persistence
    assert persistence is not None
    event.internal_metadata.outlier = True
    outlier = EventContext.for_outlier(api._hs.get_storage_controllers())
    await persistence.persist_events([(event, outlier)])
    if include:
        event.internal_metadata.outlier = False
        await persistence.persist_events([(event, context)])
    return str(event.event_id)


@pytest.mark.parametrize("include", [False, True])
def test_an_outlier_is_recorded_once_it_is_one_no_longer(
    deployment: Deployment, log: Database, alice: MatrixClient, include: bool
) -> None:
    room = alice.create_room().expect()["room_id"]
    arguments = {"sender": alice.user_id, "room_id": room, "include": include}
    event_id = inside(deployment.url, _store_outlier_then_include, **arguments)
    told = [leaf["details"]["event_id"] for leaf in history(deployment, log, room)]
    assert (told[-1] == event_id) is include
    assert told.count(event_id) == int(include)


async def _dummy(api: ModuleApi, room_id: str) -> bool:
    handler = api._hs.get_event_creation_handler()
    return await handler._send_dummy_event_for_room(room_id)


def test_what_synapse_sends_to_tidy_up_is_nobodys_deed(
    deployment: Deployment, log: Database, alice: MatrixClient
) -> None:
    room = alice.create_room().expect()["room_id"]
    before = story(deployment, log, room)
    assert inside(deployment.url, _dummy, room_id=room)
    assert story(deployment, log, room) == before


# --------------------------------------------------------------------------------------------------- crashes


def _send_until_it_breaks(sender: MatrixClient, room: str, acknowledged: list[str]) -> None:
    """Send messages until the homeserver is gone, and note those that it acknowledged."""
    with contextlib.suppress(httpx.TransportError):
        while True:
            acknowledged.append(sender.send(room).expect()["event_id"])


def test_a_killed_process_loses_nothing_and_doubles_nothing(
    deployment: Deployment, log: Database, alice: MatrixClient
) -> None:
    acknowledged: dict[str, list[str]] = {alice.create_room().expect()["room_id"]: [] for _ in range(3)}
    for turn in range(1, 3):
        with ThreadPoolExecutor(len(acknowledged)) as pool:
            for room, sent in acknowledged.items():
                pool.submit(_send_until_it_breaks, alice, room, sent)
            wait_until(partial(_longer, acknowledged, turn * 5), what="messages are on their way")
            deployment.main.kill()
        deployment.main.start()
    for room, sent in acknowledged.items():
        stored = [event["event_id"] for event in alice.messages(room, limit=1000).expect()["chunk"]]
        told = {leaf["details"]["event_id"] for leaf in history(deployment, log, room)}
        assert set(sent) <= told
        assert told == set(stored)


def _longer(lists: dict[str, list[str]], length: int) -> bool:
    return all(len(each) > length for each in lists.values())
