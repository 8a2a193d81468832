"""What the product needs of Synapse's private symbols. A release of Synapse is supported once all of this passes."""

from __future__ import annotations

import concurrent.futures
import itertools
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from synapse.types import create_requester

from synapse_modules.core.ports import BACKFILL
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.public import Homeserver
from synapse_modules.homeserver.rooms import room_facts, room_facts_after
from synapse_modules.storage.database import Database
from tests.module.support import inside, probe

if TYPE_CHECKING:
    from synapse.module_api import LoggingTransaction, ModuleApi, SynapseRequest

    from synapse_modules.core.ports import Transaction
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment


def test_this_release_of_synapse_is_one_that_was_checked() -> None:
    assert version("matrix-synapse") in internals.CHECKED_RELEASES


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str) -> Deployment:
    extra = {
        "server_notices": {"system_mxid_localpart": "notices"},
        "room_list_publication_rules": [{"action": "allow"}],
    }
    return deploy_shared(postgres=engine == "postgres", modules=[probe()], extra=extra)


@pytest.fixture(scope="module")
def admin(deployment: Deployment) -> MatrixClient:
    return deployment.register("admin", admin=True)


# ------------------------------------------------------------------------------------------------ database


def _engines(api: ModuleApi) -> Any:
    return Homeserver(api).database.run(
        "engines", lambda transaction: [internals.database_engine(api).value, transaction.dialect]
    )


def test_the_engine_is_known_of_the_database_and_of_a_transaction(deployment: Deployment, engine: str) -> None:
    assert inside(deployment.url, _engines) == [engine, engine]


def _count_users_over_a_connection_of_our_own(api: ModuleApi) -> Any:
    database = Database(internals.database_location(api))

    def count(transaction: Any) -> Any:
        transaction.execute("SELECT COUNT(*) FROM users WHERE name = ?", ("@ursula:synapse.test",))
        return transaction.fetchone()

    return database.run(count)


def test_a_connection_of_our_own_reaches_the_same_database(deployment: Deployment) -> None:
    deployment.register("ursula")
    assert inside(deployment.url, _count_users_over_a_connection_of_our_own) == [1]


# ----------------------------------------------------------------------------------------------- configuration


def _notices_user(api: ModuleApi) -> str | None:
    return internals.server_notices_user(api)


def test_the_user_of_server_notices_is_known(deployment: Deployment) -> None:
    assert inside(deployment.url, _notices_user) == "@notices:synapse.test"


# ------------------------------------------------------------------------------------------------------ client


async def _client_before_and_after_authentication(api: ModuleApi, request: SynapseRequest) -> list[Any]:
    def seen() -> list[Any]:
        client = internals.current_client()
        assert client is not None
        return [client.address, client.user_agent, client.user_id, client.entity]

    before = seen()
    await api.get_user_by_req(request)
    return [before, seen()]


def test_the_client_of_the_current_request_is_known(deployment: Deployment) -> None:
    alice = deployment.register("alice")
    before, after = inside(alice, _client_before_and_after_authentication, headers={"User-Agent": "teacup/1"})
    assert before == ["127.0.0.1", "teacup/1", None, None]
    assert after == ["127.0.0.1", "teacup/1", alice.user_id, alice.user_id]


def test_an_administrator_who_acts_in_a_users_name_is_seen(deployment: Deployment, admin: MatrixClient) -> None:
    victim = deployment.register("victim")
    token = admin.admin("POST", f"v1/users/{victim.user_id}/login", {}).expect()["access_token"]
    puppet = type(victim)(victim.url, victim.user_id, token)
    _, after = inside(puppet, _client_before_and_after_authentication)
    assert after[2:] == [victim.user_id, admin.user_id]


_SEEN_IN_BACKGROUND: list[Any] = []


async def _client_in_background(api: ModuleApi) -> Any:
    async def look() -> None:
        _SEEN_IN_BACKGROUND.append(internals.current_client())

    Homeserver(api).start("look", look)
    await api.sleep(0.1)
    return _SEEN_IN_BACKGROUND


def test_outside_a_request_there_is_no_client(deployment: Deployment) -> None:
    assert inside(deployment.url, _client_in_background) == [None]


# --------------------------------------------------------------------------------------------------- processes


def _processes(api: ModuleApi) -> list[str]:
    return sorted(internals.configured_processes(api))


def test_one_process_alone_is_called_main(deployment: Deployment) -> None:
    assert inside(deployment.url, _processes) == ["main"]


def test_every_process_knows_all_that_the_shared_configuration_names(deploy: Deploy) -> None:
    extra = {"pusher_instances": ["pusher1"], "federation_sender_instances": ["sender1", "sender2"]}
    deployment = deploy(workers=1, modules=[probe()], extra=extra)
    for process in (deployment.main, *deployment.workers):
        found = inside(process.url, _processes)
        assert found == ["main", "pusher1", "sender1", "sender2", "worker1"], process.name


# --------------------------------------------------------------------------------------------------- positions


async def _events_at_or_below_positions(api: ModuleApi, rounds: int) -> list[Any]:
    """In each round the positions, and how many events stood at or below them at that moment."""
    found = []
    for _ in range(rounds):
        positions = internals.event_positions(api)
        found.append([positions, await _count(api, positions)])
        await api.sleep(0.002)
    return found


async def _count(api: ModuleApi, positions: dict[str, int]) -> int:
    def read(transaction: Any) -> int:
        counts = []
        for writer, position in positions.items():
            transaction.execute(
                "SELECT COUNT(*) FROM events WHERE instance_name = ? AND stream_ordering BETWEEN 0 AND ?",
                (writer, position),
            )
            counts.append(transaction.fetchone()[0])
        return sum(counts)

    return await Homeserver(api).database.run("count", read)


def test_nothing_is_committed_at_or_below_a_position_that_was_seen(deployment: Deployment) -> None:
    sender = deployment.register("poster")
    rooms = [sender.create_room().expect()["room_id"] for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        watching = pool.submit(inside, deployment.url, _events_at_or_below_positions, rounds=150)
        sends = [pool.submit(sender.send, room, f"{room} {number}") for number in range(15) for room in rooms]
        for send in sends:
            send.result().expect()
        seen = watching.result()
    assert len({positions["master"] for positions, _ in seen}) > 5, "events were written while we watched"
    for positions, count in seen[:: max(1, len(seen) // 20)]:
        assert inside(deployment.url, _count, positions=positions) == count


def test_an_event_that_was_acknowledged_is_at_or_below_its_writers_position(deployment: Deployment) -> None:
    sender = deployment.register("herald")
    room = sender.create_room().expect()["room_id"]
    event_id = sender.send(room).expect()["event_id"]
    assert inside(deployment.url, _is_at_or_below, event_id=event_id)


async def _is_at_or_below(api: ModuleApi, event_id: str) -> bool:
    positions = internals.event_positions(api)

    def read(transaction: Any) -> Any:
        transaction.execute("SELECT instance_name, stream_ordering FROM events WHERE event_id = ?", (event_id,))
        return transaction.fetchone()

    writer, ordering = await Homeserver(api).database.run("ordering", read)
    return bool(ordering <= positions[writer])


async def _import_a_message(api: ModuleApi, sender: str, room_id: str) -> list[int]:
    """Store a message as history from elsewhere; its stream ordering, and the position before and after."""
    before = internals.event_positions(api)[BACKFILL + "master"]
    content = {"msgtype": "m.text", "body": "history"}
    message = {"type": "m.room.message", "room_id": room_id, "sender": sender, "content": content}
    handler, persistence = api._hs.get_event_creation_handler(), api._hs.get_storage_controllers().persistence
    event, unpersisted = await handler.create_event(create_requester(sender), message)
    assert persistence is not None
    await persistence.persist_events([(event, await unpersisted.persist(event))], backfilled=True)
    ordering = event.internal_metadata.stream_ordering
    assert ordering is not None
    return [ordering, before, internals.event_positions(api)[BACKFILL + "master"]]


def test_imported_history_has_positions_of_its_own_that_descend(deployment: Deployment) -> None:
    sender = deployment.register("historian")
    room = sender.create_room().expect()["room_id"]
    first, _, _ = inside(deployment.url, _import_a_message, sender=sender.user_id, room_id=room)
    ordering, before, after = inside(deployment.url, _import_a_message, sender=sender.user_id, room_id=room)
    assert first == before
    assert after == ordering < before < 0


# ------------------------------------------------------------------------------------------------------- purge


async def _purge(api: ModuleApi, room_id: str, before_ms: int) -> list[Any]:
    result = await internals.purge_history_before(api, room_id, before_ms)
    return [result.due, result.left, result.problem]


def _now_ms() -> int:
    time.sleep(0.02)
    now = time.time_ns() // 1_000_000
    time.sleep(0.02)
    return now


_numbers = itertools.count(1)


@pytest.fixture
def sender(deployment: Deployment) -> MatrixClient:
    return deployment.register(f"sender{next(_numbers)}")


def _texts(client: MatrixClient, room: str) -> list[str]:
    return client.texts(room)


def test_a_purge_deletes_what_is_older_and_nothing_younger(deployment: Deployment, sender: MatrixClient) -> None:
    room = sender.create_room(name="keeps its name").expect()["room_id"]
    for number in range(5):
        sender.send(room, f"old {number}").expect()
    moment = _now_ms()
    for number in range(3):
        sender.send(room, f"new {number}").expect()

    due, left, problem = inside(deployment.url, _purge, room_id=room, before_ms=moment)

    assert (due, left, problem) == (5, 0, None)
    assert _texts(sender, room) == ["new 0", "new 1", "new 2"]
    assert sender.state(room, "m.room.name").expect() == {"name": "keeps its name"}
    assert inside(deployment.url, _purge, room_id=room, before_ms=moment) == [0, 0, None]
    sender.send(room, "the room still works").expect()


def test_the_newest_event_of_a_room_survives_every_purge(deployment: Deployment, sender: MatrixClient) -> None:
    room = sender.create_room().expect()["room_id"]
    for number in range(4):
        sender.send(room, f"old {number}").expect()

    assert inside(deployment.url, _purge, room_id=room, before_ms=_now_ms()) == [3, 0, None]

    assert _texts(sender, room) == ["old 3"]
    sender.send(room, "the room still works").expect()


async def _import_at_depth(api: ModuleApi, sender: str, room_id: str, depth: int) -> None:
    """Store a message as history from elsewhere, as far back as ``depth``."""
    ordering, _, _ = await _import_a_message(api, sender, room_id)

    def put_back(transaction: LoggingTransaction) -> None:
        sql = "UPDATE events SET topological_ordering = ?, depth = ? WHERE stream_ordering = ?"
        transaction.execute(sql, (depth, depth, ordering))

    await api.run_db_interaction("put_back", put_back)


def test_a_purge_spares_history_that_was_fetched_since(deployment: Deployment, sender: MatrixClient) -> None:
    room = sender.create_room().expect()["room_id"]
    for number in range(3):
        sender.send(room, f"old {number}").expect()
    before_the_import = _now_ms()
    inside(deployment.url, _import_at_depth, sender=sender.user_id, room_id=room, depth=2)
    sender.send(room, "new").expect()

    assert inside(deployment.url, _purge, room_id=room, before_ms=before_the_import) == [0, 0, None]
    assert inside(deployment.url, _purge, room_id=room, before_ms=_now_ms()) == [4, 0, None]
    assert _texts(sender, room) == ["new"]


def test_a_purge_of_an_unknown_room_does_nothing(deployment: Deployment) -> None:
    assert inside(deployment.url, _purge, room_id="!nowhere:synapse.test", before_ms=_now_ms()) == [0, 0, None]


async def _forbid_deletes(api: ModuleApi, room_id: str) -> None:
    def forbid(transaction: LoggingTransaction) -> None:
        if internals.transaction_engine(transaction) == "sqlite":
            transaction.execute(
                "CREATE TRIGGER test_forbid BEFORE DELETE ON events "
                f"WHEN OLD.room_id = '{room_id}' BEGIN SELECT RAISE(ABORT, 'test: no deleting here'); END"
            )
            return
        transaction.execute(
            "CREATE FUNCTION test_forbid() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'test: no deleting here'; END $$"
        )
        transaction.execute(
            "CREATE TRIGGER test_forbid BEFORE DELETE ON events FOR EACH ROW "
            f"WHEN (OLD.room_id = '{room_id}') EXECUTE FUNCTION test_forbid()"
        )

    await api.run_db_interaction("forbid", forbid)


def test_a_purge_that_a_trigger_stops_says_why_and_deletes_nothing(
    deployment: Deployment, sender: MatrixClient
) -> None:
    room = sender.create_room().expect()["room_id"]
    for number in range(3):
        sender.send(room, f"held {number}").expect()
    inside(deployment.url, _forbid_deletes, room_id=room)

    due, left, problem = inside(deployment.url, _purge, room_id=room, before_ms=_now_ms())

    assert (due, left) == (2, 2)
    assert "test: no deleting here" in problem
    assert _texts(sender, room) == ["held 0", "held 1", "held 2"]


async def _orderings(api: ModuleApi, room_id: str, moments: list[int]) -> list[Any]:
    """The first ordering since each moment, and the orderings of the room's messages."""

    def read(transaction: Any) -> list[int]:
        transaction.execute(
            "SELECT stream_ordering FROM events WHERE room_id = ? AND type = 'm.room.message' ORDER BY stream_ordering",
            (room_id,),
        )
        return [row[0] for row in transaction.fetchall()]

    found = [(await internals.cutoff_at(api, moment)).ordering for moment in moments]
    return [found, await Homeserver(api).database.run("orderings", read)]


def test_a_cutoff_parts_older_from_younger_events(deployment: Deployment, sender: MatrixClient) -> None:
    room = sender.create_room().expect()["room_id"]
    sender.send(room, "before").expect()
    moment = _now_ms()
    sender.send(room, "after").expect()
    found, (before, after) = inside(deployment.url, _orderings, room_id=room, moments=[0, moment, _now_ms() + 60_000])
    assert found[0] <= before < found[1] <= after < found[2]


# ------------------------------------------------------------------------------------------------- room facts


async def _facts(api: ModuleApi, room_id: str) -> Any:
    facts = await Homeserver(api).database.run("facts", lambda transaction: room_facts(transaction, room_id))
    return facts and {name: getattr(facts, name) for name in type(facts).__slots__}


def test_room_facts_are_those_of_the_current_state(deployment: Deployment, sender: MatrixClient) -> None:
    room = sender.create_room(
        name="Regulated: trading",
        room_alias_name=sender.user_id[1:].partition(":")[0],
        visibility="public",
        preset="public_chat",
        creation_content={"m.federate": False},
        initial_state=[{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
    ).expect()["room_id"]
    assert inside(deployment.url, _facts, room_id=room) == {
        "room_id": room,
        "name": "Regulated: trading",
        "alias": sender.user_id.replace("@", "#"),
        "creator": sender.user_id,
        "join_rule": "public",
        "encrypted": True,
        "federated": False,
        "published": True,
    }
    sender.set_state(room, "m.room.name", {"name": "Renamed"}).expect()
    assert inside(deployment.url, _facts, room_id=room)["name"] == "Renamed"


def test_a_bare_room_has_bare_facts_and_an_unknown_one_none(deployment: Deployment, sender: MatrixClient) -> None:
    room = sender.create_room(preset="private_chat").expect()["room_id"]
    facts = inside(deployment.url, _facts, room_id=room)
    assert (facts["name"], facts["alias"], facts["join_rule"]) == (None, None, "invite")
    assert (facts["encrypted"], facts["federated"], facts["published"]) == (False, True, False)
    assert inside(deployment.url, _facts, room_id="!nowhere") is None


def test_nonsense_in_state_is_no_fact(deployment: Deployment, sender: MatrixClient) -> None:
    room = sender.create_room().expect()["room_id"]
    sender.set_state(room, "m.room.name", {"name": ["not", "text"]})
    assert inside(deployment.url, _facts, room_id=room)["name"] is None


async def _rooms_by_pages(api: ModuleApi, limit: int) -> list[str]:
    def read(transaction: Transaction) -> list[str]:
        found: list[str] = []
        while page := room_facts_after(transaction, found[-1] if found else "", limit):
            found += [facts.room_id for facts in page]
        return found

    return await Homeserver(api).database.run("pages", read)


def test_all_rooms_are_found_page_by_page(deployment: Deployment, sender: MatrixClient) -> None:
    rooms = {sender.create_room().expect()["room_id"] for _ in range(3)}
    found = inside(deployment.url, _rooms_by_pages, limit=2)
    assert rooms <= set(found)
    assert len(found) == len(set(found))
    assert found == inside(deployment.url, _rooms_by_pages, limit=1000)
