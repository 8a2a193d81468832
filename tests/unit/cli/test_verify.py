"""`govctl verify`: the verdict, its reason, and whose key was believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.cli.known_keys_file import KnownKeysFile
from tests.unit.audit.samples import KEY, ORIGIN, SampleLog, make_records

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.commands import Govctl

BUNDLE = SampleLog(make_records(11)).export({2, 5}, filter={"actor": "@bob:synapse.test"})
VKEY = str(KEY.verifier)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "evidence.jsonl"
    path.write_bytes(BUNDLE)
    return path


def test_a_genuine_bundle_exits_0_and_says_what_was_proven(govctl: Govctl, bundle: Path) -> None:
    done = govctl("verify", "--key", VKEY, bundle)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"WHOLE AND GENUINE: {bundle}\n")
    for fact in (ORIGIN, "2 entries (a selection: actor @bob:synapse.test from 0 to before 11)", "case CASE-1", VKEY):
        assert fact in done.stdout
    found = json.loads(govctl("verify", "--key", VKEY, bundle, "--json").stdout)
    assert (found["valid"], found["trusted"], found["entries"], found["skipped"]) == (True, True, 2, 9)


def test_a_remembered_key_needs_no_option(govctl: Govctl, bundle: Path) -> None:
    KnownKeysFile(govctl.home / "known_keys").remember(KEY.verifier)
    assert govctl("verify", bundle).exit_code == 0


def test_an_unknown_key_is_not_believed_and_the_advice_names_it(govctl: Govctl, bundle: Path) -> None:
    done = govctl("verify", bundle)
    assert done.exit_code == 1
    assert done.stdout.startswith("NOT GENUINE")
    assert f"--key '{VKEY}'" in done.stdout


def test_the_key_inside_is_believed_only_where_the_danger_was_chosen(govctl: Govctl, bundle: Path) -> None:
    done = govctl("verify", "--unsafe-embedded-key", bundle)
    assert done.exit_code == 0
    assert done.stdout.startswith("WHOLE, BUT BY WHOM?")
    assert json.loads(govctl("verify", "--unsafe-embedded-key", bundle, "--json").stdout)["trusted"] is False
    assert govctl("verify", "--unsafe-embedded-key", "--key", VKEY, bundle).exit_code == 2


def test_another_key_is_refused(govctl: Govctl, bundle: Path) -> None:
    other = SigningKey(ORIGIN, b"o" * 32).verifier
    assert "no signature by a known key" in govctl("verify", "--key", str(other), bundle).stdout
    damaged = govctl("verify", "--key", "nonsense", bundle)
    assert (damaged.exit_code, "verifier key" in damaged.stdout) == (1, True)


def test_a_changed_bundle_exits_1_with_the_first_thing_wrong(govctl: Govctl, bundle: Path) -> None:
    bundle.write_bytes(BUNDLE.replace(b'"room":"!room"', b'"room":"!moor"'))
    done = govctl("verify", "--key", VKEY, bundle)
    assert done.exit_code == 1
    assert "line 3, hash: " in done.stdout
    assert "the leaf was altered" in done.stdout
    found = json.loads(govctl("verify", "--key", VKEY, bundle, "--json").stdout)
    assert (found["valid"], found["where"]) == (False, "line 3, hash")


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_exits_1_in_a_sentence(govctl: Govctl, tmp_path: Path, name: str) -> None:
    done = govctl("verify", "--key", VKEY, tmp_path / name)
    assert (done.exit_code, done.stderr) == (1, "")
    assert "cannot be read" in done.stdout


_ONLY_WITH_EXTRAS = "attr canonicaljson jinja2 nio prometheus_client psycopg2 signedjson synapse treq twisted zope"
_BASE_INSTALL = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_ONLY_WITH_EXTRAS.split()}:
            raise ModuleNotFoundError(name + " is no part of a base install", name=name)

sys.meta_path.insert(0, Refuse())
"""
_GOVCTL = "from synapse_modules.cli.main import main; main()"


def _base_install(home: Path, code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` where nothing can be imported that the extras bring."""
    return subprocess.run(
        [sys.executable, "-c", _BASE_INSTALL + code, *map(str, arguments)],
        env={**os.environ, "GOVCTL_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_base_install_without_synapse_verifies_bundles(tmp_path: Path, bundle: Path) -> None:
    done = _base_install(tmp_path, _GOVCTL, "verify", "--key", VKEY, bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert "WHOLE AND GENUINE" in done.stdout
    bundle.write_bytes(BUNDLE[:-10])
    assert _base_install(tmp_path, _GOVCTL, "verify", "--key", VKEY, bundle).returncode == 1


def test_a_base_install_without_synapse_has_every_command(tmp_path: Path) -> None:
    done = _base_install(tmp_path, _GOVCTL, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("audit", "dev", "hold", "login", "migrate", "rbac", "retention", "smoke", "status", "verify"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("name", ["twisted.internet.defer", "synapse", "psycopg2.extras"])
def test_what_a_base_install_has_not_really_cannot_be_imported(tmp_path: Path, name: str) -> None:
    assert f"{name.partition('.')[0]} is no part of a base install" in _base_install(tmp_path, f"import {name}").stderr
