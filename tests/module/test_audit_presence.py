"""Heartbeats, and what they bring along, in real homeserver processes, on both engines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules import __version__
from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from tests.module.audit_module import audited, log_of, service
from tests.module.support import inside
from tests.support.audit_log import rows, write_locked
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

CONFIG: dict[str, Any] = {
    "heartbeat_interval_s": 1,
    "ack_timeout_ms": 300,
    "on_unavailable": {"login": "allow-and-alarm"},
}


@pytest.fixture(scope="module")
def cluster(engine: str, request: pytest.FixtureRequest) -> Postgres | None:
    """The PostgreSQL cluster, or None on SQLite."""
    found: Postgres | None = request.getfixturevalue("postgres") if engine == "postgres" else None
    return found


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, cluster: Postgres | None, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return audited(deploy_shared, tmp_path_factory.mktemp("key"), postgres=cluster is not None, config=CONFIG)


@pytest.fixture
def log(deployment: Deployment, cluster: Postgres | None) -> Database:
    return log_of(deployment, cluster)


async def status(_api: ModuleApi) -> dict[str, Any]:
    return await service().status()


def details(log: Database, action: Action) -> list[dict[str, Any]]:
    """The details of every record of ``action``, in the order in which their process made them."""
    found = rows(
        log, "SELECT leaf FROM governance_audit_records WHERE action = ? ORDER BY time_ms, wseq", (action.value,)
    )
    made = [json.loads(leaf)["details"] for (leaf,) in found]
    for each in made:
        check_details(action, each)
    return made


def test_a_process_says_again_and_again_that_it_is_there_and_what_it_runs(
    deployment: Deployment, log: Database
) -> None:
    first, second, third, *_ = wait_until(
        lambda: found if len(found := details(log, Action.AUDIT_HEARTBEAT)) > 2 else [], what="three heartbeats"
    )
    assert first["writer"].startswith("main:")
    assert (first["product_version"], first["modules"]) == (__version__, ["AuditModule"])
    assert first["since_ms"] <= second["since_ms"]
    assert 500 < third["since_ms"] - second["since_ms"] < 10_000
    (process,) = wait_until(
        lambda: [each for each in inside(deployment.url, status)["processes"] if each["modules"]],
        what="the status shows the process",
    )
    assert (process["process"], process["recording"], process["problem"]) == ("main", True, None)
    assert process["product_version"] == __version__


def test_a_heartbeat_counts_what_was_recorded_and_what_could_not_be(deployment: Deployment, log: Database) -> None:
    deployment.register("alice")
    for _ in range(5):
        deployment.client().login("alice", "wonderland").expect()
    with write_locked(log):
        assert deployment.client().login("alice", "wonderland").ok
    known = len(details(log, Action.AUDIT_HEARTBEAT))

    def later() -> list[dict[str, Any]]:
        found = details(log, Action.AUDIT_HEARTBEAT)
        return found if len(found) > known + 2 else []

    beats = wait_until(later, what="heartbeats come again")
    assert sum(beat["unrecorded"] for beat in beats) == 1
    total = len(rows(log, "SELECT 1 FROM governance_audit_records WHERE writer LIKE 'main:%'"))
    assert 5 < sum(beat["records"] for beat in beats) <= total
    (gap,) = details(log, Action.AUDIT_GAP)
    assert (gap["action_class"], gap["records"], gap["allowed"]) == ("login", 1, True)
    assert gap["since_ms"] <= gap["until_ms"]


async def _beat(_api: ModuleApi, times: int) -> int:
    for _ in range(times):
        await service()._heartbeat.beat()
    return len(service()._intake)


def test_while_records_wait_so_does_one_heartbeat_and_no_more(deployment: Deployment, log: Database) -> None:
    with write_locked(log):
        inside(deployment.url, _beat, times=1)  # this one is being written, and waits for the lock
        waiting = inside(deployment.url, _beat, times=1)
        assert inside(deployment.url, _beat, times=10) == waiting <= 1
    known = len(details(log, Action.AUDIT_HEARTBEAT))
    wait_until(lambda: len(details(log, Action.AUDIT_HEARTBEAT)) > known, what="heartbeats come again")
