"""What `make test` says where PostgreSQL, Redis or nginx are missing and it may not install them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "install_system_packages"
NEEDED = dict(re.findall(r"^    has ([a-z-]+) \|\| (?:.* )?echo ([a-z-]+)$", SCRIPT.read_text(), re.MULTILINE))
"""Programs that are looked for, and the packages that bring them."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs that stands for a whole machine: no servers, no apt-get, and we are not root."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "tr", "ls", "dirname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    _program(programs, "id", "echo 1000")
    return programs


def _program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def _run(machine: Path) -> subprocess.CompletedProcess[str]:
    text = SCRIPT.read_text().replace(":/usr/sbin:/usr/local/sbin", "").replace("/usr/lib/postgresql", "/nowhere")
    script = machine.parent / "script"
    script.write_text(text)
    command = [str(machine / "sh"), str(script)]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": str(machine)}, timeout=30, check=False)


def test_the_servers_that_tests_start_are_looked_for() -> None:
    assert {"initdb": "postgresql", "redis-server": "redis-server", "nginx": "nginx"}.items() <= NEEDED.items()


def test_where_it_may_not_install_it_says_what_to_install(machine: Path) -> None:
    _program(machine, "apt-get", "exit 1")
    _program(machine, "sudo", "exit 1")
    done = _run(machine)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("packages: neither root nor sudo without a password. As root: apt-get install")
    assert line.rstrip().endswith(f"--no-install-recommends {' '.join(NEEDED.values())}")


def test_where_there_is_no_apt_it_names_what_is_missing(machine: Path) -> None:
    _program(machine, "nginx", "exit 0")
    done = _run(machine)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    missing = " ".join(package for program, package in NEEDED.items() if program != "nginx")
    assert f"install these, then run again: {missing} (this system has no apt-get)" in line


def test_where_nothing_is_missing_it_does_nothing(machine: Path) -> None:
    for name in NEEDED:
        _program(machine, name, "exit 0")
    done = _run(machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
