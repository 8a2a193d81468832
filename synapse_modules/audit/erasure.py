"""What an erasure takes out of a record: every value that names one person, with its salt.

Where the person is the actor, the address, the user agent and the device are theirs too. The commitments stay in the
leaf, which nothing changes; without the salt nobody can find out what they commit to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules.core.canonical import canonical_text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Named", "ranges"]

_OF_THE_ACTOR = frozenset({"actor", "address", "user_agent", "device"})
_OF_THE_TARGET = frozenset({"target"})


@dataclass(frozen=True, slots=True)
class Named:
    """What is stored of a record beside its leaf.

    Attributes:
        index: its place in the log; None where it has none.
        writer, wseq: where it stands. room: its room, which names nobody.
        actor, target, address: what it is found by. disclosures: values and salts, as canonical JSON.
    """

    index: int | None
    writer: str
    wseq: int
    room: str | None
    actor: str | None
    target: str | None
    address: str | None
    disclosures: str

    def without(self, subject: str) -> Named:
        """The same without what names ``subject``."""
        fields = self._fields_of(subject)
        kept = {name: value for name, value in json.loads(self.disclosures).items() if name not in fields}
        return replace(
            self,
            actor=None if "actor" in fields else self.actor,
            target=None if "target" in fields else self.target,
            address=None if "address" in fields else self.address,
            disclosures=canonical_text(kept),
        )

    def names(self) -> set[str]:
        """The personal fields whose values are there."""
        return set(json.loads(self.disclosures))

    def _fields_of(self, subject: str) -> frozenset[str]:
        fields: frozenset[str] = frozenset()
        if self.actor == subject:
            fields |= _OF_THE_ACTOR
        if self.target == subject:
            fields |= _OF_THE_TARGET
        return fields


def ranges(indexes: Iterable[int]) -> list[list[int]]:
    """Ascending ``indexes`` as ranges ``[begin, end]`` without the end."""
    found: list[list[int]] = []
    for index in indexes:
        if found and found[-1][1] == index:
            found[-1][1] = index + 1
        else:
            found.append([index, index + 1])
    return found
