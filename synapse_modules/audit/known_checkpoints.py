"""The newest checkpoint that was seen of each log: what every later one must continue."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit.checkpoint import Checkpoint, split_note
from synapse_modules.core.canonical import canonical_text
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KnownCheckpoints", "SeenCheckpoint"]


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """A checkpoint whose signature was checked when it was seen.

    Attributes:
        note: the checkpoint as the log signed it: what can be shown to others when the log denies it.
        seen_ms: when it was seen, by the log's own clock: the time at which a bundle with it was made.
    """

    note: str
    seen_ms: int

    @property
    def checkpoint(self) -> Checkpoint:
        """What the log signed."""
        return Checkpoint.parse(split_note(self.note)[0])


class KnownCheckpoints:
    """The checkpoints that are remembered, one for each log; frozen.

    Raises:
        InvalidInput: one of them is no checkpoint.
    """

    def __init__(self, seen: Iterable[SeenCheckpoint] = ()) -> None:
        self._by_origin = {each.checkpoint.origin: each for each in seen}

    @classmethod
    def parse(cls, text: str, where: str = "known checkpoints") -> KnownCheckpoints:
        """Read what :meth:`format` wrote.

        Raises:
            InvalidInput: it is something else.
        """
        try:
            documents = [json.loads(line) for line in text.splitlines()]
            return cls(SeenCheckpoint(str(each["note"]), int(each["seen_ms"])) for each in documents)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidInput(where, "something else", "a remembered checkpoint on each line") from None

    def format(self) -> str:
        """One line of JSON for each log."""
        seen = self._by_origin.values()
        return "".join(canonical_text({"note": each.note, "seen_ms": each.seen_ms}) + "\n" for each in seen)

    def of(self, origin: str) -> SeenCheckpoint | None:
        """What was seen of the log ``origin``; None if nothing was."""
        return self._by_origin.get(origin)

    def remember(self, seen: SeenCheckpoint) -> KnownCheckpoints:
        """These and ``seen``, which counts if its tree is the largest that was seen of its log."""
        checkpoint = seen.checkpoint
        known = self.of(checkpoint.origin)
        if known is not None and known.checkpoint.size >= checkpoint.size:
            return self
        return KnownCheckpoints([*self._by_origin.values(), seen])
