"""A format that has one line for each entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from synapse_modules.audit.formats.entry import Entry

__all__ = ["LineFormat"]


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How entries become lines of UTF-8.

    None of these formats is the signed form: they carry no salts and no hashes: nothing can be proven from them.

    Attributes:
        name: what an operator calls it. suffix: of its files, with the dot. media_type: for HTTP.
        lossless: whether everything that an entry holds can be read back exactly.
        summary: what it is, and what it loses: one sentence without a full stop.
        encode: one entry as one line, without its end.
        header: the line before the first, if there is one. end: of each line.
    """

    name: str
    suffix: str
    media_type: str
    lossless: bool
    summary: str
    encode: Callable[[Entry], str]
    header: str | None = None
    end: str = "\n"

    def stream(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        """The header and then each entry, in constant memory."""
        if self.header is not None:
            yield f"{self.header}{self.end}".encode()
        encode, end = self.encode, self.end
        for entry in entries:
            yield (encode(entry) + end).encode("utf-8", "replace")
