"""`govctl smoke`: the demo organisation in a temporary folder, and the scenario played on it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse_modules.cli.demo.folder import DataFolder, find_demo_configuration
from synapse_modules.cli.demo.organisation import ACCOUNTS, ROOMS, Organisation
from synapse_modules.cli.demo.server import Server, free_port, require_free_port, require_server_packages
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from synapse_modules.cli.demo.scenario import Scenario
    from synapse_modules.cli.output import Output

__all__ = ["run"]

_STEP_S = 180.0


class _Failed(Exception):
    """A step went wrong, and was reported."""


def run(output: Output, port: int | None, *, keep: bool) -> int:
    """Play the scenario; 0 if every step passed, 1 at the first that does not.

    Raises:
        GovernanceError: something it needs is missing, before the first step.
    """
    require_server_packages()
    if importlib.util.find_spec("nio") is None:
        raise GovernanceError(
            "matrix-nio is not installed beside govctl", advice="Run `make smoke`, or install synapse-governance[demo]"
        )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    path = Path(tempfile.mkdtemp(prefix="govctl-smoke-"))
    passed = False
    try:
        passed = _play(_Report(output), DataFolder(path, find_demo_configuration()), port or free_port())
    finally:
        if keep or not passed:
            output.note(f"data and log are kept in {path}")
        else:
            shutil.rmtree(path, ignore_errors=True)
    return 0 if passed else 1


class _Report:
    """One line for each step, as it ends, and one at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._started = time.monotonic()
        self._passed = 0

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """A step: the block tells what was seen, or raises.

        Raises:
            _Failed: the block raised one of our errors or took too long.
        """
        seen: list[str] = []
        started = time.monotonic()
        try:
            yield seen.append
        except (GovernanceError, TimeoutError) as error:
            self._line(title, str(error) or "it took too long", time.monotonic() - started, failed=True)
            raise _Failed from None
        self._passed += 1
        self._line(title, " ".join(seen), time.monotonic() - started)

    def end(self, *, passed: bool) -> None:
        """The last line."""
        seconds = time.monotonic() - self._started
        self._output.line(
            f"smoke: {self._passed} steps passed{'' if passed else ', then one FAILED'} in {seconds:.1f} s",
            style="bold green" if passed else "bold red",
        )
        if self._output.as_json:
            self._output.document({"passed": passed, "steps": self._passed, "seconds": round(seconds, 1)})

    def _line(self, title: str, detail: str, seconds: float, *, failed: bool = False) -> None:
        number = self._passed + failed
        word = "FAILED" if failed else "ok"
        line = " ".join(f"{word:<7}{number:>2}. {title}{': ' if detail else ''}{detail}".split("\n"))
        self._output.line(f"{line} [{seconds:.1f} s]", style="bold red" if failed else "")
        if self._output.as_json:
            step: dict[str, Any] = {"step": number, "title": title, "passed": not failed, "detail": detail}
            self._output.document(step | {"seconds": round(seconds, 1)})


def _play(report: _Report, folder: DataFolder, port: int) -> bool:
    try:
        _play_or_fail(report, folder, port)
    except _Failed:
        report.end(passed=False)
        return False
    report.end(passed=True)
    return True


def _play_or_fail(report: _Report, folder: DataFolder, port: int) -> None:
    from synapse_modules.cli.demo.scenario import STRANGER, Scenario  # noqa: PLC0415  imports matrix-nio

    with contextlib.ExitStack() as stack:
        with report.step("stock Synapse starts with all three modules") as seen:
            folder.claim()
            stack.callback(folder.release)
            require_free_port(port)
            folder.prepare(port)
            server = stack.enter_context(Server(folder, port))
            seen(server.address)
        passwords = folder.passwords([*(account.name for account in ACCOUNTS), STRANGER])
        with report.step("the demo organisation is founded") as seen:
            rooms = _found(server.address, folder, passwords, STRANGER)
            seen(f"{len(ACCOUNTS)} people, {len(rooms)} rooms, {sum(room.held for room in ROOMS)} legal hold")
        asyncio.run(_tell(report, Scenario(server.address, folder, passwords, rooms)))


def _found(address: str, folder: DataFolder, passwords: Mapping[str, str], stranger: str) -> dict[str, str]:
    organisation = Organisation(address, folder.registration_secret, passwords)
    with contextlib.closing(organisation):
        organisation.register(stranger, "in no group")
        return organisation.found()


async def _tell(report: _Report, scenario: Scenario) -> None:
    async with scenario:
        for step in scenario.steps():
            with report.step(step.title) as seen:
                seen(await asyncio.wait_for(step.play(), _STEP_S))
