from __future__ import annotations

import pytest

from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.audit.known_keys import KeyChanged, KnownKeys, UnknownKey
from synapse_modules.core.errors import InvalidInput
from tests.unit.audit.samples import KEY, ORIGIN

OTHER = SigningKey("other.test/log", b"o" * 32).verifier
IMPOSTOR = SigningKey(ORIGIN, b"i" * 32).verifier


def test_an_empty_file_trusts_nobody() -> None:
    known = KnownKeys.parse("# nothing\n\n")
    assert len(known) == 0
    with pytest.raises(UnknownKey, match="no key is known"):
        known.key_of(ORIGIN)


def test_keys_are_remembered_and_read_back() -> None:
    known = KnownKeys().remember(KEY.verifier).remember(OTHER)
    again = KnownKeys.parse(known.format())
    assert (again.key_of(ORIGIN), again.key_of(OTHER.name), len(again)) == (KEY.verifier, OTHER, 2)


def test_meeting_the_same_key_again_changes_nothing() -> None:
    known = KnownKeys([KEY.verifier])
    assert known.remember(KEY.verifier) is known


def test_a_changed_key_is_refused_and_the_old_one_stays() -> None:
    known = KnownKeys([KEY.verifier])
    with pytest.raises(KeyChanged, match="is remembered"):
        known.remember(IMPOSTOR)
    assert known.key_of(ORIGIN) == KEY.verifier


def test_two_keys_for_one_log_are_a_mistake() -> None:
    with pytest.raises(InvalidInput, match="no second key"):
        KnownKeys.parse(f"{KEY.verifier}\n{IMPOSTOR}\n")


def test_a_damaged_line_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"keys\.txt:2: "):
        KnownKeys.parse(f"{KEY.verifier}\nnonsense\n", "keys.txt")
