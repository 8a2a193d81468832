"""The harness itself, on stock Synapse without modules: every process serves, and they are one homeserver."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.process import ProcessDied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment


def test_a_message_sent_through_one_worker_is_read_through_the_other_and_through_nginx(
    stock_workers: Deployment,
) -> None:
    first, second = stock_workers.workers
    stock_workers.register("alice", password="rabbit-hole")
    alice = stock_workers.client(first.url)
    alice = alice.with_login(alice.login("alice", "rabbit-hole"))

    room = alice.create_room(preset="private_chat").expect()["room_id"]
    alice.send(room, "through the first worker").expect()

    for there in map(alice.at, (first.url, second.url, stock_workers.main.url, stock_workers.url)):
        wait_until(partial(_reads, there, room, "through the first worker"), what=f"the message is read at {there.url}")


def test_nginx_spreads_ordinary_routes_over_workers_and_keeps_the_rest_on_the_main_process(
    stock_workers: Deployment,
) -> None:
    bob = stock_workers.register("bob")
    room = bob.create_room().expect()["room_id"]
    for _ in range(4):
        bob.state(room).expect()
    bob.admin("GET", "v1/server_version").expect()
    bob.client("PUT", "rooms", room, "typing", bob.user_id, body={"typing": True, "timeout": 1000}).expect()

    # nginx writes its log after it has answered.
    wait_until(lambda: "/%40bob" in str(_ports_by_path(stock_workers)), what="the last request is in nginx's log")
    ports = _ports_by_path(stock_workers)
    workers = {worker.url.rpartition(":")[2] for worker in stock_workers.workers}
    main = {stock_workers.main.url.rpartition(":")[2]}
    assert ports["/state"] == workers
    assert ports["/server_version"] == main
    assert any(path.startswith("/%40bob") and found == main for path, found in ports.items())


def test_a_worker_that_was_killed_comes_back(deploy: Deploy) -> None:
    deployment = deploy(workers=1)
    carol = deployment.register("carol").at(deployment.workers[0].url)

    deployment.workers[0].kill()
    deployment.workers[0].start()

    assert carol.whoami().expect()["user_id"] == "@carol:synapse.test"


def test_data_survives_a_restart_of_everything(deploy: Deploy) -> None:
    deployment = deploy()
    dora = deployment.register("dora")

    deployment.stop()
    assert not deployment.main.process.running
    deployment.start()

    assert dora.whoami().ok


def test_a_mistake_in_the_configuration_shows_in_the_error(deploy: Deploy) -> None:
    with pytest.raises(ProcessDied, match="no_such_module"):
        deploy(modules=[{"module": "no_such_module.Module", "config": {}}])


def test_a_module_of_the_test_tree_is_loaded(deploy: Deploy) -> None:
    deployment = deploy(modules=[{"module": "tests.support.sample_module.DenyRooms", "config": {}}])

    refused = deployment.register("erin").create_room()

    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")


def test_an_administrator_may_use_the_admin_api_and_others_may_not(stock: Deployment) -> None:
    assert stock.register("root", admin=True).admin("GET", "v2/users").ok
    assert stock.register("frank").admin("GET", "v2/users").status == 403


def _reads(client: MatrixClient, room: str, text: str) -> bool:
    return client.texts(room) == [text]


def _ports_by_path(deployment: Deployment) -> dict[str, set[str]]:
    """From nginx's log: the last segment of each path, and the upstream ports that served it."""
    assert deployment.nginx is not None
    found: dict[str, set[str]] = {}
    for line in deployment.nginx.access_log.read_text().splitlines():
        _, uri, _, upstream = line.split()
        segment = "/" + uri.partition("?")[0].rpartition("/")[2]
        found.setdefault(segment, set()).add(upstream.rpartition(":")[2])
    return found
