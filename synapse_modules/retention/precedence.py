"""What holds for one room: hold > class rule > default. Every room has exactly one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.retention.rules import Rules

__all__ = ["Verdict", "decide"]


class Verdict(NamedTuple):
    """The answer for one room.

    Attributes:
        room_class: the room's class, or None.
        rule: the retention rule that applies while nothing holds the room, ``class:<name>`` or ``default``.
        delete_after_ms: the age at which that rule deletes; None never.
        holds: ids of the holds in force on the room, oldest first; any of them beats the rule.
    """

    room_class: str | None
    rule: str
    delete_after_ms: int | None
    holds: tuple[str, ...]

    @property
    def winner(self) -> str:
        """The rule that won: ``hold:<id>`` where the room is held, else :attr:`rule`."""
        return f"hold:{self.holds[0]}" if self.holds else self.rule

    def cutoff_ms(self, now_ms: int) -> int | None:
        """Messages received before this moment are due; None if none ever is. Holds are not taken into account."""
        return None if self.delete_after_ms is None else now_ms - self.delete_after_ms


def decide(room_class: str | None, rules: Rules, holds: Sequence[str]) -> Verdict:
    """What holds for a room.

    Args:
        room_class: its class, or None.
        rules: those in force.
        holds: ids of the holds in force on the room itself, oldest first.
    """
    rule = rules.of(room_class)
    return Verdict(room_class, rule.name, rule.delete_after_ms, tuple(holds))
