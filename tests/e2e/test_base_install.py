"""What an auditor installs: the package without extras, without Synapse, and a bundle that verifies there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.audit.samples import KEY, SampleLog, make_records

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def auditors_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment made from the base lock alone."""
    folder = tmp_path_factory.mktemp("auditor") / "venv"
    subprocess.run([str(ROOT / "scripts" / "venv"), str(folder), "base"], check=True, cwd=ROOT, timeout=170)
    return folder / "bin"


def test_a_bundle_verifies_where_there_is_no_synapse(auditors_python: Path, tmp_path: Path) -> None:
    bundle, changed = tmp_path / "evidence.jsonl", tmp_path / "changed.jsonl"
    content = SampleLog(make_records(300)).export()
    bundle.write_bytes(content)
    middle = len(content) // 2
    changed.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])

    assert _run(auditors_python / "python", "-c", "import synapse").returncode == 1
    genuine = _run(auditors_python / "govctl", "verify", str(bundle), "--key", str(KEY.verifier))
    forged = _run(auditors_python / "govctl", "verify", str(changed), "--key", str(KEY.verifier))

    assert (genuine.returncode, genuine.stdout.startswith("WHOLE AND GENUINE")) == (0, True), genuine
    assert forged.returncode == 1
    assert "NOT GENUINE" in forged.stdout + forged.stderr


def _run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=60)
