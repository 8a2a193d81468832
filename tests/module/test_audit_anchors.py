"""The audit log of a real homeserver with anchors: fed while it runs, and not signed once its database was set back."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from synapse_modules.audit import store
from synapse_modules.audit.anchors.file import FileAnchor
from synapse_modules.audit.checkpoint import Checkpoint, VerifierKey, open_note, split_note
from synapse_modules.audit.cosignature import WitnessKey, cosignatures
from synapse_modules.audit.key_file import load_key
from synapse_modules.audit.receipts import published_head
from synapse_modules.cli.main import govctl
from synapse_modules.core.clock import SystemClock
from tests.module.audit_module import audited, log_of, service
from tests.module.support import inside
from tests.support.anchor_servers import Witness
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.synapse import Deployment

ORIGIN = "synapse.test/governance-audit"


async def status(_api: ModuleApi) -> dict[str, Any]:
    return await service().status()


def vault(folder: Path) -> dict[str, Any]:
    return {"kind": "file", "name": "vault", "path": str(folder / "checkpoints"), "interval_s": 0.2}


def anchored_size(folder: Path) -> int:
    held = FileAnchor("vault", folder / "checkpoints", SystemClock()).latest()
    return held.size if held else 0


def signed_size(log: Database) -> int:
    head = log.run(store.checkpoint, read_only=True)
    return head.size if head else 0


def recorded(log: Database) -> int:
    def count(transaction: Any) -> int:
        transaction.execute("SELECT COUNT(*) FROM governance_audit_records")
        return int(transaction.fetchone()[0])

    return log.run(count, read_only=True)


@pytest.mark.parametrize("on_postgres", [False, True], ids=["sqlite", "postgres"])
def test_checkpoints_go_to_a_file_and_a_witness_while_the_homeserver_runs(
    deploy: Deploy, tmp_path: Path, on_postgres: bool, request: pytest.FixtureRequest
) -> None:
    logs: dict[str, str] = {}
    with Witness(logs) as witness:
        w1 = {"kind": "witness", "name": "w1", "url": witness.url, "key": witness.verifier_key, "interval_s": 0.2}
        deployment = audited(deploy, tmp_path, postgres=on_postgres, config={"anchors": [vault(tmp_path), w1]})
        logs[ORIGIN] = str(load_key(tmp_path / "audit.key", ORIGIN).verifier)
        witness.logs.update(logs)
        log = log_of(deployment, request.getfixturevalue("postgres") if on_postgres else None)
        deployment.register("alice")

        def cosigned() -> bool:
            head = log.run(published_head, read_only=True)
            return head is not None and len(split_note(head.note)[1]) == 2

        wait_until(cosigned, what="the published checkpoint has a cosignature")
        head = log.run(published_head, read_only=True)
        assert head is not None
        assert cosignatures(head.note, [WitnessKey.parse(witness.verifier_key)])
        found = inside(deployment.url, status)
        assert {each["name"]: each["kind"] for each in found["anchors"]} == {"vault": "file", "w1": "witness"}
        metrics = deployment.client().request("GET", "/_synapse/metrics").text
        assert 'synapse_governance_audit_anchor_contradiction{anchor="vault",kind="file"' in metrics
        deployment.stop()
        assert anchored_size(tmp_path) == witness.seen[ORIGIN].size == signed_size(log)


def test_a_log_that_was_restored_from_a_backup_records_and_does_not_sign_until_it_is_continued(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = audited(deploy, tmp_path, config={"anchors": [vault(tmp_path)]})
    log = log_of(deployment, None)
    deployment.register("alice")
    deployment.stop()
    back_up(log, tmp_path / "monday.db")
    deployment.start()
    deployment.register("bob")
    deployment.stop()
    lost = anchored_size(tmp_path)
    restore(log, tmp_path / "monday.db")
    kept = signed_size(log)
    assert kept < lost

    deployment.start()
    damage = wait_until(lambda: inside(deployment.url, status)["damage"], what="the rollback is noticed")
    assert f"anchor vault: it holds a checkpoint of {lost} entries, but the log's newest has {kept}" in damage
    before = recorded(log)
    deployment.client().login("alice", "wonderland").expect(200)
    assert recorded(log) > before, "logins are recorded all the same"
    assert (signed_size(log), anchored_size(tmp_path)) == (kept, lost)
    deployment.stop()
    assert (signed_size(log), anchored_size(tmp_path)) == (kept, lost)

    continue_under(deployment, tmp_path, f"{ORIGIN}-2")
    deployment.start()
    wait_until(lambda: signed_size(log) > kept, what="the log goes on")
    found = inside(deployment.url, status)
    assert (found["damage"], found["origin"]) == (None, f"{ORIGIN}-2")
    head = log.run(store.checkpoint, read_only=True)
    assert head is not None
    key = VerifierKey.parse(found["keys"][0])
    assert Checkpoint.parse(open_note(head.note, [key])[0]).origin == f"{ORIGIN}-2"
    wait_until(lambda: anchored_size(tmp_path) > kept, what="it is anchored again")


def back_up(log: Database, backup: Path) -> None:
    """Copy the database, as its administrator does."""
    with contextlib.closing(sqlite3.connect(log.location.arguments["database"])) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))


def restore(log: Database, backup: Path) -> None:
    """Put the copy in its place."""
    log.close()
    path = Path(log.location.arguments["database"])
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        each.unlink(missing_ok=True)
    shutil.copy(backup, path)


def continue_under(deployment: Deployment, folder: Path, origin: str) -> None:
    """What the guide tells the operator to do."""
    module = deployment.settings["modules"][0]
    changes = {"origin": origin, "signing_key_path": str(folder / "second.key")}
    module["config"] |= changes
    product = {"module": "synapse_modules.plugin.AuditModule", "config": module["config"]}
    file = folder / "homeserver.yaml"
    file.write_text(json.dumps({**deployment.settings, "modules": [product]}))
    arguments = ["audit", "continue", "-c", str(file), "--reason", "Restored from a backup.", "--yes"]
    done = CliRunner().invoke(govctl, arguments)
    assert done.exit_code == 0, done.stderr
