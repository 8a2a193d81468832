"""Cosignatures of witnesses on a checkpoint, in C2SP form (https://c2sp.org/tlog-cosignature), Ed25519.

A witness signs that at a certain time a checkpoint was the largest one that it had seen of a log, and that every
earlier one was a prefix of it. Its signature stands as one more line below the log's own in the checkpoint's note;
verifiers that do not know the witness leave it aside.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey as Ed25519VerifyKey

from synapse_modules.audit.checkpoint import format_verifier_key, key_id, parse_verifier_key, split_note
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Cosignature", "WitnessKey", "add_signatures", "cosignatures"]

_KIND = b"\x04"
_TIMESTAMPED = struct.Struct(">Q64s")
_MAX_TIME = 2**63 - 1


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A key that checks a witness's cosignatures. ``str(key)`` is its text form, ``name+hash+base64``.

    Attributes:
        name: the witness. public: the Ed25519 public key, 32 bytes.
    """

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """Read the text form.

        Raises:
            InvalidInput: it is malformed, of another type than an Ed25519 cosigner, or its hash does not fit its key.
        """
        return cls(*parse_verifier_key(text, _KIND, "an Ed25519 cosignature key, type 0x04"))

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell which key made a signature."""
        return key_id(self.name, _KIND, self.public)

    def __str__(self) -> str:
        """The text form."""
        return format_verifier_key(self.name, _KIND, self.public)

    def time_of(self, text: str, data: bytes) -> int | None:
        """When this witness signed the checkpoint ``text``, in seconds since the epoch; None if it did not.

        ``data`` is the cosignature: its time and the signature.
        """
        if len(data) != _TIMESTAMPED.size:
            return None
        time, signature = _TIMESTAMPED.unpack(data)
        if not 0 < time <= _MAX_TIME:
            return None
        try:
            Ed25519VerifyKey(self.public).verify(f"cosignature/v1\ntime {time}\n{text}".encode(), signature)
        except (CryptoError, ValueError):
            return None
        return int(time)


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A cosignature that was checked.

    Attributes:
        witness: whose it is. time: when it was made, seconds since the epoch, by the witness's clock.
        line: its line in the note, without the newline.
    """

    witness: WitnessKey
    time: int
    line: str


def cosignatures(note: str, witnesses: Iterable[WitnessKey]) -> list[Cosignature]:
    """The cosignatures on ``note`` by known ``witnesses``; signatures by anybody else are left aside.

    Says nothing about the log's own signature: open the note with the log's key first.

    Raises:
        InvalidInput: the note is malformed, or a known witness's cosignature is wrong.
    """
    text, signatures = split_note(note)
    known = {(witness.name, witness.key_id): witness for witness in witnesses}
    found: list[Cosignature] = []
    for signature in signatures:
        witness = known.get((signature.name, signature.key_id))
        if witness is None:
            continue
        time = witness.time_of(text, signature.data)
        if time is None:
            raise InvalidInput("note", f"a wrong cosignature by {witness.name}", "a right one: altered or forged")
        found.append(Cosignature(witness, time, signature.line))
    return found


def add_signatures(note: str, lines: Iterable[str]) -> str:
    """``note`` with the signature ``lines`` below those it has; none stands twice.

    Raises:
        InvalidInput: the note is malformed.
    """
    _, signatures = split_note(note)
    return note + "".join(f"{line}\n" for line in _new_ones(lines, {signature.line for signature in signatures}))


def _new_ones(lines: Iterable[str], known: set[str]) -> Iterator[str]:
    for line in lines:
        if line not in known:
            known.add(line)
            yield line
