"""`govctl hold`: what it asks of the server and what it prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.unit.cli.commands import BASE, refusing

if TYPE_CHECKING:
    from tests.unit.cli.commands import Govctl

HOLD: dict[str, Any] = {
    "hold_id": "h1", "kind": "room", "subject": "!a", "case_id": "LIT-7", "owner": "@olivia:x", "reason": "Evidence",
    "created_ms": 1_700_000_000_000, "released_ms": None, "released_by": None, "release_reason": None,
}  # fmt: skip
RELEASED = HOLD | {"hold_id": "h2", "released_ms": 1_700_000_000_001, "released_by": "@o:x", "release_reason": "Over"}


@pytest.mark.parametrize(("option", "kind", "subject"), [("--room", "room", "!a"), ("--user", "user", "@bob:x")])
def test_a_hold_is_placed_on_a_room_or_a_user(govctl: Govctl, option: str, kind: str, subject: str) -> None:
    govctl.answer = lambda _: httpx.Response(200, json=HOLD | {"kind": kind, "subject": subject})
    result = govctl("hold", "create", option, subject, "--case", "LIT-7", "--reason", "Evidence")
    assert result.exit_code == 0
    assert f"hold h1: in force\n  {kind} {subject}" in result.stdout
    (request,) = govctl.requests
    assert (request.method, request.url.path) == ("POST", f"{BASE}/holds")
    body = {"kind": kind, "subject": subject, "case_id": "LIT-7", "reason": "Evidence"}
    assert json.loads(request.content) == body


@pytest.mark.parametrize("subject", [(), ("--room", "!a", "--user", "@bob:x")])
def test_a_hold_on_nothing_or_on_two_things_is_wrong_usage(govctl: Govctl, subject: tuple[str, ...]) -> None:
    result = govctl("hold", "create", *subject, "--case", "LIT-7", "--reason", "Evidence")
    assert (result.exit_code, govctl.requests) == (2, [])


def test_the_list_has_what_is_in_force_and_with_all_what_was(govctl: Govctl) -> None:
    govctl.answer = lambda _: httpx.Response(200, json={"holds": [HOLD, RELEASED], "next_cursor": None})
    assert "h2" not in govctl("hold", "list").stdout
    assert "h2" in govctl("hold", "list", "--all").stdout
    assert json.loads(govctl("hold", "list", "--json").stdout) == {"holds": [HOLD]}


def test_a_hold_is_released_with_a_reason(govctl: Govctl) -> None:
    govctl.answer = lambda _: httpx.Response(200, json=RELEASED)
    result = govctl("hold", "release", "h2", "--reason", "Over")
    assert "hold h2: released" in result.stdout
    assert govctl.requests[0].url.path == f"{BASE}/holds/h2/release"
    assert json.loads(govctl.requests[0].content) == {"reason": "Over"}
    assert govctl("hold", "release", "h2").exit_code == 2


def test_an_unknown_hold_is_one_clear_line(govctl: Govctl) -> None:
    govctl.answer = refusing(404, "M_NOT_FOUND")
    result = govctl("hold", "show", "h9")
    assert (result.exit_code, result.stderr) == (1, "govctl: It says no.\n")
