"""What a bundle of a stored log has beside its entries: marks, others' word for it, gaps, keys, parts to go on from."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import export
from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.attestations import Attestation
from synapse_modules.audit.bundle import Manifest
from synapse_modules.audit.checkpoint import SigningKey, sign_note, split_note
from synapse_modules.audit.continuity import Comparison
from synapse_modules.audit.cosignature import WitnessKey
from synapse_modules.audit.key_change import KnownKey
from synapse_modules.audit.known_checkpoints import KnownCheckpoints
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.receipts import Receipt, insert_receipt
from synapse_modules.audit.search import EntryFilter
from synapse_modules.audit.sequencer import Sequencer
from synapse_modules.audit.verify import BundleInvalid, Trust, VerifiedBundle, verify_bundle
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import AuditEvent
from tests.support.anchor_servers import Witness
from tests.support.audit_log import KEY, ORIGIN, RECORDER, HandClock, execute, rows
from tests.support.filled_log import FilledLog, sample_events
from tests.unit.audit.samples import SampleLog, make_records

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database

SIZE = 900
KNOWN = KnownKeys([KEY.verifier])
DENIALS = EntryFilter(outcome=Outcome.DENIED)


@pytest.fixture
def log(empty_database: Database) -> FilledLog:
    log = FilledLog(empty_database)
    for begin in range(0, SIZE, 300):
        log.fill(sample_events(SIZE)[begin : begin + 300])
    return log


def verify(bundle: bytes, **trust: Any) -> VerifiedBundle:
    return verify_bundle(io.BytesIO(bundle), Trust(KNOWN, **trust))


def checkpoint(log: FilledLog, size: int) -> str:
    [(note,)] = rows(log.database, "SELECT note FROM governance_audit_checkpoints WHERE size = ?", (size,))
    return str(note)


def manifest_of(bundle: bytes) -> Manifest:
    return Manifest.from_line(bundle.splitlines(keepends=True)[0])


# ---------------------------------------------------------------------------------------------- older checkpoints


@pytest.mark.parametrize("wanted", [None, DENIALS, EntryFilter(begin=700)], ids=["all", "selection", "range"])
def test_a_bundle_is_compared_with_an_older_checkpoint_if_it_was_made_for_that(
    log: FilledLog, wanted: EntryFilter | None
) -> None:
    older = checkpoint(log, 600)
    found = verify(log.export(wanted, marks=(600, 5000)), checkpoints=[older])
    assert found.comparisons == (Comparison(600, given=True, result="continues"),)
    assert found.manifest.marks == (600,)


def test_a_bundle_that_skips_across_an_older_checkpoint_says_that_it_cannot_be_compared(log: FilledLog) -> None:
    found = verify(log.export(EntryFilter(begin=700)), checkpoints=[checkpoint(log, 600)])
    assert found.comparisons == (Comparison(600, given=True, result="skipped"),)


def test_a_log_that_was_set_back_is_found_by_what_was_seen_before(log: FilledLog) -> None:
    seen = KnownCheckpoints([verify(log.export(made_ms=100)).seen])
    log.set_back(600)
    with pytest.raises(BundleInvalid, match=r"found 'a tree of 600 entries', expected at least 900, .* was cut back"):
        verify(log.export(made_ms=101), seen=seen)
    log.fill(sample_events(500))
    with pytest.raises(BundleInvalid, match=r"expected the root .* over the first 900 entries: the log was rewritten"):
        verify(log.export(made_ms=102), seen=seen)


def test_a_bundle_from_before_does_not_fail_because_the_log_has_grown_since(log: FilledLog) -> None:
    bundle = log.export(made_ms=100)
    log.fill(sample_events(100))
    seen = KnownCheckpoints([verify(log.export(made_ms=200)).seen])
    assert verify(bundle, seen=seen).comparisons == (Comparison(1000, given=False, result="older"),)


def test_a_checkpoint_of_another_log_is_no_older_checkpoint(log: FilledLog) -> None:
    foreign = sign_note("another.test/log\n5\n" + "A" * 43 + "=\n", [SigningKey("another.test/log", b"x" * 32)])
    with pytest.raises(InvalidInput, match="no signature by a known key"):
        verify(log.export(), checkpoints=[foreign])


# ---------------------------------------------------------------------------------------------- what others vouch for


def keep_receipt(log: FilledLog, size: int, kind: AnchorKind, data: bytes, anchor: str = "outside") -> None:
    receipt = Receipt(anchor, size, kind, checkpoint(log, size), 1, data)
    log.database.run(lambda transaction: insert_receipt(transaction, receipt))


def text_of(log: FilledLog, size: int) -> str:
    return split_note(checkpoint(log, size))[0]


def test_cosignatures_go_along_and_are_checked_if_the_witness_is_known(log: FilledLog) -> None:
    with Witness({}) as witness:
        for size, time in ((300, 1_700_000_001), (600, 1_700_000_002), (900, 1_700_000_003)):
            keep_receipt(log, size, AnchorKind.WITNESS, witness.cosign(text_of(log, size), time).strip().encode())
        key = WitnessKey.parse(witness.verifier_key)
    bundle = log.export(EntryFilter(end=350))
    assert verify(bundle, witnesses=[key]).attestations == (
        Attestation("cosignature", "witness.test/w1", 600, 1_700_000_002_000),
        Attestation("cosignature", "witness.test/w1", 900, 1_700_000_003_000),
    )
    assert [each.time_ms for each in verify(bundle).attestations] == [None, None]


def test_a_cosignature_by_a_known_witness_on_something_else_is_a_failure(log: FilledLog) -> None:
    with Witness({}) as witness:
        keep_receipt(log, 600, AnchorKind.WITNESS, witness.cosign(text_of(log, 300)).strip().encode())
        key = WitnessKey.parse(witness.verifier_key)
    assert len(verify(log.export()).attestations) == 1
    with pytest.raises(BundleInvalid, match=r"^line \d+, note: found 'a wrong cosignature by witness.test/w1'"):
        verify(log.export(), witnesses=[key])


def test_time_stamps_go_along_and_are_checked_by_whoever_can(log: FilledLog) -> None:
    keep_receipt(log, 600, AnchorKind.TIMESTAMP, b"token")
    bundle = log.export(DENIALS)
    asked: list[tuple[str, bytes]] = []

    def check(note: str, token: bytes) -> datetime:
        asked.append((note, token))
        return datetime.fromtimestamp(1_700_000_000, UTC)

    found = verify(bundle, timestamps=check).attestations
    assert found == (Attestation("time stamp", "outside", 600, 1_700_000_000_000),)
    assert asked == [(checkpoint(log, 600), b"token")]

    def refuse(note: str, token: bytes) -> None:
        raise InvalidInput("time stamp", "nonsense", f"a time stamp, not {token!r} on {note}")

    with pytest.raises(BundleInvalid, match=r"^line \d+, time stamp: found 'nonsense'"):
        verify(bundle, timestamps=refuse)


def test_what_proves_nothing_to_others_stays_at_home(log: FilledLog) -> None:
    keep_receipt(log, 600, AnchorKind.FILE, b"")
    keep_receipt(log, 300, AnchorKind.HTTP, b"kept")
    assert (manifest_of(log.export()).marks, verify(log.export()).attestations) == ((), ())


def test_a_checkpoint_that_others_vouch_for_must_be_one_of_this_tree(log: FilledLog) -> None:
    root = base64.b64encode(b"r" * 32).decode()
    forged = sign_note(f"{KEY.verifier.name}\n600\n{root}\n", [KEY])
    receipt = Receipt("outside", 600, AnchorKind.TIMESTAMP, forged, 1, b"token")
    log.database.run(lambda transaction: insert_receipt(transaction, receipt))
    with pytest.raises(BundleInvalid, match=r"anchored: .* expected a checkpoint that this tree continues"):
        verify(log.export())


# ---------------------------------------------------------------------------------------------- gaps


def test_a_bundle_names_where_the_log_says_that_records_are_missing_even_if_it_does_not_show_it(log: FilledLog) -> None:
    gap = AuditEvent(Action.AUDIT_GAP, Outcome.FAILURE, details={"records": 3}, occurred_ms=1)
    log.fill([gap, *sample_events(5), gap])
    assert verify(log.export()).manifest.gaps == (900, 906)
    assert verify(log.export(DENIALS)).manifest.gaps == (900, 906)
    assert verify(log.export(EntryFilter(begin=901, end=906))).manifest.gaps == ()


def test_a_gap_that_a_range_shows_and_does_not_name_is_found(log: FilledLog) -> None:
    log.fill([AuditEvent(Action.AUDIT_GAP, Outcome.FAILURE, occurred_ms=1)])
    execute(log.database, "UPDATE governance_audit_entries SET action = 'audit.stop' WHERE idx = 900")
    with pytest.raises(
        BundleInvalid, match=r"^line \d+, counts|^line \d+, manifest\.gaps: found \(\), expected \[900\]"
    ):
        verify(log.export())


# ---------------------------------------------------------------------------------------------- keys


NEW = SigningKey(KEY.verifier.name, b"n" * 32)


def restart(log: FilledLog, key: SigningKey, next_key: SigningKey | None = None) -> None:
    """The log signs with these keys from now on, and does."""
    log.sequencer = Sequencer(log.database, key, RECORDER, HandClock(), next_key=next_key)
    log.fill(sample_events(3))


def test_whoever_knows_the_old_key_follows_the_log_to_the_new_one(log: FilledLog) -> None:
    restart(log, KEY, NEW)
    during = verify(b"".join(log.export_pieces(EntryFilter(end=5), keys=[NEW, KEY])))
    assert during.known is not None
    assert during.known.keys_of(ORIGIN) == [KnownKey(KEY.verifier), KnownKey(NEW.verifier)]
    assert during.key == NEW.verifier
    last = during.checkpoint.size
    restart(log, NEW)
    bundle = b"".join(log.export_pieces(EntryFilter(end=5), keys=[NEW]))
    for known in (KNOWN, during.known, KnownKeys([NEW.verifier])):
        after = verify_bundle(io.BytesIO(bundle), known)
        assert after.known is not None
        assert after.known.keys_of(ORIGIN)[-1] == KnownKey(NEW.verifier)
        assert (KnownKey(KEY.verifier, until=last) in after.known.keys_of(ORIGIN)) == (KEY.verifier in known)


def test_whoever_has_stolen_the_old_key_cannot_go_on_with_it(log: FilledLog) -> None:
    restart(log, KEY, NEW)
    restart(log, NEW)
    known = verify(b"".join(log.export_pieces(keys=[NEW]))).known
    assert known is not None
    bundle = b"".join(log.export_pieces(keys=[NEW]))
    forged = SampleLog(make_records(1000)).export()
    assert verify_bundle(io.BytesIO(bundle), known).entries > SIZE
    with pytest.raises(BundleInvalid, match="no signature by a known key"):
        verify_bundle(io.BytesIO(forged), known)
    with pytest.raises(BundleInvalid, match=r"a tree of 1000 entries', expected at most 899: the log has removed"):
        verify_bundle(io.BytesIO(forged), KnownKeys([KnownKey(KEY.verifier, until=899)]))


# ---------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("wanted", [None, DENIALS, EntryFilter(begin=200, end=880)], ids=["all", "selection", "range"])
def test_an_export_that_was_cut_off_anywhere_goes_on_from_its_last_part(
    log: FilledLog, monkeypatch: pytest.MonkeyPatch, wanted: EntryFilter | None
) -> None:
    monkeypatch.setattr(export, "_MAX_ROWS", 60)
    monkeypatch.setattr(export, "_FIRST_ROWS", 40)
    whole = log.export(wanted, marks=(600,))
    parts = [line for line in whole.splitlines() if line.startswith(b'{"counts":')]
    assert len(parts) > 2
    first = whole.index(parts[0]) + len(parts[0]) + 1
    for cut in range(first, len(whole), len(whole) // 7):
        resumed = log.resume(whole[:cut])
        assert shown(resumed) == shown(whole)
        assert verify(resumed).counts == verify(whole).counts
        assert manifest_of(resumed) == manifest_of(whole)


def test_an_export_goes_on_though_the_log_has_grown(log: FilledLog) -> None:
    whole = log.export()
    log.fill(sample_events(300))
    resumed = log.resume(whole[: len(whole) // 2])
    assert (verify(resumed).checkpoint.size, verify(resumed).entries) == (SIZE, SIZE)


def test_nobody_goes_on_with_somebody_elses_export_or_one_that_was_changed(log: FilledLog) -> None:
    begun = log.export()[:200_000]
    with pytest.raises(InvalidInput, match=r"@officer:synapse\.test, who began this export"):
        log.resume(begun, requester="@eve:synapse.test")
    for old, new in (
        (b"CASE-1", b"CASE-2"),
        (b'"position":200', b'"position":100'),
        (b'"entries":200', b'"entries":1'),
    ):
        assert old in begun
        with pytest.raises(InvalidInput, match="the signature over this part of this bundle"):
            log.resume(begun.replace(old, new))


def test_a_part_line_is_no_end(log: FilledLog) -> None:
    lines = log.export().splitlines(keepends=True)
    part = next(number for number, line in enumerate(lines) if line.startswith(b'{"counts":'))
    with pytest.raises(BundleInvalid, match="found 'the end of the file'"):
        verify(b"".join(lines[: part + 1]))
    with pytest.raises(BundleInvalid, match=r"line \d+, (sha256|counts)"):
        verify(b"".join([*lines[:part], *lines[part + 1 :]]))


def shown(bundle: bytes) -> list[int]:
    return [json.loads(line)["index"] for line in bundle.splitlines() if line.startswith(b'{"index":')]
