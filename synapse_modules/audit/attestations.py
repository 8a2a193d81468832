"""What others than the log say about its checkpoints: witnesses cosign them, authorities stamp the time on them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from synapse_modules.audit.checkpoint import NoteSignature
from synapse_modules.audit.cosignature import add_signatures, cosignatures
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synapse_modules.audit.bundle import AnchoredCheckpoint, TimeStamp
    from synapse_modules.audit.cosignature import WitnessKey

__all__ = ["Attestation", "TimestampCheck", "attestations"]

TimestampCheck = Callable[[str, bytes], datetime | None]
"""Says when a note was stamped, given the authority's answer; None if the authority is not trusted. Raises InvalidInput
if that is no stamp on that note, or not by the trusted authority that it names."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """That a tree of ``size`` leaves, which the bundle's tree continues, existed.

    Attributes:
        kind: what it is. by: the witness, or what the log's operator calls the authority.
        size: of the tree. time_ms: when, in the other's words; None if it was not checked: who it is is not known.
    """

    kind: Literal["cosignature", "time stamp"]
    by: str
    size: int
    time_ms: int | None


def attestations(
    anchored: AnchoredCheckpoint, size: int, witnesses: Sequence[WitnessKey], check: TimestampCheck | None
) -> Iterator[Attestation]:
    """What others say about the checkpoint of ``size`` leaves.

    Args:
        anchored: the checkpoint, known to be right, and what others gave for it.
        size: its size.
        witnesses: those that are known.
        check: checks time stamps; without it none is checked.

    Raises:
        InvalidInput: something is malformed, or a known witness or authority did not say that.
    """
    known = cosignatures(add_signatures(anchored.checkpoint, anchored.cosignatures), witnesses)
    times = {each.line: each.time * 1000 for each in known}
    for line in anchored.cosignatures:
        yield Attestation("cosignature", NoteSignature.parse(line).name, size, times.get(line))
    for stamp in anchored.timestamps:
        time = None if check is None else check(anchored.checkpoint, _token(stamp))
        yield Attestation("time stamp", stamp.anchor, size, None if time is None else int(time.timestamp() * 1000))


def _token(stamp: TimeStamp) -> bytes:
    try:
        return base64.b64decode(stamp.token, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("timestamps", stamp.token[:60], "a time stamp in base64") from None
