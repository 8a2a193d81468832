"""Gives every record its index, grows the tree, and signs checkpoints. One at a time: a second one loses.

A cycle has two transactions. *Placing* takes what each writer has recorded, in the order of its numbers, gives it the
next indexes and moves the head; unique constraints let only one sequencer do that for one head. *Signing* reads those
entries again from what is stored, recomputes the root, and signs only if it is the head's. Killed anywhere in between,
the next start goes on from what stands in the database and comes to the same roots.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.checkpoint import Checkpoint, SigningKey, VerifierKey, open_note, sign_note
from synapse_modules.audit.discontinuity import RolledBack, discontinuities, log_keys
from synapse_modules.audit.key_rotation import WrongKey, apply_steps, steps_for
from synapse_modules.audit.merkle import Frontier, leaf_hash
from synapse_modules.audit.tiles import TILE_HEIGHT, Tile, TileBuilder, frontier_of
from synapse_modules.audit.writers import Writers
from synapse_modules.core.errors import GovernanceError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.audit.record import Recorder
    from synapse_modules.core.clock import Clock
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["LogDamaged", "Sequencer", "WrongKey"]

logger = logging.getLogger(__name__)

_PAGE = 2_000
_WRITER = "keys"
"""Begins the names of the writers of what is recorded of the log's keys, one for each record."""


class LogDamaged(GovernanceError):
    """What is stored does not lead to the root that was computed or signed before: nothing may be signed on top."""


@dataclass(slots=True)
class _State:
    """Where the log stands, as far as this process knows.

    Attributes:
        placed: the tree of everything that has an index. signed: the tree of the newest checkpoint.
        tiles: cuts the signed tree into tiles. writers: who is followed from which number.
    """

    placed: Frontier
    signed: Frontier
    tiles: TileBuilder
    writers: Writers


class Sequencer:
    """The one that orders and signs.

    Args:
        database: the audit log's. key: signs checkpoints; its name is the log's origin.
        next_key: signs them too, while it replaces ``key``.
        recorder: makes the record of a writer that ended without saying so. clock: for times, which are advisory.
        may_sign: asked before a checkpoint is signed; raises RolledBack where none may be signed on top of this log.

    Attributes:
        damage: what stopped this sequencer for good; None while it works.
        gaps: writers of which records are missing that had no index yet, and between which numbers. Their later
            records get none either.
        signed_ms: when the newest checkpoint was made, as far as this process knows; None before the first.
    """

    def __init__(
        self,
        database: Database,
        key: SigningKey,
        recorder: Recorder,
        clock: Clock,
        may_sign: Callable[[], bool] = lambda: True,
        next_key: SigningKey | None = None,
    ) -> None:
        self._may_sign = may_sign
        self._database = database
        self._keys = (key,) if next_key is None else (key, next_key)
        self._origin = key.verifier.name
        self._recorder = recorder
        self._clock = clock
        self._state: _State | None = None
        self.damage: LogDamaged | None = None
        self.gaps: dict[str, tuple[int, int]] = {}
        self.signed_ms: int | None = None

    def run_cycle(self) -> int:
        """Place and sign what is new, at most some thousands; returns how many entries got an index.

        Raises:
            LogDamaged: now and ever after, until a new process looks again.
            RolledBack: what is new has its place, and is not signed.
            Exception: whatever stopped it; the next cycle starts from what is stored.
        """
        if self.damage is not None:
            raise self.damage
        try:
            placed = self.place()
            self.sign()
        except LogDamaged as damage:
            self.damage = damage
            raise
        except RolledBack:
            raise  # what this process knows of the log is right all the same
        except Exception as error:
            self._state = None
            if store.is_conflict(error):
                logger.warning("another sequencer was faster: %s", error)
                return 0
            raise
        return placed

    def load(self) -> None:
        """Find out where the log stands.

        Raises:
            WrongKey: the log may not be signed with these keys. LogDamaged: what is stored contradicts what was signed.
        """
        self._state = self._database.run(self._read_state)

    def place(self) -> int:
        """Give indexes to new records and move the head; returns how many."""
        state = self._loaded()
        placed = self._database.run(lambda transaction: self._place(transaction, state))
        if placed is None:
            return 0
        count = placed[0].size - state.placed.size
        state.placed, runs = placed
        state.writers.advance(runs, self._clock.now_ms())
        return count

    def sign(self) -> None:
        """Recompute the tree from what is stored, and sign the head if it is the same, and if that may be.

        Raises:
            RolledBack: an anchor holds a checkpoint that this log does not continue.
        """
        state = self._loaded()
        if state.signed.size < state.placed.size and self._may_sign():
            now_ms = self._clock.now_ms()
            state.signed, state.tiles = self._database.run(lambda transaction: self._sign(transaction, state, now_ms))
            self.signed_ms = now_ms

    # ------------------------------------------------------------------ placing

    def _place(self, transaction: Transaction, state: _State) -> tuple[Frontier, list[store.Run]] | None:
        now_ms = self._clock.now_ms()
        state.writers.discover(transaction, now_ms)
        state.writers.end_superseded(transaction, self._recorder, now_ms)
        runs = [run for run in store.runs(transaction, state.writers.following(), store.RUN_LIMIT) if self._usable(run)]
        if not runs:
            return None
        tree = state.placed.copy()
        for run in runs:
            leaves = store.place_run(transaction, run, tree.size)
            if len(leaves) != run.last - run.first + 1:
                raise LogDamaged(f"{run.writer} lost records between {run.first} and {run.last} while they were read")
            for leaf in leaves:
                tree.append(leaf_hash(leaf))
        store.insert_head(transaction, state.placed.size, store.Head(tree.size, tree.root()), now_ms)
        return tree, runs

    def _usable(self, run: store.Run) -> bool:
        if run.whole:
            return True
        if run.writer not in self.gaps:
            logger.error(
                "records of %s are missing between %d and %d: none of them gets an index",
                run.writer,
                run.first,
                run.last,
            )
        self.gaps[run.writer] = (run.first, run.last)
        return False

    # ------------------------------------------------------------------ signing

    def _sign(self, transaction: Transaction, state: _State, now_ms: int) -> tuple[Frontier, TileBuilder]:
        tree, builder = state.signed.copy(), state.tiles.copy()
        tiles: list[Tile] = []
        for node in _stored_hashes(transaction, tree.size, state.placed.size):
            tree.append(node)
            tiles += builder.append(node)
        if (tree.size, tree.root()) != (state.placed.size, state.placed.root()):
            raise LogDamaged(
                f"entries {state.signed.size} to {state.placed.size - 1} read back differ from what was ordered",
                advice="Nothing more is signed. Keep the database as it is and look for failing memory or disks",
            )
        note = sign_note(Checkpoint(self._origin, tree.size, tree.root()).text(), reversed(self._keys))
        store.insert_tiles(transaction, tiles)
        store.insert_checkpoint(transaction, store.SignedHead(tree.size, tree.root(), note, now_ms))
        return tree, builder

    # ------------------------------------------------------------------ starting

    def _loaded(self) -> _State:
        if self._state is None:
            self.load()
        if self._state is None:
            raise AssertionError("unreachable: load sets the state or raises")
        return self._state

    def _read_state(self, transaction: Transaction) -> _State:
        self._check_keys(transaction)
        signed, tiles = self._read_signed(transaction)
        head = store.head(transaction) or store.Head(0, signed.root())
        placed = signed.copy()
        for node in _stored_hashes(transaction, signed.size, head.size):
            placed.append(node)
        if (placed.size, placed.root()) != (head.size, head.root):
            raise _contradiction(f"the {head.size} entries", "the head")
        writers = Writers()
        writers.load(transaction, self._clock.now_ms())
        return _State(placed, signed, tiles, writers)

    def _read_signed(self, transaction: Transaction) -> tuple[Frontier, TileBuilder]:
        checkpoint = store.checkpoint(transaction)
        if checkpoint is None:
            return Frontier(), TileBuilder()
        self.signed_ms = checkpoint.created_ms
        nodes = store.nodes(transaction, checkpoint.size)
        origin, keys = self._signer(transaction, checkpoint)
        try:
            text, _ = open_note(checkpoint.note, keys)
            tree = frontier_of(nodes, checkpoint.size)
        except InvalidInput as error:
            raise _contradiction(f"the checkpoint of size {checkpoint.size}", f"its signature ({error})") from None
        except IndexError:
            raise _contradiction("the tiles", f"the checkpoint of size {checkpoint.size}: some are missing") from None
        if Checkpoint.parse(text) != Checkpoint(origin, tree.size, tree.root()):
            raise _contradiction(f"the first {tree.size} entries", "the signed checkpoint")
        levels = range(1 + tree.size.bit_length() // TILE_HEIGHT)
        return tree, TileBuilder(tree.size, [nodes.tail(level, tree.size) for level in levels])

    def _signer(self, transaction: Transaction, head: store.SignedHead) -> tuple[str, list[VerifierKey]]:
        """Whose signature ``head`` must have: ours or, where the log goes on under a new origin, the former one's."""
        own = [key.verifier for key in self._keys]
        for found in discontinuities(transaction):
            if found.origin == self._origin and (found.size, found.root) == (head.size, head.root):
                return found.previous, [key for key in log_keys(transaction, own[0]) if key.name == found.previous]
        return self._origin, own

    def _check_keys(self, transaction: Transaction) -> None:
        """Write down what changes in the keys of the log, if they are those that it may sign with."""
        now_ms = self._clock.now_ms()
        steps = steps_for(transaction, [key.verifier for key in self._keys])
        for event in apply_steps(transaction, steps, self._keys, now_ms):
            record = self._recorder.record(event, now_ms)
            store.insert_records(transaction, f"{_WRITER}:{record.record_id[:16]}", 0, [record], closes=True)


def _stored_hashes(transaction: Transaction, begin: int, end: int) -> list[bytes]:
    """The hashes of the leaves ``begin`` up to ``end``, read from what is stored, page by page."""
    hashes: list[bytes] = []
    for start in range(begin, end, _PAGE):
        hashes += [leaf_hash(leaf) for leaf in store.leaves(transaction, start, min(start + _PAGE, end))]
    return hashes


def _contradiction(what: str, other: str) -> LogDamaged:
    return LogDamaged(
        f"{what} contradict {other}",
        advice="Nothing more is signed. Keep the database as it is: was a backup restored, or were rows edited?",
    )
