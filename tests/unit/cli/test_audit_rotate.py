"""`govctl audit rotate-key`, which makes a key file and says what to do with it."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from synapse_modules.audit.key_file import load_key
from synapse_modules.cli.main import govctl

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = "synapse.test/governance-audit"


def rotate(folder: Path, *words: str, modules: tuple[str, ...] = ("AuditModule",), **config: Any) -> Result:
    document = {
        "server_name": "synapse.test",
        "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
        "modules": [{"module": f"synapse_modules.plugin.{name}", "config": config} for name in modules],
    }
    path = folder / "homeserver.yaml"
    path.write_text(json.dumps(document))
    command = ["audit", "rotate-key", "-c", str(path), "--out", str(folder / "next.key"), *words]
    return CliRunner().invoke(govctl, command)


def test_the_new_key_is_one_of_this_log_and_for_its_owner_alone(tmp_path: Path) -> None:
    done = rotate(tmp_path)
    assert done.exit_code == 0, done.output
    key = load_key(tmp_path / "next.key", ORIGIN)
    assert stat.S_IMODE((tmp_path / "next.key").stat().st_mode) == 0o600
    assert str(key.verifier) in done.output
    assert f"next_signing_key_path: {tmp_path / 'next.key'}" in done.output
    assert "PRIVATE" not in done.output


def test_a_log_of_another_name_gets_a_key_of_that_name(tmp_path: Path) -> None:
    done = rotate(tmp_path, "--json", origin="example.org/log")
    assert json.loads(done.output)["key"] == str(load_key(tmp_path / "next.key", "example.org/log").verifier)


@pytest.mark.parametrize("modules", [("AuditModule",), ("RbacModule",)])
def test_no_key_is_replaced_and_none_is_made_without_a_log(tmp_path: Path, modules: tuple[str, ...]) -> None:
    (tmp_path / "next.key").write_text("mine")
    done = rotate(tmp_path, modules=modules)
    assert done.exit_code == 1
    assert ("is a file already" in done.output) == (modules == ("AuditModule",))
    assert (tmp_path / "next.key").read_text() == "mine"
