"""The README's commands as a newcomer runs them: the demo starts, its suggestions work, it stops and keeps its data."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.documents import ROOT, shell_commands
from tests.support.ports import free_port
from tests.support.process import as_user
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

GOVCTL = Path(sys.executable).with_name("govctl")
RUN = "@exec $(BIN)/govctl dev --port $(PORT)"
COMMANDS = {
    ("make", "run"): "the tests below run what it runs",
    ("make", "smoke"): "a layer of `make test` of its own",
    ("make", "test"): "what runs this test",
}


class Demo:
    """`govctl dev` in a folder of its own, as a person starts it: until Ctrl-C."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._output = folder / "terminal"
        # Nobody's logins and settings but its own.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GOVCTL_")}
        self.environment = kept | {"GOVCTL_HOME": str(folder / "home")}
        self._command = [str(GOVCTL), "dev", "--port", str(port), "--data", "demo"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, in_background: bool = False) -> Self:
        """Start it and wait for its last line; ``in_background`` as a script does, where SIGINT is ignored at first."""
        ignored = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"] if in_background else []
        with self._output.open("wb") as terminal:
            self._process = subprocess.Popen(
                [*as_user(None, death_signal="TERM"), *ignored, *self._command],
                cwd=self.folder, env=self.environment,
                stdout=terminal, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_until(self._introduced_itself, what="the demo introduces itself", timeout=120)
        return self

    def _introduced_itself(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.text
        return "Ctrl-C stops it." in self.text

    @property
    def text(self) -> str:
        """All it has printed."""
        return self._output.read_text()

    def suggestions(self) -> list[str]:
        """The commands of its three things to try."""
        _, _, rest = self.text.partition("Three things to try")
        return re.findall(r"^   (\S.*)$", rest, re.MULTILINE)

    def interrupt(self) -> int:
        """Ctrl-C in its terminal, which reaches all its processes; returns its exit status."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(60)

    def close(self) -> None:
        """End whatever still runs."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo in an empty folder, started; the last test stops it and starts it again."""
    demo = Demo(tmp_path_factory.mktemp("newcomer"), free_port())
    try:
        yield demo.start()
    finally:
        demo.close()


def _run(demo: Demo, command: str, status: int = 0) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=demo.folder, env=demo.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{command}\n{done.stdout}"
    return done.stdout


def test_each_command_of_the_readme_is_proven_somewhere() -> None:
    assert [each.words for each in shell_commands(ROOT / "README.md")] == list(COMMANDS)


def test_make_run_runs_what_is_tested_here() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nrun:")[2].partition("\n\n")[0]
    assert RUN in recipe


def test_a_second_demo_on_the_same_data_or_port_is_refused_in_one_line(demo: Demo) -> None:
    port = free_port()
    same_data = _run(demo, f"{GOVCTL} dev --port {port} --data demo", status=1)
    assert same_data.splitlines() == [
        f"govctl: {demo.folder}/demo: is in use by another `govctl dev`. Stop that one, or use --data FOLDER."
    ]
    used = re.search(r"http://127\.0\.0\.1:(\d+)", demo.text)
    assert used is not None
    same_port = _run(demo, f"{GOVCTL} dev --port {used[1]} --data other", status=1)
    assert len(same_port.splitlines()) == 1
    assert f"port {used[1]} cannot be used: address already in use" in same_port
    shutil.rmtree(demo.folder / "other")


def test_the_demo_starts_suggests_what_works_stops_and_keeps_its_data(demo: Demo) -> None:
    first = demo.text
    suggestions = demo.suggestions()
    assert len(re.findall(r"^\d\. ", first, re.MULTILINE)) == 3
    assert len(suggestions) == 7

    said = {command: _run(demo, command) for command in suggestions}
    assert "None of your roles" not in "".join(said.values())
    assert "room.create" in next(text for command, text in said.items() if "explain" in command)
    assert "LIT-7" in next(text for command, text in said.items() if "hold list" in command)
    assert "WHOLE AND GENUINE" in said[suggestions[-1]]

    assert demo.interrupt() == 0
    assert "stopped; the data is kept" in demo.text
    assert "Traceback" not in demo.text

    # The evidence needs no server, and one changed byte is found.
    assert "WHOLE AND GENUINE" in _run(demo, suggestions[-1])
    bundle = demo.folder / "demo" / "evidence.jsonl"
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    changed = bundle.with_name("changed.jsonl")
    changed.write_bytes(content)
    assert "NOT GENUINE" in _run(demo, f"{GOVCTL} verify {changed}", status=1)

    demo.start(in_background=True)
    assert demo.text == first, "a second start shows the same accounts, passwords and rooms"
    assert "LIT-7" in _run(demo, next(command for command in suggestions if "hold list" in command))
    assert demo.interrupt() == 0
