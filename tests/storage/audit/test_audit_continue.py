"""`govctl audit continue`, on both engines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from synapse_modules.audit.anchors.file import FileAnchor
from synapse_modules.audit.anchors.rollback import check_anchors
from synapse_modules.audit.discontinuity import discontinuities
from synapse_modules.audit.key_file import load_key
from synapse_modules.cli.main import govctl
from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.dialect import Dialect
from tests.support.anchored_log import AnchoredLog
from tests.support.audit_log import KEY, ORIGIN

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.storage.database import Database

NEW_ORIGIN = "synapse.test/governance-audit-2"
REASON = "The disk failed; the backup of Monday was restored."


@pytest.fixture
def anchored(log: Database, tmp_path: Path) -> AnchoredLog:
    """A log of 5 entries, whose anchor remembers 9."""
    found = AnchoredLog(log)
    found.grow(5)
    found.grow(4)
    found.feeder(vault(tmp_path)).step()
    found.set_back(5)
    return found


def vault(folder: Path) -> FileAnchor:
    return FileAnchor("vault", folder / "checkpoints", SystemClock())


def settings(log: Database, folder: Path, **changes: Any) -> Path:
    """A homeserver.yaml on that log."""
    name = "sqlite3" if log.location.dialect is Dialect.SQLITE else "psycopg2"
    homeserver = {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}}
    config = {
        "database": {"name": name, "args": dict(log.location.arguments)},
        "origin": NEW_ORIGIN,
        "signing_key_path": str(folder / "new.key"),
        "anchors": [{"kind": "file", "name": "vault", "path": str(folder / "checkpoints")}],
        **changes,
    }
    module = {"module": "synapse_modules.plugin.AuditModule", "config": config}
    path = folder / "homeserver.yaml"
    path.write_text(json.dumps({"server_name": "synapse.test", "database": homeserver, "modules": [module]}))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(govctl, ["audit", "continue", *(str(each) for each in arguments)])


def test_the_log_goes_on_under_the_new_origin_with_a_key_of_its_own(anchored: AnchoredLog, tmp_path: Path) -> None:
    done = run("-c", settings(anchored.database, tmp_path), "--reason", REASON, "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "anchor vault: it holds a checkpoint of 9 entries, but the log's newest has 5" in done.stdout
    assert f"goes on as {NEW_ORIGIN} after its first 5 entries" in done.stdout
    key = load_key(tmp_path / "new.key", NEW_ORIGIN)
    continued = AnchoredLog(anchored.database, key)
    assert continued.grow(2) == 8
    assert check_anchors(anchored.database, [vault(tmp_path)], key.verifier) is None
    (found,) = anchored.database.run(discontinuities)
    assert (found.origin, found.previous, found.size, found.reason) == (NEW_ORIGIN, ORIGIN, 5, REASON)


def test_it_is_not_done_twice(anchored: AnchoredLog, tmp_path: Path) -> None:
    file = settings(anchored.database, tmp_path)
    assert run("-c", file, "--reason", REASON, "--yes").exit_code == 0
    again = run("-c", file, "--reason", REASON, "--yes")
    assert again.exit_code == 1
    assert f"the log was {NEW_ORIGIN} before" in again.stderr


def test_it_asks_first(anchored: AnchoredLog, tmp_path: Path) -> None:
    refused = run("-c", settings(anchored.database, tmp_path), "--reason", REASON)
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert anchored.database.run(discontinuities) == []
    assert not (tmp_path / "new.key").exists()


def test_a_log_that_nothing_contradicts_is_left_alone(log: Database, tmp_path: Path) -> None:
    sound = AnchoredLog(log)
    sound.grow(5)
    sound.feeder(vault(tmp_path)).step()
    refused = run("-c", settings(log, tmp_path), "--reason", REASON, "--yes")
    assert refused.exit_code == 1
    assert "no anchor contradicts the log: it may go on as" in refused.stderr
    assert log.run(discontinuities) == []


def test_the_old_origin_is_refused(anchored: AnchoredLog, tmp_path: Path) -> None:
    refused = run("-c", settings(anchored.database, tmp_path, origin=ORIGIN), "--reason", REASON, "--yes")
    assert refused.exit_code == 1
    assert f"the log was {ORIGIN} before" in refused.stderr


def test_a_log_that_never_signed_was_not_set_back(log: Database, tmp_path: Path) -> None:
    refused = run("-c", settings(log, tmp_path), "--reason", REASON, "--yes")
    assert refused.exit_code == 1
    assert "has never signed anything" in refused.stderr


def test_a_key_file_of_the_old_origin_is_not_taken(anchored: AnchoredLog, tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    path.write_text(KEY.private_text())
    path.chmod(0o600)
    refused = run("-c", settings(anchored.database, tmp_path), "--reason", REASON, "--yes")
    assert refused.exit_code == 1
    assert "expected the key of this log" in refused.stderr
    assert anchored.database.run(discontinuities) == []
