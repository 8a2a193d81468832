"""Child processes: readiness, death, stopping, and that none outlives the run that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import MissingProgram, ProcessDied, ServerProcess, find_program
from tests.support.waiting import wait_until

_SLEEPER = "import time, pathlib, sys; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
_STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {_SLEEPER}"


def _server(folder: Path, code: str = _SLEEPER, **options: float) -> ServerProcess:
    sign = folder / "ready"
    return ServerProcess(
        name="sleeper",
        command=[sys.executable, "-c", code, str(sign)],
        log=folder / "log",
        ready=sign.exists,
        start_timeout=options.get("start_timeout", 20.0),
    )


def test_start_returns_when_the_server_is_ready_and_stop_ends_it(tmp_path: Path) -> None:
    server = _server(tmp_path)
    server.start()
    assert server.running
    assert server.stop() == -signal.SIGTERM
    assert not server.running


def test_a_server_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    server = _server(tmp_path, _STUBBORN)
    server.start()
    assert server.stop(timeout=0.2) == -signal.SIGKILL


def test_a_server_that_ends_while_it_starts_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ProcessDied, match="out of cheese") as died:
        _server(tmp_path, "import sys; sys.exit('out of cheese')").start()
    assert died.value.status == 1


def test_a_server_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    server = _server(tmp_path, "import time; time.sleep(600)", start_timeout=0.3)
    with pytest.raises(TimeoutError, match="sleeper is ready"):
        server.start()
    assert not server.running


def test_a_killed_server_can_be_started_again(tmp_path: Path) -> None:
    server = _server(tmp_path)
    server.start()
    assert server.kill() == -signal.SIGKILL
    server.start()
    assert server.running
    server.stop()


def test_stopping_a_server_that_was_never_started_does_nothing(tmp_path: Path) -> None:
    assert _server(tmp_path).stop() == 0


def test_no_server_outlives_a_test_run_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.unit.support import test_process as t\n"
        "s = t._server(Path(sys.argv[1])); s.start(); print(s.pid, flush=True); sys.stdin.read()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:
        assert run.stdout is not None
        orphan = int(run.stdout.readline())
        run.kill()
    wait_until(lambda: not _exists(orphan), what="the server is gone with its test run")


def test_a_missing_program_says_what_to_run() -> None:
    with pytest.raises(MissingProgram, match="install_system_packages"):
        find_program("no-such-server")


def _exists(pid: int) -> bool:
    """Whether the process lives; a zombie that nobody has reaped is dead."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
