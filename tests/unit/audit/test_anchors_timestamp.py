"""The anchor that is a time stamping authority, against OpenSSL's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse_modules.audit.anchors.model import AnchorFailed
from synapse_modules.audit.anchors.timestamp import (
    TimestampAnchor,
    load_certificates,
    trusted_time,
    verify_timestamp,
)
from synapse_modules.audit.checkpoint import sign_note
from synapse_modules.core.errors import InvalidInput
from tests.support.anchor_servers import TimeStampAuthority
from tests.support.certificates import Root
from tests.support.loopback_server import Reply
from tests.support.transports import make_transport
from tests.unit.audit.samples import KEY, SampleLog, make_records

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDS = make_records(9)
REPLY = "application/timestamp-reply"


def note_of(size: int) -> str:
    return sign_note(SampleLog(RECORDS[:size]).checkpoint().text(), [KEY])


NOTE = note_of(5)


@pytest.fixture(scope="module")
def authority(root: Root) -> Iterator[TimeStampAuthority]:
    with TimeStampAuthority(root) as server:
        yield server


@pytest.fixture(autouse=True)
def honest(authority: TimeStampAuthority) -> None:
    """Whatever a test did to the authority is over."""
    authority.tamper, authority.silent = None, False


@pytest.fixture
def anchor(authority: TimeStampAuthority, root: Root) -> TimestampAnchor:
    return anchor_of(authority, root)


def anchor_of(authority: TimeStampAuthority, root: Root, timeout_s: float = 10) -> TimestampAnchor:
    transport = make_transport("tsa", timeout_s)
    return TimestampAnchor("tsa", authority.url, transport, load_certificates(root.certificate))


@pytest.fixture(scope="module")
def stamp(authority: TimeStampAuthority, root: Root) -> bytes:
    return anchor_of(authority, root).publish(NOTE)


def test_a_stamp_says_when_the_checkpoint_existed(stamp: bytes, root: Root) -> None:
    stamped = verify_timestamp(NOTE, stamp, load_certificates(root.certificate))
    assert abs(datetime.now(UTC) - stamped) < timedelta(minutes=5)


def test_openssl_accepts_the_stamp_that_is_kept(stamp: bytes, root: Root) -> None:
    (root.folder / "kept.tsr").write_bytes(stamp)
    (root.folder / "note.txt").write_text(NOTE)
    root.openssl("ts", "-verify", "-data", "note.txt", "-in", "kept.tsr", "-CAfile", "root.pem")


def test_a_stamp_is_a_receipt_for_its_own_checkpoint_alone(anchor: TimestampAnchor, stamp: bytes) -> None:
    assert anchor.check_receipt(NOTE, stamp)
    assert not anchor.check_receipt(note_of(6), stamp)
    assert not anchor.check_receipt(NOTE, b"")


def test_an_authority_that_is_not_trusted_proves_nothing(
    stamp: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Root.make(tmp_path_factory.mktemp("stranger"))
    with pytest.raises(InvalidInput, match="time stamp"):
        verify_timestamp(NOTE, stamp, load_certificates(stranger.certificate))


def test_without_any_trusted_certificate_nothing_is_proven(stamp: bytes) -> None:
    with pytest.raises(InvalidInput, match="no trusted certificate"):
        verify_timestamp(NOTE, stamp, [])


def test_a_stamp_that_was_recorded_before_is_refused(
    anchor: TimestampAnchor, authority: TimeStampAuthority, stamp: bytes
) -> None:
    authority.tamper = lambda _: Reply(200, stamp, REPLY)
    with pytest.raises(AnchorFailed, match="Nonce mismatch"):
        anchor.publish(NOTE)


def test_a_stamp_over_another_checkpoint_is_refused(anchor: TimestampAnchor, authority: TimeStampAuthority) -> None:
    other = anchor.publish(note_of(6))
    authority.tamper = lambda _: Reply(200, other, REPLY)
    with pytest.raises(AnchorFailed, match="gave no valid time stamp"):
        anchor.publish(NOTE)


def test_a_refusal_is_passed_on_in_the_authoritys_words(anchor: TimestampAnchor, authority: TimeStampAuthority) -> None:
    # PKIStatusInfo: rejection (2), "not today", badRequest.
    body = bytes.fromhex("3016 3014 0201 02 300b 0c09") + b"not today" + bytes.fromhex("0302 0520")
    authority.tamper = lambda _: Reply(200, body, REPLY)
    with pytest.raises(AnchorFailed, match="status 2: not today"):
        anchor.publish(NOTE)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"", REPLY),
        Reply(200, b"<html>", REPLY),
        Reply(200, b"welcome", "text/html"),
        Reply(500, b"out of order"),
        Reply(429, b"too many", REPLY),
    ],
)
def test_anything_else_than_a_stamp_is_refused(
    anchor: TimestampAnchor, authority: TimeStampAuthority, reply: Reply
) -> None:
    authority.tamper = lambda _: reply
    with pytest.raises(AnchorFailed, match="tsa: "):
        anchor.publish(NOTE)


def test_a_silent_authority_is_given_up(authority: TimeStampAuthority, root: Root) -> None:
    authority.silent = True
    with pytest.raises(AnchorFailed, match=r"no answer within 0\.2 s"):
        anchor_of(authority, root, timeout_s=0.2).publish(NOTE)


def test_an_authority_keeps_nothing(anchor: TimestampAnchor) -> None:
    assert anchor.latest() is None
    assert not anchor.remembers


@settings(max_examples=300, deadline=None)
@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_stamp_with_any_bit_changed_says_the_same_or_is_refused(
    stamp: bytes, root: Root, position: int, bit: int
) -> None:
    changed = bytearray(stamp)
    changed[position % len(stamp)] ^= 1 << bit
    roots = load_certificates(root.certificate)
    try:
        found = verify_timestamp(NOTE, bytes(changed), roots)
    except InvalidInput:
        return
    assert found == verify_timestamp(NOTE, stamp, roots)


def test_a_stamp_by_an_authority_that_is_not_known_says_nothing(
    stamp: bytes, root: Root, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Root.make(tmp_path_factory.mktemp("stranger"), "Another root")
    assert trusted_time(NOTE, stamp, []) is None
    assert trusted_time(NOTE, stamp, load_certificates(other.certificate)) is None
    known = [*load_certificates(other.certificate), *load_certificates(root.certificate)]
    assert trusted_time(NOTE, stamp, known) == verify_timestamp(NOTE, stamp, known)


def test_a_stamp_by_somebody_who_takes_the_name_of_a_known_authority_is_a_forgery(
    stamp: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    namesake = Root.make(tmp_path_factory.mktemp("namesake"))
    with pytest.raises(InvalidInput, match="from a trusted authority"):
        trusted_time(NOTE, stamp, load_certificates(namesake.certificate))


def test_a_stamp_over_something_else_is_wrong_whoever_made_it(stamp: bytes) -> None:
    with pytest.raises(InvalidInput, match="one over something else"):
        trusted_time(note_of(6), stamp, [])
    with pytest.raises(InvalidInput, match="time stamp"):
        trusted_time(NOTE, stamp[:-20], [])
