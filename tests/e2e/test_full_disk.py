"""A homeserver whose audit log has no room any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.support.audit_log import naive_root, rows
from tests.support.small_disk import small_disk
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Deploy
    from tests.support.synapse import Deployment

PASSWORD = "wonderland"
ALARM = "audit records wait, and so do their callers"


def test_a_full_disk_denies_logins_with_one_alarm_lets_messages_pass_and_all_goes_on_when_there_is_room(
    deploy: Deploy, tmp_path: Path
) -> None:
    with small_disk(16) as disk:
        file = disk.folder / "audit.db"
        server = deploy(modules=[_audit(file, tmp_path / "audit.key")])
        alice = server.register("alice", password=PASSWORD)
        room = alice.create_room().expect()["room_id"]
        disk.fill()
        refused = wait_until(lambda: _refusal(server), what="a login is refused", timeout=60)
        assert refused == {"rule": "audit-unavailable", "permission": "login"}
        sent = [alice.send(room, f"message {number}").expect()["event_id"] for number in range(3)]
        assert server.main.log().count(ALARM) == 1
        disk.free()
        wait_until(lambda: _refusal(server) is None, what="a login succeeds again")
        assert server.main.log().count(ALARM) == 1
        log = Database(DatabaseLocation(Dialect.SQLITE, {"database": str(file)}))
        wait_until(lambda: set(sent) <= _sent(log), what="what was sent meanwhile is in the log")
        assert naive_root(log)[0] > len(sent)
        log.close()
        server.stop()


def _audit(file: Path, key: Path) -> dict[str, Any]:
    config = {
        "database": {"name": "sqlite3", "args": {"database": str(file)}},
        "signing_key_path": str(key),
        "ack_timeout_ms": 1_000,
    }
    return {"module": "synapse_modules.plugin.AuditModule", "config": config}


def _refusal(server: Deployment) -> Any:
    """What the governance module says against a login; None if nothing."""
    return server.client().login("alice", PASSWORD).body.get("governance")


def _sent(log: Database) -> set[str]:
    found = rows(log, "SELECT leaf FROM governance_audit_records WHERE action = 'message.send'")
    return {leaf[leaf.index(b'"event_id":"') + 12 :].partition(b'"')[0].decode() for (leaf,) in found}
