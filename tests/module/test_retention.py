"""Rules, simulation and runs in a real homeserver."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.module.retention_module import OFFICER, carried_out, ended, recorded, retained, sql, steer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment

KEEP: dict[str, Any] = {"version": 1, "rules": [], "default": {"delete_after": None}}
SHORT: dict[str, Any] = {**KEEP, "rules": [{"class": "project", "delete_after": "1s"}]}
CLASSES = {"project": "Project*", "regulated": "Regulated*"}


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str) -> Deployment:
    return retained(deploy_shared, postgres=engine == "postgres")


@pytest.fixture(scope="module")
def officer(deployment: Deployment) -> MatrixClient:
    found = deployment.register("officer")
    assert found.user_id == OFFICER
    return found


@pytest.fixture(scope="module")
def alice(deployment: Deployment) -> MatrixClient:
    return deployment.register("alice")


@pytest.fixture
def calm(officer: MatrixClient) -> Iterator[None]:
    """Everything is kept before and after the test, whatever it steers."""
    apply(officer, KEEP)
    yield
    steer(officer, classes=CLASSES, followed=True)
    apply(officer, KEEP)


def apply(officer: MatrixClient, document: dict[str, Any]) -> int:
    version = officer.governance("GET", "retention/rules").expect()["version"]
    body = {"document": document, "expected_version": version}
    return int(officer.governance("POST", "retention/rules/apply", body).expect()["version"])


def room_with(client: MatrixClient, name: str, count: int = 4) -> str:
    """A room with messages ``1`` to ``count``, the last of which survives every purge."""
    room = str(client.create_room(name=name).expect()["room_id"])
    for number in range(1, count + 1):
        client.send(room, f"{name} {number}").expect()
    return room


def simulation(officer: MatrixClient, **query: int) -> dict[str, Any]:
    return officer.governance("GET", "retention/simulation", **query).expect()


def wait_until_due(officer: MatrixClient, room: str, count: int) -> dict[str, Any]:
    """The simulation in which ``count`` messages of ``room`` are due."""

    def look() -> dict[str, Any] | None:
        found = simulation(officer)
        due = {each["room_id"]: each["due"] + each["kept_by_hold"] for each in found["rooms"]}
        return found if due.get(room) == count else None

    return wait_until(look, what=f"{count} messages of {room} are due") or {}


# ----------------------------------------------------------------------------------------------------- rules


def test_before_any_rules_were_applied_everything_is_kept(deployment: Deployment, officer: MatrixClient) -> None:
    del deployment
    answer = officer.governance("GET", "retention/rules").expect()
    assert answer == {"version": 0, "applied_ms": None, "applied_by": None, "document": KEEP}
    assert simulation(officer)["rooms"] == []


def test_rules_are_applied_by_whoever_has_seen_those_in_force(officer: MatrixClient, calm: None) -> None:
    del calm
    version = officer.governance("GET", "retention/rules").expect()["version"]
    body = {"document": SHORT, "expected_version": version}
    answer = officer.governance("POST", "retention/rules/apply", body).expect()
    assert answer == {"version": version + 1, "changes": ["class project: gets a rule of its own, delete after 1s"]}

    late = officer.governance("POST", "retention/rules/apply", body)
    assert late.status == 409
    assert f"version {version + 1} of the retention rules is in force, you have seen version {version}" in late.error
    in_force = officer.governance("GET", "retention/rules").expect()
    assert (in_force["version"], in_force["applied_by"], in_force["document"]) == (version + 1, OFFICER, SHORT)


def test_rules_that_change_nothing_make_no_version_and_no_record(officer: MatrixClient, calm: None) -> None:
    del calm
    version = apply(officer, SHORT)
    before = recorded(officer)
    assert apply(officer, SHORT) == version
    assert recorded(officer) == before


def test_a_change_of_rules_is_on_record_with_what_it_was_before(officer: MatrixClient, calm: None) -> None:
    del calm
    version = apply(officer, SHORT)
    (event,) = [
        each for each in recorded(officer, action="retention.rules.change") if each["details"]["version"] == version
    ]
    assert event["actor"] == OFFICER
    assert event["details"] == {"version": version, "before": KEEP, "after": SHORT}


@pytest.mark.parametrize("way", ["plan", "apply"])
@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"class": "projekt", "delete_after": "1d"}, "found 'projekt', expected a room class of the access policy"),
        ({"class": "project", "delete_after": "1y"}, "expected a whole number and a unit"),
        ({"class": "project"}, "body:document.rules[0].delete_after"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(
    officer: MatrixClient, calm: None, way: str, rule: dict[str, Any], words: str
) -> None:
    del calm
    body: dict[str, Any] = {"document": {**KEEP, "rules": [rule]}}
    if way == "apply":
        body["expected_version"] = officer.governance("GET", "retention/rules").expect()["version"]
    refused = officer.governance("POST", f"retention/rules/{way}", body)
    assert refused.status == 400
    assert words in refused.error
    assert "document.rules[0]" in refused.error


def test_a_plan_tells_what_would_change_and_what_a_run_would_delete(
    officer: MatrixClient, alice: MatrixClient, calm: None
) -> None:
    del calm
    room = room_with(alice, "Project Plan")
    apply(officer, SHORT)
    wait_until_due(officer, room, 3)
    apply(officer, KEEP)

    planned = officer.governance("POST", "retention/rules/plan", {"document": SHORT}).expect()

    assert planned["changes"] == ["class project: gets a rule of its own, delete after 1s"]
    assert planned["totals"]["due"] >= 3
    assert planned["by_rule"][0]["rule"] == "class:project"
    assert officer.governance("GET", "retention/rules").expect()["document"] == KEEP


def test_nobody_but_who_may_gets_in(deployment: Deployment, alice: MatrixClient) -> None:
    del deployment
    for method, path, body in [
        ("GET", "retention/rules", None),
        ("GET", "retention/simulation", None),
        ("POST", "retention/rules/plan", {"document": KEEP}),
        ("POST", "retention/rules/apply", {"document": KEEP, "expected_version": 0}),
        ("POST", "retention/run", None),
        ("GET", "retention/runs/abc", None),
        ("GET", "holds", None),
        ("POST", "holds", {}),
        ("GET", "holds/abc", None),
        ("POST", "holds/abc/release", {}),
    ]:
        assert alice.governance(method, path, body).status == 403


# ------------------------------------------------------------------------------------------------------ runs


def test_a_run_deletes_what_is_due_and_nothing_else(officer: MatrixClient, alice: MatrixClient, calm: None) -> None:
    del calm
    old = room_with(alice, "Project Old")
    other = room_with(alice, "Somewhere else")
    version = apply(officer, SHORT)
    wait_until_due(officer, old, 3)
    # The binary search for the cut-off goes by the homeserver's clock; what is younger than a second stays.
    alice.send(old, "young").expect()

    run = carried_out(officer)

    assert alice.texts(old)[-1] == "young"
    assert "Project Old 1" not in alice.texts(old)
    assert alice.texts(other) == [f"Somewhere else {number}" for number in range(1, 5)]
    assert alice.state(old, "m.room.name").expect() == {"name": "Project Old"}
    assert (run["state"], run["rules_version"], run["problems"], run["problem"]) == ("done", version, 0, None)
    assert run["deleted"] == run["due"] >= 3
    assert run["started_by"] == OFFICER
    alice.send(old, "the room still works").expect()


def test_a_run_does_what_the_simulation_said(officer: MatrixClient, alice: MatrixClient, calm: None) -> None:
    del calm
    rooms = [room_with(alice, f"Project {number}", 3) for number in range(2)]
    apply(officer, SHORT)
    *_, said = [wait_until_due(officer, room, 2) for room in rooms]
    run = carried_out(officer)
    assert (run["deleted"], run["rooms_done"]) == (said["totals"]["due"], said["totals"]["rooms"])
    assert simulation(officer)["totals"]["due"] == 0
    assert carried_out(officer)["deleted"] == 0


def test_a_run_is_on_record_room_by_room_and_in_all(officer: MatrixClient, alice: MatrixClient, calm: None) -> None:
    del calm
    room = room_with(alice, "Project Recorded")
    version = apply(officer, SHORT)
    wait_until_due(officer, room, 3)

    run = carried_out(officer)

    events = [
        event for event in recorded(officer, action="retention.purge") if event["details"]["run"] == run["run_id"]
    ]
    *_, last = events
    (own,) = [event for event in events if event["room_id"] == room]
    assert (own["outcome"], own["rule"], own["actor"]) == ("success", "class:project", OFFICER)
    details = own["details"]
    cutoff_ms = details.pop("cutoff_ms")
    assert cutoff_ms == run["started_ms"] - 1000
    assert details == {
        "run": run["run_id"], "rules_version": version, "room_class": "project", "due": 3, "deleted": 3,
        "kept_by_hold": 0, "copied_for_hold": 0, "problem": None,
    }  # fmt: skip
    assert (last["room_id"], last["details"]["deleted"]) == (None, run["deleted"])
    assert len(events) == run["rooms_done"] + 1


def test_a_simulation_is_on_record_before_anybody_sees_it(officer: MatrixClient, calm: None) -> None:
    del calm
    before = len(recorded(officer, action="retention.simulate"))
    found = simulation(officer, rooms=0)
    events = recorded(officer, action="retention.simulate")
    assert len(events) == before + 1
    assert events[-1]["details"]["due"] == found["totals"]["due"]


def test_a_simulation_names_as_many_rooms_as_it_is_asked_for(
    officer: MatrixClient, alice: MatrixClient, calm: None
) -> None:
    del calm
    rooms = [room_with(alice, "Project Many", count) for count in (2, 4, 3)]
    apply(officer, SHORT)
    for room, due in zip(rooms, (1, 3, 2), strict=True):
        wait_until_due(officer, room, due)
    everything = simulation(officer)
    found = simulation(officer, rooms=2)
    assert [each["room_id"] for each in found["rooms"]] == [each["room_id"] for each in everything["rooms"]][:2]
    assert found["rooms_left_out"] == len(everything["rooms"]) - 2
    assert [room["due"] for room in everything["rooms"]] == sorted(
        (room["due"] for room in everything["rooms"]), reverse=True
    )
    carried_out(officer)


# ------------------------------------------------------------------------------------------ what stops a run


def test_nothing_is_deleted_while_the_audit_log_is_behind(
    officer: MatrixClient, alice: MatrixClient, calm: None
) -> None:
    del calm
    room = room_with(alice, "Project Behind")
    apply(officer, SHORT)
    wait_until_due(officer, room, 3)
    steer(officer, followed=False)

    run = carried_out(officer)

    assert (run["state"], run["deleted"]) == ("failed", 0)
    assert "the audit log has not followed every event" in run["problem"]
    assert len(alice.texts(room)) == 4
    steer(officer, followed=True)
    assert carried_out(officer)["state"] == "done"
    assert len(alice.texts(room)) == 1


def test_nothing_is_deleted_while_the_policy_has_lost_a_class_that_a_rule_names(
    officer: MatrixClient, alice: MatrixClient, calm: None
) -> None:
    del calm
    room = room_with(alice, "Project Lost")
    apply(officer, {**SHORT, "default": {"delete_after": "1s"}})
    wait_until_due(officer, room, 3)
    steer(officer, classes={"regulated": "Regulated*"})

    refused = officer.governance("GET", "retention/simulation")
    assert refused.status == 409
    assert "name the room class project, which the access policy no longer defines" in refused.error
    run = carried_out(officer)
    assert (run["state"], run["deleted"]) == ("failed", 0)
    assert len(alice.texts(room)) == 4


def test_nothing_is_deleted_while_the_room_classes_are_not_known(
    officer: MatrixClient, alice: MatrixClient, calm: None
) -> None:
    del calm
    room = room_with(alice, "Project Unknown")
    apply(officer, SHORT)
    wait_until_due(officer, room, 3)
    steer(officer, classes=None)
    assert officer.governance("GET", "retention/simulation").status == 503
    assert carried_out(officer)["state"] == "failed"
    assert len(alice.texts(room)) == 4


def test_a_second_run_at_once_is_refused(officer: MatrixClient, calm: None) -> None:
    del calm
    now_ms = simulation(officer)["now_ms"]
    sql(officer, "UPDATE governance_retention_lock SET run_id = 'other', heartbeat_ms = ?", now_ms)
    refused = officer.governance("POST", "retention/run")
    assert (refused.status, "run other is going on" in refused.error) == (409, True)
    sql(officer, "UPDATE governance_retention_lock SET heartbeat_ms = ?", now_ms - 61_000)
    assert carried_out(officer)["state"] == "done"


def test_a_clock_that_was_set_back_does_not_lock_runs_out_for_ever(officer: MatrixClient, calm: None) -> None:
    del calm
    now_ms = simulation(officer)["now_ms"]
    sql(officer, "UPDATE governance_retention_lock SET run_id = 'other', heartbeat_ms = ?", now_ms + 3_600_000)
    assert carried_out(officer)["state"] == "done"


def test_an_unknown_run_is_not_found(officer: MatrixClient) -> None:
    assert officer.governance("GET", "retention/runs/nothing").status == 404


# ---------------------------------------------------------------------------------- homeservers of their own


def test_rules_from_a_file_are_applied_once_and_wait_for_their_classes(deploy: Deploy, tmp_path: Path) -> None:
    file = tmp_path / "retention.yaml"
    file.write_text("version: 1\nrules:\n  - {class: later, delete_after: 1d}\ndefault: {delete_after: 1w}\n")
    deployment = retained(deploy, {"rules_file": str(file)})
    officer = deployment.register("officer")
    assert officer.governance("GET", "retention/rules").expect()["version"] == 0
    steer(officer, classes={"later": "Later*"})

    def applied() -> bool:
        return bool(officer.governance("GET", "retention/rules").expect()["version"] == 1)

    wait_until(applied, what="the rules are applied")
    (event,) = recorded(officer, action="retention.rules.change")
    assert (event["actor"], event["details"]["before"]) == (None, None)

    file.write_text("version: 1\nrules: []\ndefault: {delete_after: null}\n")
    deployment.main.restart()
    in_force = officer.governance("GET", "retention/rules").expect()
    assert (in_force["version"], in_force["document"]["default"]) == (1, {"delete_after": "1w"})


def test_a_mistake_in_the_rules_file_stops_the_start(deploy: Deploy, tmp_path: Path) -> None:
    file = tmp_path / "retention.yaml"
    file.write_text("version: 1\nrules: []\ndefault: {delete_after: soon}\n")
    with pytest.raises(Exception, match=r"retention\.yaml:default\.delete_after: found 'soon'"):
        retained(deploy, {"rules_file": str(file)})


def test_a_run_whose_process_is_killed_ends_as_interrupted_and_the_next_one_goes_on(deploy: Deploy) -> None:
    deployment = retained(deploy)
    officer, alice = deployment.register("officer"), deployment.register("alice")
    room = room_with(alice, "Project Killed")
    apply(officer, SHORT)
    wait_until_due(officer, room, 3)
    steer(officer, hangs=True)
    run_id = officer.governance("POST", "retention/run").expect()["run_id"]
    assert officer.governance("POST", "retention/run").status == 409

    deployment.main.kill()
    with closing(sqlite3.connect(deployment.database)) as database, database:
        database.execute("UPDATE governance_retention_lock SET heartbeat_ms = heartbeat_ms - 61000")  # time goes by
    deployment.main.start()

    assert ended(officer, run_id)["state"] == "interrupted"
    assert len(alice.texts(room)) == 4
    assert carried_out(officer)["deleted"] == 3
    assert len(alice.texts(room)) == 1


def test_a_purge_whose_process_died_before_its_record_is_put_on_record_later(deploy: Deploy) -> None:
    deployment = retained(deploy)
    officer, alice = deployment.register("officer"), deployment.register("alice")
    room = room_with(alice, "Project Killed", 5)
    apply(officer, SHORT)
    wait_until_due(officer, room, 4)
    run_id = officer.governance("POST", "retention/run").expect()["run_id"]
    ended(officer, run_id)
    _undo_the_end(officer, run_id, room)

    deployment.main.kill()
    deployment.main.start()

    settled = ended(officer, run_id)
    assert (settled["state"], settled["deleted"], settled["due"]) == ("interrupted", 4, 4)
    assert settled["problems"] == 1
    (event,) = [each for each in recorded(officer, room_id=room) if each["details"]["problem"]]
    assert event["details"]["problem"] == "the run was interrupted"
    assert (event["outcome"], event["details"]["deleted"]) == ("failure", 4)
    assert carried_out(officer)["state"] == "done"


def _undo_the_end(officer: MatrixClient, run_id: str, room: str) -> None:
    """Make the database look as if the process had died after the purge and before its record."""
    sql(officer, "DELETE FROM governance_audit_outbox")
    sql(
        officer,
        "UPDATE governance_retention_runs SET state = 'running', ended_ms = NULL, rooms_done = 0, due = 0, deleted = 0",
    )
    sql(officer, "UPDATE governance_retention_lock SET run_id = ?, heartbeat_ms = 0", run_id)
    sql(
        officer,
        "INSERT INTO governance_retention_intents (run_id, room_id, room_class, rule, cutoff_ms, due, copies) "
        "SELECT run_id, ?, 'project', 'class:project', started_ms - 1000, 4, 0 FROM governance_retention_runs",
        room,
    )


def test_what_is_due_is_deleted_on_time(deploy: Deploy) -> None:
    deployment = retained(deploy)
    officer, alice = deployment.register("officer"), deployment.register("alice")
    room = room_with(alice, "Project Timely")
    apply(officer, SHORT)
    wait_until_due(officer, room, 3)
    assert len(alice.texts(room)) == 4

    deployment.settings["modules"][0]["config"] = {"run_every_hours": 1}
    deployment.stop()
    deployment.start()

    wait_until(lambda: len(alice.texts(room)) == 1, what="the run has deleted what was due")
    (event,) = recorded(officer, action="retention.purge", room_id=room)
    assert event["actor"] is None


def test_a_worker_without_background_tasks_says_whom_to_ask(deploy: Deploy) -> None:
    deployment = retained(deploy, workers=1)
    officer = deployment.register("officer")
    worker = officer.at(deployment.workers[0].url)
    refused = worker.governance("POST", "retention/run")
    assert refused.status == 503
    assert "does not delete. Send this request to the process that has Synapse's background tasks" in refused.error
    assert worker.governance("GET", "retention/simulation").ok
    assert ended(worker, officer.at(deployment.main.url).governance("POST", "retention/run").expect()["run_id"])
