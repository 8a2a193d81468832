"""Canonical JSON: one value, one sequence of bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.core.canonical import canonical_bytes
from synapse_modules.core.errors import InvalidInput

SAFE = st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(max_codepoint=127))
VALUES = st.recursive(
    st.none() | st.booleans() | SAFE | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


@given(VALUES)
def test_decoding_gives_the_value_back(value: object) -> None:
    assert json.loads(canonical_bytes(value)) == value  # type: ignore[arg-type]  # the strategy yields JSON values


@given(st.dictionaries(KEYS, SAFE))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_bytes(value) == canonical_bytes(dict(reversed(value.items())))


def test_bytes_are_those_of_rfc_8785_for_its_string_example() -> None:
    # RFC 8785 section 3.2.2.2: control characters escaped in the short form, everything else as UTF-8.
    assert canonical_bytes('€$\u000f\nA\'B"\\\\"/') == '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (1.5, "$"),
        ({"a": [2**53]}, "$.a[0]"),
        ({"ä": 1}, "$"),
        ("\ud800", "$"),
        ({"a": {1, 2}}, "$.a"),
    ],
)
def test_what_has_no_single_form_is_refused_with_its_path(value: object, where: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        canonical_bytes(value)  # type: ignore[arg-type]  # wrong on purpose
    assert refusal.value.where == where
