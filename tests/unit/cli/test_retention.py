"""`govctl retention`: what it asks of the server, what it prints, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.commands import Govctl

RULES = "version: 1\nrules:\n  - {class: project, delete_after: 1h}\ndefault: {delete_after: null}\n"
DOCUMENT = {"version": 1, "rules": [{"class": "project", "delete_after": "1h"}], "default": {"delete_after": None}}
TOTALS = {
    "rooms": 2, "due": 7, "bytes_due": 4_200, "copied_for_hold": 1, "rooms_held": 1, "kept_by_hold": 3,
    "bytes_kept_by_hold": 900,
}  # fmt: skip
ROOM = {
    "room_id": "!a", "room_class": "project", "rule": "class:project", "decided_by": "class:project",
    "cutoff_ms": 1_700_000_000_000, "due": 7, "bytes_due": 4_200, "copied_for_hold": 1, "kept_by_hold": 0,
}  # fmt: skip
SIMULATION = {
    "now_ms": 1, "rules_version": 4, "totals": TOTALS, "by_rule": [], "rooms": [ROOM], "rooms_left_out": 9,
    "copies_to_drop": 2,
}  # fmt: skip
PLAN = {"from_version": 4, "changes": ["class project: 1d becomes 1h"], "totals": TOTALS, "by_rule": []}
RUN = {
    "run_id": "r1", "state": "running", "rules_version": 4, "started_ms": 1, "started_by": "@o:x", "ended_ms": None,
    "rooms_planned": 3, "rooms_done": 0, "due": 0, "deleted": 0, "kept_by_hold": 0, "copied_for_hold": 0,
    "copies_dropped": 0, "problems": 0, "problem": None,
}  # fmt: skip
DONE = RUN | {"state": "done", "rooms_done": 3, "due": 7, "deleted": 7, "kept_by_hold": 3}

Answers = dict[str, Any]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "retention.yaml"
    file.write_text(RULES)
    return file


def answering(answers: Answers) -> Callable[[httpx.Request], httpx.Response]:
    """By method and the end of the path; a list gives one answer after the other."""

    def answer(request: httpx.Request) -> httpx.Response:
        found = answers[f"{request.method} {request.url.path.partition('/v1/')[2]}"]
        return httpx.Response(200, json=found.pop(0) if isinstance(found, list) else found)

    return answer


def bodies(govctl: Govctl, path: str) -> list[Any]:
    return [json.loads(request.content) for request in govctl.requests if request.url.path.endswith(path)]


def test_rules_are_shown_class_by_class(govctl: Govctl) -> None:
    govctl.answer = answering(
        {
            "GET retention/rules": {
                "version": 4,
                "applied_ms": 1_700_000_000_000,
                "applied_by": None,
                "document": DOCUMENT,
            }
        }
    )
    shown = govctl("retention", "rules", "show").stdout
    assert "version 4, applied 2023-11-1" in shown
    assert "by the product itself" in shown
    assert [line.split() for line in shown.splitlines()[-2:]] == [["project", "1h"], ["any", "other", "never"]]


def test_before_any_rules_it_says_that_everything_is_kept(govctl: Govctl) -> None:
    answer = {"version": 0, "applied_ms": None, "applied_by": None, "document": DOCUMENT}
    govctl.answer = answering({"GET retention/rules": answer})
    assert "everything is kept" in govctl("retention", "rules", "show").stdout


def test_a_plan_shows_changes_and_consequences_and_changes_nothing(govctl: Govctl, rules: Path) -> None:
    govctl.answer = answering({"POST retention/rules/plan": PLAN})
    shown = govctl("retention", "rules", "plan", rules).stdout
    assert "class project: 1d becomes 1h" in shown
    assert "delete 7 messages in 2 rooms (4.2 kB)" in shown
    assert "keep 3 messages in 1 room because of legal holds" in shown
    assert bodies(govctl, "/plan") == [{"document": DOCUMENT}]
    assert len(govctl.requests) == 1


def test_applying_names_the_version_that_the_plan_showed(govctl: Govctl, rules: Path) -> None:
    applied = {"version": 5, "changes": PLAN["changes"]}
    govctl.answer = answering({"POST retention/rules/plan": PLAN, "POST retention/rules/apply": applied})
    result = govctl("retention", "rules", "apply", "--yes", rules)
    assert (result.exit_code, "in force: version 5" in result.stdout) == (0, True)
    assert bodies(govctl, "/apply") == [{"document": DOCUMENT, "expected_version": 4}]


def test_nothing_is_applied_without_consent(govctl: Govctl, rules: Path) -> None:
    govctl.answer = answering({"POST retention/rules/plan": PLAN})
    result = govctl("retention", "rules", "apply", rules)
    assert result.exit_code == 2
    assert "--yes confirms it beforehand" in result.stderr
    assert bodies(govctl, "/apply") == []


def test_a_mistake_in_the_rules_is_told_before_anything_is_sent(govctl: Govctl, rules: Path) -> None:
    rules.write_text(RULES.replace("1h", "1y"))
    result = govctl("retention", "rules", "plan", rules)
    assert result.exit_code == 1
    assert "rules[0].delete_after: found '1y', expected a whole number and a unit" in result.stderr
    assert govctl.requests == []


def test_a_simulation_shows_rooms_holds_and_copies(govctl: Govctl) -> None:
    govctl.answer = answering({"GET retention/simulation": SIMULATION})
    shown = govctl("retention", "simulate", "--rooms", "1").stdout
    for words in (
        "due under version 4 of the rules: 7 messages in 2 rooms (4.2 kB)",
        "kept by legal holds: 3 messages in 1 room",
        "because their senders are under hold: 1 message",
        "copies that no hold covers any more, deleted as well: 2",
        "and 9 more rooms",
    ):
        assert words in shown
    assert govctl.requests[0].url.query == b"rooms=1"


def test_a_run_is_followed_until_it_has_ended(govctl: Govctl) -> None:
    govctl.answer = answering({"POST retention/run": RUN, "GET retention/runs/r1": [RUN, DONE]})
    result = govctl("retention", "run", "--yes")
    assert result.exit_code == 0
    assert "run r1: done" in result.stdout
    assert "deleted 7 messages of 7 that were due" in result.stdout
    assert "kept by legal holds: 3 messages" in result.stdout


def test_a_run_without_consent_shows_what_it_would_delete_and_deletes_nothing(govctl: Govctl) -> None:
    govctl.answer = answering({"GET retention/simulation": SIMULATION})
    result = govctl("retention", "run")
    assert result.exit_code == 2
    assert "7 messages in 2 rooms" in result.stdout
    assert [request.method for request in govctl.requests] == ["GET"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"problems": 2, "deleted": 3}, "rooms in which something due is left: 2"),
        ({"state": "failed", "problem": "the audit log is behind"}, "the audit log is behind"),
        ({"state": "interrupted", "problem": "its process ended"}, "its process ended"),
    ],
)
def test_a_run_that_left_something_ends_with_status_one(govctl: Govctl, end: dict[str, Any], words: str) -> None:
    govctl.answer = answering({"POST retention/run": RUN, "GET retention/runs/r1": [DONE | end]})
    result = govctl("retention", "run", "--yes")
    assert (result.exit_code, words in result.stdout) == (1, True)


def test_scripts_get_one_json_document(govctl: Govctl, rules: Path) -> None:
    applied = {"version": 5, "changes": PLAN["changes"]}
    govctl.answer = answering(
        {
            "POST retention/rules/plan": PLAN,
            "POST retention/rules/apply": applied,
            "GET retention/simulation": SIMULATION,
            "POST retention/run": RUN,
            "GET retention/runs/r1": [DONE],
        }
    )
    for command, expected in (
        (("rules", "plan", rules), PLAN),
        (("rules", "apply", "--yes", rules), applied),
        (("simulate",), SIMULATION),
        (("run", "--yes"), DONE),
    ):
        assert json.loads(govctl("retention", *command, "--json").stdout) == expected
