"""`govctl dev`, and so `make run`, where it cannot start: one clear line, exit status 1, no traceback."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from synapse_modules.cli.demo import commands
from synapse_modules.cli.demo.folder import DataFolder, find_demo_configuration
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def occupied_port() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def _govctl_dev(*arguments: str | int | Path) -> str:
    """The one line that the real command prints before it ends with status 1."""
    command = [sys.executable, "-m", "synapse_modules.cli", "dev", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def _in_process(*arguments: str | int | Path) -> str:
    """The same with this process's modules, whose system calls a test may spoil."""
    result = CliRunner().invoke(commands.dev, [str(each) for each in arguments])
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    (line,) = result.stderr.splitlines()
    return line


def test_an_occupied_port_is_named_with_another_one(tmp_path: Path, occupied_port: int) -> None:
    line = _govctl_dev("--data", tmp_path / "data", "--port", occupied_port)
    assert f"port {occupied_port} cannot be used: address already in use. Choose another one: `make run PORT=" in line


def test_a_folder_that_cannot_be_made_is_named() -> None:
    # Nobody makes a folder there, not even root, whose tests a file mode would not stop.
    line = _govctl_dev("--data", "/sys/kernel/govctl-dev", "--port", free_port())
    assert "/sys/kernel/govctl-dev: cannot be written: " in line
    assert "Use --data FOLDER with a folder that is yours" in line


def test_a_folder_that_is_in_use_is_named(tmp_path: Path) -> None:
    first = DataFolder(tmp_path, find_demo_configuration())
    first.claim()
    try:
        line = _govctl_dev("--data", tmp_path, "--port", free_port())
    finally:
        first.release()
    assert f"{tmp_path}: is in use by another `govctl dev`. Stop that one, or use --data FOLDER." in line


def test_a_full_disk_is_named_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 3 * 2**20))
    line = _in_process("--data", tmp_path / "data", "--port", free_port())
    assert f"{tmp_path}/data: the disk is full: 3 MiB free, 100 MiB needed. Free some space" in line


def test_a_disk_that_runs_full_meanwhile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    line = _in_process("--data", tmp_path / "data", "--port", free_port())
    assert "cannot be written: No space left on device" in line


def test_a_port_that_is_no_port_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(commands.dev, ["--data", str(tmp_path), "--port", "70000"])
    assert result.exit_code == 2
    assert "70000" in result.output
