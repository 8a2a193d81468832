"""YAML without its surprises."""

from __future__ import annotations

import pytest

from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.yaml_documents import load_yaml


def test_an_ordinary_document_is_read() -> None:
    assert load_yaml("a: [1, x]\nb: {c: true}\n", "f") == {"a": [1, "x"], "b": {"c": True}}


def test_json_is_read_too() -> None:
    assert load_yaml('{"a": [1, null]}', "f") == {"a": [1, None]}


def test_a_time_stays_text() -> None:
    assert load_yaml("until: 2026-01-31T12:00:00Z", "f") == {"until": "2026-01-31T12:00:00Z"}


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1", "the key 'a' for the second time"),
        ("a:\n  no: 1\n", "f:2:3", "the key False, which is not text"),
        ("a: &x 1\nb: *x\n", "f:1:4", "anchor"),
        ("a: !!python/object:os.system {}\n", "f:1:4", "could not determine a constructor"),
        ("a: [1\n", "f:2:1", "expected YAML"),
        ("a: 1\n---\nb: 2\n", "f:2:1", "but found another document"),
        ("a: \x00\n", "f", "unacceptable character"),
        ("? [a]\n: 1\n", "f:1:3", "which is not text"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_column(text: str, where: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        load_yaml(text, "f")
    assert refusal.value.where == where
    assert said in refusal.value.sentence()
