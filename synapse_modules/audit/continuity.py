"""Does the tree of a bundle continue the checkpoints that whoever verifies it holds already?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from synapse_modules.audit.checkpoint import Checkpoint, open_note
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from synapse_modules.audit.bundle import Manifest
    from synapse_modules.audit.key_change import KnownKey
    from synapse_modules.audit.known_checkpoints import SeenCheckpoint

__all__ = ["Comparison", "HeldCheckpoint", "held_checkpoints"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the tree of a bundle stands to a checkpoint that was held.

    Attributes:
        size: of the checkpoint's tree. given: whether it was given for this; else it was remembered.
        result: ``continues``: what was held is a prefix. ``skipped``: the bundle skips across its end, so that it
            cannot be told. ``older``: the bundle was made before the checkpoint was seen, so that it cannot either.
    """

    size: int
    given: bool
    result: Literal["continues", "skipped", "older"]


@dataclass(frozen=True, slots=True)
class HeldCheckpoint:
    """A checkpoint of the bundle's log that whoever verifies holds.

    Attributes:
        checkpoint: what was signed. seen_ms: when it was seen, by the log's clock; None for one that is given.
    """

    checkpoint: Checkpoint
    seen_ms: int | None = None

    def compare(self, manifest: Manifest, root_at: Callable[[int], bytes | None]) -> Comparison:
        """How a bundle stands to it, whose tree had the roots ``root_at``.

        Raises:
            InvalidInput: the log was cut back or rewritten.
        """
        size, given = self.checkpoint.size, self.seen_ms is None
        if size > manifest.tree_size:
            if self.seen_ms is not None and manifest.made_ms <= self.seen_ms:
                return Comparison(size, given, "older")
            found = f"a tree of {manifest.tree_size} entries"
            whose = "the checkpoint given" if given else "the checkpoint seen before"
            raise InvalidInput(
                "checkpoint", found, f"at least {size}, as {whose} has: the log was cut back, or is older"
            )
        root = root_at(size)
        if root is not None and root != self.checkpoint.root:
            expected = f"the root {self.checkpoint.root.hex()} over the first {size} entries: the log was rewritten"
            raise InvalidInput("checkpoint", f"the root {root.hex()}", expected)
        return Comparison(size, given, "skipped" if root is None else "continues")


def held_checkpoints(
    origin: str, keys: Iterable[KnownKey], given: Iterable[str], seen: SeenCheckpoint | None
) -> Iterator[HeldCheckpoint]:
    """The checkpoints of the log ``origin`` that are held: the notes ``given``, and the one ``seen`` before.

    Raises:
        InvalidInput: a note that is given is none of that log, or none of its ``keys`` signed it.
    """
    known = [each.key for each in keys]
    for note in given:
        checkpoint = Checkpoint.parse(open_note(note, known)[0])
        if checkpoint.origin != origin:
            raise InvalidInput("checkpoint given", checkpoint.origin, f"a checkpoint of {origin}")
        yield HeldCheckpoint(checkpoint)
    if seen is not None:
        yield HeldCheckpoint(seen.checkpoint, seen.seen_ms)
