from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.merkle import Frontier, cover, leaf_hash
from synapse_modules.audit.tiles import TILE_WIDTH, Tile, TileBuilder, TiledNodes, frontier_of, split_hashes

LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(66_000)]


def grow(size: int) -> Frontier:
    tree = Frontier()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree


def tiles_of(size: int) -> dict[tuple[int, int], Tile]:
    builder, tiles = TileBuilder(), {}
    for leaf in LEAVES[:size]:
        for tile in builder.append(leaf):
            assert (tile.level, tile.index) not in tiles
            tiles[tile.level, tile.index] = tile
    return tiles


ALL_TILES = tiles_of(len(LEAVES))


def nodes_of(size: int) -> TiledNodes:
    """The nodes of a tree of ``size`` leaves, from full tiles and the leaves behind them."""

    def load(level: int, index: int) -> list[bytes]:
        begin, end = index * TILE_WIDTH, min((index + 1) * TILE_WIDTH, size >> (8 * level))
        if end - begin == TILE_WIDTH:
            return split_hashes(ALL_TILES[level, index].hashes)
        return [LEAVES[at] if level == 0 else ALL_TILES[level - 1, at].root for at in range(begin, end)]

    return TiledNodes(load)


def test_a_tile_is_made_for_every_256_hashes_of_every_level() -> None:
    assert [key for key in ALL_TILES if key[0] == 0] == [(0, index) for index in range(66_000 // 256)]
    assert [key for key in ALL_TILES if key[0] > 0] == [(1, 0)]
    assert ALL_TILES[1, 0].root == grow(65_536).root()
    assert len(ALL_TILES[0, 3].hashes) == 8192


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 4096, 65_535, 65_536, 65_537, 66_000])
def test_a_tree_is_rebuilt_from_its_tiles(size: int) -> None:
    tree = frontier_of(nodes_of(size), size)
    assert (tree.hashes, tree.root()) == (grow(size).hashes, grow(size).root())


@given(st.integers(1, 3000), st.data())
def test_every_subtree_has_the_hash_of_its_leaves(size: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, size - 1))
    nodes = nodes_of(size)
    for level, index in cover(begin, size):
        tree = Frontier()
        for leaf in LEAVES[index << level : (index + 1) << level]:
            tree.append(leaf)
        assert nodes.node(level, index) == tree.root()


def test_a_subtree_that_is_not_complete_has_no_hash() -> None:
    with pytest.raises(IndexError):
        nodes_of(300).node(3, 300 >> 3)


@given(st.integers(0, 600), st.integers(0, 600))
def test_cutting_goes_on_from_its_tails(size: int, more: int) -> None:
    whole = TileBuilder()
    for leaf in LEAVES[:size]:
        whole.append(leaf)
    begin = size // TILE_WIDTH
    tails = [LEAVES[begin * TILE_WIDTH : size], [ALL_TILES[0, at].root for at in range(begin)]]
    again = TileBuilder(size, tails)
    for leaf in LEAVES[size : size + more]:
        assert again.append(leaf) == whole.append(leaf)
