"""The tree against RFC 6962's definition and the reference vectors of Certificate Transparency."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit import proof
from synapse_modules.audit.merkle import EMPTY_ROOT, Frontier, cover, leaf_hash, node_hash

# The leaves and roots that the Certificate Transparency implementations share (RFC 6962 reference data).
REFERENCE_LEAVES = tuple(
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
)
REFERENCE_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
leaves = st.lists(st.binary(max_size=8), max_size=70)


def tree_hash(data: list[bytes]) -> bytes:
    """MTH as RFC 6962, 2.1 defines it, word for word."""
    if not data:
        return sha256(b"").digest()
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return sha256(b"\x01" + tree_hash(data[:split]) + tree_hash(data[split:])).digest()


def grow(data: list[bytes] | tuple[bytes, ...]) -> Frontier:
    tree = Frontier()
    for leaf in data:
        tree.append(leaf_hash(leaf))
    return tree


class AllNodes:
    """Every perfect subtree, hashed anew from the leaves."""

    def __init__(self, data: list[bytes] | tuple[bytes, ...]) -> None:
        self.data = list(data)

    def node(self, level: int, index: int) -> bytes:
        begin, end = index << level, (index + 1) << level
        assert end <= len(self.data), "asked for a subtree that is not complete"
        return tree_hash(self.data[begin:end])


@pytest.mark.parametrize("size", range(9))
def test_the_root_equals_the_published_reference(size: int) -> None:
    assert grow(REFERENCE_LEAVES[:size]).root().hex() == REFERENCE_ROOTS[size]


def test_proofs_equal_the_worked_example_of_rfc_9162_section_2_1_5() -> None:
    nodes = AllNodes(REFERENCE_LEAVES[:7])
    a, b, c, d, e, f, j = (leaf_hash(leaf) for leaf in REFERENCE_LEAVES[:7])
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l = node_hash(g, h), node_hash(i, j)  # noqa: E741  the names of the RFC's figure
    assert [proof.inclusion_proof(nodes, index, 7) for index in (0, 3, 4, 6)] == [
        [b, h, l],
        [c, g, l],
        [f, j, k],
        [i, k],
    ]
    assert [proof.consistency_proof(nodes, old, 7) for old in (3, 4, 6)] == [[c, d, g, l], [l], [i, j, k]]


@given(leaves)
def test_growing_by_appending_gives_the_recursive_definition(data: list[bytes]) -> None:
    assert grow(data).root() == tree_hash(data)


@given(leaves, st.data())
def test_a_tree_goes_on_from_its_remembered_hashes(data: list[bytes], draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data)))
    first = grow(data[:cut])
    again = Frontier(first.size, first.hashes)
    for leaf in data[cut:]:
        again.append(leaf_hash(leaf))
    assert again.root() == tree_hash(data)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_a_cover_is_gapless_aligned_and_short(begin: int, length: int) -> None:
    position = begin
    for level, index in cover(begin, begin + length):
        assert index << level == position
        position += 1 << level
    assert position == begin + length
    assert len(list(cover(begin, begin + length))) <= 2 * max(1, length.bit_length())


@given(st.integers(1, 70), st.data())
def test_every_inclusion_proof_verifies_and_fits_no_other_leaf(size: int, draw: st.DataObject) -> None:
    data = [bytes([number]) for number in range(size)]
    index, other = draw.draw(st.integers(0, size - 1)), draw.draw(st.integers(0, size - 1))
    path = proof.inclusion_proof(AllNodes(data), index, size)
    root = tree_hash(data)
    assert proof.verify_inclusion(leaf_hash(data[index]), index, size, path, root)
    assert proof.verify_inclusion(leaf_hash(data[other]), other, size, path, root) == (other == index)
    assert proof.verify_inclusion(leaf_hash(data[other]), index, size, path, root) == (other == index)
    assert not proof.verify_inclusion(leaf_hash(data[index]), index, size, [*path, root], root)
    assert not path or not proof.verify_inclusion(leaf_hash(data[index]), index, size, path[:-1], root)


@given(st.integers(1, 70), st.data())
def test_every_consistency_proof_verifies_and_none_for_another_history(new: int, draw: st.DataObject) -> None:
    data = [bytes([number]) for number in range(new)]
    old = draw.draw(st.integers(1, new))
    path = proof.consistency_proof(AllNodes(data), old, new)
    before, after = tree_hash(data[:old]), tree_hash(data)
    assert proof.verify_consistency(old, before, new, after, path)
    rewritten = tree_hash([b"forged", *data[1:old]])
    assert not proof.verify_consistency(old, rewritten, new, after, path)
    assert not proof.verify_consistency(old, before, new, after, [*path, before])
    assert not path or not proof.verify_consistency(old, before, new, after, path[:-1])


@given(st.integers(1, 70), st.data())
def test_shown_leaves_and_skips_rebuild_the_root(size: int, draw: st.DataObject) -> None:
    data = [bytes([number]) for number in range(size)]
    shown = draw.draw(st.sets(st.integers(0, size - 1)))
    nodes, tree = AllNodes(data), Frontier()
    for index in [*sorted(shown), size]:
        proof.append_skip(tree, index, proof.skip_hashes(nodes.node, tree.size, index))
        if index < size:
            tree.append(leaf_hash(data[index]))
    assert (tree.size, tree.root()) == (size, tree_hash(data))


@given(st.integers(1, 64), st.data())
def test_a_skip_of_the_wrong_length_is_refused(size: int, draw: st.DataObject) -> None:
    hashes = draw.draw(st.integers(0, 12).filter(lambda count: count != len(list(cover(0, size)))))
    with pytest.raises(ValueError, match="hashes, expected"):
        proof.append_skip(Frontier(), size, [EMPTY_ROOT] * hashes)


def test_a_subtree_cannot_be_appended_where_it_does_not_begin() -> None:
    with pytest.raises(ValueError, match="cannot begin"):
        grow([b"one"]).append(EMPTY_ROOT, level=1)


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3)])
def test_nothing_is_proven_of_impossible_sizes(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="cannot be proven"):
        proof.consistency_proof(AllNodes(REFERENCE_LEAVES), old, new)
    assert not proof.verify_consistency(old, EMPTY_ROOT, new, EMPTY_ROOT, [])
