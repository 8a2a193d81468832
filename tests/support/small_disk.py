"""A small file system of its own, which can be filled. Mounting one takes root, or sudo without a password."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SmallDisk", "small_disk"]

_ROOT = [] if os.getuid() == 0 else ["sudo", "-n"]


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """What is mounted at ``folder``."""

    folder: Path

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (2**20, 2**12, 1):
                _write_until_full(ballast.fileno(), bytes(size))

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """A disk of so many MB, gone with all that is on it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="synapse-governance-disk-"))
    options = f"size={megabytes}m,mode=0777"
    subprocess.run([*_ROOT, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run([*_ROOT, "umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _write_until_full(file: int, data: bytes) -> None:
    try:
        while True:
            os.write(file, data)
    except OSError:
        return
