"""A tree that is rebuilt once, from left to right, and remembers which roots it had on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit.merkle import EMPTY_ROOT, Frontier, cover

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MarkedTree"]


class MarkedTree:
    """A growing tree.

    Args:
        marks: sizes at which its root will be wanted later.
    """

    def __init__(self, marks: Iterable[int]) -> None:
        self._tree = Frontier()
        self._marks = sorted(set(marks), reverse=True)
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._tree.size

    def root(self) -> bytes:
        """The hash of the tree so far."""
        return self._tree.root()

    def root_at(self, size: int) -> bytes | None:
        """The root that the tree had at ``size``, one of the marks; None where a skip went across it."""
        return self.root() if size == self.size else self._roots.get(size)

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append the hashes of leaves."""
        start = 0
        while self._marks and self._marks[-1] <= self.size + len(leaves) - start:
            end = start + max(0, self._marks[-1] - self.size)
            self._tree.extend(leaves[start:end])
            self._note_root()
            start = end
        self._tree.extend(leaves[start:] if start else leaves)

    def skip(self, end: int, hashes: Sequence[bytes]) -> None:
        """Go on to ``end`` with the hashes of the subtrees that cover what is skipped.

        Raises:
            ValueError: there are not as many hashes as that range needs.
        """
        subtrees = list(cover(self.size, end))
        if len(subtrees) != len(hashes):
            raise ValueError(
                f"found {len(hashes)} hashes, expected {len(subtrees)} for leaves {self.size} to {end - 1}"
            )
        for (level, _), node in zip(subtrees, hashes, strict=True):
            self._tree.append(node, level)
            self._note_root()

    def _note_root(self) -> None:
        """Remember the present root if it is marked, and forget marks that were passed."""
        while self._marks and self._marks[-1] <= self.size:
            if self._marks.pop() == self.size:
                self._roots[self.size] = self.root()
