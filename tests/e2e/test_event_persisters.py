"""Two workers that store events are killed and started again under load: the audit log misses and doubles nothing."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.module.audit_module import audited, log_of, service
from tests.module.support import inside
from tests.support.audit_log import rows
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from synapse.module_api import ModuleApi

    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

ROOMS = 6
SECONDS = 20


@pytest.fixture
def deployment(deploy: Deploy, postgres: Postgres, tmp_path: Path) -> Deployment:
    """Main process, which follows, and two workers, which store all events."""
    del postgres
    return audited(deploy, tmp_path, workers=2, extra={"stream_writers": {"events": ["worker1", "worker2"]}})


@pytest.fixture
def log(deployment: Deployment, postgres: Postgres) -> Database:
    """The log's database."""
    return log_of(deployment, postgres)


def stored(postgres: Postgres, deployment: Deployment) -> dict[str, str]:
    """Every event that is stored, and who stored it."""
    found = postgres.execute("SELECT event_id, instance_name FROM events", database=deployment.database)
    return dict(found)


def told(log: Database) -> set[str]:
    """Every event that has records; checked to have each of them once."""
    found = rows(
        log, "SELECT wseq, leaf FROM governance_audit_records WHERE writer = 'events' AND wseq > 0 ORDER BY wseq"
    )
    assert [wseq for wseq, _ in found] == list(range(1, len(found) + 1))
    leaves = [json.loads(leaf) for _, leaf in found]
    sent = [leaf["details"]["event_id"] for leaf in leaves if leaf["action"] == "message.send"]
    assert len(sent) == len(set(sent))
    return {leaf["details"]["event_id"] for leaf in leaves}


async def _catch_up(_api: ModuleApi) -> None:
    await service().catch_up()


class Load:
    """Clients that send until they are told to stop, whatever answers they get."""

    def __init__(self, clients: list[tuple[MatrixClient, str]]) -> None:
        self.acknowledged: list[str] = []
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(len(clients))
        self._running = [self._pool.submit(self._send, client, room) for client, room in clients]

    def has_more_than(self, count: int) -> bool:
        """Whether more than ``count`` messages were acknowledged."""
        return len(self.acknowledged) > count

    def stop(self) -> None:
        """Send no more; fails if a client did."""
        self._ended.set()
        for each in self._running:
            each.result()
        self._pool.shutdown()

    def _send(self, client: MatrixClient, room: str) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(httpx.TransportError):
                reply = client.send(room)
                if reply.ok:
                    self.acknowledged.append(reply.body["event_id"])


def test_writers_of_events_are_killed_under_load_and_the_log_misses_and_doubles_nothing(
    deployment: Deployment, log: Database, postgres: Postgres
) -> None:
    alice = deployment.register("alice").at(deployment.main.url)
    load = Load([(alice, alice.create_room().expect()["room_id"]) for _ in range(ROOMS)])
    choose = random.Random(7)  # noqa: S311  a schedule, no secret
    kills = 0
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline:
            seen = len(load.acknowledged)
            wait_until(partial(load.has_more_than, seen + 10), what="messages are on their way", timeout=60)
            worker = choose.choice(deployment.workers)
            worker.kill()
            worker.start()
            kills += 1
    finally:
        load.stop()
    inside(deployment.main.url, _catch_up)
    events = stored(postgres, deployment)
    assert kills >= 2
    assert {"worker1", "worker2"} <= set(events.values())
    assert set(load.acknowledged) <= set(events)
    assert told(log) == set(events)
