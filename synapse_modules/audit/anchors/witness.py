"""An anchor that is a witness (https://c2sp.org/tlog-witness): it cosigns only what its last checkpoint is a prefix of.

A witness remembers the size of the last checkpoint that it cosigned, and wants a proof from there. Which size that is
we learn from its refusals (status 409), so nothing about it has to be kept here.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.anchors.http import NOTE_TYPE, held_of
from synapse_modules.audit.anchors.model import AnchorContradicts, AnchorFailed, Held
from synapse_modules.audit.checkpoint import Checkpoint, split_note
from synapse_modules.audit.cosignature import add_signatures, cosignatures
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from synapse_modules.audit.anchors.model import LogReader
    from synapse_modules.audit.anchors.transport import Answer, Transport
    from synapse_modules.audit.cosignature import WitnessKey

__all__ = ["WitnessAnchor"]

_SIZE_TYPE = "text/x.tlog.size"
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_UNKNOWN_KEY, _UNKNOWN_LOG, _OTHER_SIZE, _INCONSISTENT = 403, 404, 409, 422
_ATTEMPTS = 3
"""The witness's size can change under our hands, where several processes or machines feed it; once is enough else."""
_ADVICE = {
    _UNKNOWN_KEY: "It does not know this log's key: give its operator the log's verifier key",
    _UNKNOWN_LOG: "It does not know this log: give its operator the log's origin and verifier key",
}


class WitnessAnchor:
    """Has checkpoints cosigned; an :class:`~synapse_modules.audit.anchors.model.Anchor`.

    Args:
        name: what the operator calls it. url: its submission prefix. key: what its cosignatures are checked with.
        transport: how to reach it.
        origin: the log's name. log: makes the proofs.
        monitoring_url: its monitoring prefix; by default the submission prefix.
    """

    kind = AnchorKind.WITNESS
    remembers = True

    def __init__(
        self,
        name: str,
        url: str,
        key: WitnessKey,
        transport: Transport,
        origin: str,
        log: LogReader,
        *,
        monitoring_url: str | None = None,
    ) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._key = key
        self._transport = transport
        self._origin = origin
        self._log = log
        self._monitoring_url = (monitoring_url or url).rstrip("/")
        self._size = 0

    def publish(self, note: str) -> bytes:
        """Have ``note`` cosigned; returns the cosignature's line, checked.

        Raises:
            AnchorFailed: it did not answer, refused, or its cosignature is wrong.
            AnchorContradicts: it cosigned a larger checkpoint, or one of another history.
        """
        size = Checkpoint.parse(split_note(note)[0]).size
        for _ in range(_ATTEMPTS):
            answer = self._submit(note, size)
            if answer.ok:
                self._size = size
                return self._cosignature(note, answer)
            if answer.status != _OTHER_SIZE:
                raise self._refused(answer)
            self._size = self._told_size(answer)
            if self._size > size:
                raise self._larger()
        raise AnchorFailed("it names another size each time: somebody else feeds it too", where=self.name)

    def latest(self, offered: str | None) -> Held | None:
        """What is ``offered``, once it has been cosigned: only if the witness's own is a prefix of it.

        Of an empty log, what the witness shows.

        Raises:
            AnchorFailed, AnchorContradicts: as :meth:`publish` does.
        """
        if offered is None:
            return self._shown()
        self.publish(offered)
        return Held(Checkpoint.parse(split_note(offered)[0]).size, offered)

    def check_receipt(self, note: str, receipt: bytes) -> bool:
        """Whether ``receipt`` is this witness's cosignature on ``note``."""
        try:
            return bool(cosignatures(add_signatures(note, [receipt.decode()]), [self._key]))
        except (InvalidInput, UnicodeDecodeError):
            return False

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # ------------------------------------------------------------------ cosigning

    def _submit(self, note: str, size: int) -> Answer:
        old = self._size if self._size <= size else 0
        proof = self._log.consistency(old, size) if old else ()
        lines = "".join(f"{base64.b64encode(node).decode('ascii')}\n" for node in proof)
        body = f"old {old}\n{lines}\n{note}"
        return self._transport.post(f"{self._url}/add-checkpoint", body.encode(), NOTE_TYPE)

    def _cosignature(self, note: str, answer: Answer) -> bytes:
        try:
            lines = answer.body.decode().rstrip("\n").split("\n")
            found = cosignatures(add_signatures(note, lines), [self._key])
        except (InvalidInput, UnicodeDecodeError) as error:
            raise AnchorFailed(f"its answer is no cosignature of this checkpoint: {error}", where=self.name) from None
        if not found:
            raise AnchorFailed(
                f"it cosigned with other keys than {self._key}", where=self.name, advice="Was its key replaced?"
            )
        return found[0].line.encode()

    def _told_size(self, answer: Answer) -> int:
        match = _SIZE.fullmatch(answer.body)
        if match is None or answer.content_type.partition(";")[0].strip() != _SIZE_TYPE:
            raise AnchorFailed(f"answered with status {answer.status} and no size: {answer.text()}", where=self.name)
        return int(match[1])

    # ------------------------------------------------------------------ refusals

    def _refused(self, answer: Answer) -> AnchorFailed:
        if answer.status == _INCONSISTENT:
            problem = "what it has cosigned is no prefix of this log"
            return AnchorContradicts(problem, self._shown_if_any(), compared=True, where=self.name)
        advice = _ADVICE.get(answer.status, "")
        return AnchorFailed(f"answered with status {answer.status}: {answer.text()}", where=self.name, advice=advice)

    def _larger(self) -> AnchorContradicts:
        shown = self._shown_if_any()
        held = shown if shown is not None and shown.size == self._size else Held(self._size)
        problem = f"it has cosigned a checkpoint of size {self._size}"
        return AnchorContradicts(problem, held, compared=False, where=self.name)

    def _shown_if_any(self) -> Held | None:
        try:
            return self._shown()
        except AnchorFailed:
            return None

    def _shown(self) -> Held | None:
        """What it shows to monitors. It need not show anything, and may be an hour late."""
        digest = hashlib.sha256(self._origin.encode()).hexdigest()
        answer = self._transport.get(f"{self._monitoring_url}/{digest}/checkpoint")
        return held_of(answer, self.name) if answer.ok else None
