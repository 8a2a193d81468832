"""Child processes that are servers: started, waited for, stopped by their own pid, and never left behind.

Rules:
    - Every child leads its own process group and writes into its own log file.
    - The kernel ends a child when the test run that started it dies, even by ``kill -9`` (PR_SET_PDEATHSIG). That
      signal follows the *thread* that started the child, so one thread that lives as long as the run starts them all.
    - PostgreSQL and nginx are not run as root: with ``user``, a root test run drops to it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["MissingProgram", "ProcessDied", "ServerProcess", "as_user", "find_program", "runtime_folder"]

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_TAIL_LINES = 60

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class MissingProgram(FileNotFoundError):
    """A server that the tests need is not installed."""


class ProcessDied(RuntimeError):
    """A server ended while it was waited for.

    Attributes:
        status: its exit status, or minus the signal that ended it.
        output: the last 60 lines of its log.
    """

    def __init__(self, name: str, status: int, output: str) -> None:
        """Name the server, its exit status and the end of its log."""
        super().__init__(f"{name} ended with status {status}; the end of its log:\n{output}")
        self.status = status
        self.output = output


def find_program(name: str, *folders: Path) -> Path:
    """The path of the program ``name``, looked up in ``folders``, on the PATH and where Debian keeps servers.

    Raises:
        MissingProgram: it is not installed; says what to run.
    """
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), *_SYSTEM_FOLDERS])
    found = shutil.which(name, path=path)
    if found is None:
        message = f"{name} is not installed: run scripts/install_system_packages"
        raise MissingProgram(message)
    return Path(found)


def as_user(user: str | None, *, death_signal: str = "KILL") -> list[str]:
    """The words before a command that run it as ``user``, if we are root and a user is given, and tie it to our life.

    ``death_signal`` is what the kernel sends it when the test run dies.
    """
    words = [str(find_program("setpriv")), "--pdeathsig", death_signal]
    if user is not None and os.getuid() == 0:
        entry = pwd.getpwnam(user)
        words += [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    return [*words, "--"]


def runtime_folder(name: str, user: str | None = None) -> Path:
    """A new folder that a server running as ``user`` may write, outside folders that only root may enter."""
    folder = Path(tempfile.mkdtemp(prefix=f"synapse-governance-{name}-"))
    if user is not None and os.getuid() == 0:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    return folder


@dataclass(slots=True)
class ServerProcess:
    """One server. It can be started again after it was stopped or killed.

    Attributes:
        name: for errors.
        command: the words of its command line.
        log: file that its output is appended to.
        ready: whether it serves now; asked while it starts.
        user: system user to run as if we are root.
        environment: variables in addition to ours.
        stop_signal: what asks it to stop in good order.
        death_signal: name of the signal that the kernel sends it when the test run dies.
        start_timeout: seconds until it must be ready.
    """

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], bool]
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: str = "KILL"
    start_timeout: float = 60.0
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, of the last start."""
        if self._child is None:
            message = f"{self.name} was never started"
            raise RuntimeError(message)
        return self._child.pid

    def start(self) -> None:
        """Start it and return when it is ready.

        Raises:
            ProcessDied: it ended instead.
            TimeoutError: it was not ready in time; it has been killed.
        """
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start it without waiting, so that several can start side by side; :meth:`wait_ready` is the other half."""
        if self.running:
            message = f"{self.name} runs already"
            raise RuntimeError(message)
        self._child = _spawner.submit(self._popen).result()

    def wait_ready(self) -> None:
        """Return when the started process is ready. Raises as :meth:`start` does."""
        try:
            wait_until(self._ready_or_dead, what=f"{self.name} is ready, see {self.log}", timeout=self.start_timeout)
        except TimeoutError:
            self.kill()
            raise

    def stop(self, timeout: float = 15.0) -> int:
        """Ask it to stop, kill it after ``timeout`` seconds, and return its exit status. Harmless if it has ended."""
        if self._child is None:
            return 0
        if self.running:
            self._child.send_signal(self.stop_signal)
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it and its process group at once, as a power cut would, and return its exit status."""
        if self._child is None:
            return 0
        if self.running:
            os.killpg(self._child.pid, signal.SIGKILL)
        return self._child.wait()

    def restart(self) -> None:
        """Stop it in good order and start it again."""
        self.stop()
        self.start()

    def output(self, lines: int = _TAIL_LINES) -> str:
        """The last ``lines`` lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _ready_or_dead(self) -> bool:
        if not self.running and self._child is not None:
            raise ProcessDied(self.name, self._child.returncode, self.output())
        return self.ready()

    def _popen(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*as_user(self.user, death_signal=self.death_signal), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
