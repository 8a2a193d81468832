"""Whole and genuine bundles verify; nothing else does, and the error says where."""

from __future__ import annotations

import hashlib
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse_modules.audit.bundle import MAX_LINE_BYTES
from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.audit.known_keys import KnownKeys, UnknownKey
from synapse_modules.audit.verify import BundleInvalid, UnsafeEmbeddedKey, VerifiedBundle, verify_bundle
from synapse_modules.core.canonical import canonical_bytes
from tests.unit.audit.samples import KEY, ORIGIN, SampleLog, make_records

LOG = SampleLog(make_records(11))
KNOWN = KnownKeys([KEY.verifier])
FORGER = SigningKey(ORIGIN, b"f" * 32)


def verify(bundle: bytes, known: KnownKeys | UnsafeEmbeddedKey = KNOWN) -> VerifiedBundle:
    return verify_bundle(io.BytesIO(bundle), known)


def lines_of(bundle: bytes) -> list[bytes]:
    return bundle.splitlines(keepends=True)


def rehashed(lines: list[bytes]) -> bytes:
    """The lines with a fitting SHA-256 in the last, as somebody without the key would mend it."""
    last = json.loads(lines[-1])
    last["sha256"] = hashlib.sha256(b"".join(lines[:-1])).hexdigest()
    return b"".join(lines[:-1]) + canonical_bytes(last) + b"\n"


def test_a_complete_export_verifies() -> None:
    found = verify(LOG.export())
    assert (found.entries, found.skipped, found.erased) == (11, 0, 0)
    assert found.counts == {"auth.login": 3, "access.denied": 3, "message.send": 3, "audit.start": 2}
    assert found.checkpoint == LOG.checkpoint()


@given(st.integers(0, 11), st.integers(0, 11))
def test_every_range_verifies(one: int, other: int) -> None:
    begin, end = sorted((one, other))
    found = verify(LOG.export(begin=begin, end=end))
    assert (found.entries, found.skipped) == (end - begin, 11 - end + begin)


@given(st.sets(st.integers(0, 10)))
def test_every_selection_verifies(shown: set[int]) -> None:
    found = verify(LOG.export(shown))
    assert (found.entries, found.manifest.kind) == (len(shown), "selection")


def test_an_export_of_an_empty_log_verifies() -> None:
    assert verify(SampleLog([]).export()).entries == 0


@pytest.mark.parametrize("bundle", [SampleLog(make_records(3)).export(), LOG.export({2, 5}, begin=1, end=9)])
def test_every_single_changed_byte_is_found(bundle: bytes) -> None:
    for position in range(len(bundle)):
        for change in (0x01, 0x20, 0x80):
            changed = bytearray(bundle)
            changed[position] ^= change
            with pytest.raises((BundleInvalid, UnknownKey)):
                verify(bytes(changed))
            with pytest.raises(BundleInvalid):
                verify(bytes(changed), UnsafeEmbeddedKey())


def test_every_truncation_is_found() -> None:
    bundle = SampleLog(make_records(2)).export()
    for length in range(len(bundle)):
        with pytest.raises(BundleInvalid):
            verify(bundle[:length])


@settings(max_examples=200)
@given(st.data())
def test_every_inserted_or_removed_byte_is_found(data: st.DataObject) -> None:
    bundle = LOG.export()
    position = data.draw(st.integers(0, len(bundle)))
    inserted = data.draw(st.binary(max_size=2))
    removed = data.draw(st.integers(0, 2))
    changed = bundle[:position] + inserted + bundle[position + removed :]
    if changed != bundle:
        with pytest.raises((BundleInvalid, UnknownKey)):
            verify(changed)


@given(st.permutations(range(14)))
def test_reordered_lines_are_found(order: list[int]) -> None:
    lines = lines_of(LOG.export())
    if order != sorted(order):
        with pytest.raises(BundleInvalid):
            verify(rehashed([lines[number] for number in order]))


@given(st.integers(0, 12))
def test_a_dropped_or_doubled_line_is_found_even_if_the_hash_is_mended(number: int) -> None:
    lines = lines_of(LOG.export())
    for changed in (lines[:number] + lines[number + 1 :], lines[: number + 1] + lines[number:]):
        with pytest.raises(BundleInvalid):
            verify(rehashed(changed))


def test_a_manifest_changed_with_a_mended_hash_fails_at_the_signature() -> None:
    lines = lines_of(LOG.export())
    lines[0] = lines[0].replace(b"CASE-1", b"CASE-2")
    with pytest.raises(BundleInvalid, match="line 14, signature"):
        verify(rehashed(lines))


def test_an_erased_disclosure_verifies_when_the_log_exports_it_but_not_when_somebody_cuts_it_out() -> None:
    whole = LOG.records[0]
    erased = type(whole)(**{name: getattr(whole, name) for name in whole.__slots__} | {"disclosures": "{}"})
    assert verify(SampleLog([erased, *LOG.records[1:]]).export()).erased == 3
    lines = lines_of(LOG.export())
    lines[1] = lines[1][: lines[1].index(b',"disclosures"')] + b',"disclosures":{}}\n'
    with pytest.raises(BundleInvalid, match="line 14"):
        verify(rehashed(lines))


def test_an_edited_leaf_is_named_by_its_line() -> None:
    lines = lines_of(LOG.export())
    lines[3] = lines[3].replace(b'"room":"!room"', b'"room":"!moor"')
    with pytest.raises(BundleInvalid, match=r"line 4, hash: .* the leaf was altered"):
        verify(rehashed(lines))


def test_an_edited_disclosure_is_named_by_its_line_and_field() -> None:
    lines = lines_of(LOG.export())
    lines[2] = lines[2].replace(b"@bob:", b"@eve:")
    with pytest.raises(BundleInvalid, match=r"line 3, disclosures\.actor: found '@eve:synapse\.test'"):
        verify(rehashed(lines))


def test_a_bundle_signed_by_another_key_is_not_genuine() -> None:
    with pytest.raises(BundleInvalid, match="no signature by a known key"):
        verify(LOG.export(key=FORGER))


def test_a_bundle_of_an_unknown_log_is_not_genuine_and_the_error_says_how_to_pin_its_key() -> None:
    with pytest.raises(UnknownKey, match=r"--key 'synapse\.test/governance-audit\+"):
        verify(LOG.export(), KnownKeys())


def test_a_forged_bundle_passes_only_where_the_danger_was_chosen() -> None:
    assert verify(LOG.export(key=FORGER), UnsafeEmbeddedKey()).key == FORGER.verifier


def test_the_enclosed_key_must_name_the_log_it_claims_to_be() -> None:
    with pytest.raises(BundleInvalid, match=r"manifest\.keys"):
        verify(LOG.export(origin="another.test/log"), UnsafeEmbeddedKey())


def test_a_gap_in_a_range_is_found_though_its_hashes_are_right() -> None:
    with pytest.raises(BundleInvalid, match="no gap within a complete range"):
        verify(LOG.export({0, 1, 2, 4, 5, 6, 7, 8, 9, 10}, kind="range"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": "synapse-governance-audit/2"}, "manifest"),
        ({"begin": 9, "end": 4}, "begin <= end <= tree_size"),
        ({"end": 12}, "begin <= end <= tree_size"),
        ({"tree_size": 10, "end": 10}, "within"),
        ({"keys": ()}, "manifest"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_refused(changes: dict[str, object], problem: str) -> None:
    bundle = LOG.export()
    lines = lines_of(bundle)
    document = json.loads(lines[0])
    document["manifest"].update(changes)
    lines[0] = json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with pytest.raises(BundleInvalid, match=problem):
        verify(rehashed(lines))


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b"x" * (MAX_LINE_BYTES + 10) + b"\n",
        b'{"manifest":' + b"9" * 5000 + b"}\n",
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_what_is_no_bundle_at_all_is_refused_in_a_sentence(bundle: bytes) -> None:
    with pytest.raises(BundleInvalid, match=r"^line 1: found .*, expected .*"):
        verify(bundle)


@given(st.binary(max_size=300))
def test_garbage_after_the_manifest_is_refused(garbage: bytes) -> None:
    with pytest.raises(BundleInvalid):
        verify(lines_of(LOG.export())[0] + garbage)


def test_progress_counts_every_byte() -> None:
    seen: list[int] = []
    bundle = LOG.export()
    verify_bundle(io.BytesIO(bundle), KNOWN, seen.append)
    assert sum(seen) == len(bundle)
