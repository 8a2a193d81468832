"""The Merkle tree of RFC 6962 and RFC 9162: hashes, which subtrees cover a range, and a tree that grows by appending.

A *perfect subtree* has 2**level leaves and begins at a multiple of that; it is named ``(level, index)`` and its leaves
are ``index << level`` up to ``(index + 1) << level``. Every range of leaves is covered by a shortest list of perfect
subtrees, from left to right; a growing tree needs to remember no more than the hashes of that list.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["EMPTY_ROOT", "HASH_BYTES", "Frontier", "cover", "leaf_hash", "node_hash"]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without leaves."""


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of one leaf (RFC 9162, 2.1.1)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node (RFC 9162, 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def cover(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The shortest list of perfect subtrees that covers the leaves ``begin`` up to, not including, ``end``."""
    while begin < end:
        level = _level_at(begin, end - begin)
        yield level, begin >> level
        begin += 1 << level


class Frontier:
    """A tree that only grows, remembered as the hashes of ``cover(0, size)``: at most one for each level.

    Args:
        size: leaves it has already. hashes: those of ``cover(0, size)``, in that order.

    Raises:
        ValueError: ``hashes`` are not as many as the cover has subtrees.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self._hashes = list(hashes)
        if len(self._hashes) != size.bit_count():
            raise ValueError(f"found {len(self._hashes)} hashes, expected {size.bit_count()} for {size} leaves")

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The hashes of ``cover(0, size)``."""
        return tuple(self._hashes)

    def copy(self) -> Frontier:
        """Another tree, the same so far."""
        return Frontier(self.size, self._hashes)

    def append(self, node: bytes, level: int = 0) -> None:
        """Append the perfect subtree whose hash is ``node``: a leaf at ``level`` 0.

        Raises:
            ValueError: a subtree of that level cannot begin at the tree's present size.
        """
        if level and self.size & ((1 << level) - 1):
            raise ValueError(f"a subtree of level {level} cannot begin at leaf {self.size}")
        hashes = self._hashes
        position = self.size >> level
        while position & 1:
            node = sha256(b"\x01" + hashes.pop() + node).digest()
            position >>= 1
        hashes.append(node)
        self.size += 1 << level

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append the hashes of many leaves, several times as fast as one by one."""
        start = 0
        while start < len(leaves):
            level = _level_at(self.size, len(leaves) - start)
            self.append(_perfect_root(leaves[start : start + (1 << level)]), level)
            start += 1 << level

    def root(self) -> bytes:
        """The Merkle tree hash of all leaves so far."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in self._hashes[-2::-1]:
            root = node_hash(left, root)
        return root


def _level_at(begin: int, count: int) -> int:
    """The level of the largest perfect subtree that can begin at leaf ``begin`` and has at most ``count`` leaves."""
    level = count.bit_length() - 1
    return min(level, (begin & -begin).bit_length() - 1) if begin else level


def _perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The hash of the perfect subtree over ``hashes``: as many as a power of two."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]
