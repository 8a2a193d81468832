"""A governed homeserver on SQLite becomes one on PostgreSQL by the commands of the operator's guide."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.outbox import leave_in_outbox
from synapse_modules.audit.record import Recorder
from synapse_modules.audit.verify import verify_bundle
from synapse_modules.core.actions import Action
from synapse_modules.core.clock import system_random
from synapse_modules.core.ports import AuditEvent
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.support.documents import ROOT
from tests.support.governance import all_modules, apply_policy
from tests.support.process import ProcessDied
from tests.support.templates import postgres_template
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_modules.core.ports import Transaction
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

ALLOWED = [
    "login", "room.create", "message.send", "governance.policy.read", "governance.policy.write", "audit.read",
    "audit.export", "hold.read", "hold.create", "retention.read",
]  # fmt: skip
POLICY: dict[str, Any] = {
    "version": 1,
    "roles": {"officer": {"allow": ALLOWED}},
    "bindings": [{"role": "officer", "user": "@officer:synapse.test", "scope": "server"}],
}
WAITING = "waiting:"


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[str]:
    """A new PostgreSQL database; its name."""
    name = postgres.create_database()
    yield name
    postgres.drop_database(name)


def commands() -> list[list[str]]:
    """Those of the guide, as words."""
    guide = (ROOT / "docs" / "operator.md").read_text()
    section = guide.partition("## From SQLite to PostgreSQL")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line.split() for line in block.splitlines() if line.strip()]


def run(folder: Path, words: list[str]) -> None:
    program = Path(sys.executable).with_name(words[0])
    done = subprocess.run(
        [program, *words[1:]], cwd=folder, capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"


def leave_waiting(path: Path) -> None:
    """Three records stand in the outbox, as where a process was killed."""
    database = Database(DatabaseLocation(Dialect.SQLITE, {"database": str(path)}))
    recorder = Recorder("synapse.test", "main", system_random)

    def leave(transaction: Transaction) -> None:
        for number in range(3):
            event = AuditEvent(Action.HOLD_CREATE, details={"hold": f"{WAITING}{number}"})
            leave_in_outbox(transaction, recorder.record(event, int(time.time() * 1000)))

    database.run(leave)
    database.close()


def on_postgres(deployment: Deployment, section: dict[str, Any]) -> None:
    """homeserver-postgres.yaml beside the present settings, and the present settings the same."""
    deployment.settings["database"] = section
    (deployment.folder / "homeserver-postgres.yaml").write_text(json.dumps(deployment.settings))


def entries(officer: MatrixClient) -> list[dict[str, Any]]:
    """The log's newest entries, oldest first."""
    found = officer.governance("GET", "audit/entries", case="PORT-1", limit=500).expect()["entries"]
    return list(reversed(found))


def placed(officer: MatrixClient) -> dict[str, Any]:
    """The log's state, once everything so far has its place."""
    return wait_until(
        lambda: (status := officer.governance("GET", "audit/status").expect())["unordered"] == 0 and status,
        what="everything has its place",
    )


def verified_size(officer: MatrixClient, key: str) -> int:
    """How many entries an export shows, verified with ``key``."""
    reply = officer.governance("POST", "audit/export", {"case_id": "PORT-1"})
    return verify_bundle(io.BytesIO(reply.text.encode()), KnownKeys([VerifierKey.parse(key)]), lambda _: None).entries


def test_policy_holds_and_log_go_on_after_the_way_to_postgresql(
    deploy: Deploy, postgres: Postgres, empty: str, tmp_path: Path
) -> None:
    deployment = deploy(modules=all_modules(tmp_path / "governance", POLICY))
    officer = deployment.register("officer")
    room = officer.create_room(name="Evidence").expect()["room_id"]
    officer.send(room, "what is held").expect()
    hold = {"kind": "room", "subject": room, "case_id": "LIT-1", "reason": "Evidence"}
    hold_id = officer.governance("POST", "holds", hold).expect()["hold_id"]
    policy = POLICY | {"groups": {"crew": {"members": ["@crew:synapse.test"]}}}
    version = apply_policy(officer, policy)
    before, log_before = placed(officer), entries(officer)
    deployment.stop()
    leave_waiting(deployment.folder / "homeserver.db")

    on_postgres(deployment, {"name": "psycopg2", "args": postgres.connection_arguments(empty)})
    for words in commands():
        run(deployment.folder, words)
    deployment.start()

    stored = officer.governance("GET", "rbac/policy").expect()
    assert (stored["version"], stored["document"]["groups"]["crew"]["members"]) == (version, ["@crew:synapse.test"])
    assert [each["hold_id"] for each in officer.governance("GET", "holds").expect()["holds"]] == [hold_id]
    with pytest.raises(Exception, match="legal hold"):
        postgres.execute("DELETE FROM event_json WHERE room_id = %s", [room], database=empty)
    assert officer.texts(room) == ["what is held"]

    assert apply_policy(officer, POLICY) == version + 1  # with a record whose number is none of those that waited
    officer.send(room, "on PostgreSQL").expect()
    after = wait_until(lambda: _with_message(officer, len(log_before)), what="the log goes on")
    assert after[: len(log_before)] == log_before
    held = [str(each["details"].get("hold")) for each in after[len(log_before) :]]
    assert [name for name in held if name.startswith(WAITING)] == [f"{WAITING}{number}" for number in range(3)]
    status = placed(officer)
    assert (status["damage"], status["keys"]) == (None, before["keys"])
    assert status["size"] > before["size"]
    assert verified_size(officer, before["keys"][0]) >= status["size"]
    assert not (deployment.folder / "governance-audit.db").exists()


def _with_message(officer: MatrixClient, known: int) -> list[dict[str, Any]]:
    """All entries, once a message is among those after the ``known`` ones; nothing before."""
    found = entries(officer)
    return found if "message.send" in [each["action"] for each in found[known:]] else []


def test_without_its_log_the_key_does_not_sign_another_one(deploy: Deploy, postgres: Postgres, tmp_path: Path) -> None:
    deployment = deploy(modules=all_modules(tmp_path / "governance", POLICY))
    placed(deployment.register("officer"))
    deployment.stop()
    target = postgres.create_database(template=postgres_template(postgres))
    on_postgres(deployment, {"name": "psycopg2", "args": postgres.connection_arguments(target)})

    with pytest.raises(ProcessDied, match=r"this audit log is empty, but the key .* has signed one before"):
        deployment.start()

    assert postgres.execute("SELECT COUNT(*) FROM governance_audit_records", database=target) == [(0,)]
    postgres.drop_database(target)
