"""The log as tiles over HTTP, in the whole product on both engines: who may read it, what comes, what is recorded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_modules.audit import log_routes
from synapse_modules.audit.checkpoint import Checkpoint, VerifierKey, open_note
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver.routes import BASE_PATH
from synapse_modules.wiring import runtime_of
from tests.module.support import inside, probe
from tests.support.governance import OPEN_POLICY, all_modules
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment

SIZE = 600
POLICY: dict[str, Any] = {
    **OPEN_POLICY,
    "roles": {**OPEN_POLICY["roles"], "monitor": {"allow": ["audit.read"]}},
    "bindings": [
        *OPEN_POLICY["bindings"],
        {"role": "monitor", "user": "@monitor:synapse.test", "scope": "server"},
        {"role": "monitor", "user": "@officer:synapse.test", "scope": "server"},
    ],
}


async def fill(api: ModuleApi, count: int) -> None:
    sink = runtime_of(api).audit.sink
    assert sink is not None
    for number in range(count):
        await sink.record(AuditEvent(Action.AUDIT_SEARCH, actor=f"@user{number}:synapse.test"))


def break_records(api: ModuleApi, broken: bool) -> None:
    """Let nothing be recorded, as when the log's disk is full."""

    async def fail(_event: AuditEvent) -> None:
        raise Unavailable("the disk is full")

    sink: Any = runtime_of(api).audit.sink
    if broken:
        sink.record = fail
    else:
        del sink.record


def let_an_hour_pass(_api: ModuleApi, hours: int = 1) -> None:
    log_routes._SESSION_MS = -1 if hours else 3600 * 1000


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    modules = [*all_modules(tmp_path_factory.mktemp("governance"), POLICY), probe()]
    found = deploy_shared(postgres=engine == "postgres", modules=modules)
    inside(found.url, fill, count=SIZE)
    return found


@pytest.fixture(scope="module")
def monitor(deployment: Deployment) -> MatrixClient:
    return deployment.register("monitor")


@pytest.fixture(scope="module")
def officer(deployment: Deployment) -> MatrixClient:
    return deployment.register("officer")


@pytest.fixture(scope="module")
def guest(deployment: Deployment) -> MatrixClient:
    return deployment.register("guest")


def get(client: MatrixClient, path: str, encoding: str = "identity") -> httpx.Response:
    """The answer as it came over the wire."""
    headers = {"Authorization": f"Bearer {client.token}"} if client.token else {}
    url = f"{client.url}{BASE_PATH}/audit/log/{path}"
    return httpx.get(url, headers={**headers, "Accept-Encoding": encoding}, trust_env=False)


def signed(client: MatrixClient, at_least: int = SIZE) -> Checkpoint:
    """The checkpoint, once it has so many entries."""

    def newest() -> list[Checkpoint]:
        answer = get(client, "checkpoint")
        if answer.status_code != 200:
            return []
        found = Checkpoint.parse(answer.text.rpartition("\n\n")[0] + "\n")
        return [found] if found.size >= at_least else []

    (found,) = wait_until(newest, what=f"{at_least} entries have a checkpoint")
    return found


def split(bundle: bytes) -> list[bytes]:
    """The entries of a bundle."""
    entries = []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    return entries


def sessions(officer: MatrixClient, name: str) -> list[dict[str, Any]]:
    """The records of ``name``'s reading as a monitor."""
    query = {"case": "C-1", "action": "audit.monitor", "actor": f"@{name}:synapse.test"}
    found: list[dict[str, Any]] = officer.governance("GET", "audit/entries", **query).expect()["entries"]
    return found


# ------------------------------------------------------------------------------------------------------- access


def test_the_checkpoint_is_for_every_user_and_for_nobody_else(guest: MatrixClient, monitor: MatrixClient) -> None:
    answer = get(guest, "checkpoint")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert answer.headers["Cache-Control"] == "no-store"
    (key,) = monitor.governance("GET", "audit/checkpoint").expect()["keys"]
    text, _ = open_note(answer.text, [VerifierKey.parse(key)])
    assert Checkpoint.parse(text).origin == "synapse.test/governance-audit"
    assert get(guest.at(guest.url), "checkpoint").status_code == 200
    nobody = httpx.get(f"{guest.url}{BASE_PATH}/audit/log/checkpoint", trust_env=False)
    assert nobody.status_code == 401


@pytest.mark.parametrize("path", ["tile/0/000", "tile/entries/000"])
def test_tiles_and_bundles_need_the_permission_to_read_the_log(guest: MatrixClient, path: str) -> None:
    answer = get(guest, path)
    assert (answer.status_code, answer.json()["governance"]["permission"]) == (403, "audit.read")


# --------------------------------------------------------------------------------------------------------- tiles


def test_tiles_hold_the_hashes_of_the_entries_in_the_bundles(monitor: MatrixClient) -> None:
    size = signed(monitor).size
    for path in ("000", "001", f"002.p/{min(size, SIZE) - 512}"):
        tile, bundle = get(monitor, f"tile/0/{path}"), get(monitor, f"tile/entries/{path}")
        assert tile.headers["Content-Type"] == bundle.headers["Content-Type"] == "application/octet-stream"
        assert tile.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        entries = split(bundle.content)
        assert tile.content == b"".join(hashlib.sha256(b"\x00" + entry).digest() for entry in entries)
    assert len(get(monitor, "tile/0/000").content) == 8192
    assert len(get(monitor, "tile/1/000.p/2").content) == 64


def test_no_entry_names_anybody(monitor: MatrixClient) -> None:
    signed(monitor)
    bundle = get(monitor, "tile/entries/001").content
    assert b"audit.search" in bundle
    assert b"@user" not in bundle


def test_a_bundle_is_compressed_for_who_accepts_that(monitor: MatrixClient) -> None:
    signed(monitor)
    plain = get(monitor, "tile/entries/000")
    assert "Content-Encoding" not in plain.headers
    for encoding in ("gzip", "gzip, identity", "br;q=1.0, GZIP;q=0.5"):
        packed = get(monitor, "tile/entries/000", encoding)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert int(packed.headers["Content-Length"]) < len(plain.content) / 2
        assert packed.content == plain.content  # httpx has unpacked it
    for encoding in ("gzip;q=0", "br, gzip; q=0.0", "*;q=0"):
        assert "Content-Encoding" not in get(monitor, "tile/entries/000", encoding).headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tile/0/999", 404),
        ("tile/0/x999/999", 404),
        ("tile/2/000", 404),
        ("tile/63/000.p/1", 404),
        ("tile/1/000.p/200", 404),
        ("tile/entries/999", 404),
        ("tile/0/0", 400),
        ("tile/0/x000/000", 400),
        ("tile/0/000.p/256", 400),
        ("tile/64/000", 400),
        ("tile/00/000", 400),
        ("tile/entries/000.p/0", 400),
        ("tile/entries", 404),
        ("tile/0/000/", 404),
        ("tile", 404),
    ],
)
def test_what_is_not_there_or_wrongly_written_is_refused(monitor: MatrixClient, path: str, status: int) -> None:
    signed(monitor)
    answer = get(monitor, path)
    assert answer.status_code == status, answer.text
    assert answer.json()["errcode"]


def test_what_has_no_checkpoint_yet_is_not_served(monitor: MatrixClient) -> None:
    size = signed(monitor).size
    beyond = get(monitor, f"tile/0/{size // 256:03d}")
    assert beyond.status_code == 404
    assert "entries with a checkpoint" in beyond.json()["error"]


# ------------------------------------------------------------------------------------------------------ recording


def test_a_monitor_is_recorded_once_an_hour(
    deployment: Deployment, officer: MatrixClient, monitor: MatrixClient
) -> None:
    signed(monitor)
    for path in ("tile/0/000", "tile/entries/000", "tile/0/001", "tile/1/000.p/1"):
        assert get(monitor, path).status_code == 200
    (first,) = wait_until(lambda: sessions(officer, "monitor"), what="the monitor is in the log")
    assert first["device"]
    assert set(first["details"]) == {"tree_size", "request_id"}
    inside(deployment.url, let_an_hour_pass)
    second = deployment.client().with_login(deployment.client().login("monitor", "wonderland"))
    get(second, "tile/0/000")
    get(second, "tile/0/000")
    inside(deployment.url, let_an_hour_pass, hours=0)
    wait_until(lambda: len(sessions(officer, "monitor")) == 3, what="every hour has a record")


def test_a_monitor_that_cannot_be_recorded_gets_nothing(deployment: Deployment, monitor: MatrixClient) -> None:
    signed(monitor)
    other = deployment.client().with_login(deployment.client().login("monitor", "wonderland"))
    inside(deployment.url, break_records, broken=True)
    try:
        answers = [get(other, path).status_code for path in ("tile/0/000", "tile/entries/000")]
    finally:
        inside(deployment.url, break_records, broken=False)
    assert answers == [503, 503]
    assert get(other, "tile/0/000").status_code == 200
