from __future__ import annotations

import pytest

from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.audit.key_change import KnownKey
from synapse_modules.audit.known_keys import KeyChanged, KnownKeys, UnknownKey
from synapse_modules.core.errors import InvalidInput
from tests.unit.audit.samples import KEY, ORIGIN

OTHER = SigningKey("other.test/log", b"o" * 32).verifier
IMPOSTOR = SigningKey(ORIGIN, b"i" * 32).verifier


def test_an_empty_file_trusts_nobody() -> None:
    known = KnownKeys.parse("# nothing\n\n")
    assert len(known) == 0
    with pytest.raises(UnknownKey, match="no key is known"):
        known.keys_of(ORIGIN)


def test_keys_are_remembered_and_read_back() -> None:
    known = KnownKeys().remember(KEY.verifier).remember(OTHER)
    again = KnownKeys.parse(known.format())
    assert (again.keys_of(ORIGIN), again.keys_of(OTHER.name)) == ([KnownKey(KEY.verifier)], [KnownKey(OTHER)])


def test_meeting_the_same_key_again_changes_nothing() -> None:
    known = KnownKeys([KEY.verifier])
    assert known.remember(KEY.verifier) is known


def test_a_changed_key_is_refused_and_the_old_one_stays() -> None:
    known = KnownKeys([KEY.verifier])
    with pytest.raises(KeyChanged, match="is remembered"):
        known.remember(IMPOSTOR)
    assert known.keys_of(ORIGIN) == [KnownKey(KEY.verifier)]


def test_a_log_can_have_several_keys_one_of_which_counts_no_more() -> None:
    known = KnownKeys.parse(f"{KEY.verifier} until 12\n{IMPOSTOR}\n{IMPOSTOR}\n")
    assert known.keys_of(ORIGIN) == [KnownKey(KEY.verifier, until=12), KnownKey(IMPOSTOR)]
    assert len(known) == 2
    assert KnownKeys.parse(known.format()).keys_of(ORIGIN) == known.keys_of(ORIGIN)


@pytest.mark.parametrize(
    "line", [f"{KEY.verifier} until", f"{KEY.verifier} until -1", f"{KEY.verifier} 12", "nonsense"]
)
def test_a_damaged_line_is_named(line: str) -> None:
    with pytest.raises(InvalidInput, match=r"keys\.txt:2: "):
        KnownKeys.parse(f"{KEY.verifier}\n{line}\n", "keys.txt")
