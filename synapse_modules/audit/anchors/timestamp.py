"""An anchor that is a time stamping authority (RFC 3161): it signs that a checkpoint existed at a certain time.

What is stamped is the SHA-256 of the note as the log signed it, without cosignatures. The authority keeps nothing: the
receipt, its whole answer, is the proof, and it needs nothing but the root certificate to be checked.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.anchors.model import AnchorFailed
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from rfc3161_client import TimeStampResponse

    from synapse_modules.audit.anchors.model import Held
    from synapse_modules.audit.anchors.transport import Transport

__all__ = ["TimestampAnchor", "load_certificates", "trusted_time", "verify_timestamp"]

_QUERY = "application/timestamp-query"
_REPLY = "application/timestamp-reply"
_GRANTED = 0
_HASHES = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}


class TimestampAnchor:
    """Gets time stamps; an :class:`~synapse_modules.audit.anchors.model.Anchor`.

    Args:
        name: what the operator calls it. url: the authority.
        transport: how to reach it. It need not be secret or genuine: the answer proves itself.
        roots: the certificates that the authority's certificate must come from.
    """

    kind = AnchorKind.TIMESTAMP
    remembers = False

    def __init__(self, name: str, url: str, transport: Transport, roots: Sequence[x509.Certificate]) -> None:
        self.name = name
        self._url = url
        self._transport = transport
        self._roots = tuple(roots)

    def publish(self, note: str) -> bytes:
        """Have ``note`` stamped; returns the authority's whole answer, checked.

        Raises:
            AnchorFailed: it did not answer, refused, or its answer is not a valid stamp over this note.
        """
        request = TimestampRequestBuilder().data(note.encode()).hash_algorithm(HashAlgorithm.SHA256).build()
        answer = self._transport.post(self._url, request.as_bytes(), _QUERY)
        if not answer.ok or answer.content_type.partition(";")[0].strip() != _REPLY:
            raise AnchorFailed(f"answered with status {answer.status}: {answer.text()}", where=self.name)
        try:
            response = _decoded(answer.body)
            _verify(response, note, self._roots, request.nonce)
        except InvalidInput as error:
            raise AnchorFailed(f"gave no valid time stamp: {error}", where=self.name) from None
        return answer.body

    def latest(self, offered: str | None = None) -> Held | None:
        """An authority keeps nothing."""
        del offered
        return None

    def check_receipt(self, note: str, receipt: bytes) -> bool:
        """Whether ``receipt`` is a time stamp over ``note``."""
        try:
            verify_timestamp(note, receipt, self._roots)
        except InvalidInput:
            return False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def verify_timestamp(note: str, receipt: bytes, roots: Sequence[x509.Certificate]) -> datetime:
    """When ``note`` was stamped, in the words of the authority behind ``receipt``.

    Args:
        note: the checkpoint as the log signed it, without cosignatures.
        receipt: the authority's whole answer.
        roots: the certificates that are trusted. Without any, nothing is.

    Raises:
        InvalidInput: it is not a valid time stamp over that note, from an authority that is trusted.
    """
    response = _decoded(receipt)
    _verify(response, note, roots)
    return response.tst_info.gen_time


def trusted_time(note: str, receipt: bytes, roots: Sequence[x509.Certificate]) -> datetime | None:
    """The same for whoever may not know the authority: None if its certificate is not from one of the ``roots``.

    Raises:
        InvalidInput: it is no time stamp over that note, or not by the authority that it names, which is trusted.
    """
    response = _decoded(receipt)
    imprint = response.tst_info.message_imprint
    if imprint.message != hashlib.new(_hash_name(imprint.hash_algorithm), note.encode()).digest():
        raise InvalidInput("time stamp", "one over something else", "one over this checkpoint")
    known = {root.subject for root in roots}
    issuers = {x509.load_der_x509_certificate(each).issuer for each in response.signed_data.certificates}
    return verify_timestamp(note, receipt, roots) if known & issuers else None


def load_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one.

    Raises:
        InvalidInput: it cannot be read or holds something else.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise InvalidInput(str(path), error.strerror, "a file with certificates that this process can read") from None
    except ValueError:
        raise InvalidInput(str(path), "something else", "one or more certificates in PEM form") from None


def _decoded(data: bytes) -> TimeStampResponse:
    try:
        response = decode_timestamp_response(data)
    except ValueError:
        raise InvalidInput("time stamp", "something else", "an answer as RFC 3161 defines it") from None
    if response.status != _GRANTED:
        words = "; ".join(response.status_string) or "no reason"
        raise InvalidInput("time stamp", f"status {response.status}: {words}", "status 0, granted")
    return response


def _hash_name(algorithm: x509.ObjectIdentifier) -> str:
    name = _HASHES.get(algorithm.dotted_string)
    if name is None:
        raise InvalidInput("time stamp", algorithm.dotted_string, "SHA-256, SHA-384 or SHA-512")
    return name


def _verify(
    response: TimeStampResponse, note: str, roots: Sequence[x509.Certificate], nonce: int | None = None
) -> None:
    if not roots:
        raise InvalidInput("time stamp", "no trusted certificate", "at least one")
    try:
        VerifierBuilder(roots=list(roots), nonce=nonce).build().verify_message(response, note.encode())
    except (VerificationError, ValueError) as error:
        raise InvalidInput("time stamp", str(error), "one over this checkpoint, from a trusted authority") from None
