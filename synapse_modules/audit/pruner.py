"""Pruning: old entries go, and their hashes stay, so that every proof of what is left is what it was.

A log is pruned at the border of a full hash tile, so that whatever a later proof needs stands in the tiles. Only what
has a signed checkpoint is pruned, which every configured anchor has taken and which is old enough; nothing of it
may name a held person or belong to a held room. What is to go is compared with the tiles first: what somebody has
altered or deleted is evidence, and stays.

How far the log is pruned, and the record of it, stand there before anything goes. Then entries go in batches, the
oldest first. Whoever is killed in between goes on with what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules.audit import maintenance_store as stored
from synapse_modules.audit import store
from synapse_modules.audit.merkle import leaf_hash
from synapse_modules.audit.receipts import newest_receipts
from synapse_modules.audit.tiles import TILE_WIDTH, frontier_of
from synapse_modules.core.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_modules.audit.record import Record
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.ports import AuditEvent, HeldSubject, Transaction
    from synapse_modules.storage.database import Database

__all__ = ["DAY_MS", "PruneStep", "Pruner", "Pruning"]

DAY_MS = 24 * 3600 * 1000
_BATCH = 10 * TILE_WIDTH


@dataclass(frozen=True, slots=True)
class Pruning:
    """How far, and under which conditions.

    Attributes:
        before_index: everything below it; None where age decides. older_than_ms: what was sealed longer ago.
        youngest_ms: nothing that was sealed later goes. anchors: the names of those that must have taken it.
        held: what is under legal hold. now_ms: the time.
    """

    before_index: int | None
    older_than_ms: int | None
    youngest_ms: int
    anchors: tuple[str, ...]
    held: Sequence[HeldSubject]
    now_ms: int


@dataclass(frozen=True, slots=True)
class PruneStep:
    """What was done, or would be.

    Attributes:
        end: where the log begins from now on. root: the root of the tree of everything before; None where ``end`` is 0.
        removed: entries that are gone. left: how many more have to go.
    """

    end: int
    root: bytes | None
    removed: int
    left: int


class Pruner:
    """Removes old entries.

    Args:
        database: the audit log's, by a role that may change it. record: makes records.
        event: the beginning of the record: who asked for it, for which case, on what basis.
        pruning: how far.
    """

    def __init__(
        self, database: Database, record: Callable[[AuditEvent], Record], event: AuditEvent, pruning: Pruning
    ) -> None:
        self._database = database
        self._record = record
        self._event = event
        self._pruning = pruning

    def plan(self) -> PruneStep:
        """What there is to do; changes nothing. Raises as :meth:`step`."""
        return self._database.run(self._plan, read_only=True)

    def step(self) -> PruneStep:
        """Say how far the log is pruned, unless it is said already, and remove the first of what is to go.

        Raises:
            InvalidInput: the wanted index is beyond what may go.
            Conflict: something under hold would go; or entries were altered or deleted by somebody else.
        """
        planned = self._database.run(self._begin)
        return self._database.run(lambda transaction: self._remove(transaction, planned))

    # ------------------------------------------------------------------ how far

    def _begin(self, transaction: Transaction) -> PruneStep:
        stored.lock(transaction)
        planned, done = self._plan(transaction), store.pruned_below(transaction)
        if planned.root is not None and planned.end > done:
            stored.insert_pruning(transaction, planned.end, planned.root, self._pruning.now_ms)
            details: dict[str, JsonValue] = {
                "begin": done,
                "end": planned.end,
                "entries": planned.end - done,
                "root": planned.root.hex(),
            }
            event = replace(self._event, details={**self._event.details, **details})
            stored.append(transaction, self._record(event))
        return planned

    def _plan(self, transaction: Transaction) -> PruneStep:
        done = store.pruned_below(transaction)
        end = max(done, self._wanted(transaction) // TILE_WIDTH * TILE_WIDTH)
        first = stored.first_index(transaction)
        begin = end if first is None else min(first, end)
        self._check_holds(transaction, end)
        if begin > done:
            raise _damaged(done, begin)
        root = _root(transaction, end) if end else None
        return PruneStep(end, root, 0, end - begin)

    def _wanted(self, transaction: Transaction) -> int:
        """The index before which everything is to go.

        Raises:
            InvalidInput: something before it may not go yet.
        """
        pruning = self._pruning
        allowed = self._allowed(transaction)
        if pruning.before_index is None:
            before_ms = pruning.now_ms - max(pruning.older_than_ms or 0, pruning.youngest_ms)
            return min(stored.newest_checkpoint_before(transaction, before_ms), allowed)
        if pruning.before_index > max(allowed, store.pruned_below(transaction)):
            days = pruning.youngest_ms // DAY_MS
            taken = f", and by every anchor ({', '.join(pruning.anchors)})" if pruning.anchors else ""
            expected = f"at most {allowed}: what was sealed more than {days} days ago{taken}"
            raise InvalidInput("before_index", pruning.before_index, expected)
        return pruning.before_index

    def _allowed(self, transaction: Transaction) -> int:
        """Everything before this index is sealed, anchored and old enough."""
        pruning = self._pruning
        aged = stored.newest_checkpoint_before(transaction, pruning.now_ms - pruning.youngest_ms)
        taken = {receipt.anchor: receipt.size for receipt in newest_receipts(transaction)} if pruning.anchors else {}
        return min([aged, *(taken.get(name, 0) for name in pruning.anchors)])

    def _check_holds(self, transaction: Transaction, end: int) -> None:
        for each in self._pruning.held:
            find = stored.first_of_user if each.kind == "user" else stored.first_of_room
            first = find(transaction, each.subject)
            if first is not None and first < end:
                raise Conflict(
                    f"the entry {first} is under legal hold for the case {each.case_id}",
                    advice=f"The log may be pruned before {first}, or when the hold is released",
                )

    # ------------------------------------------------------------------ removing

    def _remove(self, transaction: Transaction, planned: PruneStep) -> PruneStep:
        stored.lock(transaction)
        first = stored.first_index(transaction)
        if first is None or first >= planned.end:
            return replace(planned, left=0)
        end = min((first // TILE_WIDTH) * TILE_WIDTH + _BATCH, planned.end)
        self._check_holds(transaction, end)
        _check_leaves(transaction, first, end)
        stored.remove(transaction, first, end)
        return replace(planned, removed=end - first, left=planned.end - end)


def _root(transaction: Transaction, end: int) -> bytes:
    signed = store.checkpoint(transaction)
    try:
        return frontier_of(store.nodes(transaction, signed.size if signed else 0), end).root()
    except IndexError:
        raise Conflict("hash tiles of the audit log are missing", advice=_EVIDENCE) from None


def _check_leaves(transaction: Transaction, begin: int, end: int) -> None:
    """Compare what is about to go with the tree."""
    leaves = store.leaves(transaction, begin, end)
    nodes = store.nodes(transaction, end)
    if len(leaves) != end - begin or any(
        leaf_hash(leaf) != nodes.leaf(index) for index, leaf in enumerate(leaves, start=begin)
    ):
        raise _damaged(begin, end)


_EVIDENCE = "Nothing is removed. Keep the database as it is: it is evidence of who changed it"


def _damaged(begin: int, end: int) -> Conflict:
    return Conflict(f"entries between {begin} and {end - 1} were altered or deleted by somebody else", advice=_EVIDENCE)
