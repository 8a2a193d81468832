"""An installation on PostgreSQL as the guides describe it: own database for the log, workers, migrations by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.governance import all_modules
from tests.support.guides import LOG_OWNER, LOG_WRITER, log_database, log_section
from tests.support.process import ProcessDied
from tests.support.synapse import Deployment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import MatrixClient
    from tests.support.postgres import Postgres

GOVCTL = Path(sys.executable).with_name("govctl")
OFFICER = ["audit.read", "retention.read", "retention.run", "governance.policy.read", "governance.policy.write"]
POLICY: dict[str, Any] = {
    "version": 1,
    "roles": {"member": {"allow": ["login"]}, "officer": {"allow": OFFICER}},
    "bindings": [
        {"role": "member", "group": "everyone", "scope": "server"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
    ],
}


@pytest.fixture
def deployment(postgres: Postgres, tmp_path: Path) -> Iterator[Deployment]:
    """A main process and a worker that has the background tasks, configured and never started."""
    with log_database(postgres):
        audit = {"database": log_section(postgres, LOG_WRITER)}
        modules = all_modules(tmp_path / "governance", POLICY, auto_migrate=False, AuditModule=audit)
        owner = all_modules(tmp_path / "owner", AuditModule={"database": log_section(postgres, LOG_OWNER)})
        (tmp_path / "owner.yaml").write_text(yaml.safe_dump({"modules": owner}))
        extra = {"run_background_tasks_on": "worker1"}
        deployment = Deployment(tmp_path / "synapse", postgres=postgres, workers=1, modules=modules, extra=extra)
        try:
            yield deployment
        finally:
            deployment.close()


def _migrate(deployment: Deployment, *more: str) -> subprocess.CompletedProcess[str]:
    own = deployment.folder / "homeserver.yaml"
    command = [str(GOVCTL), "migrate", "-c", str(own), "-c", str(deployment.folder.parent / "owner.yaml"), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _logins(officer: MatrixClient) -> list[dict[str, Any]]:
    found = officer.governance("GET", "audit/entries", case="CASE-1", action="auth.login").expect()["entries"]
    return [entry for entry in found if entry["actor"] == officer.user_id]


def test_an_installation_as_the_guides_describe_it(deployment: Deployment) -> None:
    with pytest.raises(ProcessDied, match=r"schema is older than this code.*Run `govctl migrate`"):
        deployment.start()
    deployment.stop()
    assert _migrate(deployment, "--check").returncode == 1

    migrated = _migrate(deployment)
    assert migrated.returncode == 0, migrated.stderr
    assert _migrate(deployment, "--check").returncode == 0

    deployment.start()
    (worker,) = deployment.workers
    deployment.register("officer")
    officer = deployment.client().with_login(deployment.client().login("officer", "wonderland"))
    assert wait_until(lambda: _logins(officer), what="the login is in the log")[0]["outcome"] == "success"
    status = officer.at(deployment.main.url).governance("GET", "audit/status").expect()
    assert status["problems"] == {}

    elsewhere = officer.at(deployment.main.url).governance("POST", "retention/run", {})
    assert elsewhere.status == 503, elsewhere.text
    run = officer.at(worker.url).governance("POST", "retention/run", {}).expect()
    path = f"retention/runs/{run['run_id']}"
    wait_until(
        lambda: officer.governance("GET", path).expect()["state"] == "done", what="the worker carries out the run"
    )
