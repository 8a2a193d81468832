"""Signed notes and checkpoints, against vectors that others published."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.checkpoint import Checkpoint, SigningKey, VerifierKey, open_note, sign_note
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import InvalidInput

# The example of Go's golang.org/x/mod/sumdb/note, the format's first implementation. Ed25519 is deterministic.
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    f"{GO_TEXT}\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP's signed-note specification.
C2SP_VERIFIER = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def make_key(name: str = "synapse.test/governance-audit") -> SigningKey:
    return SigningKey.generate(name, system_random)


def test_the_key_of_the_go_example_signs_as_the_go_example_does() -> None:
    key = SigningKey.parse(GO_PRIVATE)
    assert str(key.verifier) == GO_VERIFIER
    assert key.private_text() == GO_PRIVATE
    assert sign_note(GO_TEXT, [key]) == GO_NOTE


@pytest.mark.parametrize(("note", "key"), [(GO_NOTE, GO_VERIFIER), (C2SP_NOTE, C2SP_VERIFIER)])
def test_published_notes_are_opened_with_their_published_keys(note: str, key: str) -> None:
    text, signers = open_note(note, [VerifierKey.parse(key)])
    assert note.startswith(text)
    assert [str(signer) for signer in signers] == [key]


@given(st.integers(0, len(GO_NOTE) - 1), st.integers(1, 127))
def test_a_note_with_any_changed_character_is_refused(position: int, change: int) -> None:
    changed = GO_NOTE[:position] + chr(ord(GO_NOTE[position]) ^ change) + GO_NOTE[position + 1 :]
    with pytest.raises(InvalidInput):
        open_note(changed, [VerifierKey.parse(GO_VERIFIER)])


def test_a_signature_by_an_unknown_key_is_ignored_beside_a_known_one() -> None:
    old, new = make_key(), make_key()
    _, signers = open_note(sign_note("text\n", [old, new]), [new.verifier])
    assert signers == [new.verifier]


def test_a_note_that_only_strangers_signed_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no signature by a known key"):
        open_note(sign_note("text\n", [make_key()]), [make_key().verifier])


def test_no_trusted_key_at_all_trusts_nothing() -> None:
    with pytest.raises(InvalidInput, match="no signature by a known key"):
        open_note(GO_NOTE, [])


@pytest.mark.parametrize(
    "note",
    ["", "text\n", "text\n\n", "text\n\n— name\n", "text\n\n- name AAAAAAAA\n", GO_NOTE.rstrip("\n"), GO_NOTE + "\n"],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    with pytest.raises(InvalidInput):
        open_note(note, [VerifierKey.parse(GO_VERIFIER)])


@given(st.integers(0, 2**60), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_reads_back_as_it_was_written(size: int, root: bytes) -> None:
    checkpoint = Checkpoint("synapse.test/governance-audit", size, root)
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    "text",
    ["", "origin\n1\n", "origin\n01\n" + "A" * 43 + "=\n", "origin\n-1\n" + "A" * 43 + "=\n", "origin\n1\nAAAA\n"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="checkpoint"):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        GO_VERIFIER.replace("c74f20a3", "c74f20a4"),
        GO_VERIFIER.replace("c74f20a3", "C74F20A3"),
        GO_VERIFIER[:-4],
        GO_VERIFIER.replace("+AR", "+Ax"),
        "two words+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_a_damaged_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        VerifierKey.parse(text)


def test_a_damaged_private_key_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidInput) as refusal:
        SigningKey.parse(GO_PRIVATE[:-1] + "A")
    assert "AYEK" not in str(refusal.value)
    assert "AYEK" not in repr(SigningKey.parse(GO_PRIVATE))
