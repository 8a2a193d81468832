"""What the request log needs of Synapse's private symbols. A release is supported once all of this passes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.homeserver import internals
from synapse_modules.homeserver.access_log import AccessLog
from synapse_modules.homeserver.public import Homeserver
from tests.module.support import inside, probe
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from synapse_modules.core.served_requests import ServedRequest
    from tests.conftest import Deploy
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment


class Ear:
    """Hears every request but those of the probe itself."""

    def __init__(self) -> None:
        self.heard: list[ServedRequest] = []
        self.problems: list[str] = []

    def wanted(self, method: str, uri: str, status: int | None) -> bool | None:
        del method, status
        return None if uri.startswith(("/_synapse/client/probe", "/health", "/_synapse/metrics")) else True

    def take(self, request: ServedRequest, wanted: bool) -> None:
        del wanted
        self.heard.append(request)

    def missed(self, problem: str) -> None:
        self.problems.append(problem)


EAR = Ear()


def listen(api: ModuleApi) -> None:
    """Setup of the probe: hear what this process answers."""
    AccessLog.of(Homeserver(api), EAR).open()


def heard(_api: ModuleApi) -> dict[str, Any]:
    """What was heard since the last time."""
    found = [{name: getattr(each, name) for name in type(each).__slots__} for each in EAR.heard]
    EAR.heard.clear()
    return {"requests": found, "problems": EAR.problems}


def in_use(api: ModuleApi) -> list[list[str]]:
    """The loggers with which this process writes its request log, and those that we know of."""
    from twisted.internet import reactor  # noqa: PLC0415  inside the homeserver alone

    readers: Any = reactor
    factories: list[Any] = [getattr(reader, "factory", None) for reader in readers.getReaders()]
    used = {factory.access_logger.name for factory in factories if hasattr(factory, "access_logger")}
    return [sorted(used), sorted(internals.access_loggers(api))]


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy) -> Deployment:
    """One process that hears its own requests."""
    deployment = deploy_shared(modules=[probe(listen)])
    inside(deployment.url, heard)
    return deployment


def last(deployment: Deployment) -> dict[str, Any]:
    """The newest request that was heard, once there is one."""

    def look() -> list[dict[str, Any]]:
        found = inside(deployment.url, heard)
        assert found["problems"] == []
        requests: list[dict[str, Any]] = found["requests"]
        return requests

    return wait_until(look, what="something was heard")[-1]


# --------------------------------------------------------------------------------------------------- the loggers


def test_the_loggers_of_the_request_log_are_known(deployment: Deployment) -> None:
    used, known = inside(deployment.url, in_use)
    assert len(used) == 1
    assert used == known


def test_so_are_those_of_listeners_with_a_name_of_their_own(deploy: Deploy) -> None:
    deployment = deploy(modules=[probe()])
    deployment.stop()
    deployment.settings["listeners"][0]["tag"] = "the.clients"
    socket_path = str(deployment.folder / "clients.sock")
    deployment.settings["listeners"].append({**UNIX, "path": socket_path})
    deployment.start()
    used, known = inside(deployment.url, in_use)
    assert used == known
    assert len(used) == 2
    assert "synapse.access.http.the.clients" in used


UNIX: dict[str, Any] = {"type": "http", "resources": [{"names": ["client"]}]}


def test_so_are_those_of_workers(deploy: Deploy, postgres: Postgres) -> None:
    del postgres
    deployment = deploy(workers=1, modules=[probe()])
    for process in (deployment.main, *deployment.workers):
        used, known = inside(process.url, in_use)
        assert len(used) == 2  # clients, and the other processes
        assert used == known


# ------------------------------------------------------------------------------------------------------ the lines


def test_a_line_tells_method_path_status_length_address_and_client(deployment: Deployment) -> None:
    headers = {
        "User-Agent": 'tea "cup"/1 {x}',
        "X-Forwarded-For": "203.0.113.9, 10.0.0.1",
        "X-Forwarded-Proto": "https",
    }
    reply = deployment.client().request("GET", "/_matrix/client/v3/login?x=%20y", headers=headers)
    request = last(deployment)
    assert request == {
        "method": "GET",
        "uri": "/_matrix/client/v3/login?x=%20y",
        "status": 200,
        "sent_bytes": len(reply.text),
        "address": "203.0.113.9",
        "user_agent": 'tea "cup"/1 {x}',
        "user_id": None,
        "entity": None,
        "request_id": request["request_id"],
    }
    assert request["request_id"].startswith("GET-")


def test_a_line_tells_who_asked_and_in_whose_name(deployment: Deployment) -> None:
    root = deployment.register("root", admin=True)
    alice = deployment.register("alice")
    alice.whoami().expect()
    request = last(deployment)
    assert (request["user_id"], request["entity"]) == (alice.user_id, alice.user_id)
    token = root.admin("POST", f"v1/users/{alice.user_id}/login", {}).expect()["access_token"]
    type(alice)(alice.url, alice.user_id, token).whoami().expect()
    request = last(deployment)
    assert (request["user_id"], request["entity"]) == (alice.user_id, root.user_id)


def test_a_line_tells_that_it_was_refused(deployment: Deployment) -> None:
    assert deployment.client().whoami().status == 401
    request = last(deployment)
    assert (request["status"], request["user_id"]) == (401, None)
    assert deployment.client().request("GET", "/_matrix/client/v3/no/such").status == 404
    assert last(deployment)["status"] == 404


def test_access_tokens_are_taken_out_of_the_path(deployment: Deployment) -> None:
    deployment.client().request("GET", "/_matrix/client/v3/account/whoami?a=1&access_token=syt_secret&b=2")
    assert last(deployment)["uri"] == "/_matrix/client/v3/account/whoami?a=1&access_token=<redacted>&b=2"


def test_a_client_that_is_gone_before_the_answer_has_no_status(deployment: Deployment) -> None:
    bob = deployment.register("bob")
    inside(deployment.url, heard)
    since = bob.sync().expect()["next_batch"]
    inside(deployment.url, heard)
    host, port = deployment.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        path = f"/_matrix/client/v3/sync?since={since}&timeout=5000"
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bob.token}\r\n\r\n"
        connection.sendall(head.encode())
        wait_until(lambda: inside(deployment.url, in_flight, path=path), what="the request is being served")
    request = wait_until(lambda: inside(deployment.url, heard)["requests"], what="the line")[-1]
    assert (request["uri"], request["status"]) == (path, None)


def in_flight(_api: ModuleApi, path: str) -> bool:
    """Whether a request for ``path`` is being served."""
    from synapse.http.site import SynapseRequest  # noqa: PLC0415  inside the homeserver alone

    requests = (each for each in gc.get_objects() if isinstance(each, SynapseRequest))
    return any(each.uri == path.encode() and each._is_processing and each.requester for each in requests)


@pytest.mark.parametrize(
    "path",
    [
        "/_matrix/client/v3/profile/%00%ff%fe/displayname",
        "/_matrix/client/v3/profile/%252e%252e%252f/displayname",
        f"/_matrix/client/v3/profile/{'x' * 12_000}/displayname",
        "/_matrix/client/v3/profile/%s%d{}|/displayname",
    ],
    ids=["no text", "escaped twice", "long", "a format"],
)
def test_hostile_paths_are_heard_as_they_came(deployment: Deployment, path: str) -> None:
    host, port = deployment.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        while connection.recv(65_536):
            continue
    assert last(deployment)["uri"] == path


# ---------------------------------------------------------------------------------------------- the configuration

LEVELS: list[int] = []


def watch_reloads(api: ModuleApi) -> None:
    """Setup of the probe: note the level of a logger whenever the log configuration was read anew."""
    internals.after_log_reload(api, lambda: LEVELS.append(logging.getLogger("synapse.access").level))


def levels(_api: ModuleApi) -> list[int]:
    return LEVELS


def test_we_are_told_after_the_log_configuration_was_read_anew(deploy: Deploy) -> None:
    deployment = deploy(modules=[probe(watch_reloads)])
    config = deployment.folder / "log.yaml"
    config.write_text(
        config.read_text().replace('"root":', '"loggers": {"synapse.access": {"level": "ERROR"}}, "root":')
    )
    os.kill(deployment.main.process.pid, signal.SIGHUP)
    assert wait_until(lambda: inside(deployment.url, levels), what="the reload") == [logging.ERROR]


def _fields(api: ModuleApi) -> list[str] | None:
    fields = internals.password_fields(api)
    return None if fields is None else list(fields)


async def _check(*_: Any) -> None:
    return None


def with_one_time_passwords(api: ModuleApi) -> None:
    """Setup of the probe: another module that wants more than a password."""
    api.register_password_auth_provider_callbacks(auth_checkers={("m.login.password", ("password", "otp")): _check})


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({}, ["password"]),
        ({"password_config": {"enabled": "only_for_reauth"}}, ["password"]),
        ({"password_config": {"enabled": False}}, None),
        ({"password_config": {"localdb_enabled": False}}, None),
        (
            {
                "matrix_authentication_service": {"enabled": True, "endpoint": "http://127.0.0.1:1/", "secret": "x"},
                "enable_registration": False,
            },
            None,
        ),
    ],
    ids=["passwords", "passwords to confirm", "no passwords", "passwords elsewhere", "delegated"],
)
def test_it_is_known_whether_this_homeserver_compares_passwords(
    deploy: Deploy, settings: dict[str, Any], fields: list[str] | None
) -> None:
    deployment = deploy(modules=[probe()], extra=settings)
    assert inside(deployment.url, _fields) == fields


def test_what_another_module_asks_for_beside_the_password_stays_asked_for(deploy: Deploy) -> None:
    deployment = deploy(modules=[probe(with_one_time_passwords)])
    assert inside(deployment.url, _fields) == ["password", "otp"]


# ------------------------------------------------------------------------------------------------------- accounts


async def _is_erased(api: ModuleApi, user_id: str) -> bool:
    return await internals.is_erased(api, user_id)


def test_it_is_known_who_is_erased(deployment: Deployment) -> None:
    root = deployment.register("root2", admin=True)
    gone, erased = deployment.register("gone"), deployment.register("erased")
    for user, erase in ((gone, False), (erased, True)):
        root.admin("POST", f"v1/deactivate/{user.user_id}", {"erase": erase}).expect()
    assert [inside(deployment.url, _is_erased, user_id=each.user_id) for each in (gone, erased)] == [False, True]
