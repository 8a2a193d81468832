"""What a run would do, as plain values: per room, per class and in all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synapse_modules.retention.precedence import Verdict

__all__ = ["DueMessages", "RoomPlan", "Simulation", "Totals", "plan_room"]


class DueMessages(NamedTuple):
    """What of a room is older than its rule allows.

    Attributes:
        events: how many messages. size: bytes of their stored JSON; 0 where nobody asked.
        of_held_users: how many of them were sent by somebody under hold.
    """

    events: int
    size: int
    of_held_users: int


NOTHING_DUE = DueMessages(0, 0, 0)


class RoomPlan(NamedTuple):
    """What a run would do in one room.

    Attributes:
        room_id: the room. verdict: what holds for it.
        cutoff_ms: messages received before this moment are due, in milliseconds since the epoch.
        due: what is older than that, whether held or not.
    """

    room_id: str
    verdict: Verdict
    cutoff_ms: int
    due: DueMessages

    @property
    def totals(self) -> Totals:
        """The room's share of every total."""
        if self.verdict.holds:
            return Totals(rooms_held=1, kept_by_hold=self.due.events, bytes_kept_by_hold=self.due.size)
        return Totals(rooms=1, due=self.due.events, bytes_due=self.due.size, copied_for_hold=self.due.of_held_users)


class Totals(NamedTuple):
    """Sums over rooms.

    Attributes:
        rooms: rooms from which something is deleted. due: messages deleted. bytes_due: bytes of their JSON.
        copied_for_hold: how many of those messages are first copied, because their sender is under hold.
        rooms_held: rooms under hold in which something would be due. kept_by_hold, bytes_kept_by_hold: that something.
    """

    rooms: int = 0
    due: int = 0
    bytes_due: int = 0
    copied_for_hold: int = 0
    rooms_held: int = 0
    kept_by_hold: int = 0
    bytes_kept_by_hold: int = 0

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(*(one + another for one, another in zip(self, other, strict=True)))


class Simulation(NamedTuple):
    """What a run at ``now_ms`` would do.

    Attributes:
        now_ms: the moment it is about, in milliseconds since the epoch.
        rules_version: the version of the rules it follows.
        rooms: every room in which something is due, those under hold included; the most due first.
        copies_to_drop: copies of events that no hold covers any more, which the run deletes as well.
    """

    now_ms: int
    rules_version: int
    rooms: tuple[RoomPlan, ...]
    copies_to_drop: int

    @property
    def totals(self) -> Totals:
        """Sums over all rooms."""
        return _sum(self.rooms)

    @property
    def by_rule(self) -> Mapping[str, Totals]:
        """Sums over the rooms of each rule, by the rule's name."""
        names = sorted({plan.verdict.rule for plan in self.rooms})
        return {name: _sum(plan for plan in self.rooms if plan.verdict.rule == name) for name in names}


def plan_room(room_id: str, verdict: Verdict, now_ms: int, due: DueMessages) -> RoomPlan | None:
    """The plan for one room; None where its rule deletes nothing, now or ever."""
    cutoff_ms = verdict.cutoff_ms(now_ms)
    if cutoff_ms is None or due.events == 0:
        return None
    return RoomPlan(room_id, verdict, cutoff_ms, due)


def _sum(plans: Iterable[RoomPlan]) -> Totals:
    total = Totals()
    for plan in plans:
        total = total.plus(plan.totals)
    return total
