"""`govctl audit erase` and `govctl audit prune`: what they ask of the server, and what they print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.unit.cli.commands import BASE, refusing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.commands import Govctl

ERASE = ("audit", "erase", "--subject", "@alice:x", "--basis", "Art. 17", "--case", "PRIV-12")
PRUNE = ("audit", "prune", "--basis", "Policy 4", "--case", "RET-1")
BODY = {"subject": "@alice:x", "basis": "Art. 17", "case_id": "PRIV-12"}


def erasing(*steps: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    """A server with 1,700 entries of Alice that takes ``steps`` to erase her."""
    left = list(steps)
    nothing = {"entries": 0, "records": 0, "fields": [], "following": None, "end": None}

    def answer(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("dry_run"):
            return httpx.Response(200, json=nothing | {"entries": 1_700})
        return httpx.Response(200, json=nothing | {"end": 9_000} | left.pop(0))

    return answer


def pruning(*steps: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    """A server whose log may be pruned before 512, in ``steps``."""
    left = list(steps)
    planned = {"end": 512, "root": "ab", "removed": 0, "left": 512}

    def answer(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("dry_run"):
            return httpx.Response(200, json=planned)
        return httpx.Response(200, json=planned | left.pop(0))

    return answer


def bodies(govctl: Govctl) -> list[dict[str, Any]]:
    return [json.loads(request.content) for request in govctl.requests]


# ------------------------------------------------------------------------------------------------------- erasing


def test_an_erasure_goes_on_step_by_step_until_nothing_is_left(govctl: Govctl) -> None:
    govctl.answer = erasing(
        {"entries": 1_000, "fields": ["actor", "address"], "following": 4_000, "records": 2},
        {"entries": 700, "fields": ["target"]},
    )
    result = govctl(*ERASE, "--yes")
    assert result.exit_code == 0
    assert "erased @alice:x from 1700 entries: actor, address, target" in result.stdout
    assert "from 2 records that never got an index" in result.stdout
    assert "exports made before, backups and what was sent elsewhere still have it" in result.stdout
    assert bodies(govctl) == [BODY, {**BODY, "begin": 4_000, "end": 9_000}]
    assert {(request.method, request.url.path) for request in govctl.requests} == {("POST", f"{BASE}/audit/erase")}


def test_a_dry_run_counts_and_erases_nothing(govctl: Govctl) -> None:
    govctl.answer = erasing()
    result = govctl(*ERASE, "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "1700 entries name @alice:x; nothing is erased\n")
    assert bodies(govctl) == [{**BODY, "dry_run": True}]
    assert json.loads(govctl(*ERASE, "--dry-run", "--json").stdout) == {"entries": 1_700, "erased": False}


def test_nobody_is_erased_without_a_yes(govctl: Govctl) -> None:
    govctl.answer = erasing()
    result = govctl(*ERASE)
    assert (result.exit_code, "--yes confirms it beforehand" in result.stderr) == (2, True)
    assert bodies(govctl) == [{**BODY, "dry_run": True}]


def test_for_scripts_an_erasure_is_one_document(govctl: Govctl) -> None:
    govctl.answer = erasing({"entries": 0})
    found = json.loads(govctl(*ERASE, "--yes", "--json").stdout)
    assert found == {"entries": 0, "records": 0, "fields": [], "erased": True}


def test_what_a_hold_forbids_is_one_clear_line(govctl: Govctl) -> None:
    govctl.answer = refusing(409, "M_UNKNOWN")
    result = govctl(*ERASE, "--yes")
    assert (result.exit_code, result.stderr) == (1, "govctl: It says no.\n")


@pytest.mark.parametrize("missing", ["--subject", "--basis", "--case"])
def test_an_erasure_needs_a_subject_a_basis_and_a_case(govctl: Govctl, missing: str) -> None:
    at = ERASE.index(missing)
    assert govctl(*ERASE[:at], *ERASE[at + 2 :], "--yes").exit_code == 2
    assert govctl(*ERASE[:at], missing, " ", *ERASE[at + 2 :], "--yes").exit_code == 2
    assert govctl.requests == []


# ------------------------------------------------------------------------------------------------------- pruning


def test_pruning_goes_on_to_where_it_was_planned(govctl: Govctl) -> None:
    govctl.answer = pruning({"removed": 300, "left": 212}, {"removed": 212, "left": 0})
    result = govctl(*PRUNE, "--older-than", "730", "--yes")
    assert result.exit_code == 0
    assert "removed 512 entries: the log begins at 512\n  root of what went  ab\n" in result.stdout
    common = {"basis": "Policy 4", "case_id": "RET-1"}
    step = {**common, "before_index": 512}
    assert bodies(govctl) == [{**common, "older_than_days": 730, "dry_run": True}, step, step]


def test_a_dry_run_of_pruning_tells_what_there_is(govctl: Govctl) -> None:
    govctl.answer = pruning()
    result = govctl(*PRUNE, "--before-index", "600", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "512 entries below 512; nothing is removed\n")
    assert bodies(govctl) == [{"before_index": 600, "basis": "Policy 4", "case_id": "RET-1", "dry_run": True}]


def test_where_nothing_is_old_enough_nobody_is_asked(govctl: Govctl) -> None:
    answer = {"end": 0, "root": None, "removed": 0, "left": 0}
    govctl.answer = lambda _: httpx.Response(200, json=answer)
    result = govctl(*PRUNE, "--older-than", "730")
    assert (result.exit_code, result.stdout) == (0, "0 entries below 0; there is nothing to remove\n")
    assert json.loads(govctl(*PRUNE, "--older-than", "730", "--json").stdout) == answer


def test_nothing_is_removed_without_a_yes(govctl: Govctl) -> None:
    govctl.answer = pruning()
    assert govctl(*PRUNE, "--older-than", "730").exit_code == 2
    assert len(govctl.requests) == 1


@pytest.mark.parametrize("how_far", [(), ("--before-index", "5", "--older-than", "5"), ("--older-than", "0")])
def test_how_far_is_said_in_one_way(govctl: Govctl, how_far: tuple[str, ...]) -> None:
    assert govctl(*PRUNE, *how_far, "--yes").exit_code == 2
    assert govctl.requests == []
