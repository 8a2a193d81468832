"""The paths of C2SP's tlog-tiles (https://c2sp.org/tlog-tiles), read strictly: one text for each tile."""

from __future__ import annotations

import re
from dataclasses import dataclass

from synapse_modules.audit.tiles import TILE_WIDTH
from synapse_modules.core.errors import InvalidInput

__all__ = ["MAX_LEVEL", "TilePath", "parse_index", "parse_level"]

MAX_LEVEL = 63
_LEVEL = re.compile(r"0|[1-9][0-9]?")
_INDEX = re.compile(r"((?:x[0-9]{3}/){0,5})([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_EXAMPLE = "an index such as 067, x001/x234/067 or x001/067.p/112"


@dataclass(frozen=True, slots=True)
class TilePath:
    """Which tile of a level, or which bundle of entries.

    Attributes:
        index: its place in the level. width: hashes or entries that are asked for: all 256, or the first of them.
    """

    index: int
    width: int = TILE_WIDTH

    @property
    def begin(self) -> int:
        """The place of its first hash in the level, which is the index of its first entry in level 0."""
        return self.index * TILE_WIDTH

    @property
    def end(self) -> int:
        """The place after its last hash."""
        return self.begin + self.width

    def __str__(self) -> str:
        """Its path, below that of the level."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        return "/".join(groups) + ("" if self.width == TILE_WIDTH else f".p/{self.width}")


def parse_level(text: str) -> int:
    """The level that stands in a path.

    Raises:
        InvalidInput: it is none, or not written as it has to be.
    """
    if not _LEVEL.fullmatch(text) or int(text) > MAX_LEVEL:
        raise InvalidInput("level", text, f"a number from 0 to {MAX_LEVEL}")
    return int(text)


def parse_index(text: str) -> TilePath:
    """The tile or bundle that the end of a path means, below the level.

    Raises:
        InvalidInput: it means none, or is not written as it has to be.
    """
    match = _INDEX.fullmatch(text)
    if match is None:
        raise InvalidInput("index", text, _EXAMPLE)
    index = int(match[1].replace("x", "").replace("/", "") + match[2])
    found = TilePath(index, TILE_WIDTH if match[3] is None else int(match[3]))
    if found.width > TILE_WIDTH or str(found) != text:
        raise InvalidInput("index", text, _EXAMPLE)
    return found
