"""Bundles that are made from a stored log, checked by the verifier that auditors use. On both engines."""

from __future__ import annotations

import io
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.audit.export import TreeDamaged
from synapse_modules.audit.known_keys import KnownKeys, UnknownKey
from synapse_modules.audit.search import EntryFilter
from synapse_modules.audit.verify import BundleInvalid, VerifiedBundle, verify_bundle
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import Elsewhere, InvalidInput, Unavailable
from tests.support.audit_log import KEY, execute
from tests.support.filled_log import FilledLog, sample_event, sample_events

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database

MIDDLE = 600
"""More than two tiles."""


@pytest.fixture
def log(empty_database: Database) -> FilledLog:
    log = FilledLog(empty_database)
    log.fill(sample_events(MIDDLE))
    return log


def verify(bundle: bytes) -> VerifiedBundle:
    return verify_bundle(io.BytesIO(bundle), KnownKeys([KEY.verifier]))


def shown(bundle: bytes) -> list[int]:
    """The indexes of the entries in the bundle."""
    lines = map(json.loads, bundle.splitlines()[1:])
    return [line["index"] for line in lines if "index" in line]


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 513])
def test_every_entry_of_a_log_of_any_size_is_exported_and_verifies(empty_database: Database, size: int) -> None:
    log = FilledLog(empty_database)
    log.fill(sample_events(size))
    found = verify(log.export())
    assert (found.entries, found.skipped, found.checkpoint.size) == (size, 0, size)
    assert verify(log.export(EntryFilter(outcome=Outcome.DENIED))).entries == (size + 2) // 4


def test_every_range_at_the_edges_of_tiles_verifies(log: FilledLog) -> None:
    for begin, end in itertools.combinations_with_replacement([0, 1, 255, 256, 257, 511, 512, 599, 600], 2):
        bundle = log.export(EntryFilter(begin=begin, end=end))
        found = verify(bundle)
        assert shown(bundle) == list(range(begin, end))
        assert (found.manifest.begin, found.manifest.end, found.skipped) == (begin, end, MIDDLE - end + begin)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"outcome": Outcome.DENIED}, range(1, MIDDLE, 4)),
        ({"actor": "@user4:synapse.test", "begin": 100, "end": 300}, range(104, 300, 20)),
        ({"action": Action.MESSAGE_SEND, "room": "!room2:synapse.test"}, range(2, MIDDLE, 12)),
        ({"since_ms": sample_event(590).occurred_ms}, range(590, MIDDLE)),
        ({"actor": "@nobody:synapse.test"}, ()),
    ],
    ids=str,
)
def test_a_selection_shows_what_matches_and_proves_its_place(
    log: FilledLog, wanted: dict[str, Any], expected: range | tuple[int, ...]
) -> None:
    bundle = log.export(EntryFilter(**wanted))
    found = verify(bundle)
    assert shown(bundle) == list(expected)
    assert (found.manifest.kind, found.entries, found.skipped) == ("selection", len(expected), MIDDLE - len(expected))
    assert found.manifest.filter == {name: value for name, value in wanted.items() if name not in {"begin", "end"}}


def test_the_manifest_says_who_exported_what_when_and_why(log: FilledLog) -> None:
    manifest = verify(log.export()).manifest
    assert (manifest.requester, manifest.case_id, manifest.made_ms) == ("@officer:synapse.test", "CASE-1", 5)
    assert (manifest.bundle_id, manifest.keys) == ("b" * 32, (str(KEY.verifier),))


def test_only_what_has_a_signed_checkpoint_is_exported(log: FilledLog) -> None:
    log.write(sample_events(10))
    log.sequencer.place()
    assert verify(log.export()).checkpoint.size == MIDDLE
    log.sequencer.sign()
    assert verify(log.export()).checkpoint.size == MIDDLE + 10


@pytest.mark.parametrize("bounds", [{"begin": 601}, {"end": 601}, {"begin": 5, "end": 4}], ids=str)
def test_a_range_beyond_the_checkpoint_is_refused(log: FilledLog, bounds: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="a range of the 600 entries"):
        log.export(EntryFilter(**bounds))


def test_a_range_with_a_filter_is_refused_because_it_would_claim_to_be_complete(log: FilledLog) -> None:
    with pytest.raises(InvalidInput, match="a range with actor"):
        log.export(EntryFilter(actor="@bob:synapse.test"), kind="range")


def test_a_process_without_the_key_exports_nothing(log: FilledLog) -> None:
    with pytest.raises(Elsewhere, match="no key to sign an export with; the one that runs background tasks has"):
        log.export_pieces(keys=())
    with pytest.raises(Unavailable, match="not signed with this process's key"):
        log.export_pieces(keys=(SigningKey(KEY.verifier.name, b"o" * 32),))


def test_a_bundle_signed_with_two_keys_is_known_by_either(log: FilledLog) -> None:
    other = SigningKey(KEY.verifier.name, b"o" * 32)
    bundle = b"".join(log.export_pieces(keys=(KEY, other)))
    assert verify(bundle).manifest.keys == (str(KEY.verifier), str(other.verifier))


# ------------------------------------------------------------------------------------- what somebody may change


def test_one_byte_changed_anywhere_is_found(log: FilledLog) -> None:
    bundle = log.export(EntryFilter(outcome=Outcome.DENIED, begin=100, end=140))

    @settings(max_examples=500, deadline=None)
    @given(st.integers(0, len(bundle) - 1), st.integers(1, 255))
    def change(position: int, difference: int) -> None:
        changed = bytearray(bundle)
        changed[position] ^= difference
        with pytest.raises((BundleInvalid, UnknownKey)):
            verify(bytes(changed))

    change()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: [*lines[:7], *lines[8:]], r"^line 8, index: found 7, expected 6"),
        (lambda lines: [*lines[:7], lines[8], lines[7], *lines[9:]], r"^line 8, index: found 7, expected 6"),
        (lambda lines: [*lines[:7], lines[7].replace(b"room", b"moor"), *lines[8:]], r"^line 8, hash: .* was altered$"),
        (lambda lines: [*lines[:6], lines[6].replace(b"@bob:", b"@eve:"), *lines[7:]], r"^line 7, disclosures\.actor"),
        (lambda lines: [*lines[:6], lines[10].replace(b'"index":9', b'"index":5'), *lines[7:]], r"^line 202, sha256: "),
        (lambda lines: lines[:-1], r"^line 604: found 'the end of the file'"),
        (lambda lines: [*lines[:50], *lines[-2:]], r"^line 51: found '49 leaves', expected 600"),
    ],
    ids=["dropped", "swapped", "edited leaf", "edited person", "replaced", "no signature", "cut off"],
)
def test_what_was_done_to_a_bundle_is_named_as_the_first_thing_wrong(log: FilledLog, change: Any, problem: str) -> None:
    lines = log.export().splitlines(keepends=True)
    with pytest.raises(BundleInvalid, match=problem):
        verify(b"".join(change(lines)))


def test_an_entry_edited_in_the_database_is_named_when_its_bundle_is_verified(log: FilledLog) -> None:
    edited = "UPDATE governance_audit_records SET leaf = ? WHERE wseq = 41"
    execute(log.database, edited, (b'{"v":1,"action":"audit.start","personal":{}}',))
    with pytest.raises(BundleInvalid, match=r"^line 43, hash: .* the leaf was altered$"):
        verify(log.export())


@pytest.mark.parametrize("table", ["records WHERE wseq", "entries WHERE idx"])
def test_an_entry_deleted_in_the_database_is_named_when_its_bundle_is_verified(log: FilledLog, table: str) -> None:
    execute(log.database, f"DELETE FROM governance_audit_{table} = 41")
    with pytest.raises(BundleInvalid, match=r"^line 43, skip: found \[41, 42\], expected no gap"):
        verify(log.export())


def test_entries_swapped_in_the_database_are_named_when_their_bundle_is_verified(log: FilledLog) -> None:
    for old, new in ((41, 10_000), (42, 41), (10_000, 42)):
        execute(log.database, f"UPDATE governance_audit_entries SET idx = {new} WHERE idx = {old}")
    with pytest.raises(BundleInvalid, match=r"^line 43, hash: .* the leaf was altered$"):
        verify(log.export())


def test_without_the_tree_nothing_is_exported(log: FilledLog) -> None:
    execute(log.database, "DELETE FROM governance_audit_tiles WHERE n = 1")
    with pytest.raises(TreeDamaged):
        log.export()


# ----------------------------------------------------------------------------------------------- a large log


def test_seventy_thousand_entries_are_exported_in_constant_memory_and_verify(empty_database: Database) -> None:
    log = FilledLog(empty_database)
    log.fill(sample_events(70_000))
    pieces = log.export_pieces()
    assert len(pieces) > 20
    assert max(map(len, pieces)) < 6 * 2**20
    bundle = b"".join(pieces)
    assert verify(bundle).entries == 70_000
    selection = log.export(EntryFilter(actor="@bob:synapse.test", begin=60_000))
    assert verify(selection).entries == 2_500
    damaged = bytearray(bundle)
    damaged[len(bundle) // 2] ^= 1
    with pytest.raises(BundleInvalid):
        verify(bytes(damaged))
