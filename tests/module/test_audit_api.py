"""The audit log over HTTP on a real homeserver, with a real log behind it, on both engines."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_modules.audit.api import audit_routes
from synapse_modules.audit.checkpoint import Checkpoint, VerifierKey, open_note
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.verify import VerifiedBundle, verify_bundle
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.ports import AuditEvent, Decision
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.public import Homeserver
from synapse_modules.homeserver.web import Router
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.module.audit_module import service
from tests.module.support import inside, probe
from tests.support.audit_log import KEY
from tests.support.filled_log import FilledLog, sample_events
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from synapse.module_api import ModuleApi

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.core.permissions import Permission
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.synapse import Deployment

SIZE = 300

# ---------------------------------------------------------------------------------------- inside the homeserver


class _Log:
    """What the API needs of the audit service: a stored log, in which every record is sealed at once."""

    def __init__(self, homeserver: Homeserver, database: Database) -> None:
        self._homeserver = homeserver
        self.filled = FilledLog(database)
        self.filled.fill(sample_events(SIZE))
        self.reader = homeserver.threaded(database, homeserver.threads("audit-readers", 2), read_only=True)
        self.signing_keys: Sequence[SigningKey] = (KEY,)
        self.fails = False

    async def record(self, event: AuditEvent) -> None:
        check_event(event)
        if self.fails:
            raise Unavailable("the secret disk is full")
        await self._homeserver.api.defer_to_thread(self.filled.fill, [event])

    async def status(self) -> dict[str, Any]:
        return {"origin": KEY.verifier.name, "waiting": 0}


class _Authorizer:
    """Lets everybody do everything but Mallory."""

    async def decide(self, user_id: str, permission: Permission, room_id: str | None = None) -> Decision:
        del room_id
        return Decision(not user_id.startswith("@mallory:"), f"role:any {permission}", "Mallory may not.")


class _Denials:
    """Where the router leaves refusals; not what is tested here."""

    async def record(self, event: AuditEvent) -> None:
        """Leave it aside."""

    def record_in(self, transaction: Any, event: AuditEvent) -> None:
        raise NotImplementedError


_LOGS: list[_Log] = []


def _mount(api: ModuleApi) -> None:
    homeserver = Homeserver(api)
    location = internals.database_location(api)
    if location.dialect is Dialect.SQLITE:
        location = DatabaseLocation(Dialect.SQLITE, {"database": location.arguments["database"] + "-audit"})
    _LOGS.append(_Log(homeserver, Database(location)))
    router = Router(homeserver, _Authorizer(), _Denials(), "1.2.3")
    router.add(audit_routes(homeserver, _LOGS[0]))
    router.mount()


def _mount_service(api: ModuleApi) -> None:
    homeserver = Homeserver(api)
    router = Router(homeserver, _Authorizer(), service(), "1.2.3")
    router.add(audit_routes(homeserver, service()))
    router.mount()


def _set(_api: ModuleApi, *, fails: bool = False, key: bool = True) -> None:
    _LOGS[0].fails = fails
    _LOGS[0].signing_keys = (KEY,) if key else ()


# ------------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str) -> Deployment:
    return deploy_shared(postgres=engine == "postgres", modules=[probe(_mount)])


@pytest.fixture(scope="module")
def officer(deployment: Deployment) -> MatrixClient:
    return deployment.register("officer")


@pytest.fixture(scope="module")
def mallory(deployment: Deployment) -> MatrixClient:
    return deployment.register("mallory")


@pytest.fixture(autouse=True)
def working(deployment: Deployment) -> None:
    inside(deployment.url, _set)


def search(officer: MatrixClient, **query: str | int) -> Reply:
    return officer.governance("GET", "audit/entries", case="C-1", **query)


def newest(officer: MatrixClient) -> dict[str, Any]:
    """The newest entry of the log, which is one before the search for it."""
    found: list[dict[str, Any]] = search(officer, limit=1).expect()["entries"]
    return found[0]


def export(officer: MatrixClient, **body: str | int | list[int]) -> Reply:
    return officer.governance("POST", "audit/export", {"case_id": "C-2", **body})


def verified(reply: Reply) -> VerifiedBundle:
    assert reply.status == 200, reply.text
    return verify_bundle(io.BytesIO(reply.text.encode()), KnownKeys([KEY.verifier]))


def size(officer: MatrixClient) -> int:
    return int(officer.governance("GET", "audit/checkpoint").expect()["size"])


# --------------------------------------------------------------------------------------------------------- search


def test_without_permission_nothing_of_the_log_is_served(mallory: MatrixClient) -> None:
    replies = [
        search(mallory),
        mallory.governance("GET", "audit/status"),
        mallory.governance("GET", "audit/checkpoint"),
        export(mallory),
    ]
    assert [reply.status for reply in replies] == [403, 403, 403, 403]
    permissions = [reply.body["governance"]["permission"] for reply in replies]
    assert permissions == ["audit.read", "audit.read", "audit.read", "audit.export"]


def test_a_search_finds_what_matches_with_all_that_was_recorded(officer: MatrixClient) -> None:
    found = search(officer, actor="@bob:synapse.test", outcome="denied", begin=5, end=20, limit=2).expect()
    assert [entry["index"] for entry in found["entries"]] == [17, 13]
    assert found["next_cursor"] == "13"
    entry = found["entries"][0]
    assert len(entry.pop("id")) == 32
    assert len(entry.pop("hash")) == 44
    assert entry == {
        "index": 17,
        "time_ms": 1_700_000_017_000,
        "action": "access.denied",
        "outcome": "denied",
        "actor": "@bob:synapse.test",
        "target": "@alice:synapse.test",
        "room": "!room:synapse.test",
        "rule": "default",
        "case": None,
        "reason": 'Nothing "allows" it\n',
        "details": {"permission": "room.invite"},
        "address": None,
        "user_agent": None,
        "device": None,
        "server": "synapse.test",
        "process": "main",
        "erased": [],
    }


def test_pages_lead_to_the_end(officer: MatrixClient) -> None:
    indexes: list[int] = []
    cursor: dict[str, str | int] = {}
    while True:
        page = search(officer, action="message.send", end=SIZE, limit=20, **cursor).expect()
        indexes += [entry["index"] for entry in page["entries"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert indexes == list(range(298, -1, -4))


def test_every_search_is_itself_an_entry_that_names_nobody_in_its_details(officer: MatrixClient) -> None:
    search(officer, actor="@bob:synapse.test", address="192.0.2.1", since_ms=5, room="!room:synapse.test", limit=3)
    entry = newest(officer)
    assert (entry["action"], entry["outcome"], entry["case"]) == ("audit.search", "success", "C-1")
    assert (entry["actor"], entry["target"]) == (officer.user_id, "@bob:synapse.test")
    assert (entry["room"], entry["address"]) == ("!room:synapse.test", "127.0.0.1")
    request_id = entry["details"].pop("request_id")
    assert request_id.startswith("GET-")
    assert entry["details"] == {
        "conditions": ["actor", "address", "room", "since_ms"],
        "filter": {"since_ms": 5},
        "entries": 0,
    }


def test_each_page_is_recorded_with_how_many_entries_it_showed(officer: MatrixClient) -> None:
    before = size(officer)
    cursor = search(officer, end=SIZE, limit=200).expect()["next_cursor"]
    search(officer, end=SIZE, limit=200, cursor=cursor)
    assert size(officer) == before + 2
    found = search(officer, begin=before, end=before + 2).expect()["entries"]
    assert [entry["details"]["entries"] for entry in found] == [100, 200]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"case": ""}, "query:case"),
        ({"case": " "}, "query:case"),
        ({"case": "x" * 300}, "query:case"),
        ({"case": "C", "limit": 0}, "query:limit"),
        ({"case": "C", "limit": 1001}, "query:limit"),
        ({"case": "C", "action": "auth.logn"}, "Did you mean 'auth.login'?"),
        ({"case": "C", "outcome": "deny"}, "query:outcome"),
        ({"case": "C", "cursor": "x"}, "query:cursor"),
        ({"case": "C", "begin": -1}, "query:begin"),
        ({"case": "C", "actr": "x"}, "Did you mean 'actor'?"),
        ({"case": "C", "actor": "a\x00b"}, "query:actor"),
        ({}, "query:case"),
    ],
    ids=str,
)
def test_a_wrong_search_is_refused_and_shows_nothing(
    officer: MatrixClient, query: dict[str, Any], problem: str
) -> None:
    before = size(officer)
    reply = officer.governance("GET", "audit/entries", **query)
    assert (reply.status, reply.errcode) == (400, "M_INVALID_PARAM")
    assert problem in reply.error
    assert size(officer) == before


def test_a_search_that_cannot_be_recorded_is_not_answered(deployment: Deployment, officer: MatrixClient) -> None:
    inside(deployment.url, _set, fails=True)
    reply = search(officer)
    assert reply.status == 503
    assert set(reply.body) == {"errcode", "error"}
    assert "secret" not in reply.text


# ---------------------------------------------------------------------------------------------- status, checkpoint


def test_the_checkpoint_is_signed_and_its_size_is_told(officer: MatrixClient) -> None:
    answer = officer.governance("GET", "audit/checkpoint").expect()
    text, _ = open_note(answer["note"], [KEY.verifier])
    assert Checkpoint.parse(text).size == answer["size"] >= SIZE
    assert answer["keys"] == [str(KEY.verifier)]


def test_a_process_without_the_key_tells_the_keys_that_are_stored(
    deployment: Deployment, officer: MatrixClient
) -> None:
    inside(deployment.url, _set, key=False)
    assert officer.governance("GET", "audit/checkpoint").expect()["keys"] == [str(KEY.verifier)]


def test_the_status_is_what_the_service_says(officer: MatrixClient) -> None:
    assert officer.governance("GET", "audit/status").expect() == {"origin": KEY.verifier.name, "waiting": 0}


# --------------------------------------------------------------------------------------------------------- export


def test_an_export_of_everything_verifies(officer: MatrixClient) -> None:
    before = size(officer)
    reply = export(officer)
    found = verified(reply)
    assert (found.entries, found.skipped) == (before, 0)
    assert (found.manifest.requester, found.manifest.case_id) == (officer.user_id, "C-2")
    assert reply.headers["Content-Type"] == "application/x-ndjson"
    assert reply.headers["Content-Disposition"] == f'attachment; filename="audit-{found.manifest.bundle_id}.jsonl"'


def test_an_export_of_a_range_or_a_selection_verifies(officer: MatrixClient) -> None:
    assert verified(export(officer, begin=10, end=270)).entries == 260
    found = verified(export(officer, kind="selection", actor="@bob:synapse.test", end=SIZE))
    assert (found.entries, found.manifest.filter) == (75, {"actor": "@bob:synapse.test"})


def test_every_export_is_an_entry_that_names_the_bundle_and_nobody(officer: MatrixClient) -> None:
    tree_size = size(officer)
    manifest = verified(
        export(officer, kind="selection", actor="@bob:synapse.test", outcome="denied", begin=3)
    ).manifest
    entry = newest(officer)
    assert (entry["action"], entry["case"], entry["actor"]) == ("audit.export", "C-2", officer.user_id)
    assert entry["target"] == "@bob:synapse.test"
    assert entry["details"].pop("request_id").startswith("POST-")
    assert entry["details"] == {
        "bundle": manifest.bundle_id,
        "kind": "selection",
        "format": "jsonl",
        "conditions": ["actor", "outcome"],
        "filter": {"outcome": "denied"},
        "begin": 3,
        "end": tree_size,
        "tree_size": tree_size,
    }


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"case_id": " "}, "body:case_id"),
        ({"case_id": None}, "body:case_id"),
        ({"kind": "everything"}, "body:kind"),
        ({"begin": 5, "end": 4}, "begin, end"),
        ({"end": 10**9}, "begin, end"),
        ({"actor": "@bob:synapse.test"}, "a range with actor"),
        ({"format": "parket"}, "Did you mean 'parquet'?"),
        ({"consistent_with": [1] * 9}, "body:consistent_with"),
    ],
    ids=str,
)
def test_a_wrong_export_is_refused_and_not_recorded(officer: MatrixClient, body: dict[str, Any], problem: str) -> None:
    before = size(officer)
    reply = export(officer, **body)
    assert reply.status == 400
    assert problem in reply.error
    assert size(officer) == before


def test_an_export_that_cannot_be_recorded_does_not_start(deployment: Deployment, officer: MatrixClient) -> None:
    inside(deployment.url, _set, fails=True)
    reply = export(officer)
    assert (reply.status, reply.headers["Content-Type"]) == (503, "application/json")
    assert "manifest" not in reply.text


def test_a_process_without_the_key_says_which_one_exports(deployment: Deployment, officer: MatrixClient) -> None:
    before = size(officer)
    inside(deployment.url, _set, key=False)
    reply = export(officer)
    assert (reply.status, "the one that runs background tasks" in reply.error) == (503, True)
    assert size(officer) == before


def test_a_large_export_arrives_whole(deployment: Deployment, officer: MatrixClient) -> None:
    inside(deployment.url, _grow, count=6_000)
    found = verified(export(officer))
    assert found.entries > 6_000
    assert found.checkpoint.size == found.entries


def test_an_export_that_was_cut_off_goes_on_and_that_is_recorded_too(officer: MatrixClient) -> None:
    whole = export(officer, consistent_with=[100]).text
    manifest, *lines = whole.split("\n")
    part = next(line for line in lines if line.startswith('{"counts":'))
    begun = whole[: whole.index(part) + len(part) + 1]
    rest = officer.governance("POST", "audit/export/resume", {"manifest": manifest, "part": part})
    assert rest.status == 200, rest.text
    found = verify_bundle(io.BytesIO((begun + rest.text).encode()), KnownKeys([KEY.verifier]))
    assert (found.manifest.marks, found.entries) == ((100,), found.manifest.tree_size)
    entry = newest(officer)
    assert (entry["action"], entry["case"]) == ("audit.export", "C-2")
    assert entry["details"]["bundle"] == found.manifest.bundle_id
    assert entry["details"]["begin"] == json.loads(part)["position"]


@pytest.mark.parametrize("change", [{"manifest": "{}"}, {"part": "{}"}, {"part": '{"counts":{}}'}], ids=str)
def test_what_is_no_begun_export_is_not_gone_on_with(officer: MatrixClient, change: dict[str, str]) -> None:
    manifest, *lines = export(officer).text.split("\n")
    part = next(line for line in lines if line.startswith('{"counts":'))
    before = size(officer)
    reply = officer.governance("POST", "audit/export/resume", {"manifest": manifest, "part": part} | change)
    assert (reply.status, reply.errcode) == (400, "M_INVALID_PARAM")
    assert size(officer) == before


def test_an_export_in_another_format_is_an_archive_that_says_what_it_is(officer: MatrixClient) -> None:
    url = f"{officer.url}/_synapse/client/governance/v1/audit/export"
    body = {"case_id": "C-2", "format": "csv", "begin": 20, "end": 30}
    answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {officer.token}"})
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        data, manifest = archive.namelist()
        document = json.loads(archive.read(manifest))
        assert len(list(csv.reader(io.StringIO(archive.read(data).decode(), newline="")))) == 11
    assert (manifest, document["signed"], document["entries"]) == ("manifest.json", False, 10)
    assert answer.headers["Content-Disposition"].endswith(f'{document["manifest"]["bundle_id"]}.csv.zip"')
    assert newest(officer)["details"]["format"] == "csv"


def _grow(_api: ModuleApi, count: int) -> None:
    _LOGS[0].filled.fill(sample_events(count))


def test_the_routes_are_in_the_openapi_document(deployment: Deployment) -> None:
    paths = deployment.client().governance("GET", "openapi.json").expect()["paths"]
    tiles = {"/audit/log/checkpoint", "/audit/log/tile/entries/{index}", "/audit/log/tile/{level}/{index}"}
    exports = {"/audit/export", "/audit/export/resume"}
    assert set(paths) == {"/audit/entries", "/audit/status", "/audit/checkpoint"} | exports | tiles
    assert json.dumps(paths["/audit/export"]["post"]["x-permission"]) == '"audit.export"'


# ------------------------------------------------------------------------------- with the service of the product


@pytest.fixture(scope="module")
def product(deploy_shared: Deploy, engine: str, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    key: Path = tmp_path_factory.mktemp("key") / "audit.key"
    module = {"module": "tests.module.audit_module.AuditUnderTest", "config": {"signing_key_path": str(key)}}
    return deploy_shared(postgres=engine == "postgres", modules=[module, probe(_mount_service)])


def test_what_people_do_is_found_exported_and_verified(product: Deployment) -> None:
    officer = product.register("officer")
    room = officer.create_room(name="tea").expect()["room_id"]
    officer.send(room, "never in the log").expect()

    def messages() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = search(officer, action="message.send", room=room).expect()["entries"]
        return found

    (sent,) = wait_until(messages, what="the message has an index")
    assert sent["actor"] == officer.user_id
    answer = officer.governance("GET", "audit/checkpoint").expect()
    reply = export(officer, kind="selection", room=room)
    found = verify_bundle(io.BytesIO(reply.text.encode()), KnownKeys([VerifierKey.parse(answer["keys"][0])]))
    assert found.counts["message.send"] == 1
    assert found.counts["audit.search"] >= 1
    assert "never in the log" not in reply.text
    exported = wait_until(
        lambda: search(officer, action="audit.export").expect()["entries"], what="the export has an index"
    )
    assert exported[0]["details"]["bundle"] == found.manifest.bundle_id


def test_refusals_are_in_the_log_too(product: Deployment) -> None:
    mallory, olivia = product.register("mallory"), product.register("olivia")
    assert search(mallory).status == 403
    denied = wait_until(
        lambda: search(olivia, outcome="denied", actor=mallory.user_id).expect()["entries"],
        what="the refusal has an index",
    )
    assert denied[0]["details"] == {"permission": "audit.read", "route": "GET /audit/entries"}


def test_the_status_of_the_service_is_served(product: Deployment) -> None:
    status = product.register("stan").governance("GET", "audit/status").expect()
    assert (status["process"], status["damage"]) == ("main", None)
    assert status["size"] > 0
