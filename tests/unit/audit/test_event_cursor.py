from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.event_cursor import MAX_GAPS, Cursors, Gap, Lane, Newcomer, bounded, holes

MASTER, IMPORTS = Lane("master"), Lane("backfill/master")


def behind(cursors: Cursors, positions: dict[str, int]) -> list[tuple[str, int, int]]:
    """What is to be read, lane by lane."""
    return [(span.lane.name, span.after, span.upto) for span in cursors.moved_to(positions).behind(positions)]


def test_a_lane_is_a_writer_in_one_of_two_streams() -> None:
    assert (MASTER.writer, MASTER.stream, MASTER.backwards) == ("master", "", False)
    assert (IMPORTS.writer, IMPORTS.stream, IMPORTS.backwards) == ("master", "backfill/", True)


def test_following_begins_at_the_present_positions() -> None:
    positions = {"master": 100, "backfill/master": -20}
    cursors = Cursors.starting_at(positions)
    assert behind(cursors, positions) == []
    assert behind(cursors, {"master": 103, "backfill/master": -25}) == [
        ("master", 100, 103),
        ("backfill/master", 20, 25),
    ]


def test_a_new_writer_begins_where_following_began() -> None:
    cursors = Cursors({"": 100, "backfill/": 20}, {"worker1": 500, "backfill/worker1": 20})
    positions = {"worker1": 500, "worker2": 510, "backfill/worker2": -22}
    assert sorted(behind(cursors, positions)) == [
        ("backfill/worker1", 20, 22),
        ("backfill/worker2", 20, 22),
        ("worker2", 100, 510),
    ]


def test_a_new_writer_is_a_newcomer_until_it_was_read_up_to_where_it_was() -> None:
    cursors = Cursors({"": 100}, {"worker1": 500})
    seen = cursors.moved_to({"worker1": 500, "worker2": 510})
    assert seen.newcomers == {"worker2": Newcomer(510)}
    assert seen.moved_to({"worker2": 600}).newcomers == {"worker2": Newcomer(510)}
    assert seen.moved_to({"worker2": 300}).newcomers == {"worker2": Newcomer(300)}
    assert seen.read_to({**seen.reached, "worker2": 509}, ()).newcomers == {"worker2": Newcomer(510)}
    assert seen.read_to({**seen.reached, "worker2": 510}, ()).newcomers == {}


def test_a_writer_that_is_new_and_has_written_nothing_is_no_newcomer() -> None:
    assert Cursors({"": 100}, {"worker1": 500}).moved_to({"worker2": 100}).newcomers == {}


def test_a_writer_that_is_configured_no_longer_is_followed_to_the_end() -> None:
    cursors = Cursors({"": 100}, {"worker1": 400, "worker2": 500})
    assert behind(cursors, {"worker2": 505}) == [("worker1", 400, 505), ("worker2", 500, 505)]
    assert behind(cursors, {}) == []


def test_a_stream_that_had_no_position_when_following_began_begins_at_its_first() -> None:
    cursors = Cursors.starting_at({"master": 100})
    assert behind(cursors, {"master": 100, "backfill/master": -20}) == []


def test_a_cursor_goes_back_with_its_position_and_takes_the_gaps_behind_it_along() -> None:
    gaps = (Gap("", 90, 95, 7), Gap("", 97, 99, 7), Gap("", 110, 110, 7), Gap("backfill/", 3, 3, 7))
    cursors = Cursors({}, {"master": 120, "backfill/master": 5}, gaps)
    moved = cursors.moved_to({"master": 98, "backfill/master": -5})
    assert moved.reached == {"master": 98, "backfill/master": 5}
    assert moved.gaps == (Gap("", 90, 95, 7), Gap("", 97, 98, 7), Gap("backfill/", 3, 3, 7))
    assert moved.fallen_behind(cursors) == ["master"]
    assert cursors.moved_to({"master": 121}).fallen_behind(cursors) == []


def test_cursors_are_read_as_they_were_written() -> None:
    gaps = (Gap("", 3, 4, 5), Gap("backfill/", 6, 7, 8, coarse=True))
    cursors = Cursors({"": 1}, {"wörker": 2}, gaps, {"wörker": Newcomer(9, 10)})
    assert Cursors.parse(cursors.text()) == cursors


@given(st.integers(0, 50), st.integers(0, 50), st.sets(st.integers(0, 60)))
def test_holes_are_exactly_the_ids_that_are_not_there(after: int, length: int, present: set[int]) -> None:
    upto = after + length
    inside = {number for number in present if after < number <= upto}
    found = [number for first, last in holes(after, upto, sorted(inside)) for number in range(first, last + 1)]
    assert found == [number for number in range(after + 1, upto + 1) if number not in inside]


def test_what_two_writers_missed_alike_is_one_gap() -> None:
    gaps = [Gap("", 5, 9, 40), Gap("", 7, 12, 50), Gap("", 13, 13, 40), Gap("backfill/", 6, 6, 40)]
    assert bounded(gaps) == (Gap("", 5, 12, 50), Gap("", 13, 13, 40), Gap("backfill/", 6, 6, 40))


def test_too_many_gaps_become_one_coarse_gap_for_each_stream() -> None:
    gaps = [Gap("", 10 * number, 10 * number + 1, 1000 + number) for number in range(1, MAX_GAPS + 1)]
    assert bounded(gaps) == tuple(gaps)
    imported = Gap("backfill/", 4, 4, 2000)
    last = 10 * MAX_GAPS + 1
    assert bounded([*gaps, imported]) == (
        Gap("", 10, last, 1000 + MAX_GAPS, coarse=True),
        Gap("backfill/", 4, 4, 2000, coarse=True),
    )


@pytest.mark.parametrize("coarse", [True, False])
def test_a_gap_that_meets_a_coarse_one_becomes_part_of_it(coarse: bool) -> None:
    merged = bounded([Gap("", 1, 9, 5, coarse=True), Gap("", 4, 12, 6, coarse=coarse)])
    assert merged == (Gap("", 1, 12, 6, coarse=True),)
