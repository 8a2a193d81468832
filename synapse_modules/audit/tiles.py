"""Hash tiles as C2SP's tlog-tiles cuts a tree (https://c2sp.org/tlog-tiles), and any subtree's hash from them.

A tile of level L holds 256 neighbouring hashes of the tree's level 8·L; the hash of the subtree they make is one of the
hashes of level L + 1. A full tile never changes, so it is written once; the last tile of each level is partial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit.merkle import HASH_BYTES, Frontier, cover, node_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["TILE_HEIGHT", "TILE_WIDTH", "Tile", "TileBuilder", "TiledNodes", "frontier_of", "split_hashes"]

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
_CACHED_TILES = 256


@dataclass(frozen=True, slots=True)
class Tile:
    """A full tile.

    Attributes:
        level, index: its place. root: the hash of the subtree that it makes. hashes: 256 hashes, 8,192 bytes.
    """

    level: int
    index: int
    root: bytes
    hashes: bytes


class TileBuilder:
    """Cuts a growing tree into tiles.

    Args:
        size: leaves that the tree has already.
        tails: for each level, from 0, the hashes of its partial tile.
    """

    def __init__(self, size: int = 0, tails: Iterable[Iterable[bytes]] = ()) -> None:
        self.size = size
        self._tails = [list(tail) for tail in tails]

    def copy(self) -> TileBuilder:
        """Another one, the same so far."""
        return TileBuilder(self.size, self._tails)

    def append(self, leaf: bytes) -> list[Tile]:
        """Append a leaf's hash; returns the tiles that it made full, lowest first."""
        made: list[Tile] = []
        level, node, position = 0, leaf, self.size
        self.size += 1
        while True:
            if level == len(self._tails):
                self._tails.append([])
            tail = self._tails[level]
            tail.append(node)
            if len(tail) < TILE_WIDTH:
                return made
            position >>= TILE_HEIGHT
            node = _root(tail)
            made.append(Tile(level, position, node, b"".join(tail)))
            self._tails[level] = []
            level += 1


class TiledNodes:
    """Every perfect subtree of a tree that is stored in tiles; a :class:`~synapse_modules.audit.proof.NodeSource`.

    Args:
        load: answers the hashes of tile ``(level, index)``, as many as there are.
    """

    def __init__(self, load: Callable[[int, int], list[bytes]]) -> None:
        self._load = load
        self._pyramids: dict[tuple[int, int], list[list[bytes]]] = {}
        self._leaves: tuple[int, list[bytes]] = (-1, [])

    def node(self, level: int, index: int) -> bytes:
        """The hash of perfect subtree ``(level, index)``.

        Raises:
            IndexError: the tree is not large enough to have it whole.
        """
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index = index >> (TILE_HEIGHT - height)
        pyramid = self._pyramid(tile_level, tile_index)
        return pyramid[height][index - (tile_index << (TILE_HEIGHT - height))]

    def tile(self, level: int, index: int) -> list[bytes]:
        """The hashes of tile ``(level, index)``, as many as there are."""
        return self._load(level, index)

    def leaf(self, index: int) -> bytes:
        """The hash of leaf ``index``; cheap for one after the other.

        Raises:
            IndexError: the tree has no such leaf.
        """
        tile, position = divmod(index, TILE_WIDTH)
        if tile != self._leaves[0]:
            self._leaves = tile, self._load(0, tile)
        return self._leaves[1][position]

    def tail(self, level: int, size: int) -> list[bytes]:
        """The hashes of the partial tile of ``level``, of a tree of ``size`` leaves: what a builder goes on from."""
        return self._load(level, size >> (TILE_HEIGHT * (level + 1)))

    def _pyramid(self, level: int, index: int) -> list[list[bytes]]:
        """All complete nodes above the hashes of one tile, one list for each height below the tile's own root."""
        pyramid = self._pyramids.get((level, index))
        if pyramid is None:
            if len(self._pyramids) >= _CACHED_TILES:
                del self._pyramids[next(iter(self._pyramids))]
            pyramid = self._pyramids[level, index] = _pyramid(self._load(level, index))
        return pyramid


def frontier_of(nodes: TiledNodes, size: int) -> Frontier:
    """The tree of the first ``size`` leaves, ready to grow."""
    return Frontier(size, [nodes.node(level, index) for level, index in cover(0, size)])


def split_hashes(hashes: bytes) -> list[bytes]:
    """The single hashes of a tile."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


def _root(hashes: list[bytes]) -> bytes:
    tree = Frontier()
    for node in hashes:
        tree.append(node)
    return tree.root()


def _pyramid(hashes: list[bytes]) -> list[list[bytes]]:
    levels = [hashes]
    while len(levels) < TILE_HEIGHT:
        below = levels[-1]
        levels.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])
    return levels
