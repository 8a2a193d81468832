"""The closed vocabularies: every name is documented, and no two mean the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from synapse_modules.core import actions, permissions
from synapse_modules.core.actions import Action
from synapse_modules.core.permissions import Permission

if TYPE_CHECKING:
    from enum import StrEnum

DESCRIBED: list[tuple[type[StrEnum], list[tuple[StrEnum, str]]]] = [
    (Action, [*actions.DESCRIPTIONS.items()]),
    (Permission, [*permissions.DESCRIPTIONS.items()]),
]
EACH = pytest.mark.parametrize(("vocabulary", "described"), DESCRIBED, ids=["actions", "permissions"])


@EACH
def test_every_name_is_described_once(vocabulary: type[StrEnum], described: list[tuple[StrEnum, str]]) -> None:
    assert [name for name, _ in described] == list(vocabulary)
    assert len({text for _, text in described}) == len(described)


@EACH
def test_every_name_is_an_object_and_a_verb(vocabulary: type[StrEnum], described: list[tuple[StrEnum, str]]) -> None:
    del described
    assert [name for name in vocabulary if not re.fullmatch(r"[a-z]+(\.[a-z_]+)+|login", name)] == []
