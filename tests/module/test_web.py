"""The router on a real homeserver, as an HTTP client meets it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import Conflict, Denied, GovernanceError, InvalidInput, NotFound, Unavailable
from synapse_modules.core.permissions import Permission
from synapse_modules.core.ports import AuditEvent, Decision
from synapse_modules.homeserver.public import Homeserver
from synapse_modules.homeserver.web import Call, Route, Router, Stream
from tests.module.support import inside, probe
from tests.support.client import MatrixClient
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.client import Reply
    from tests.support.synapse import Deployment

# ---------------------------------------------------------------------------------------- inside the homeserver

CHUNK = b"x" * 65536
_RECORDED: list[list[Any]] = []
_STATE: dict[str, Any] = {"audit": "works", "sent": 0, "closed": False}


class Item(FrozenModel):
    name: str
    count: int = 1
    tags: tuple[str, ...] = ()


class Page(FrozenModel):
    limit: int
    after: str | None = None


class Echo(FrozenModel):
    user_id: str
    device_id: str | None
    address: str | None
    user_agent: str | None
    path: dict[str, str]
    query: Page | None
    body: Item | None
    request_id: str


class _Everybody:
    """Allows reading the audit log, to Olivia alone."""

    async def decide(self, user_id: str, permission: Permission, room_id: str | None = None) -> Decision:
        del room_id
        allowed = user_id.startswith("@olivia:") and permission is Permission.AUDIT_READ
        return Decision(allowed, "role:guest", "Your role 'guest' may not read the audit log.")


class _Audit:
    async def record(self, event: AuditEvent) -> None:
        if _STATE["audit"] == "fails":
            raise Unavailable("the audit database is down")
        _RECORDED.append([event.action, event.outcome, event.actor, event.rule, dict(event.details), event.address])

    def record_in(self, transaction: Any, event: AuditEvent) -> None:
        raise NotImplementedError


async def _echo(call: Call) -> Echo:
    caller = call.caller
    return Echo(
        user_id=caller.user_id,
        device_id=caller.device_id,
        address=caller.address,
        user_agent=caller.user_agent,
        path=dict(call.path),
        query=call.query_as(Page) if call.query else None,
        body=call.body_as(Item) if call.body else None,
        request_id=call.request_id,
    )


_ERRORS: dict[str, Exception] = {
    "invalid": InvalidInput("rules[2].class", "regulatd", "a known class", suggestion="regulated"),
    "not-found": NotFound("there is no hold h1"),
    "conflict": Conflict("the policy has changed since version 3"),
    "denied": Denied("Nobody approves their own request", rule="four-eyes", permission="hold.release"),
    "unavailable": Unavailable("secret-host:5432 does not answer"),
    "other": GovernanceError("the secret plan failed"),
    "bug": RuntimeError("the secret of the bug"),
}


async def _fail(call: Call) -> Echo:
    raise _ERRORS[call.path["how"]]


async def _chunks(count: int, fail_at: int | None) -> AsyncIterator[bytes]:
    _STATE.update(sent=0, closed=False)
    try:
        for number in range(count):
            if number == fail_at:
                raise RuntimeError("the secret of the stream")
            yield CHUNK
            _STATE["sent"] += 1
    finally:
        _STATE["closed"] = True


async def _stream(call: Call) -> Stream:
    count = int(call.path["count"])
    fail_at = count // 2 if call.path["how"] == "failing" else None
    return Stream("application/x-ndjson", "bundle.jsonl", _chunks(count, fail_at))


ROUTES = (
    Route("GET", "/echo", None, "Say what was asked", _echo, answer=Echo, query=Page),
    Route("POST", "/echo", None, "Say what was asked", _echo, answer=Echo, body=Item, status=201, max_body=1000),
    Route("GET", "/items/{item}/parts/{part}", None, "Say what was asked", _echo, answer=Echo),
    Route("GET", "/items/{item}/parts/first", None, "The literal path", _fail, answer=Echo),
    Route("GET", "/fail/{how}", None, "Fail", _fail, answer=Echo),
    Route("GET", "/secret", Permission.AUDIT_READ, "A secret", _echo, answer=Echo),
    Route("POST", "/secret", Permission.AUDIT_READ, "A secret", _echo, answer=Echo, body=Item),
    Route("GET", "/stream/{how}/{count}", None, "Many bytes", _stream),
)


def _mount(api: ModuleApi) -> None:
    router = Router(Homeserver(api), _Everybody(), _Audit(), "1.2.3")
    router.add(ROUTES[:2])
    router.mount()
    router.add(ROUTES[2:])


def _recorded(_api: ModuleApi) -> list[list[Any]]:
    return _RECORDED


def _forget(_api: ModuleApi, audit: str = "works") -> None:
    _RECORDED.clear()
    _STATE["audit"] = audit


def _state(_api: ModuleApi) -> dict[str, Any]:
    return _STATE


# ------------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy) -> Deployment:
    return deploy_shared(modules=[probe(_mount)])


@pytest.fixture(scope="module")
def admin(deployment: Deployment) -> MatrixClient:
    return deployment.register("admin", admin=True)


@pytest.fixture(scope="module")
def olivia(deployment: Deployment) -> MatrixClient:
    return deployment.register("olivia")


@pytest.fixture(scope="module")
def gary(deployment: Deployment) -> MatrixClient:
    return deployment.register("gary")


@pytest.fixture(autouse=True)
def clean(deployment: Deployment) -> None:
    inside(deployment.url, _forget)


# ------------------------------------------------------------------------------------------------ authentication


def test_without_an_access_token_nothing_is_served(deployment: Deployment) -> None:
    reply = deployment.client().governance("GET", "echo", limit=1)
    assert (reply.status, reply.errcode) == (401, "M_MISSING_TOKEN")


def test_a_wrong_access_token_is_refused(deployment: Deployment) -> None:
    reply = MatrixClient(deployment.url, token="nonsense").governance("GET", "echo", limit=1)
    assert (reply.status, reply.errcode) == (401, "M_UNKNOWN_TOKEN")


def test_the_handler_learns_who_calls(olivia: MatrixClient) -> None:
    path = "/_synapse/client/governance/v1/echo"
    body = olivia.request("GET", path, params={"limit": 1}, headers={"User-Agent": "teacup/1"}).expect()
    assert (body["user_id"], body["address"], body["user_agent"]) == (olivia.user_id, "127.0.0.1", "teacup/1")
    assert body["device_id"] == olivia.whoami().body["device_id"]
    assert body["request_id"].startswith("GET-")


def test_an_administrator_in_a_users_name_is_refused_and_recorded(
    deployment: Deployment, admin: MatrixClient, olivia: MatrixClient
) -> None:
    token = admin.admin("POST", f"v1/users/{olivia.user_id}/login", {}).expect()["access_token"]
    reply = MatrixClient(deployment.url, token=token).governance("GET", "secret")
    assert (reply.status, reply.body["governance"]["rule"]) == (403, "no-impersonation")
    assert [event[0] for event in inside(deployment.url, _recorded)] == ["access.denied"]


# ------------------------------------------------------------------------------------------------- authorisation


def test_who_has_the_permission_is_served(olivia: MatrixClient) -> None:
    assert olivia.governance("GET", "secret").ok


def test_a_refusal_names_rule_and_permission_and_is_recorded(deployment: Deployment, gary: MatrixClient) -> None:
    reply = gary.governance("GET", "secret")
    assert reply.status == 403
    assert reply.body == {
        "errcode": "M_FORBIDDEN",
        "error": "Your role 'guest' may not read the audit log.",
        "governance": {"rule": "role:guest", "permission": "audit.read"},
    }
    details = {"permission": "audit.read", "route": "GET /secret"}
    assert inside(deployment.url, _recorded) == [
        ["access.denied", "denied", gary.user_id, "role:guest", details, "127.0.0.1"]
    ]


def test_a_refusal_stands_when_it_cannot_be_recorded(deployment: Deployment, gary: MatrixClient) -> None:
    inside(deployment.url, _forget, audit="fails")
    assert gary.governance("GET", "secret").status == 403


def test_who_lacks_the_permission_does_not_learn_what_input_is_expected(gary: MatrixClient) -> None:
    assert gary.governance("POST", "secret", {"nonsense": True}).status == 403


def test_a_denial_by_a_handler_is_recorded_too(deployment: Deployment, gary: MatrixClient) -> None:
    reply = gary.governance("GET", "fail/denied")
    assert reply.body["governance"] == {"rule": "four-eyes", "permission": "hold.release"}
    ((action, _, _, rule, details, _),) = inside(deployment.url, _recorded)
    assert (action, rule) == ("access.denied", "four-eyes")
    assert details == {"permission": "hold.release", "route": "GET /fail/{how}"}


# ----------------------------------------------------------------------------------------------------- routing


@pytest.mark.parametrize(
    "path", ["nowhere", "", "echo/", "items/1/parts", "items/1/parts/2/3", "items//parts/2", "%ff"]
)
def test_an_unknown_path_is_unrecognised(olivia: MatrixClient, path: str) -> None:
    reply = olivia.governance("GET", path)
    assert (reply.status, reply.errcode) == (404, "M_UNRECOGNIZED")


def test_a_wrong_method_is_told_the_right_ones(olivia: MatrixClient) -> None:
    reply = olivia.governance("DELETE", "echo")
    assert (reply.status, reply.errcode, reply.headers["Allow"]) == (405, "M_UNRECOGNIZED", "GET, POST")


def test_head_is_answered_like_get_without_a_body(olivia: MatrixClient) -> None:
    reply = olivia.governance("HEAD", "echo", limit=1)
    assert (reply.status, reply.text) == (200, "")


def test_placeholders_are_decoded_segment_by_segment(olivia: MatrixClient) -> None:
    body = olivia.governance("GET", "items/%21room%3Asynapse.test/parts/a%2Fb%20%C3%A9").expect()
    assert body["path"] == {"item": "!room:synapse.test", "part": "a/b é"}


def test_a_literal_segment_wins_over_a_placeholder(olivia: MatrixClient) -> None:
    assert olivia.governance("GET", "items/1/parts/first").status == 500


# ------------------------------------------------------------------------------------------------------- input


def test_a_query_is_parsed_as_declared(olivia: MatrixClient) -> None:
    assert olivia.governance("GET", "echo", limit=5, after="x").expect()["query"] == {"limit": 5, "after": "x"}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "query:limit: found None, expected a value: this key is required"),
        ("limit=many", "query:limit: found 'many', expected"),
        ("limit=1&limit=2", "query:limit: found ['1', '2'], expected one value"),
        ("limit=1&aftr=x", "query:aftr: found 'aftr', expected one of after, limit. Did you mean 'after'?"),
    ],
)
def test_a_wrong_query_is_explained(olivia: MatrixClient, query: str, error: str) -> None:
    reply = olivia.governance("GET", f"echo?{query}")
    assert (reply.status, reply.errcode) == (400, "M_INVALID_PARAM")
    assert reply.error.startswith(error)


def test_a_query_where_none_is_declared_is_refused(olivia: MatrixClient) -> None:
    reply = olivia.governance("GET", "secret?verbose=1")
    assert (reply.status, reply.error) == (400, "query: found 'verbose', expected no parameters")


def test_a_body_is_parsed_as_declared(olivia: MatrixClient) -> None:
    reply = olivia.governance("POST", "echo", {"name": "tea", "tags": ["hot"]})
    assert reply.expect(201)["body"] == {"name": "tea", "count": 1, "tags": ["hot"]}


@pytest.mark.parametrize(
    ("content", "errcode", "error"),
    [
        ("", "M_NOT_JSON", "The body is not JSON"),
        ("{", "M_NOT_JSON", "The body is not JSON"),
        ("\udcff", "M_NOT_JSON", "The body is not JSON"),
        ('{"name": NaN}', "M_NOT_JSON", "The body is not JSON: NaN is not JSON"),
        ('{"name": "a", "name": "b"}', "M_NOT_JSON", "The body is not JSON: a key stands twice in one object"),
        ("[" * 900, "M_NOT_JSON", "The body is not JSON"),
        ("[]", "M_BAD_JSON", "body: found [], expected a mapping"),
        ("{}", "M_BAD_JSON", "body:name: found None, expected a value: this key is required"),
        ('{"name": 5}', "M_BAD_JSON", "body:name: found 5, expected"),
        ('{"name": "a", "count": "5"}', "M_BAD_JSON", "body:count: found '5', expected"),
        ('{"name": "a", "tag": []}', "M_BAD_JSON", "body:tag: found 'tag', expected one of count, name, tags."),
        ('{"name": "\\ud800"}', "M_BAD_JSON", "body"),
    ],
)
def test_a_wrong_body_is_explained(olivia: MatrixClient, content: str, errcode: str, error: str) -> None:
    path = "/_synapse/client/governance/v1/echo"
    reply = olivia.request("POST", path, content=content.encode(errors="surrogateescape"))
    assert (reply.status, reply.errcode) == (400, errcode)
    assert reply.error.startswith(error)


def test_a_body_over_the_limit_is_refused(olivia: MatrixClient) -> None:
    reply = olivia.governance("POST", "echo", {"name": "x" * 1000})
    assert (reply.status, reply.errcode) == (413, "M_TOO_LARGE")


def test_a_body_where_none_is_declared_is_ignored(olivia: MatrixClient) -> None:
    assert olivia.governance("GET", "secret", {"anything": "goes"}).ok


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("how", "status", "errcode", "error"),
    [
        (
            "invalid",
            400,
            "M_INVALID_PARAM",
            "rules[2].class: found 'regulatd', expected a known class. Did you mean 'regulated'?",
        ),
        ("not-found", 404, "M_NOT_FOUND", "there is no hold h1"),
        ("conflict", 409, "M_UNKNOWN", "the policy has changed since version 3"),
        (
            "unavailable",
            503,
            "M_UNKNOWN",
            "The server cannot do this just now. Nothing was done; please try again.",
        ),
        ("other", 500, "M_UNKNOWN", "Internal server error"),
        ("bug", 500, "M_UNKNOWN", "Internal server error"),
    ],
)
def test_errors_are_matrix_errors_and_tell_no_secrets(
    olivia: MatrixClient, how: str, status: int, errcode: str, error: str
) -> None:
    reply = olivia.governance("GET", f"fail/{how}")
    assert (reply.status, reply.body) == (status, {"errcode": errcode, "error": error})


# ------------------------------------------------------------------------------------------------------ streams


def test_a_stream_arrives_whole(olivia: MatrixClient) -> None:
    reply = olivia.governance("GET", "stream/whole/20")
    assert reply.text.encode() == CHUNK * 20
    assert reply.headers["Content-Type"] == "application/x-ndjson"
    assert reply.headers["Content-Disposition"] == 'attachment; filename="bundle.jsonl"'


def test_a_stream_waits_for_a_client_that_does_not_read_and_ends_when_it_leaves(
    deployment: Deployment, olivia: MatrixClient
) -> None:
    url = f"{olivia.url}/_synapse/client/governance/v1/stream/endless/100000"
    headers = {"Authorization": f"Bearer {olivia.token}"}
    with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=10) as response:
        next(response.iter_raw())
        before = wait_until(lambda: _settled(deployment), what="the server stops producing")
        assert before * len(CHUNK) < 32 * 2**20, "the socket buffers and little more"
    wait_until(lambda: inside(deployment.url, _state)["closed"], what="the source is closed")


def _settled(deployment: Deployment) -> int:
    counts = {inside(deployment.url, _state)["sent"] for _ in range(10)}
    return max(counts) if len(counts) == 1 else 0


def test_a_stream_that_fails_is_cut_so_that_nobody_takes_a_part_for_the_whole(
    deployment: Deployment, olivia: MatrixClient
) -> None:
    with pytest.raises(httpx.TransportError):
        olivia.governance("GET", "stream/failing/10")
    assert inside(deployment.url, _state)["closed"]


# ------------------------------------------------------------------------------------------------------ OpenAPI


def test_the_interface_describes_itself_without_a_token(deployment: Deployment) -> None:
    reply: Reply = deployment.client().governance("GET", "openapi.json")
    document = json.loads(reply.text)
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", "1.2.3")
    assert {(method.upper(), path) for path, methods in document["paths"].items() for method in methods} == {
        (route.method, route.path) for route in ROUTES
    }


def _add_twice(api: ModuleApi) -> None:
    router = Router(Homeserver(api), _Everybody(), _Audit(), "1")
    router.add(ROUTES)
    router.add(ROUTES[:1])


def test_a_route_cannot_be_declared_twice(deployment: Deployment) -> None:
    with pytest.raises(Exception, match="GET /echo is declared twice"):
        inside(deployment.url, _add_twice)
