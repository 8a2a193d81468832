from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_modules.cli.client import Client, NotLoggedIn, Refused, parse_server, segment
from synapse_modules.core.errors import Denied, GovernanceError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER = "https://matrix.example.org"
BASE = "/_synapse/client/governance/v1"


def client(handler: Callable[[httpx.Request], httpx.Response], token: str | None = "t0ken") -> Client:
    return Client(SERVER, token, transport=httpx.MockTransport(handler))


def answering(status: int, body: object) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, json=body)


def test_a_call_carries_the_token_in_a_header_and_leaves_out_what_is_none() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": 1})

    client(handler).get("/audit/entries", actor="@a:x", room=None, limit=5)
    client(handler).post("/holds", {"kind": "room", "reason": None})

    assert str(seen[0].url) == f"{SERVER}{BASE}/audit/entries?actor=%40a%3Ax&limit=5"
    assert seen[0].headers["Authorization"] == "Bearer t0ken"
    assert json.loads(seen[1].content) == {"kind": "room"}


def test_without_a_token_no_authorization_is_sent() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert "Authorization" not in request.headers
        return httpx.Response(200, json={})

    client(handler, token=None).get("/openapi.json")


def test_a_denial_keeps_its_rule_and_permission() -> None:
    body = {"errcode": "M_FORBIDDEN", "error": "You may not.", "governance": {"rule": "role:x", "permission": "p"}}
    with pytest.raises(Denied) as denied:
        client(answering(403, body)).get("/rbac/policy")
    assert (denied.value.problem, denied.value.rule, denied.value.permission) == ("You may not.", "role:x", "p")


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, {"errcode": "M_MISSING_TOKEN", "error": "x"}, NotLoggedIn, "govctl login"),
        (401, {"errcode": "M_UNKNOWN_TOKEN", "error": "x"}, NotLoggedIn, "does not know your login"),
        (404, {"errcode": "M_UNRECOGNIZED", "error": "x"}, NotFound, "governance modules"),
        (404, {"errcode": "M_NOT_FOUND", "error": "no hold h1"}, NotFound, "no hold h1"),
        (503, {"errcode": "M_UNKNOWN", "error": "not just now"}, Unavailable, "not just now"),
        (400, {"errcode": "M_BAD_JSON", "error": "body: found 1, expected 2"}, Refused, "found 1, expected 2"),
        (403, {"errcode": "M_FORBIDDEN", "error": "Invalid username or password"}, Refused, "Invalid username"),
        (500, ["no", "object"], Refused, "HTTP status 500"),
    ],
)
def test_every_failure_is_one_of_our_errors_with_advice(
    status: int, body: object, kind: type[GovernanceError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        client(answering(status, body)).get("/holds")


def test_an_answer_that_is_no_json_is_named_as_such() -> None:
    with pytest.raises(GovernanceError, match="not JSON"):
        client(lambda _: httpx.Response(200, text="<html>")).get("/holds")


@pytest.mark.parametrize("error", [httpx.ConnectError("[Errno 111] Connection refused"), httpx.ReadTimeout("slow")])
def test_a_network_that_fails_is_unavailable_and_names_the_server(error: Exception) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(Unavailable, match=r"matrix\.example\.org"):
        client(handler).get("/holds")


def test_a_list_is_read_page_after_page_up_to_its_limit() -> None:
    asked: list[tuple[str | None, str | None]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        asked.append((cursor, request.url.params.get("limit")))
        start = int(cursor or 0)
        size = int(request.url.params["limit"])
        return httpx.Response(200, json={"entries": list(range(start, start + size)), "next_cursor": str(start + size)})

    assert len(list(client(handler).pages("/audit/entries", "entries", limit=150))) == 150
    assert asked == [(None, "100"), ("100", "50")]


def test_a_list_ends_where_the_server_says_so() -> None:
    page: dict[str, Any] = {"holds": [{"hold_id": "h1"}], "next_cursor": None}
    assert list(client(answering(200, page)).pages("/holds", "holds", limit=None)) == [{"hold_id": "h1"}]


def test_a_download_is_written_as_it_comes_and_a_refused_one_writes_nothing() -> None:
    file = io.BytesIO()
    sizes: list[int] = []
    client(lambda _: httpx.Response(200, content=b"x" * 10)).download("/audit/exports", {}, file, sizes.append)
    assert (file.getvalue(), sum(sizes)) == (b"x" * 10, 10)

    refused = io.BytesIO()
    body = {"errcode": "M_FORBIDDEN", "error": "no", "governance": {"rule": "default", "permission": "audit.export"}}
    with pytest.raises(Denied):
        client(answering(403, body)).download("/audit/exports", {}, refused, sizes.append)
    assert refused.getvalue() == b""


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("https://matrix.example.org", "https://matrix.example.org"),
        ("https://matrix.example.org:8448/", "https://matrix.example.org:8448"),
        ("http://127.0.0.1:8008", "http://127.0.0.1:8008"),
        ("http://[::1]:8008", "http://[::1]:8008"),
        ("http://localhost:8008", "http://localhost:8008"),
    ],
)
def test_these_are_addresses_of_servers(text: str, server: str) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize(
    "text",
    ["", "matrix.example.org", "ftp://x", "https://", "https://x/path", "https://user:word@x", "https://x:port"],
)
def test_these_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        parse_server(text)


def test_a_token_travels_unencrypted_to_another_machine_only_if_that_is_named_unsafe() -> None:
    with pytest.raises(ValueError, match="--unsafe-plain-http"):
        parse_server("http://matrix.example.org")
    assert parse_server("http://matrix.example.org", unsafe_plain_http=True) == "http://matrix.example.org"


def test_an_id_is_one_segment_of_a_path() -> None:
    assert segment("!a/b:x") == "%21a%2Fb%3Ax"


def test_a_change_whose_answer_was_lost_is_sent_once_more_under_the_same_key() -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, json={"done": True})

    client = Client("https://matrix.test", "token", transport=httpx.MockTransport(answer))

    assert client.post("/holds", {"kind": "room"}) == {"done": True}
    assert keys == [keys[0]] * 2
    client.post("/holds", {"kind": "room"})
    assert keys[2] != keys[0]
