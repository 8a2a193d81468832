"""Erasing and pruning with govctl, in a real homeserver with the product's own modules, on both engines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from synapse_modules.cli.main import govctl
from tests.module.audit_module import log_of
from tests.support.audit_log import execute, rows
from tests.support.log_roles import roled_log
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

YEAR_MS = 365 * 24 * 3600 * 1000
WHY = ("--basis", "Art. 17 GDPR", "--case", "PRIV-1")
BODY = {"basis": "Art. 17 GDPR", "case_id": "PRIV-1"}


def modules(folder: Path, **audit: Any) -> list[dict[str, Any]]:
    """The audit log and retention, as an operator loads them; without RbacModule server administrators administer."""
    config = {"signing_key_path": str(folder / "audit.key"), "auto_migrate": True, **audit}
    return [
        {"module": "synapse_modules.plugin.AuditModule", "config": config},
        {"module": "synapse_modules.plugin.RetentionModule", "config": {"auto_migrate": True}},
    ]


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy_shared(postgres=engine == "postgres", modules=modules(tmp_path_factory.mktemp("key")))


@pytest.fixture(scope="module")
def officer(deployment: Deployment) -> MatrixClient:
    return deployment.register("officer", admin=True)


@pytest.fixture
def log(deployment: Deployment, engine: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    postgres = request.getfixturevalue("postgres") if engine == "postgres" else None
    database = log_of(deployment, postgres)
    yield database
    database.close()


@pytest.fixture
def command(deployment: Deployment, officer: MatrixClient, tmp_path: Path) -> Callable[..., Result]:
    """`govctl` as the officer runs it."""
    environment = {"GOVCTL_TOKEN": officer.token, "GOVCTL_HOME": str(tmp_path), "GOVCTL_SERVER": deployment.url}
    return lambda *arguments: CliRunner().invoke(govctl, [str(each) for each in arguments], env=environment)


def search(officer: MatrixClient, **query: str | int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = officer.governance("GET", "audit/entries", case="C-1", **query).expect()["entries"]
    return found


def everything(log: Database) -> str:
    """All that the log's own tables hold, as text."""
    tables = ("records", "entries", "cursors", "problems", "floors")
    return "\n".join(str(row) for table in tables for row in rows(log, f"SELECT * FROM governance_audit_{table}"))


def busy(deployment: Deployment, name: str) -> tuple[MatrixClient, str]:
    """Somebody who has done things, and to whom things were done; with the id of a room of theirs."""
    person, other = deployment.register(name), deployment.register(f"friend-of-{name[::-1]}")
    room = person.create_room(name="tea").expect()["room_id"]
    person.invite(room, other.user_id).expect()
    other.join(room).expect()
    person.set_state(room, "m.room.power_levels", _levels(person, room, other.user_id)).expect()
    person.send(room, "never in the log").expect()
    theirs = other.create_room(name="coffee").expect()["room_id"]
    other.invite(theirs, person.user_id).expect()
    return person, room


def _levels(person: MatrixClient, room: str, promoted: str) -> dict[str, Any]:
    levels = person.state(room, "m.room.power_levels").expect()
    levels["users"] = {**levels.get("users", {}), promoted: 50}
    return levels


# ------------------------------------------------------------------------------------------------------- erasing


def test_an_erased_person_is_nowhere_in_the_log_and_the_log_is_whole(
    deployment: Deployment, officer: MatrixClient, log: Database, command: Callable[..., Result], tmp_path: Path
) -> None:
    person, room = busy(deployment, "alice")
    wait_until(lambda: search(officer, target=person.user_id, action="room.invite"), what="all is in the log")
    before = command("audit", "export", "--case", "C-2", "--out", tmp_path / "before.jsonl")
    assert before.exit_code == 0, before.stderr
    counted = json.loads(command("audit", "erase", "--subject", person.user_id, *WHY, "--dry-run", "--json").stdout)
    done = command("audit", "erase", "--subject", person.user_id, *WHY, "--yes", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["entries"] >= counted["entries"] > 5
    assert {"actor", "address", "target", "user_agent"} <= set(told["fields"])
    assert person.user_id not in everything(log)
    size = officer.governance("GET", "audit/checkpoint").expect()["size"]  # whoever searches for them names them again
    assert search(officer, actor=person.user_id) == search(officer, target=person.user_id) == []
    (sent,) = search(officer, room=room, action="message.send")
    assert (sent["actor"], "actor" in sent["erased"]) == (None, True)
    after = command("audit", "export", "--case", "C-2", "--to", size, "--out", tmp_path / "after.jsonl")
    assert after.exit_code == 0, after.stdout + after.stderr
    assert person.user_id not in (tmp_path / "after.jsonl").read_text()
    assert command("verify", tmp_path / "before.jsonl").exit_code == 0
    assert command("verify", tmp_path / "after.jsonl").exit_code == 0


def test_the_record_of_it_tells_who_asked_and_not_who_it_was(
    deployment: Deployment, officer: MatrixClient, command: Callable[..., Result]
) -> None:
    person, _ = busy(deployment, "bertha")
    wait_until(lambda: search(officer, target=person.user_id, action="room.invite"), what="all is in the log")
    told = json.loads(command("audit", "erase", "--subject", person.user_id, *WHY, "--yes", "--json").stdout)

    def newest() -> dict[str, Any]:
        (found,) = search(officer, action="audit.erase", limit=1)
        assert found["details"]["entries"] == told["entries"]
        return found

    record = wait_until(lambda: _quiet(newest), what="the record has its index") or {}
    assert (record["actor"], record["target"], record["case"]) == (officer.user_id, None, "PRIV-1")
    assert record["details"]["basis"] == "Art. 17 GDPR"
    covered = sum(end - begin for begin, end in record["details"]["indexes"])
    assert covered == told["entries"]
    again = json.loads(command("audit", "erase", "--subject", person.user_id, *WHY, "--yes", "--json").stdout)
    assert again["entries"] == 0


def _quiet(read: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return read()
    except (AssertionError, ValueError):
        return None


def test_a_hold_on_the_person_forbids_it_until_it_is_released(
    deployment: Deployment, officer: MatrixClient, command: Callable[..., Result]
) -> None:
    person, room = busy(deployment, "carol")
    wait_until(lambda: search(officer, target=person.user_id, action="room.invite"), what="all is in the log")
    for subject in (("--user", person.user_id), ("--room", room)):
        held = json.loads(command("hold", "create", *subject, "--case", "LIT-7", "--reason", "Claim", "--json").stdout)
        refused = command("audit", "erase", "--subject", person.user_id, *WHY, "--yes")
        assert (refused.exit_code, "legal hold for the case LIT-7" in refused.stderr) == (1, True)
        assert search(officer, actor=person.user_id)
        assert command("hold", "release", held["hold_id"], "--reason", "Settled").exit_code == 0
    assert command("audit", "erase", "--subject", person.user_id, *WHY, "--yes").exit_code == 0
    assert search(officer, actor=person.user_id) == []


def test_nobody_may_without_the_permission(deployment: Deployment) -> None:
    mallory = deployment.register("mallory")
    replies = [
        mallory.governance("POST", "audit/erase", {**BODY, "subject": "@alice:synapse.test"}),
        mallory.governance("POST", "audit/prune", {**BODY, "before_index": 0}),
    ]
    assert [reply.status for reply in replies] == [403, 403]
    assert [reply.body["governance"]["permission"] for reply in replies] == ["audit.erase", "audit.prune"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"basis": "He is @x:synapse.test"}, "body:basis"),
        ({"case_id": "@x:synapse.test"}, "body:case_id"),
        ({"subject": "@officer:synapse.test"}, "nobody erases their own traces"),
        ({"subject": " "}, "body:subject"),
        ({"basis": ""}, "body:basis"),
        ({"begin": 5}, "body:begin"),
        ({"subjects": "x"}, "Did you mean 'subject'?"),
    ],
    ids=str,
)
def test_a_wrong_erasure_is_refused(officer: MatrixClient, body: dict[str, Any], problem: str) -> None:
    reply = officer.governance("POST", "audit/erase", {**BODY, "subject": "@x:synapse.test", **body})
    assert (reply.status, problem in reply.error) == (400, True), reply.error


# ------------------------------------------------------------------------------------------------------- pruning


def test_a_pruned_log_goes_on_is_exported_and_verifies(
    deployment: Deployment, officer: MatrixClient, log: Database, command: Callable[..., Result], tmp_path: Path
) -> None:
    for _ in range(300):
        officer.governance("GET", "audit/entries", case="C-3", limit=1).expect()
    size = wait_until(lambda: _at_least(officer, 300), what="there is more than a tile of entries") or 0
    young = command("audit", "prune", "--before-index", "256", *WHY, "--yes")
    assert (young.exit_code, "what was sealed more than 90 days ago" in young.stderr) == (1, True)
    execute(log, f"UPDATE governance_audit_checkpoints SET created_ms = created_ms - {YEAR_MS} WHERE size <= {size}")
    planned = command("audit", "prune", "--older-than", "300", *WHY, "--dry-run", "--json")
    end = json.loads(planned.stdout)["end"]
    assert end == size // 256 * 256
    done = command("audit", "prune", "--older-than", "300", *WHY, "--yes", "--json")
    assert json.loads(done.stdout)["removed"] == end, done.stderr
    assert search(officer, end=end) == []
    deployment.main.restart()
    officer.create_room(name="later").expect()
    wait_until(lambda: search(officer, action="room.create", begin=end), what="the log goes on")
    assert officer.governance("GET", "audit/status").expect()["damage"] is None
    assert json.loads(command("audit", "search", "--action", "audit.prune", "--case", "C-4", "--json").stdout)[
        "entries"
    ]
    whole = command("audit", "export", "--case", "C-4", "--out", tmp_path / "whole.jsonl", "--json")
    assert json.loads(whole.stdout)["manifest"]["begin"] == end, whole.stdout + whole.stderr
    refused = command("audit", "export", "--case", "C-4", "--from", "1", "--out", tmp_path / "old.jsonl")
    assert (refused.exit_code, "the rest was pruned" in refused.stderr) == (1, True)


def _at_least(officer: MatrixClient, size: int) -> int | None:
    found = int(officer.governance("GET", "audit/checkpoint").expect()["size"])
    return found if found > size else None


# ------------------------------------------------------------------------------------------------------- roles


def test_only_a_process_with_the_maintenance_role_erases(deploy: Deploy, postgres: Postgres, tmp_path: Path) -> None:
    with roled_log(postgres) as log:
        sections = [
            {"name": "psycopg2", "args": dict(each.location.arguments)} for each in (log.writer, log.maintenance)
        ]
        everyday = modules(tmp_path, database=sections[0], auto_migrate=None)
        deployment = deploy(postgres=True, modules=[everyday[1], everyday[0]])
        officer, alice = deployment.register("officer", admin=True), deployment.register("alice")
        body = {**BODY, "subject": alice.user_id}
        refused = officer.governance("POST", "audit/erase", body)
        assert (refused.status, "Give AuditModule a maintenance_database" in refused.error) == (503, True)
        deployment.stop()
        able = modules(tmp_path, database=sections[0], maintenance_database=sections[1], auto_migrate=None)
        deployment.settings["modules"] = [able[1], able[0]]
        deployment.start()
        assert officer.governance("POST", "audit/erase", body).expect()["entries"] >= 1
        assert rows(log.owner, "SELECT 1 FROM governance_audit_entries WHERE actor = ?", [alice.user_id]) == []
