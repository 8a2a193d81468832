"""Signed notes and checkpoints in C2SP form (https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint), Ed25519.

A note is text that ends with a newline, an empty line, and one line for each signature. A checkpoint is a note whose
text is the log's origin, the size of its tree, and its root in base64. Signatures by unknown keys are ignored, so that
a log can sign with two keys while one replaces the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey as Ed25519SigningKey
from nacl.signing import VerifyKey as Ed25519VerifyKey

from synapse_modules.audit.merkle import HASH_BYTES
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_modules.core.clock import RandomBytes

__all__ = [
    "Checkpoint",
    "NoteSignature",
    "SigningKey",
    "VerifierKey",
    "check_key_name",
    "format_verifier_key",
    "key_id",
    "open_note",
    "parse_verifier_key",
    "sign_note",
    "signers_of",
    "split_note",
]

_ED25519 = b"\x01"
_ED25519_BYTES = 32
_KEY_ID_BYTES = 4
_SIGNATURE_PREFIX = "— "
_MAX_SIGNATURES = 100
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_PRIVATE_PARTS = 5
_MAX_NAME = 255


def check_key_name(name: str) -> str:
    """Return ``name`` if it can name a key and be a log's origin.

    Raises:
        InvalidInput: it is empty, too long, or has a space, a control character or a plus sign.
    """
    if not 0 < len(name) <= _MAX_NAME or "+" in name or any(char.isspace() or not char.isprintable() for char in name):
        raise InvalidInput("", name, "1 to 255 characters without space and '+', as in 'example.org/governance-audit'")
    return name


def key_id(name: str, kind: bytes, public: bytes) -> bytes:
    """Four bytes that tell which key made a signature; ``kind`` is the one byte that C2SP gave its algorithm."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:_KEY_ID_BYTES]


def parse_verifier_key(text: str, kind: bytes, what: str) -> tuple[str, bytes]:
    """Name and public key in ``text``, which must be a verifier key of the algorithm ``kind``, over Ed25519.

    Raises:
        InvalidInput: it is malformed, of another algorithm, or its hash does not fit its key.
    """
    name, _, rest = text.partition("+")
    found_id, _, encoded = rest.partition("+")
    data = _decode(encoded)
    if data is None or data[:1] != kind or len(data) != 1 + _ED25519_BYTES:
        raise InvalidInput("verifier key", text, f"name+hash+base64 of {what}")
    right_id = key_id(check_key_name(name), kind, data[1:]).hex()
    if found_id != right_id:
        raise InvalidInput("verifier key", text, f"the hash {right_id}: the text was damaged")
    return name, data[1:]


def format_verifier_key(name: str, kind: bytes, public: bytes) -> str:
    """The text form of a verifier key."""
    return f"{name}+{key_id(name, kind, public).hex()}+{_encode(kind + public)}"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key that checks signatures. ``str(key)`` is its text form, ``name+hash+base64``, as C2SP defines it.

    Attributes:
        name: whose key it is; for a log, its origin. public: the Ed25519 public key, 32 bytes.
    """

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read the text form.

        Raises:
            InvalidInput: it is malformed, of another type than Ed25519, or its hash does not fit its key.
        """
        return cls(*parse_verifier_key(text, _ED25519, "an Ed25519 key"))

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell which key made a signature."""
        return key_id(self.name, _ED25519, self.public)

    def __str__(self) -> str:
        """The text form."""
        return format_verifier_key(self.name, _ED25519, self.public)

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``text``."""
        try:
            Ed25519VerifyKey(self.public).verify(text.encode(), signature)
        except (CryptoError, ValueError):
            return False
        return True


class SigningKey:
    """A private key. Its text form is ``PRIVATE+KEY+name+hash+base64``; it never appears in a ``repr``.

    Args:
        name: whose key it is. seed: 32 secret bytes.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = Ed25519SigningKey(seed)
        self.verifier = VerifierKey(check_key_name(name), bytes(self._key.verify_key))

    @classmethod
    def generate(cls, name: str, random: RandomBytes) -> SigningKey:
        """A new key."""
        return cls(name, random(_ED25519_BYTES))

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Read the text form.

        Raises:
            InvalidInput: it is malformed; the error does not show it.
        """
        parts = text.strip().split("+", _PRIVATE_PARTS - 1)
        if len(parts) == _PRIVATE_PARTS and parts[:2] == ["PRIVATE", "KEY"]:
            data = _decode(parts[4])
            if data is not None and data[:1] == _ED25519 and len(data) == 1 + _ED25519_BYTES:
                key = cls(parts[2], data[1:])
                if parts[3] == key.verifier.key_id.hex():
                    return key
        raise InvalidInput("signing key", "something else", "PRIVATE+KEY+name+hash+base64 of an Ed25519 key")

    def private_text(self) -> str:
        """The secret text form, for the key file alone."""
        verifier = self.verifier
        return f"PRIVATE+KEY+{verifier.name}+{verifier.key_id.hex()}+{_encode(_ED25519 + bytes(self._key))}"

    def sign(self, text: str) -> bytes:
        """The signature over ``text``, 64 bytes."""
        return self._key.sign(text.encode()).signature


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: the first ``size`` leaves have the tree hash ``root``."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note; extension lines after the root are allowed and left aside.

        Raises:
            InvalidInput: it is no checkpoint.
        """
        lines = text.split("\n")
        if len(lines) > 3 and lines[0] and _SIZE.fullmatch(lines[1]):  # noqa: PLR2004  origin, size, root, end
            root = _decode(lines[2])
            if root is not None and len(root) == HASH_BYTES:
                return cls(lines[0], int(lines[1]), root)
        raise InvalidInput("checkpoint", text, "origin, size and base64 root, each on a line")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature of a note, not checked.

    Attributes:
        name, key_id: which key is said to have made it. data: what it made. line: the whole line, without its newline.
    """

    name: str
    key_id: bytes
    data: bytes
    line: str

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """Read a signature line without its newline.

        Raises:
            InvalidInput: it is none.
        """
        name, _, encoded = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
        data = _decode(encoded)
        if not line.startswith(_SIGNATURE_PREFIX) or not name or data is None or len(data) <= _KEY_ID_BYTES:
            raise InvalidInput("note", line, "a signature line: '— name base64'")
        return cls(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:], line)


def sign_note(text: str, keys: Iterable[SigningKey]) -> str:
    """``text``, which ends with a newline, as a note signed by each of ``keys``."""
    signatures = [
        f"{_SIGNATURE_PREFIX}{key.verifier.name} {_encode(key.verifier.key_id + key.sign(text))}\n" for key in keys
    ]
    return f"{text}\n{''.join(signatures)}"


def open_note(note: str, trusted: Iterable[VerifierKey]) -> tuple[str, list[VerifierKey]]:
    """The text of ``note``, and which of the ``trusted`` keys signed it: at least one.

    Raises:
        InvalidInput: the note is malformed, a trusted key's signature is wrong, or no trusted key signed it.
    """
    keys = list(trusted)
    text, signers = signers_of(note, keys)
    if not signers:
        raise InvalidInput("note", "no signature by a known key", f"one by {', '.join(map(str, keys))}")
    return text, signers


def signers_of(note: str, trusted: Iterable[VerifierKey]) -> tuple[str, list[VerifierKey]]:
    """The same where it may be that none of the ``trusted`` keys signed it: then its text says nothing.

    Raises:
        InvalidInput: the note is malformed, or a trusted key's signature is wrong.
    """
    text, signatures = split_note(note)
    keys = {(key.name, key.key_id): key for key in trusted}
    signers: list[VerifierKey] = []
    for signature in signatures:
        key = keys.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not key.verify(text, signature.data):
            raise InvalidInput("note", f"a wrong signature by {key.name}", "a right one: it was altered or forged")
        signers.append(key)
    return text, signers


def split_note(note: str) -> tuple[str, list[NoteSignature]]:
    """The text of ``note``, to be believed only once a signature was checked, and its signatures.

    Raises:
        InvalidInput: the note is malformed.
    """
    text, separator, block = note.rpartition("\n\n")
    lines = block.split("\n")
    if not separator or lines.pop() != "" or not 0 < len(lines) <= _MAX_SIGNATURES:
        raise InvalidInput("note", note, "text, an empty line and signature lines")
    return text + "\n", [NoteSignature.parse(line) for line in lines]


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes | None:
    """Strict base64: exactly one text for each sequence of bytes, or None."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return data if _encode(data) == text else None
