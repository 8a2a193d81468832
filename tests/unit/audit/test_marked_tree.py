from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.marked_tree import MarkedTree
from synapse_modules.audit.merkle import EMPTY_ROOT, Frontier, cover, leaf_hash

LEAVES = [leaf_hash(bytes([number])) for number in range(200)]


def root(size: int) -> bytes:
    tree = Frontier()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree.root()


def subtree(level: int, index: int) -> bytes:
    tree = Frontier()
    for leaf in LEAVES[index << level : (index + 1) << level]:
        tree.append(leaf)
    return tree.root()


@given(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=6), st.lists(st.integers(0, 200), max_size=5))
def test_leaves_in_batches_of_any_size_make_the_same_roots_as_one_by_one(
    size: int, marks: list[int], cuts: list[int]
) -> None:
    tree = MarkedTree(marks)
    position = 0
    for cut in [*sorted(cut for cut in cuts if cut < size), size]:
        tree.extend(LEAVES[position:cut])
        position = cut
    assert (tree.size, tree.root()) == (size, root(size))
    for mark in marks:
        assert tree.root_at(mark) == (root(mark) if mark <= size else None)


@given(st.integers(0, 150), st.integers(1, 50), st.integers(0, 200))
def test_a_skip_shows_the_roots_at_the_ends_of_its_subtrees_and_no_other(begin: int, count: int, mark: int) -> None:
    tree = MarkedTree([mark])
    tree.extend(LEAVES[:begin])
    end = begin + count
    tree.skip(end, [subtree(*part) for part in cover(begin, end)])
    assert tree.root() == root(end)
    ends = {(index + 1) << level for level, index in cover(begin, end)}
    shown = mark <= begin or mark in ends
    assert tree.root_at(mark) == (root(mark) if shown else None)


def test_a_skip_with_too_few_hashes_is_refused() -> None:
    with pytest.raises(ValueError, match="found 0 hashes, expected 1 for leaves 0 to 3"):
        MarkedTree([]).skip(4, [])


def test_the_tree_without_leaves_has_a_root_too() -> None:
    assert MarkedTree([]).root_at(0) == EMPTY_ROOT
