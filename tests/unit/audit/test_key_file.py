from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.audit.key_file import generate_key, load_key, mark_used, was_used
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import InvalidInput
from tests.unit.audit.samples import ORIGIN

if TYPE_CHECKING:
    from pathlib import Path


def test_a_generated_key_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    key = generate_key(path, ORIGIN, system_random)
    assert load_key(path, ORIGIN).verifier == key.verifier
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["audit.key"]


def test_a_key_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    first = generate_key(path, ORIGIN, system_random)
    assert generate_key(path, ORIGIN, system_random).verifier == first.verifier


def test_processes_that_make_the_key_at_once_agree_on_it(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def make(_number: int) -> str:
        together.wait()
        return str(generate_key(tmp_path / "audit.key", ORIGIN, system_random).verifier)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    generate_key(path, ORIGIN, system_random)
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match=r"audit\.key: found 'mode 0640', expected mode 0600"):
        load_key(path, ORIGIN)


def test_the_key_of_another_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    generate_key(path, ORIGIN, system_random)
    with pytest.raises(InvalidInput, match=r"found .the key of 'synapse\.test/governance-audit'"):
        load_key(path, "other.test/governance-audit")


def test_a_damaged_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    text = SigningKey.generate(ORIGIN, system_random).private_text()
    path.touch(mode=0o600)
    path.write_text(text[:-4])
    with pytest.raises(InvalidInput) as caught:
        load_key(path, ORIGIN)
    assert caught.value.where == str(path)
    assert text[-20:-4] not in caught.value.sentence()


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"audit\.key: found 'No such file or directory'"):
        load_key(tmp_path / "audit.key", ORIGIN)
    with pytest.raises(InvalidInput, match="expected a path where this process can make its key file"):
        generate_key(tmp_path / "nowhere" / "audit.key", ORIGIN, system_random)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="found 'something that is no text'"):
        load_key(tmp_path / "binary", ORIGIN)


def test_a_key_that_has_signed_has_a_mark_which_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    generate_key(path, ORIGIN, system_random)
    assert not was_used(path)
    for _ in range(2):
        mark_used(path)
        assert was_used(path)
    assert (tmp_path / "audit.key.signed").stat().st_mode & 0o777 == 0o600
