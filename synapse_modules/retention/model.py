"""Holds and runs as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

__all__ = ["Author", "Hold", "HoldKind", "Run", "RunState"]


class HoldKind(StrEnum):
    """What a hold lies on."""

    ROOM = "room"
    USER = "user"


class Hold(NamedTuple):
    """A legal hold. It is in force until it is released; then it stays as a record.

    Attributes:
        hold_id: its name. kind, subject: a room and its id, or a user and their id.
        case_id: the case it belongs to. owner: who placed it. reason: why, in words.
        created_ms: since when, in milliseconds since the epoch. released_ms, released_by, release_reason: its end.
    """

    hold_id: str
    kind: HoldKind
    subject: str
    case_id: str
    owner: str
    reason: str
    created_ms: int
    released_ms: int | None = None
    released_by: str | None = None
    release_reason: str | None = None


class RunState(StrEnum):
    """Where a run stands: ``interrupted`` means that its process died, ``failed`` that it had to stop."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Run(NamedTuple):
    """A run that deletes what is due.

    Attributes:
        run_id: its name. state: where it stands. rules_version: the rules it follows.
        started_ms, ended_ms: in milliseconds since the epoch. started_by: None for the product itself.
        rooms_planned, rooms_done: rooms with something due, and how many of them are dealt with.
        due: messages that were to be deleted. deleted: messages that are gone, counted afterwards.
        kept_by_hold: messages that would be due were their room not under hold.
        copied_for_hold: messages copied before they were deleted, because their sender is under hold.
        copies_dropped: such copies deleted because no hold covers them any more.
        problems: rooms in which something due is still there. problem: why the run itself ended early.
    """

    run_id: str
    state: RunState
    rules_version: int
    started_ms: int
    started_by: str | None
    ended_ms: int | None = None
    rooms_planned: int = 0
    rooms_done: int = 0
    due: int = 0
    deleted: int = 0
    kept_by_hold: int = 0
    copied_for_hold: int = 0
    copies_dropped: int = 0
    problems: int = 0
    problem: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it ended, and nothing due is left but what a hold keeps."""
        return self.state is RunState.DONE and not self.problems


@dataclass(frozen=True, slots=True)
class Author:
    """Who acts; ``user_id`` is None for the product itself."""

    user_id: str | None = None
    device_id: str | None = None
    address: str | None = None
    user_agent: str | None = None
