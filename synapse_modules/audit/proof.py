"""Inclusion and consistency proofs (RFC 9162, 2.1.3 and 2.1.4), and skips: the proof that something was left out."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Protocol

from synapse_modules.audit.merkle import Frontier, cover, node_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "NodeSource",
    "append_skip",
    "consistency_proof",
    "inclusion_proof",
    "skip_hashes",
    "verify_consistency",
    "verify_inclusion",
]


class NodeSource(Protocol):
    """Knows the hash of every perfect subtree of one tree."""

    def node(self, level: int, index: int) -> bytes:
        """The hash of perfect subtree ``(level, index)``; level 0 is a leaf's hash."""


def inclusion_proof(nodes: NodeSource, index: int, size: int) -> list[bytes]:
    """The proof that the leaf ``index`` is in the tree of ``size`` leaves (RFC 9162, 2.1.3.1).

    Raises:
        ValueError: there is no such leaf in that tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_range_root(nodes, middle, end))
            end = middle
        else:
            proof.append(_range_root(nodes, begin, middle))
            begin = middle
    return proof[::-1]


def consistency_proof(nodes: NodeSource, old: int, new: int) -> list[bytes]:
    """The proof that the tree of ``old`` leaves is a prefix of that of ``new`` leaves (RFC 9162, 2.1.4.1).

    Empty when both are the same tree.

    Raises:
        ValueError: ``old`` is not within 1 and ``new``; of an empty tree nothing can be proven.
    """
    if not 0 < old <= new:
        raise ValueError(f"a tree of {old} leaves cannot be proven a prefix of one of {new}")
    proof: list[bytes] = []
    begin, end, whole = 0, new, True
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(_range_root(nodes, middle, end))
            end = middle
        else:
            proof.append(_range_root(nodes, begin, middle))
            begin, whole = middle, False
    if not whole:
        proof.append(_range_root(nodes, begin, end))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows the leaf with hash ``leaf`` at ``index`` of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and hmac.compare_digest(computed, root)


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows the tree of ``old`` leaves as a prefix of that of ``new`` (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and hmac.compare_digest(old_root, new_root)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    position, last = _strip_ones(old - 1, new - 1)
    older = newer = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            older, newer = node_hash(node, older), node_hash(node, newer)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            newer = node_hash(newer, node)
        position, last = position >> 1, last >> 1
    return last == 0 and hmac.compare_digest(older, old_root) and hmac.compare_digest(newer, new_root)


def skip_hashes(node: Callable[[int, int], bytes], begin: int, end: int) -> list[bytes]:
    """The hashes that stand for the leaves ``begin`` up to ``end`` which are not shown: those of ``cover(begin, end)``.

    Leaves that are shown, and skips between them, rebuild the whole tree: whoever knows its root knows that nothing
    else lies between two shown leaves than the skips say.
    """
    return [node(level, index) for level, index in cover(begin, end)]


def append_skip(tree: Frontier, end: int, hashes: Sequence[bytes]) -> None:
    """Go on in ``tree`` from its present size to ``end`` with :func:`skip_hashes`.

    Raises:
        ValueError: there are not as many hashes as that range needs.
    """
    subtrees = list(cover(tree.size, end))
    if len(subtrees) != len(hashes):
        raise ValueError(f"found {len(hashes)} hashes, expected {len(subtrees)} for leaves {tree.size} to {end - 1}")
    for (level, _), node in zip(subtrees, hashes, strict=True):
        tree.append(node, level)


def _split(count: int) -> int:
    """The largest power of two smaller than ``count``."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_root(nodes: NodeSource, begin: int, end: int) -> bytes:
    """The tree hash of a range as RFC 9162 cuts it: it begins at a multiple of a power of two not below its length."""
    return Frontier(end - begin, [nodes.node(level, index) for level, index in cover(begin, end)]).root()


def _strip_ones(position: int, last: int) -> tuple[int, int]:
    while position & 1:
        position, last = position >> 1, last >> 1
    return position, last
