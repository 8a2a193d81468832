"""What an export reads of the log beside its entries: every statement. Reads alone."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.bundle import MAX_GAPS, AnchoredCheckpoint, TimeStamp
from synapse_modules.audit.checkpoint import Checkpoint, split_note
from synapse_modules.audit.key_change import parse_key_note
from synapse_modules.audit.key_rotation import key_notes
from synapse_modules.audit.receipts import receipts_of
from synapse_modules.core.actions import Action
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_modules.audit.receipts import Receipt
    from synapse_modules.core.ports import Transaction

__all__ = ["anchored_checkpoints", "anchored_sizes", "checkpoint_of", "gaps", "notes_of"]

_PROVING = (AnchorKind.WITNESS, AnchorKind.TIMESTAMP)
"""Anchors whose receipts prove something to others."""

_SQL = StatementHome("audit.export", database="audit")

_GAPS = _SQL.add(
    "the first entries of an action in a range",
    "SELECT idx FROM governance_audit_entries WHERE action = ? AND idx >= ? AND idx < ? ORDER BY idx LIMIT ?",
)
_CHECKPOINT_OF = _SQL.add(
    "the checkpoint of a size", "SELECT size, root, note, created_ms FROM governance_audit_checkpoints WHERE size = ?"
)
_ANCHORED_AROUND = _SQL.add(
    "what each anchor took first from a size on, and last of all up to another",
    """
    SELECT anchor, MIN(size) FROM governance_audit_anchors WHERE kind IN (?, ?) AND size >= ? AND size <= ?
    GROUP BY anchor
    UNION
    SELECT anchor, MAX(size) FROM governance_audit_anchors WHERE kind IN (?, ?) AND size <= ? GROUP BY anchor
    """,
)


def gaps(transaction: Transaction, begin: int, end: int) -> tuple[int, ...]:
    """The first entries in a range that say that records are missing."""
    rows = _GAPS.rows(transaction, (Action.AUDIT_GAP.value, begin, end, MAX_GAPS))
    return tuple(index for (index,) in rows)


def notes_of(transaction: Transaction, origin: str) -> tuple[str, ...]:
    """The key notes of the log ``origin``, oldest first; not those from before it had to take another name."""
    return tuple(note for note in key_notes(transaction) if parse_key_note(note).origin == origin)


def checkpoint_of(transaction: Transaction, size: int) -> store.SignedHead | None:
    """The checkpoint of the tree of ``size`` leaves; None if that was not signed."""
    rows = _CHECKPOINT_OF.rows(transaction, (size,))
    return store.SignedHead(*rows[0]) if rows else None


def anchored_sizes(transaction: Transaction, end: int, size: int) -> set[int]:
    """Trees of at most ``size`` leaves that others vouch for: of each the newest, and the first with ``end`` leaves.

    That one says most narrowly when the entries before ``end`` existed.
    """
    parameters = (*_PROVING, end, size, *_PROVING, size)
    return {found for _, found in _ANCHORED_AROUND.rows(transaction, parameters)}


def anchored_checkpoints(transaction: Transaction, origin: str, sizes: Iterable[int]) -> list[AnchoredCheckpoint]:
    """The checkpoints of those ``sizes`` that others vouch for, in the name ``origin``, with what these gave."""
    found: list[AnchoredCheckpoint] = []
    for size in sizes:
        receipts = [each for each in receipts_of(transaction, size) if each.kind in _PROVING]
        by_note = itertools.groupby(sorted(receipts, key=_note_of), _note_of)
        found += [_anchored(note, list(given)) for note, given in by_note if _origin_of(note) == origin]
    return found


def _anchored(note: str, receipts: list[Receipt]) -> AnchoredCheckpoint:
    stamps = (each for each in receipts if each.kind is AnchorKind.TIMESTAMP)
    return AnchoredCheckpoint(
        checkpoint=note,
        cosignatures=tuple(each.data.decode() for each in receipts if each.kind is AnchorKind.WITNESS),
        timestamps=tuple(TimeStamp(anchor=each.anchor, token=base64.b64encode(each.data).decode()) for each in stamps),
    )


def _note_of(receipt: Receipt) -> str:
    return receipt.note


def _origin_of(note: str) -> str:
    return Checkpoint.parse(split_note(note)[0]).origin
