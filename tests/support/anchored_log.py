"""An audit log with anchors, for tests: its time is moved by hand, its anchors are real or in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.anchors.feeder import Feeder, Surroundings
from synapse_modules.audit.anchors.keeper import AnchorKeeper
from synapse_modules.audit.anchors.model import AnchorFailed, Held
from synapse_modules.audit.anchors.offer import Offer
from synapse_modules.audit.checkpoint import Checkpoint, split_note
from tests.support.audit_log import KEY, HandClock, execute, make_record, rows, sequencer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.audit.anchors.model import Anchor
    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.storage.database import Database

__all__ = ["AnchoredLog", "HandTime", "MemoryAnchor", "forget_newest", "keeper_of"]

_TABLES = {
    "governance_audit_checkpoints": "size",
    "governance_audit_heads": "size",
    "governance_audit_entries": "idx + 1",
    "governance_audit_anchors": "size",
}


class HandTime:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


@dataclass(eq=False)
class MemoryAnchor:
    """An anchor in memory.

    Attributes:
        notes: what it holds, the latest last. down: whether it fails. mute: whether it only takes and does not tell.
        genuine: whether it knows its receipts again. closed: whether it was closed.
    """

    name: str = "memory"
    kind: AnchorKind = AnchorKind.HTTP
    remembers: bool = True
    notes: list[str] = field(default_factory=list)
    down: bool = False
    mute: bool = False
    genuine: bool = True
    closed: bool = False

    def publish(self, note: str) -> bytes:
        """Keep ``note``."""
        self._check()
        self.notes.append(note)
        return f"receipt {len(self.notes)}".encode()

    def latest(self, offered: str | None = None) -> Held | None:
        """The latest note."""
        del offered
        self._check()
        if self.mute:
            raise AnchorFailed("it does not tell", where=self.name)
        if not self.notes or not self.remembers:
            return None
        return Held(Checkpoint.parse(split_note(self.notes[-1])[0]).size, self.notes[-1])

    def check_receipt(self, note: str, receipt: bytes) -> bool:
        """Whether it says so."""
        del note, receipt
        return self.genuine

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def sizes(self) -> list[int]:
        """The sizes of what it holds."""
        return [Checkpoint.parse(split_note(note)[0]).size for note in self.notes]

    def _check(self) -> None:
        if self.down:
            raise AnchorFailed("it is down", where=self.name)


class AnchoredLog:
    """An audit log that grows when told to, and one feeder for each of its anchors.

    Args:
        database: migrated. key: signs.
    """

    def __init__(self, database: Database, key: SigningKey = KEY) -> None:
        self.database = database
        self.key = key
        self.clock = HandClock()
        self.time = HandTime()
        self.may_publish = True
        self._written = store_next(database)

    def grow(self, count: int = 1) -> int:
        """Record, order and sign ``count`` more; returns the log's size."""
        records = [make_record(f"user{self._written + each}") for each in range(count)]
        first = self._written
        self.database.run(lambda transaction: store.insert_records(transaction, "main:1", first, records))
        self._written += count
        sequencer = sequencer_of(self.database, self.clock, self.key)
        while sequencer.run_cycle():
            pass
        return self.newest().size

    def newest(self) -> store.SignedHead:
        """The newest checkpoint."""
        head = self.database.run(store.checkpoint)
        assert head is not None
        return head

    def set_back(self, size: int) -> None:
        """Make the log what it was when its newest checkpoint had ``size``, as a restored backup does."""
        forget_newest(self.database, size)
        self._written = store_next(self.database)

    def feeder(self, anchor: Anchor, interval_s: float = 5.0, offer: Offer | None = None) -> Feeder:
        """A feeder, as a process that has just started has it."""
        around = Surroundings(self.database, self.key.verifier, "synapse.test", self.clock, self.time)
        return Feeder(anchor, interval_s, offer or self.offer(interval_s), around, lambda: self.may_publish)

    def offer(self, tick_s: float = 5.0) -> Offer:
        """What is offered to anchors."""
        return Offer(self.database, self.key.verifier, tick_s, self.time)

    def later(self, feeder: Feeder, seconds: float = 5.0) -> float:
        """Let time pass, and let ``feeder`` do what is due; returns when it wants to be called again."""
        self.time.seconds += seconds
        self.clock.ms += int(seconds * 1000)
        return feeder.step()


def keeper_of(log: AnchoredLog, anchors: Mapping[Anchor, float], *, real_time: bool = False) -> AnchorKeeper:
    """A keeper; with ``real_time`` by the machine's clock, for threads."""
    if real_time:
        return AnchorKeeper(log.database, log.key.verifier, anchors, server_name="synapse.test", clock=log.clock)
    return AnchorKeeper(
        log.database, log.key.verifier, anchors, server_name="synapse.test", clock=log.clock, monotonic=log.time
    )


def store_next(database: Database) -> int:
    """The next number of the writer that these logs have."""
    return database.run(lambda transaction: store.next_wseq(transaction, "main:1"))


def forget_newest(database: Database, size: int) -> None:
    """Remove everything after the checkpoint of ``size``, as an older backup would not have it."""
    (kept,) = rows(database, "SELECT COUNT(*) FROM governance_audit_checkpoints WHERE size = ?", (size,))
    assert kept == (1,), "no checkpoint of that size"
    for table, column in _TABLES.items():
        execute(database, f"DELETE FROM {table} WHERE {column} > ?", (size,))
    execute(
        database,
        "DELETE FROM governance_audit_records WHERE NOT EXISTS (SELECT 1 FROM governance_audit_entries AS entry"
        " WHERE entry.writer = governance_audit_records.writer AND entry.wseq = governance_audit_records.wseq)",
    )
    execute(database, "DELETE FROM governance_audit_tiles WHERE (n + 1) * 256 > ? AND level = 0", (size,))
    execute(database, "DELETE FROM governance_audit_tiles WHERE (n + 1) * 65536 > ? AND level = 1", (size,))
