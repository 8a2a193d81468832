"""The lines of a bundle, read in blocks, each byte once, and hashed as they are consumed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from synapse_modules.audit.bundle import MAX_LINE_BYTES
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

__all__ = ["BundleInvalid", "BundleLines"]

_BLOCK = 192 * 1024
"""Small enough to stay in a processor's cache."""


class BundleInvalid(InvalidInput):
    """The bundle is not whole and genuine: ``where`` names the line, and this is the first thing wrong with it."""


class BundleLines:
    """A bundle, line by line or block by block.

    Args:
        stream: the file, open for reading bytes. progress: called with the number of bytes at each reading.

    Attributes:
        number: of the line that is being looked at, from 1. Whoever takes a block counts its lines.
    """

    def __init__(self, stream: BinaryIO, progress: Callable[[int], object]) -> None:
        self._stream = stream
        self._progress = progress
        # A newline, and then what is at hand; so that each line is found with the newline before it.
        self._data = b"\n"
        self._hashed = self._next = self._end = 1
        self._digest = hashlib.sha256()
        self.number = 0

    def line(self, expected: str) -> bytes:
        """The next line, with its newline.

        Raises:
            BundleInvalid: there is none; ``expected`` says what there should be.
        """
        self.number += 1
        self._require(expected)
        begin = self._next
        self._next = self._data.index(b"\n", begin) + 1
        return self._data[begin : self._next]

    def block(self, expected: str) -> bytes:
        """All whole lines that are at hand, at least one.

        Raises:
            BundleInvalid: there is none; ``expected`` says what there should be.
        """
        self.number += 1
        self._require(expected)
        self.number -= 1
        begin, self._next = self._next, self._end
        return self._data[begin : self._end]

    def go_back_after(self, line: bytes) -> None:
        """Go on after ``line`` of the present block."""
        self._next = self._place(line) + len(line)

    def digest_before(self, line: bytes) -> str:
        """The SHA-256 of everything since the line given here before, itself included, up to ``line``."""
        begin = self._place(line)
        self._digest.update(memoryview(self._data)[self._hashed : begin])
        self._hashed = begin
        digest, self._digest = self._digest.hexdigest(), hashlib.sha256()
        return digest

    def at_end(self) -> bool:
        """Whether nothing follows, not even half a line."""
        return self._next == len(self._data) and not self._read_on()

    def wrong(self, found: object, expected: str, part: str = "") -> BundleInvalid:
        """The error that the present line deserves."""
        return BundleInvalid(f"line {self.number}{part and ', '}{part}", found, expected)

    def _place(self, line: bytes) -> int:
        return self._data.index(b"\n" + line, self._hashed - 1) + 1

    def _require(self, expected: str) -> None:
        """Have a whole line at hand."""
        while self._next == self._end:
            more = len(self._data) - self._next <= MAX_LINE_BYTES and self._read_on()
            if not more:
                cut = self._next < len(self._data)
                raise self.wrong("a line that is cut off or too long" if cut else "the end of the file", expected)

    def _read_on(self) -> bool:
        """Read a block more, and let go of what was consumed; whether there was anything."""
        more = self._stream.read(_BLOCK)
        self._progress(len(more))
        self._digest.update(memoryview(self._data)[self._hashed : self._next])
        self._data = self._data[self._next - 1 :] + more
        self._hashed = self._next = 1
        self._end = self._data.rfind(b"\n") + 1
        return bool(more)
