"""Runs every layer of ``make test``, two side by side, and sums them up; exits 0 only if all that must pass passed.

Each layer is the make target of its name. Its output goes to ``build/log/LAYER.log`` and is shown when it fails;
its counts come from the JUnit file that pytest writes. ``ALLOW_SKIP=layer,layer`` leaves layers out, and says so.
The last line is ``N passed, N failed``: pytest's counts over all layers, where a layer that fails without a
failed test (a linter, a crash, nothing collected) counts as one failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

LAYERS = ("e2e", "module", "module-oldest", "storage", "unit", "type", "lint", "smoke")
SIDE_BY_SIDE = 2
LOGS = Path("build/log")
REPORTS = Path("build/junit")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one layer ended. ``passed``, ``failed`` and ``skipped`` count tests; ``status`` is make's exit status."""

    layer: str
    status: int
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def failures(self) -> int:
        """Failed tests, and at the least one if the layer failed at all."""
        return max(self.failed, 1) if self.status else self.failed


def counts(report: Path) -> tuple[int, int, int]:
    """Tests that passed, failed and were skipped, from a JUnit file; zeros if the layer wrote none."""
    if not report.exists():
        return 0, 0, 0
    suites = list(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314 - pytest wrote it just now
    tests, failures, errors, skipped = (
        sum(int(suite.get(key, "0")) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    return tests - failures - errors - skipped, failures + errors, skipped


def run(layer: str) -> Outcome:
    """Run one layer to its end, its output in its own log file."""
    report = REPORTS / f"{layer}.xml"
    report.unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environment["PYTEST_ADDOPTS"] = f"{environment.get('PYTEST_ADDOPTS', '')} --junitxml={report}"
    started = time.monotonic()
    say(f"{layer} …")
    with (LOGS / f"{layer}.log").open("wb") as log:
        command = ["make", "--no-print-directory", layer]
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    outcome = Outcome(layer, done.returncode, time.monotonic() - started, *counts(report))
    say(f"{layer} {'FAILED' if outcome.status else 'passed'} after {outcome.seconds:.0f} s")
    return outcome


def say(text: str) -> None:
    """One line of progress, at once."""
    print(f"test: {text}", flush=True)


def show_failure(outcome: Outcome) -> None:
    """The whole log of a layer that failed."""
    log = LOGS / f"{outcome.layer}.log"
    print(f"\n───── {outcome.layer} failed: {log}\n{log.read_text(errors='replace')}")


def summary(outcomes: list[Outcome], left_out: list[str]) -> str:
    """One table over all layers."""
    lines = [f"{'layer':<15}{'result':<9}{'seconds':>8}{'passed':>8}{'failed':>8}{'skipped':>8}"]
    lines += [
        f"{o.layer:<15}{'FAILED' if o.failures else 'passed':<9}"
        f"{o.seconds:>8.0f}{o.passed:>8}{o.failures:>8}{o.skipped:>8}"
        for o in outcomes
    ]
    lines += [f"{layer:<15}LEFT OUT, as ALLOW_SKIP says" for layer in left_out]
    return "\n".join(lines)


def chosen() -> tuple[list[str], list[str]]:
    """The layers to run and those to leave out.

    Raises:
        SystemExit: ``ALLOW_SKIP`` names something that is no layer.
    """
    asked = {name.strip() for name in os.environ.get("ALLOW_SKIP", "").split(",") if name.strip()}
    unknown = asked - set(LAYERS)
    if unknown:
        sys.exit(f"test: ALLOW_SKIP names no layer: {', '.join(sorted(unknown))}; layers: {', '.join(LAYERS)}")
    return [name for name in LAYERS if name not in asked], [name for name in LAYERS if name in asked]


def main() -> int:
    """Run the layers, print logs of failures, the table and the last line; 0 if nothing failed."""
    layers, left_out = chosen()
    for folder in (LOGS, REPORTS):
        folder.mkdir(parents=True, exist_ok=True)
    for layer in left_out:
        say(f"WARNING: {layer} is LEFT OUT, as ALLOW_SKIP says: this run does not show that everything works")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        outcomes = list(pool.map(run, layers))
    for outcome in outcomes:
        if outcome.status:
            show_failure(outcome)
    failed = sum(outcome.failures for outcome in outcomes)
    print(f"\n{summary(outcomes, left_out)}\n")
    print(f"{sum(outcome.passed for outcome in outcomes)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
