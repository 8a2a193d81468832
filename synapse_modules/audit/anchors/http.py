"""An anchor that is an HTTP endpoint: it takes a checkpoint by POST, and may give its latest one back by GET."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.anchors.model import AnchorFailed, Held
from synapse_modules.audit.checkpoint import Checkpoint, split_note
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.audit.anchors.transport import Answer, Transport

__all__ = ["NOTE_TYPE", "HttpAnchor", "held_of"]

NOTE_TYPE = "text/plain; charset=utf-8"
_NOT_FOUND = 404
_OTHERS = 0o077


class HttpAnchor:
    """Posts checkpoints to an endpoint; an :class:`~synapse_modules.audit.anchors.model.Anchor`.

    Args:
        name: what the operator calls it. url: where to post.
        transport: how.
        read_url: where the latest checkpoint can be read back, if it can.
        token_file: a file with the bearer token; read for each request, so that a token can be replaced.
    """

    kind = AnchorKind.HTTP

    def __init__(
        self, name: str, url: str, transport: Transport, *, read_url: str | None = None, token_file: Path | None = None
    ) -> None:
        self.name = name
        self._url = url
        self._transport = transport
        self._read_url = read_url
        self._token_file = token_file
        self.remembers = read_url is not None

    def publish(self, note: str) -> bytes:
        """Post ``note``; returns what the endpoint answered.

        Raises:
            AnchorFailed: the endpoint refused it or did not answer, or the token cannot be read.
        """
        answer = self._transport.post(self._url, note.encode(), NOTE_TYPE, self._headers())
        if not answer.ok:
            raise self._refused(answer)
        return answer.body

    def latest(self, offered: str | None = None) -> Held | None:
        """What the endpoint gives back; None when it has nothing, or was given no ``read_url``.

        Raises:
            AnchorFailed: it did not answer, or not with a checkpoint.
        """
        del offered
        if self._read_url is None:
            return None
        answer = self._transport.get(self._read_url, self._headers())
        if answer.status == _NOT_FOUND:
            return None
        if not answer.ok:
            raise self._refused(answer)
        return held_of(answer, self.name)

    def check_receipt(self, note: str, receipt: bytes) -> bool:
        """Whatever an endpoint answers proves nothing to us."""
        del note, receipt
        return True

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _headers(self) -> dict[str, str]:
        return {} if self._token_file is None else {"Authorization": f"Bearer {self._token(self._token_file)}"}

    def _token(self, path: Path) -> str:
        try:
            with path.open(encoding="ascii") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                token = file.read().strip()
        except OSError as error:
            raise AnchorFailed(f"the token file {path} cannot be read: {error.strerror}", where=self.name) from None
        except UnicodeDecodeError:
            token, mode = "", 0
        if mode & _OTHERS:
            raise AnchorFailed(f"others can read the token file {path}: mode {mode:04o}, not 0600", where=self.name)
        if not token or not token.isprintable() or " " in token:
            raise AnchorFailed(f"the token file {path} does not hold one token", where=self.name)
        return token

    def _refused(self, answer: Answer) -> AnchorFailed:
        return AnchorFailed(f"answered with status {answer.status}: {answer.text()}", where=self.name)


def held_of(answer: Answer, where: str) -> Held:
    """The checkpoint in the body of ``answer``, unchecked.

    Raises:
        AnchorFailed: there is none.
    """
    try:
        note = answer.body.decode()
        return Held(Checkpoint.parse(split_note(note)[0]).size, note)
    except (UnicodeDecodeError, InvalidInput):
        raise AnchorFailed(f"gave back something that is no checkpoint: {answer.text()!r}", where=where) from None
