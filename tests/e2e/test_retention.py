"""Retention with all three modules: what a run deletes is in the audit log before, and the run itself after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.governance import all_modules
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment

POLICY: dict[str, Any] = {
    "version": 1,
    "room_classes": [{"name": "project", "match": {"name": "Project*"}}],
    "roles": {
        "member": {"allow": ["login", "room.create", "room.invite", "room.join", "message.send"]},
        "officer": {
            "allow": [
                "audit.read", "retention.read", "retention.write", "retention.run", "hold.read", "hold.create",
                "hold.release",
            ]
        },
    },
    "bindings": [
        {"role": "member", "group": "everyone", "scope": "server"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
    ],
}  # fmt: skip
KEEP: dict[str, Any] = {
    "version": 1,
    "rules": [{"class": "project", "delete_after": "1d"}],
    "default": {"delete_after": None},
}
SHORT: dict[str, Any] = {**KEEP, "rules": [{"class": "project", "delete_after": "1s"}]}


@pytest.fixture(scope="module")
def governed(deploy_shared: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy_shared(workers=2, modules=all_modules(tmp_path_factory.mktemp("governance"), POLICY, KEEP))


@pytest.fixture(scope="module")
def officer(governed: Deployment) -> MatrixClient:
    return governed.register("officer")


def entries(officer: MatrixClient, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = officer.governance("GET", "audit/entries", case="TEST-1", limit=500, **query, **cursor).expect()
        found += answer["entries"]
        if not answer.get("next_cursor"):
            return found
        cursor = {"cursor": answer["next_cursor"]}


def test_what_a_run_deletes_is_on_record_and_a_hold_placed_through_one_worker_holds_against_it(
    governed: Deployment, officer: MatrixClient
) -> None:
    alice = governed.register("alice")
    first, second = (worker.url for worker in governed.workers)
    rooms = [str(alice.create_room(name=f"Project {name}").expect()["room_id"]) for name in ("Held", "Free")]
    held, free = rooms
    sent = {
        room: [
            alice.at((first, second)[number % 2]).send(room, f"{number}").expect()["event_id"] for number in range(8)
        ]
        for room in rooms
    }
    hold = {"kind": "room", "subject": held, "case_id": "LIT-1", "reason": "It is evidence"}
    officer.at(first).governance("POST", "holds", hold).expect()
    _apply(officer.at(second), SHORT)
    due = {held: 7, free: 7}
    wait_until(lambda: _due(officer.at(first)) == due, what="the messages are due")

    main = officer.at(governed.main.url)
    run_id = main.governance("POST", "retention/run").expect()["run_id"]
    run = wait_until(lambda: _ended(officer.at(second), run_id), what="the run has ended") or {}

    assert (run["state"], run["deleted"], run["kept_by_hold"], run["problem"]) == ("done", 7, 7, None)
    assert alice.at(first).texts(held) == [str(number) for number in range(8)]
    wait_until(lambda: alice.at(second).texts(free) == ["7"], what="the worker shows what is left")

    def all_on_record() -> bool:
        return all(set(sent[room]) <= on_record(main, room) for room in rooms)

    wait_until(all_on_record, what="every message has an index")
    wait_until(lambda: len(entries(main, action="retention.purge")) == 3, what="the run is on record")


def on_record(officer: MatrixClient, room: str) -> set[str]:
    found = entries(officer, room=room, action="message.send")
    return {entry["details"]["event_id"] for entry in found}


def _apply(officer: MatrixClient, document: dict[str, Any]) -> None:
    version = officer.governance("GET", "retention/rules").expect()["version"]
    body = {"document": document, "expected_version": version}
    officer.governance("POST", "retention/rules/apply", body).expect()


def _due(officer: MatrixClient) -> dict[str, int]:
    rooms = officer.governance("GET", "retention/simulation").expect()["rooms"]
    return {room["room_id"]: room["due"] + room["kept_by_hold"] for room in rooms}


def _ended(officer: MatrixClient, run_id: str) -> dict[str, Any] | None:
    run = officer.governance("GET", f"retention/runs/{run_id}").expect()
    return None if run["state"] == "running" else run
