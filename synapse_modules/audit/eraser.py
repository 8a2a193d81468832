"""Erasing a person from the log, step by step.

A step takes out what it finds of the person in at most a thousand entries and records that in the same transaction:
what is erased is on record, whenever the process is killed, and whoever goes on does so where nothing was erased yet.
The record tells which entries, why and for which case, but not who it was: that would undo what it records. Whoever
has to prove it keeps the name with the case.

Everything that was durable when an erasure began is in its reach, also what still waited in the outbox. What is
recorded later is not; nor is what was erased before, which names nobody any more.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules.audit import maintenance_store as stored
from synapse_modules.audit import store
from synapse_modules.audit.erasure import ranges
from synapse_modules.core.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synapse_modules.audit.erasure import Named
    from synapse_modules.audit.record import Record
    from synapse_modules.audit.settling import Unplaced
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.ports import AuditEvent, HeldSubject, Transaction
    from synapse_modules.storage.database import Database

__all__ = ["Eraser", "ErasureStep"]

_BATCH = 1_000
"""Entries in one step: their ranges fit into one record, whatever their indexes are."""


@dataclass(frozen=True, slots=True)
class ErasureStep:
    """What a step did.

    Attributes:
        entries: how many entries lost something. records: how many records that have no index did.
        fields: the names of the personal fields that are gone.
        following: where the next step begins; None when nothing is left. end: where the erasure ends.
    """

    entries: int
    records: int
    fields: tuple[str, ...]
    following: int | None
    end: int


class Eraser:
    """Takes one person out of the log.

    Args:
        database: the audit log's, by a role that may change it. record: makes records.
        event: the beginning of each record of this erasure: who asked for it, for which case, on what basis.
        subject: the person, as they stand in ``actor`` and ``target``.
        held: what is under legal hold.
    """

    def __init__(
        self,
        database: Database,
        record: Callable[[AuditEvent], Record],
        event: AuditEvent,
        subject: str,
        held: Sequence[HeldSubject],
    ) -> None:
        self._database = database
        self._record = record
        self._event = event
        self._subject = subject
        self._users = {each.subject: each.case_id for each in held if each.kind == "user"}
        self._rooms = {each.subject: each.case_id for each in held if each.kind == "room"}

    def check(self) -> None:
        """Refuse to begin what a hold forbids.

        Raises:
            Conflict: the person, or a room with an entry that names them, is under legal hold.
        """
        self._check_user()
        for room, case_id in self._rooms.items():
            if self._database.run(
                functools.partial(stored.named_in_room, subject=self._subject, room=room), read_only=True
            ):
                raise _room_held(room, case_id)

    def count(self) -> int:
        """How many entries name the person now."""
        return self._database.run(lambda transaction: stored.count_named(transaction, self._subject), read_only=True)

    def begin(self, stuck: Sequence[Unplaced]) -> ErasureStep:
        """The first step, once everything has its index but what is ``stuck``."""
        self.check()
        head = self._database.run(store.head, read_only=True)
        records = sum(self._erase_stuck(each) for each in stuck)
        return replace(self.step(0, head.size if head else 0), records=records)

    def step(self, begin: int, end: int) -> ErasureStep:
        """Go on from ``begin`` up to ``end``.

        Raises:
            Conflict: the person, or the room of an entry that names them, is under legal hold by now.
        """
        self._check_user()
        return self._database.run(lambda transaction: self._step(transaction, begin, end))

    # ------------------------------------------------------------------ inside

    def _step(self, transaction: Transaction, begin: int, end: int) -> ErasureStep:
        stored.lock(transaction)
        found = stored.named(transaction, self._subject, begin, end, _BATCH)
        indexes = [each.index for each in found if each.index is not None]
        fields = self._erase(transaction, found, {"indexes": ranges(indexes), "entries": len(indexes)})
        following = indexes[-1] + 1 if len(found) == _BATCH else None
        return ErasureStep(len(indexes), 0, fields, following, end)

    def _erase_stuck(self, unplaced: Unplaced) -> int:
        """Erase from records that get no index; returns from how many."""
        erased = 0
        while count := self._database.run(lambda transaction: self._step_of_stuck(transaction, unplaced)):
            erased += count
        return erased

    def _step_of_stuck(self, transaction: Transaction, unplaced: Unplaced) -> int:
        stored.lock(transaction)
        found = stored.named_without_index(transaction, self._subject, *unplaced, _BATCH)
        self._erase(transaction, found, {"records": len(found)})
        return len(found)

    def _erase(
        self, transaction: Transaction, found: Sequence[Named], details: Mapping[str, JsonValue]
    ) -> tuple[str, ...]:
        """Erase from what was ``found``, and record it; returns the fields."""
        if not found:
            return ()
        for each in found:
            if each.room in self._rooms:
                raise _room_held(each.room, self._rooms[each.room])
        left = [each.without(self._subject) for each in found]
        fields = sorted({name for old, new in zip(found, left, strict=True) for name in old.names() - new.names()})
        stored.erase(transaction, left)
        event = replace(self._event, details={**self._event.details, **details, "fields": list(fields)})
        stored.append(transaction, self._record(event))
        return tuple(fields)

    def _check_user(self) -> None:
        case_id = self._users.get(self._subject)
        if case_id is not None:
            raise Conflict(
                f"the person is under legal hold for the case {case_id}",
                advice="Nothing that names them may go until the hold is released",
            )


def _room_held(room: str, case_id: str) -> Conflict:
    return Conflict(
        f"entries of the room {room} name the person, and it is under legal hold for the case {case_id}",
        advice="They may not go until the hold is released",
    )
