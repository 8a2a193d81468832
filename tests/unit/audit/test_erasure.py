from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.erasure import Named, ranges
from synapse_modules.core.canonical import canonical_text

ALL = ("actor", "target", "address", "user_agent", "device")
_PEOPLE = st.sampled_from(["@alice:x", "@bob:x", None])


def named(actor: str | None, target: str | None) -> Named:
    """A record with every personal field that there can be."""
    values = {"actor": actor, "target": target, "address": "192.0.2.1", "user_agent": "Tea é", "device": "D"}
    disclosures = {name: ["c2FsdA", value] for name, value in values.items() if value is not None}
    return Named(7, "main:1", 3, "!room", actor, target, "192.0.2.1", canonical_text(disclosures))


@pytest.mark.parametrize(
    ("actor", "target", "left"),
    [
        ("@alice:x", "@bob:x", {"target"}),
        ("@bob:x", "@alice:x", {"actor", "address", "user_agent", "device"}),
        ("@alice:x", "@alice:x", set()),
        ("@bob:x", None, {"actor", "address", "user_agent", "device"}),
        (None, "@alice:x", {"address", "user_agent", "device"}),
    ],
)
def test_what_names_the_person_goes_and_with_an_actor_what_they_used(
    actor: str | None, target: str | None, left: set[str]
) -> None:
    assert named(actor, target).without("@alice:x").names() == left


@given(actor=_PEOPLE, target=_PEOPLE)
def test_what_stays_is_what_it_was_and_what_is_searched_says_the_same_as_what_is_disclosed(
    actor: str | None, target: str | None
) -> None:
    before, after = named(actor, target), named(actor, target).without("@alice:x")
    kept = json.loads(after.disclosures)
    assert kept.items() <= json.loads(before.disclosures).items()
    assert after.disclosures == canonical_text(kept)
    for name in ("actor", "target", "address"):
        assert getattr(after, name) == (kept[name][1] if name in kept else None)
    assert "@alice:x" not in after.disclosures
    assert after.without("@alice:x") == after


def test_a_name_that_is_part_of_another_is_another() -> None:
    record = named("@alice:x.example", "@malice:x")
    assert record.without("@alice:x") == record


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_exactly_the_indexes_and_are_as_few_as_possible(indexes: set[int]) -> None:
    found = ranges(sorted(indexes))
    assert [index for begin, end in found for index in range(begin, end)] == sorted(indexes)
    assert all(first[1] < second[0] for first, second in itertools.pairwise(found))
