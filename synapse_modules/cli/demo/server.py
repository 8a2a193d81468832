"""Stock Synapse as a child process: started, watched until it answers, stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx

from synapse_modules.core.errors import GovernanceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from synapse_modules.cli.demo.folder import DataFolder

__all__ = ["Server", "free_port", "require_free_port", "require_server_packages"]

_LOOPBACK = "127.0.0.1"
_START_S = 90.0
_STOP_S = 15.0
_POLL_S = 0.1
_COMMAND = (sys.executable, "-m", "synapse.app.homeserver", "--config-path")


def require_server_packages() -> None:
    """Refuse to go on without Synapse.

    Raises:
        GovernanceError: it is not installed beside govctl.
    """
    if importlib.util.find_spec("synapse") is None:
        raise GovernanceError(
            "Synapse is not installed beside govctl",
            advice="Run `make run` in a checkout, or install synapse-governance[server,demo]",
        )


def require_free_port(port: int) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        GovernanceError: it is occupied, or this user may not have it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            raise GovernanceError(
                f"port {port} cannot be used: {(error.strerror or str(error)).lower()}",
                where=_LOOPBACK,
                advice=f"Choose another one: `make run PORT={_another(port)}`, or `govctl dev --port {_another(port)}`",
            ) from None


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _another(port: int) -> int:
    return port + 1 if 1024 <= port < 65535 else 8009  # noqa: PLR2004  privileged ports and the last one


class Server:
    """A homeserver on the data of one folder, as a context: entered when it answers, left when it has stopped.

    Args:
        folder: prepared and claimed. port: where it will listen, on loopback.
        on_wait: called again and again while there is waiting to do.
    """

    def __init__(self, folder: DataFolder, port: int, on_wait: Callable[[], object] = lambda: None) -> None:
        self.address = f"http://{_LOOPBACK}:{port}"
        self._folder = folder
        self._on_wait = on_wait
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._process = self._spawn()
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Return when the homeserver ends by itself, which it should not.

        Raises:
            GovernanceError: it ended.
        """
        if self._process is not None:
            self._process.wait()
            raise self._ended(self._process.returncode)

    def stop(self) -> None:
        """Ask the homeserver to stop, and see to it that it does."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start Synapse in govctl's own process group: what ends the whole group, such as Ctrl-C, ends both.

        The child inherits the folder's lock, so that nobody else starts on its data while it lives.
        """
        lock = self._folder.claim_descriptor
        with self._folder.console.open("wb") as console:
            return subprocess.Popen(  # noqa: S603  our own interpreter and arguments
                [*_COMMAND, str(self._folder.settings)],
                cwd=self._folder.path,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                pass_fds=() if lock is None else (lock,),
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        with httpx.Client(base_url=self.address, timeout=5.0, trust_env=False) as http:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise self._ended(process.returncode)
                with contextlib.suppress(httpx.HTTPError):
                    if http.get("/_matrix/client/versions").is_success:
                        return
                self._on_wait()
                time.sleep(_POLL_S)
        raise Unavailable(
            f"does not answer after {_START_S:.0f} s", where=self.address, advice=f"Its log is {self._folder.log}"
        )

    def _ended(self, status: int) -> GovernanceError:
        return GovernanceError(
            f"Synapse ended with status {status}: {self._last_words()}", advice=f"Its log is {self._folder.log}"
        )

    def _last_words(self) -> str:
        """What Synapse complained about: the paragraph about its settings, or the last line it printed."""
        lines = [line.strip() for line in self._folder.console.read_text(errors="replace").splitlines()]
        for position, line in enumerate(lines):
            if line.startswith("Error in configuration"):
                return " ".join(filter(None, lines[position:]))
        return next((line for line in reversed(lines) if line.strip("* ")), "it printed nothing")
