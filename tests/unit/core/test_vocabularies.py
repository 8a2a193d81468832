"""The closed vocabularies: every name is documented, and no two mean the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from synapse_modules.core import actions, permissions
from synapse_modules.core.actions import Action
from synapse_modules.core.permissions import Permission

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import StrEnum

VOCABULARIES: dict[type[StrEnum], Mapping[StrEnum, str]] = {
    Action: dict(actions.DESCRIPTIONS),
    Permission: dict(permissions.DESCRIPTIONS),
}


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_name_is_described_once(vocabulary: type[StrEnum]) -> None:
    descriptions = VOCABULARIES[vocabulary]
    assert list(descriptions) == list(vocabulary)
    assert len(set(descriptions.values())) == len(descriptions)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_name_is_an_object_and_a_verb(vocabulary: type[StrEnum]) -> None:
    odd = [name for name in vocabulary if not re.fullmatch(r"[a-z]+(\.[a-z_]+)+|login", name)]
    assert odd == []
