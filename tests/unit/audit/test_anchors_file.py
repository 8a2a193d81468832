"""The anchor that is a file: on real files, full disks included."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit.anchors.file import FileAnchor
from synapse_modules.audit.anchors.model import AnchorFailed, Held
from synapse_modules.audit.checkpoint import sign_note
from synapse_modules.core.clock import SystemClock
from tests.unit.audit.samples import KEY, SampleLog, make_records

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDS = make_records(30)
FULL = Path("/dev/full")
"""The kernel's own full disk."""


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What the kernel writes of a file ends there, in the middle of a write if need be."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def note_of(size: int) -> str:
    return sign_note(SampleLog(RECORDS[:size]).checkpoint().text(), [KEY])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints.jsonl"


@pytest.fixture
def anchor(path: Path) -> FileAnchor:
    return FileAnchor("vault", path, SystemClock())


def test_a_file_that_is_not_there_holds_nothing(anchor: FileAnchor) -> None:
    assert anchor.latest() is None


def test_the_last_checkpoint_that_was_published_is_the_latest(anchor: FileAnchor) -> None:
    for size in (1, 5, 9):
        anchor.publish(note_of(size))
    assert anchor.latest() == Held(9, note_of(9))


def test_every_checkpoint_is_one_line_of_json_in_a_file_of_its_owners_alone(anchor: FileAnchor, path: Path) -> None:
    receipts = [anchor.publish(note_of(size)) for size in (1, 5)]
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["note"] for line in lines] == [note_of(1), note_of(5)]
    assert [json.loads(receipt)["offset"] for receipt in receipts] == [0, len(lines[0])]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_stands_in_the_file_is_never_written_over(anchor: FileAnchor, path: Path) -> None:
    path.write_bytes(b"somebody's own line\n")
    anchor.publish(note_of(3))
    assert path.read_bytes().startswith(b"somebody's own line\n")
    assert anchor.latest() == Held(3, note_of(3))


@pytest.mark.parametrize("kept", [1, 50, 200])
def test_a_line_that_was_cut_off_is_skipped_and_ended_before_the_next_one(
    anchor: FileAnchor, path: Path, kept: int
) -> None:
    anchor.publish(note_of(1))
    whole = path.read_bytes()
    anchor.publish(note_of(5))
    os.truncate(path, len(whole) + kept)
    assert anchor.latest() == Held(1, note_of(1))
    anchor.publish(note_of(9))
    assert anchor.latest() == Held(9, note_of(9))
    assert path.read_bytes().splitlines()[0] == whole.rstrip(b"\n")


def test_a_truncated_file_holds_what_is_left_of_it(anchor: FileAnchor, path: Path) -> None:
    anchor.publish(note_of(1))
    size = path.stat().st_size
    anchor.publish(note_of(5))
    os.truncate(path, size)
    assert anchor.latest() == Held(1, note_of(1))
    os.truncate(path, 0)
    assert anchor.latest() is None


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[" * 60_000,
        b"{}",
        b"[]",
        b"null",
        b'"note"',
        b'{"note":7}',
        b'{"note":"no note"}',
        b"\x00" * 70_000,
    ],
)
def test_lines_that_are_something_else_are_skipped(anchor: FileAnchor, path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    assert anchor.latest() is None
    anchor.publish(note_of(2))
    assert anchor.latest() == Held(2, note_of(2))


def test_a_file_that_was_rotated_away_is_still_asked(anchor: FileAnchor, path: Path) -> None:
    anchor.publish(note_of(5))
    path.rename(path.with_name("checkpoints.jsonl.1"))
    assert anchor.latest() == Held(5, note_of(5))
    path.touch()
    assert anchor.latest() == Held(5, note_of(5))
    anchor.publish(note_of(9))
    assert anchor.latest() == Held(9, note_of(9))
    assert len(path.read_bytes().splitlines()) == 1


def test_of_several_rotated_files_the_newest_is_asked(anchor: FileAnchor, path: Path) -> None:
    for number, size in ((2, 1), (1, 5)):
        anchor.publish(note_of(size))
        rotated = path.with_name(f"checkpoints.jsonl.{number}")
        path.rename(rotated)
        os.utime(rotated, (size, size))
    assert anchor.latest() == Held(5, note_of(5))


def test_a_full_disk_is_said_and_nothing_counts_as_anchored() -> None:
    with pytest.raises(AnchorFailed, match=r"No space left on device\. Make room"):
        FileAnchor("vault", FULL, SystemClock()).publish(note_of(1))


def test_a_disk_that_fills_up_in_the_middle_of_a_line_loses_no_earlier_one(anchor: FileAnchor, path: Path) -> None:
    anchor.publish(note_of(1))
    with no_file_larger_than(path.stat().st_size + 40), pytest.raises(AnchorFailed, match="cannot be written"):
        anchor.publish(note_of(5))
    assert anchor.latest() == Held(1, note_of(1))
    anchor.publish(note_of(9))
    assert anchor.latest() == Held(9, note_of(9))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    anchor = FileAnchor("vault", tmp_path / "unmounted" / "checkpoints", SystemClock())
    with pytest.raises(AnchorFailed, match=r"vault: .*unmounted/checkpoints cannot be written: No such file"):
        anchor.publish(note_of(1))
    with pytest.raises(AnchorFailed, match="cannot be read"):
        anchor.latest()
