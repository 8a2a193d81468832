"""A homeserver replaces the key of its audit log, start by start, and who knew the first key follows to the last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from synapse_modules.audit import store
from synapse_modules.audit.checkpoint import VerifierKey, signers_of
from synapse_modules.audit.key_change import KnownKey, apply_key_notes
from synapse_modules.audit.key_file import load_key
from synapse_modules.audit.key_rotation import key_notes
from synapse_modules.cli.main import govctl
from tests.module.audit_module import audited, log_of, service
from tests.module.support import inside
from tests.support.process import ProcessDied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from synapse_modules.storage.database import Database
    from tests.conftest import Deploy
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

ORIGIN = "synapse.test/governance-audit"


def signers(log: Database, keys: list[VerifierKey]) -> list[VerifierKey]:
    """Who has signed the newest checkpoint, the first above."""
    newest = log.run(store.checkpoint, read_only=True)
    return [] if newest is None else signers_of(newest.note, keys)[1]


def restart(deployment: Deployment, **paths: str) -> None:
    """Stop, name these key files, start again."""
    deployment.stop()
    config: dict[str, Any] = deployment.settings["modules"][0]["config"]
    config.pop("next_signing_key_path", None)
    config.update(paths)
    deployment.start()


def _signing_keys(_api: ModuleApi) -> list[str]:
    return [str(key.verifier) for key in service().signing_keys]


def test_a_key_is_replaced_without_anybody_losing_the_log(
    deploy: Deploy, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cluster: Postgres | None = request.getfixturevalue("postgres") if engine == "postgres" else None
    deployment = audited(deploy, tmp_path, postgres=cluster is not None)
    log = log_of(deployment, cluster)
    present, following = str(tmp_path / "audit.key"), str(tmp_path / "next.key")
    wait_until(lambda: log.run(store.checkpoint, read_only=True), what="the log is signed")
    old = load_key(Path(present), ORIGIN).verifier

    (tmp_path / "product.yaml").write_text(
        (deployment.folder / "homeserver.yaml")
        .read_text()
        .replace("tests.module.audit_module.AuditUnderTest", "synapse_modules.plugin.AuditModule")
    )
    made = CliRunner().invoke(govctl, ["audit", "rotate-key", "-c", str(tmp_path / "product.yaml"), "--out", following])
    assert made.exit_code == 0, made.output
    new = load_key(Path(following), ORIGIN).verifier

    with pytest.raises(ProcessDied, match="next_signing_key_path first"):
        restart(deployment, signing_key_path=following)
    restart(deployment, signing_key_path=present, next_signing_key_path=following)
    wait_until(lambda: signers(log, [old, new]) == [new, old], what="both sign")
    assert inside(deployment.url, _signing_keys) == [str(new), str(old)]

    restart(deployment, signing_key_path=following)
    wait_until(lambda: signers(log, [old, new]) == [new], what="the new one signs alone")
    assert inside(deployment.url, _signing_keys) == [str(new)]
    known = apply_key_notes([KnownKey(old)], log.run(key_notes, read_only=True))
    assert [(each.key, each.until is None) for each in known] == [(old, False), (new, True)]

    with pytest.raises(ProcessDied, match="That key was given up"):
        restart(deployment, signing_key_path=present)
