"""An anchor that is a file: one line of JSON for each checkpoint, appended and synced.

The file is opened anew for each line, so it may be rotated away at any time. A line that was cut off by a crash or a
full disk is ended before the next one is written, and skipped when the file is read.
"""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.anchors.model import AnchorFailed, Held
from synapse_modules.audit.checkpoint import Checkpoint, split_note
from synapse_modules.core.files import sync_folder
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synapse_modules.core.clock import Clock
    from synapse_modules.storage.database import DatabaseLocation

__all__ = ["FileAnchor", "same_file_system"]

_OWNER_ONLY = 0o600
_TAIL_BYTES = 64 * 1024
"""How much of the end of a file is read: over a hundred checkpoints."""


class FileAnchor:
    """Appends checkpoints to a file; an :class:`~synapse_modules.audit.anchors.model.Anchor`.

    Args:
        name: what the operator calls it. path: the file; made if it is not there, its folder is not.
        clock: for the time in each line, which is for people.
    """

    kind = AnchorKind.FILE
    remembers = True

    def __init__(self, name: str, path: Path, clock: Clock) -> None:
        self.name = name
        self._path = path
        self._clock = clock

    def publish(self, note: str) -> bytes:
        """Append ``note``; returns where it stands: the file's length before it, as JSON.

        Raises:
            AnchorFailed: the file cannot be written, or the disk is full.
        """
        line = json.dumps({"note": note, "time_ms": self._clock.now_ms()}, ensure_ascii=True) + "\n"
        try:
            offset = self._append(line.encode("ascii"))
        except OSError as error:
            raise self._failed("cannot be written", error) from None
        return json.dumps({"offset": offset}).encode("ascii")

    def latest(self, offered: str | None = None) -> Held | None:
        """The last checkpoint in the file or, where the file has none, in the newest file that was rotated away.

        Raises:
            AnchorFailed: a file cannot be read.
        """
        del offered
        try:
            for path in self._files():
                held = _last_checkpoint(_tail(path))
                if held is not None:
                    return held
        except OSError as error:
            raise self._failed("cannot be read", error) from None
        return None

    def check_receipt(self, note: str, receipt: bytes) -> bool:
        """Receipts of a file prove nothing."""
        del note, receipt
        return True

    def close(self) -> None:
        """Nothing is kept open."""

    def _append(self, line: bytes) -> int:
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
        try:
            offset = os.fstat(descriptor).st_size
            if offset and os.pread(descriptor, 1, offset - 1) != b"\n":
                line = b"\n" + line
            _write_all(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._path.parent)
        return offset

    def _files(self) -> Iterator[Path]:
        """The file, then what was rotated away and still has its name in front, newest first."""
        if self._path.exists():
            yield self._path
        name = self._path.name
        siblings = (each for each in self._path.parent.iterdir() if each.name.startswith(name) and each.name != name)
        rotated = [each for each in siblings if each.is_file()]
        yield from sorted(rotated, key=lambda each: each.stat().st_mtime_ns, reverse=True)

    def _failed(self, what: str, error: OSError) -> AnchorFailed:
        advice = "Make room: no checkpoint is anchored there until then" if error.errno == errno.ENOSPC else ""
        return AnchorFailed(f"{self._path} {what}: {error.strerror}", where=self.name, advice=advice)


def same_file_system(path: Path, location: DatabaseLocation) -> bool | None:
    """Whether the file ``path`` is, or would be, on the file system of the database; None when that cannot be told."""
    if location.dialect is not Dialect.SQLITE:
        return None
    try:
        return os.stat(path.parent).st_dev == os.stat(location.arguments["database"]).st_dev  # noqa: PTH116  by number
    except OSError:
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        return file.read()


def _last_checkpoint(tail: bytes) -> Held | None:
    for line in reversed(tail.split(b"\n")):
        held = _parse(line)
        if held is not None:
            return held
    return None


def _parse(line: bytes) -> Held | None:
    """The checkpoint on a line of the file, or None where a line is cut off or something else."""
    try:
        note = json.loads(line)["note"]
        return Held(Checkpoint.parse(split_note(note)[0]).size, note)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
