"""What every anchor is and says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.anchor_config import AnchorKind

__all__ = ["PROMISED_S", "Anchor", "AnchorContradicts", "AnchorFailed", "Held", "LogReader"]

PROMISED_S = 10.0
"""At least one anchor gets what is new this often, in seconds; what came later is not protected yet."""


@dataclass(frozen=True, slots=True)
class Held:
    """The largest checkpoint that an anchor says it holds.

    Attributes:
        size: the size of the tree. note: the checkpoint, where the anchor can show it. Nobody has checked it yet.
    """

    size: int
    note: str | None = None


class AnchorFailed(GovernanceError):
    """An anchor did not take a checkpoint, or could not be asked. It is tried again; nothing else stops."""


class AnchorContradicts(AnchorFailed):
    """An anchor refused a checkpoint because it says that it holds one that does not fit.

    Attributes:
        held: what it says it holds; None when it does not say.
        compared: whether it has compared the two, and not only their sizes.
    """

    def __init__(self, problem: str, held: Held | None, *, compared: bool, where: str) -> None:
        self.held = held
        self.compared = compared
        super().__init__(problem, where=where)


class Anchor(Protocol):
    """One place that keeps checkpoints. Sync: each anchor has a thread of its own; all calls come from it."""

    @property
    def name(self) -> str:
        """What the operator calls it."""

    @property
    def kind(self) -> AnchorKind:
        """What it is."""

    @property
    def remembers(self) -> bool:
        """Whether it can be asked what it holds."""

    def publish(self, note: str) -> bytes:
        """Hand over a signed checkpoint; returns the receipt once the anchor keeps it.

        Raises:
            AnchorFailed: it did not take it, or gave no valid receipt.
            AnchorContradicts: it says that it holds another history.
        """

    def latest(self, offered: str | None) -> Held | None:
        """What the anchor holds; None when it holds nothing, or is of a kind that cannot be asked.

        Args:
            offered: the checkpoint that it would be handed next, for a kind that answers by comparing; None of an
                empty log.

        Raises:
            AnchorFailed: it did not answer.
            AnchorContradicts: it says that it holds another history than the one offered.
        """

    def check_receipt(self, note: str, receipt: bytes) -> bool:
        """Whether ``receipt`` is this anchor's for ``note``; True for kinds whose receipts prove nothing."""

    def close(self) -> None:
        """Give connections back."""


class LogReader(Protocol):
    """What a witness's anchor needs to know of the log."""

    def consistency(self, old: int, new: int) -> Sequence[bytes]:
        """The proof that the tree of ``old`` leaves is a prefix of that of ``new`` leaves; both have a checkpoint.

        Raises:
            AnchorFailed: the log cannot prove it.
        """
