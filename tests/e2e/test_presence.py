"""A module that is missing or older on one worker, and a worker that is gone, are visible within a minute."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.governance import OPEN_POLICY, all_modules
from tests.support.synapse import Deployment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import MatrixClient
    from tests.support.postgres import Postgres

MINUTE_S = 60
POLICY: dict[str, Any] = {
    **OPEN_POLICY,
    "roles": {**OPEN_POLICY["roles"], "auditor": {"allow": ["audit.read"]}},
    "bindings": [*OPEN_POLICY["bindings"], {"role": "auditor", "user": "@auditor:synapse.test", "scope": "server"}],
}


@pytest.fixture
def deployment(postgres: Postgres, tmp_path: Path) -> Iterator[Deployment]:
    """A main process and two workers, not started yet."""
    modules = all_modules(tmp_path / "governance", POLICY)
    found = Deployment(tmp_path / "synapse", postgres=postgres, workers=2, modules=modules)
    yield found
    found.close()


def configure(deployment: Deployment, worker: str, modules: list[dict[str, Any]]) -> None:
    """Give one worker other modules than the rest, by its own file; to be called while it does not run."""
    path = deployment.folder / f"{worker}.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modules": modules}))


def status(auditor: MatrixClient) -> dict[str, Any]:
    return auditor.governance("GET", "audit/status").expect()


def problem_with(auditor: MatrixClient, process: str) -> str:
    """What is wrong with ``process``, or an empty text."""
    found = {each["process"]: each for each in status(auditor)["processes"]}
    return found[process]["problem"] or "" if process in found else ""


def metric(deployment: Deployment, name: str, process: str) -> float | None:
    text = httpx.get(f"{deployment.main.url}/_synapse/metrics", trust_env=False).text
    label = f'process="{process}"'
    lines = [
        line for line in text.splitlines() if line.startswith(f"synapse_governance_audit_{name}") and label in line
    ]
    return float(lines[0].split()[-1]) if lines else None


def gaps(auditor: MatrixClient) -> list[str]:
    found = auditor.governance("GET", "audit/entries", case="C-1", action="audit.gap").expect()["entries"]
    return [entry["details"]["process"] for entry in found]


@pytest.mark.timeout(400)
def test_a_module_that_is_missing_on_a_worker_is_visible_within_a_minute(deployment: Deployment) -> None:
    deployment.start()
    auditor = deployment.register("auditor").at(deployment.main.url)
    everybody = {"main", "worker1", "worker2"}
    wait_until(
        lambda: {each["process"] for each in status(auditor)["processes"] if each["recording"]} == everybody,
        what="every process has shown itself",
    )
    for each in status(auditor)["processes"]:
        assert each["modules"] == ["AuditModule", "RbacModule", "RetentionModule"]
        assert each["problem"] is None

    worker1, worker2 = deployment.workers
    worker2.kill()
    worker1.stop()
    configure(deployment, "worker1", [])
    worker1.start()
    began = time.monotonic()
    for process, problem in (
        ("worker1", "has not begun to record again"),
        ("worker2", "it has recorded nothing since"),
    ):
        wait_until(
            lambda: problem in problem_with(auditor, process),  # noqa: B023  called at once
            what=f"{process} is noticed",
            timeout=MINUTE_S,
        )
        assert metric(deployment, "process_problem", process) == 1
    assert time.monotonic() - began < MINUTE_S
    assert (metric(deployment, "heartbeat_age_seconds", "worker2") or 0) > MINUTE_S / 2
    wait_until(lambda: sorted(gaps(auditor)) == ["worker1", "worker2"], what="both are on record")

    configure(
        deployment, "worker2", [each for each in deployment.settings["modules"] if "Retent" not in each["module"]]
    )
    worker2.start()
    wait_until(lambda: "not loaded" in problem_with(auditor, "worker2"), what="the lacking module is noticed")
    assert problem_with(auditor, "worker2") == "it has not loaded RetentionModule"

    worker1.stop()
    configure(deployment, "worker1", deployment.settings["modules"])
    worker1.start()
    wait_until(lambda: not problem_with(auditor, "worker1"), what="all is well again with worker1")
    wait_until(lambda: metric(deployment, "process_problem", "worker1") == 0, what="the metric says so")
    assert sorted(gaps(auditor)) == ["worker1", "worker2"]
