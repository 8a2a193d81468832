"""The audit log in real homeserver processes, on both engines."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_modules.audit import service as service_module
from synapse_modules.audit import store
from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver.public import Homeserver
from tests.module.audit_module import audited, log_of, service
from tests.module.support import FailedInside, inside
from tests.support.audit_log import execute, naive_root, rows, write_locked
from tests.support.process import ProcessDied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from synapse.module_api import ModuleApi

    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

PASSWORD = "wonderland"


@pytest.fixture(scope="module")
def cluster(engine: str, request: pytest.FixtureRequest) -> Postgres | None:
    """The PostgreSQL cluster, or None on SQLite."""
    found: Postgres | None = request.getfixturevalue("postgres") if engine == "postgres" else None
    return found


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, cluster: Postgres | None, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One process, shared by the tests that leave it as it was."""
    config = {"ack_timeout_ms": 1_000}
    return audited(deploy_shared, tmp_path_factory.mktemp("key"), postgres=cluster is not None, config=config)


@pytest.fixture
def log(deployment: Deployment, cluster: Postgres | None) -> Database:
    """The shared process's log."""
    return log_of(deployment, cluster)


def entries(log: Database, action: Action) -> list[dict[str, Any]]:
    """The entries of ``action`` that have an index, as their leaf and their disclosures tell them."""
    found = rows(
        log,
        "SELECT record.leaf, record.disclosures FROM governance_audit_entries AS entry"
        " JOIN governance_audit_records AS record ON record.writer = entry.writer AND record.wseq = entry.wseq"
        " WHERE entry.action = ? ORDER BY entry.idx",
        (action.value,),
    )
    return [
        {**json.loads(leaf), **{name: value for name, (_, value) in json.loads(shown).items()}} for leaf, shown in found
    ]


def sealed(log: Database, action: Action, count: int = 1) -> list[dict[str, Any]]:
    """The same, once there are ``count``."""
    return wait_until(
        lambda: found if len(found := entries(log, action)) >= count else [],
        what=f"{count} of {action} have an index",
    )


async def status(_api: ModuleApi) -> dict[str, Any]:
    return await service().status()


# -------------------------------------------------------------------------------------------------- recording


def test_the_start_of_a_process_is_recorded_and_sealed(deployment: Deployment, log: Database) -> None:
    starts = {start["details"]["writer"].partition(":")[0]: start for start in sealed(log, Action.AUDIT_START, 2)}
    assert set(starts) == {"main", "events"}
    assert (starts["main"]["process"], starts["main"]["server"]) == ("main", deployment.server_name)
    for start in starts.values():
        check_details(Action.AUDIT_START, start["details"])


def test_a_login_is_recorded_before_there_is_a_token(deployment: Deployment, log: Database) -> None:
    deployment.register("alice", password=PASSWORD)
    reply = deployment.client().login("alice", PASSWORD, device_id="TEAPOT")
    assert reply.ok
    stored = rows(log, "SELECT leaf FROM governance_audit_records WHERE action = 'auth.login'")
    assert len(stored) == 1
    (login,) = sealed(log, Action.AUTH_LOGIN)
    assert (login["actor"], login["device"], login["address"]) == ("@alice:synapse.test", "TEAPOT", "127.0.0.1")
    assert login["user_agent"]
    assert b"alice" not in stored[0][0]


async def _record(_api: ModuleApi, case: str, key: str | None = None) -> None:
    await service().record(AuditEvent(Action.AUDIT_SEARCH, actor="@officer:synapse.test", case_id=case, key=key))


def cases(log: Database) -> list[str]:
    """The case of each search that is durable."""
    found = rows(log, "SELECT leaf FROM governance_audit_records WHERE action = 'audit.search' ORDER BY wseq")
    return [json.loads(leaf)["case"] for (leaf,) in found]


def test_what_is_acknowledged_is_durable(deployment: Deployment, log: Database) -> None:
    inside(deployment.url, _record, case="durable")
    assert "durable" in cases(log)


def test_a_key_is_recorded_once(deployment: Deployment, log: Database) -> None:
    inside(deployment.url, _record, case="once", key="k")
    inside(deployment.url, _record, case="twice", key="k")
    assert "once" in cases(log)
    assert "twice" not in cases(log)


async def _record_in(api: ModuleApi, case: str, fail: bool) -> None:
    def change(transaction: Transaction) -> None:
        service().record_in(transaction, AuditEvent(Action.HOLD_CREATE, case_id=case))
        if fail:
            raise LookupError("the change was refused")

    await Homeserver(api).database.run("test_change", change)


def test_a_change_and_its_record_commit_together_or_not_at_all(deployment: Deployment, log: Database) -> None:
    with pytest.raises(FailedInside, match="the change was refused"):
        inside(deployment.url, _record_in, case="refused", fail=True)
    inside(deployment.url, _record_in, case="made", fail=False)
    assert [entry["case"] for entry in sealed(log, Action.HOLD_CREATE)] == ["made"]


# --------------------------------------------------------------------------------------------------- the events


async def _catch_up(_api: ModuleApi) -> None:
    await service().catch_up()


def test_after_catching_up_every_message_sent_before_is_in_the_log(deployment: Deployment, log: Database) -> None:
    bob = deployment.register("bob")
    room = bob.create_room(name="tea").expect()["room_id"]
    event_ids = [bob.send(room, f"cup {number}").expect()["event_id"] for number in range(20)]
    inside(deployment.url, _catch_up)
    stored = rows(log, "SELECT leaf FROM governance_audit_records WHERE action = 'message.send' ORDER BY wseq")
    assert [json.loads(leaf)["details"]["event_id"] for (leaf,) in stored] == event_ids
    sealed(log, Action.MESSAGE_SEND, 20)


async def _catch_up_in_a_hurry(_api: ModuleApi) -> None:
    patience, service_module._CATCH_UP_S = service_module._CATCH_UP_S, 0.5
    try:
        await service().catch_up()
    finally:
        service_module._CATCH_UP_S = patience


def test_catching_up_with_a_log_that_cannot_be_written_gives_up(deployment: Deployment, log: Database) -> None:
    frank = deployment.register("frank")
    room = frank.create_room(name="tea").expect()["room_id"]
    with write_locked(log):
        frank.send(room, "nobody writes this down yet").expect()
        with pytest.raises(FailedInside, match="Unavailable: the audit log has not followed the room events in time"):
            inside(deployment.url, _catch_up_in_a_hurry)
    inside(deployment.url, _catch_up)


# ------------------------------------------------------------------------------------------------------- status


def test_the_status_tells_the_newest_checkpoint_and_that_all_is_well(deployment: Deployment, log: Database) -> None:
    def settled() -> dict[str, Any]:
        size, root = naive_root(log)
        found: dict[str, Any] = inside(deployment.url, status)
        return found if (found["unordered"], found["size"], found["root"]) == (0, size, root.hex()) else {}

    found = wait_until(settled, what="every record has an index, and the checkpoint is that of all of them")
    assert found["origin"] == "synapse.test/governance-audit"
    assert found["keys"] == log.run(store.keys)
    assert found["checkpoint_ms"] > 0
    assert (found["queue_length"], found["queue_problem"]) == (0, None)
    assert (found["damage"], found["problems"]) == (None, {})


def metrics_of(deployment: Deployment) -> dict[str, float]:
    """The metrics of the audit log, by name and labels but for the server's."""
    text = httpx.get(f"{deployment.url}/_synapse/metrics", trust_env=False).text
    found = re.findall(r"^synapse_governance_audit_(\S+) (\S+)$", text, re.MULTILINE)
    return {name.replace('server_name="synapse.test"', "").replace("{}", ""): float(value) for name, value in found}


def test_operators_can_watch_the_log(deployment: Deployment, log: Database) -> None:
    inside(deployment.url, _record, case="watched")
    sealed(log, Action.AUDIT_SEARCH)
    found = metrics_of(deployment)
    assert found["queue_length"] == 0
    assert found["commit_seconds_count"] > 0
    assert found["unordered_records"] == 0
    assert found["damaged"] == 0
    assert 0 <= found["checkpoint_age_seconds"] < 60
    assert 0 <= found["events_lag_seconds"] < 60


# ------------------------------------------------------------------------------------------------------- outages


def test_nobody_logs_in_while_the_log_cannot_be_written_and_service_returns_by_itself(
    deployment: Deployment, log: Database
) -> None:
    deployment.register("carol", password=PASSWORD)
    before = metrics_of(deployment).get('unrecorded_total{action_class="login",reaction="deny",}', 0)
    with write_locked(log):
        refused = deployment.client().login("carol", PASSWORD)
    assert refused.status == 403
    assert refused.body["governance"] == {"rule": "audit-unavailable", "permission": "login"}
    assert "could not be written into the audit log" in refused.error
    assert deployment.client().login("carol", PASSWORD).ok
    after = {name: value for name, value in metrics_of(deployment).items() if name.startswith("unrecorded_total")}
    assert sum(after.values()) == before + 1


def test_a_full_queue_makes_callers_wait_and_then_gives_up(
    deploy: Deploy, cluster: Postgres | None, tmp_path: Path
) -> None:
    config = {"queue_capacity": 1, "ack_timeout_ms": 1_500}
    deployment = audited(deploy, tmp_path, postgres=cluster is not None, config=config)
    log = log_of(deployment, cluster)
    sealed(log, Action.AUDIT_START)
    with write_locked(log):
        problems = inside(deployment.url, _record_many, count=5)
    assert len(problems) == 5
    assert any("wait already, as many as may" in problem for problem in problems)
    assert inside(deployment.url, _record_many, count=20) == []
    assert cases(log).count("many") >= 20


async def _record_many(api: ModuleApi, count: int) -> list[str]:
    from synapse.module_api import run_in_background  # noqa: PLC0415  inside the homeserver alone
    from twisted.internet.defer import DeferredList  # noqa: PLC0415  see above

    records = [run_in_background(_record, api, "many") for _ in range(count)]
    results: list[tuple[bool, Any]] = await DeferredList(records, consumeErrors=True)
    return [str(failure.value) for succeeded, failure in results if not succeeded]


def test_a_class_that_may_pass_unrecorded_passes_with_an_alarm(
    deploy: Deploy, cluster: Postgres | None, tmp_path: Path
) -> None:
    config = {"on_unavailable": {"login": "allow-and-alarm"}, "ack_timeout_ms": 300}
    deployment = audited(deploy, tmp_path, postgres=cluster is not None, config=config)
    deployment.register("dora", password=PASSWORD)
    with write_locked(log_of(deployment, cluster)):
        assert deployment.client().login("dora", PASSWORD).ok
        with pytest.raises(FailedInside) as caught:
            inside(deployment.url, _record, case="administration")
    assert caught.value.kind == "Unavailable"
    assert "goes ahead although it is not recorded: auth.login" in deployment.main.log()
    found = metrics_of(deployment)
    assert sum(value for name, value in found.items() if name.startswith("unrecorded_total") and "allow" in name) == 1


# --------------------------------------------------------------------------------------------- start, stop, damage


def test_an_orderly_stop_is_recorded_and_sealed_and_the_next_start_goes_on(
    deploy: Deploy, cluster: Postgres | None, tmp_path: Path
) -> None:
    deployment = audited(deploy, tmp_path, postgres=cluster is not None)
    log = log_of(deployment, cluster)
    starts = sealed(log, Action.AUDIT_START, 2)
    deployment.stop()
    stops = entries(log, Action.AUDIT_STOP)
    assert [stop["outcome"] for stop in stops] == ["success"]
    assert stops[0]["details"]["writer"] in {start["details"]["writer"] for start in starts}
    assert rows(log, "SELECT action FROM governance_audit_records WHERE closes = 1") == [("audit.stop",)]
    size, root = naive_root(log)
    newest = log.run(store.checkpoint)
    assert newest is not None
    assert (newest.size, newest.root) == (size, root)
    deployment.start()
    starts = sealed(log, Action.AUDIT_START, 3)
    assert len({start["details"]["writer"] for start in starts}) == 3  # two processes, and the room events
    assert inside(deployment.url, status)["damage"] is None


def test_a_log_that_was_edited_is_not_signed_any_more_and_says_so_but_goes_on_recording(
    deploy: Deploy, cluster: Postgres | None, tmp_path: Path
) -> None:
    deployment = audited(deploy, tmp_path, postgres=cluster is not None)
    log = log_of(deployment, cluster)
    sealed(log, Action.AUDIT_START, 2)
    deployment.main.stop()
    execute(log, "UPDATE governance_audit_records SET leaf = ? WHERE wseq = 0", (b"{}",))
    deployment.main.start()
    damage = wait_until(lambda: inside(deployment.url, status)["damage"], what="the damage is noticed")
    assert "contradict the signed checkpoint" in damage
    assert wait_until(lambda: metrics_of(deployment)["damaged"], what="the metric shows it") == 1
    checkpoint = log.run(store.checkpoint)
    inside(deployment.url, _record, case="after the damage")
    assert "after the damage" in cases(log)
    assert inside(deployment.url, status)["unordered"] > 0
    assert log.run(store.checkpoint) == checkpoint
    assert deployment.main.log().count("audit log, damage") == 1


def test_a_signed_log_does_not_start_without_its_key(deploy: Deploy, cluster: Postgres | None, tmp_path: Path) -> None:
    deployment = audited(deploy, tmp_path, postgres=cluster is not None)
    sealed(log_of(deployment, cluster), Action.AUDIT_START)
    deployment.main.stop()
    key = tmp_path / "audit.key"
    kept = key.read_text()
    key.unlink()
    with pytest.raises(ProcessDied, match=r"audit\.key: found 'No such file or directory'"):
        deployment.main.start()
    assert not key.exists()
    key.write_text(kept)
    with pytest.raises(ProcessDied, match="others must not read the key"):
        deployment.main.start()
    key.chmod(0o600)
    deployment.main.start()


def test_on_postgresql_the_key_has_to_be_named(deploy: Deploy) -> None:
    with pytest.raises(ProcessDied, match=r"config\.signing_key_path: found None, expected a path"):
        deploy(postgres=True, modules=[{"module": "tests.module.audit_module.AuditUnderTest", "config": {}}])


# ------------------------------------------------------------------------------------------------------- workers


def test_every_worker_records_for_itself_and_one_process_orders_all(
    deploy: Deploy, postgres: Postgres, tmp_path: Path
) -> None:
    deployment = audited(deploy, tmp_path, workers=2)
    log = log_of(deployment, postgres)
    started = sealed(log, Action.AUDIT_START, 4)
    assert {entry["process"] for entry in started} == {"main", "worker1", "worker2"}
    erin = deployment.register("erin", password=PASSWORD)
    for url in deployment.urls:
        assert deployment.client(url).login("erin", PASSWORD).ok
    logins = sealed(log, Action.AUTH_LOGIN, len(deployment.urls))
    assert {entry["process"] for entry in logins} >= {"main", "worker1", "worker2"}
    room = erin.create_room(name="tea").expect()["room_id"]
    event_id = erin.send(room, "from a worker").expect()["event_id"]
    for worker in deployment.workers:
        local = erin.at(worker.url)
        wait_until(partial(_has, local, room, event_id), what="the worker has the event")
        inside(worker.url, _catch_up)
    sent = rows(log, "SELECT leaf FROM governance_audit_records WHERE action = 'message.send'")
    assert [json.loads(leaf)["details"]["event_id"] for (leaf,) in sent] == [event_id]
    found = [inside(url, status) for url in deployment.urls[:3]]
    assert {each["process"] for each in found} == {"main", "worker1", "worker2"}
    assert all(each["damage"] is None and each["problems"] == {} for each in found)


def _has(client: MatrixClient, room: str, event_id: str) -> bool:
    return client.event(room, event_id).ok
