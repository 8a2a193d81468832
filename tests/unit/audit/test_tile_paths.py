"""The paths of tiles, as C2SP's tlog-tiles writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.tile_paths import TilePath, parse_index, parse_level
from synapse_modules.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "index", "width"),
    [
        ("000", 0, 256),
        ("067", 67, 256),
        ("999", 999, 256),
        ("x001/000", 1000, 256),
        ("x001/x234/067", 1_234_067, 256),
        ("273.p/112", 273, 112),
        ("x001/000.p/1", 1000, 1),
        ("x999/x999/x999/x999/x999/999", 10**18 - 1, 256),
    ],
)
def test_a_path_means_one_tile_and_is_the_only_text_for_it(text: str, index: int, width: int) -> None:
    found = parse_index(text)
    assert (found, str(found)) == (TilePath(index, width), text)
    assert (found.begin, found.end) == (index * 256, index * 256 + width)


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "67", "0067", "x067", "x000/067", "x000/x001/067", "001/067", "x001/x234", "x01/067", "-01", "06a",
        "٠٦٧", "067.p", "067.p/", "067.p/0", "067.p/01", "067.p/256", "067.p/999", "067.p/1/2", "067/", "/067", "067\n",
        "x999/x999/x999/x999/x999/x999/999", "x001/067.p/-1",
    ],
)  # fmt: skip
def test_a_path_that_is_not_written_as_it_has_to_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="an index such as"):
        parse_index(text)


@given(st.integers(0, 10**18 - 1), st.integers(1, 256))
def test_what_is_written_is_read(index: int, width: int) -> None:
    assert parse_index(str(TilePath(index, width))) == TilePath(index, width)


def test_levels_are_numbers_from_0_to_63() -> None:
    assert [parse_level(text) for text in ("0", "7", "63")] == [0, 7, 63]
    for text in ("", "64", "00", "01", "-1", "1.0", "entries", "٣", "1\n"):
        with pytest.raises(InvalidInput, match="from 0 to 63"):
            parse_level(text)
