"""`govctl audit anchors`, with a homeserver that answers as told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from tests.unit.cli.commands import Govctl

VAULT = {"name": "vault", "kind": "file", "size": 9, "anchored_ms": 1_700_000_000_000}


def status(*anchors: dict[str, Any], damage: str | None = None, **problems: str) -> Any:
    answer = {"size": 9, "anchors": list(anchors), "damage": damage, "problems": problems}
    return lambda _: httpx.Response(200, json=answer)


def test_each_anchor_is_shown_with_what_it_took(govctl: Govctl) -> None:
    govctl.answer = status(VAULT)
    shown = govctl("audit", "anchors")
    assert shown.exit_code == 0
    assert all(word in shown.stdout for word in ("vault", "file", "9", "2023-11-1"))
    assert govctl.requests[0].url.path.endswith("/audit/status")


def test_an_anchor_that_never_took_anything_is_shown_with_its_problem(govctl: Govctl) -> None:
    govctl.answer = status(VAULT, **{"anchor w1": "cannot be reached", "outbox": "something else"})
    shown = govctl("audit", "anchors", "--json")
    assert shown.exit_code == 1
    assert [(each["name"], each["problem"]) for each in json.loads(shown.stdout)["anchors"]] == [
        ("vault", None), ("w1", "cannot be reached")
    ]  # fmt: skip


def test_a_log_without_anchors_is_something_wrong(govctl: Govctl) -> None:
    govctl.answer = status()
    shown = govctl("audit", "anchors")
    assert shown.exit_code == 1
    assert "can rewrite it unnoticed" in shown.stdout


def test_damage_is_shown(govctl: Govctl) -> None:
    govctl.answer = status(VAULT, damage="anchor vault: it holds more")
    shown = govctl("audit", "anchors")
    assert shown.exit_code == 1
    assert "DAMAGED: anchor vault: it holds more" in shown.stdout
