"""Receipts of anchors: every statement. Inserts and reads; nothing is ever changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synapse_modules.audit import store
from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.cosignature import add_signatures
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction

__all__ = [
    "Receipt",
    "cosignature_lines",
    "insert_receipt",
    "newest_anchored",
    "newest_receipt",
    "newest_receipts",
    "published_head",
    "receipts_of",
    "waiting_since",
]

_COSIGNED_LATELY_MS = 60 * 1000

_SQL = StatementHome("audit.anchors", database="audit")

_INSERT_RECEIPT = _SQL.add(
    "keep a receipt",
    """
    INSERT INTO governance_audit_anchors (anchor, size, kind, note, anchored_ms, receipt) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
    """,
)
_NEWEST_RECEIPT = _SQL.add(
    "an anchor's newest receipt",
    """
    SELECT anchor, size, kind, note, anchored_ms, receipt FROM governance_audit_anchors
    WHERE anchor = ? ORDER BY size DESC LIMIT 1
    """,
)
_ANCHORS = _SQL.add("who ever anchored", "SELECT DISTINCT anchor FROM governance_audit_anchors")
_RECEIPTS_OF = _SQL.add(
    "receipts for a checkpoint",
    """
    SELECT anchor, size, kind, note, anchored_ms, receipt FROM governance_audit_anchors
    WHERE size = ? ORDER BY anchored_ms, anchor
    """,
)
_NEWEST_ANCHORED = _SQL.add(
    "the newest checkpoint that an anchor of this kind took",
    """
    SELECT size, root, note, created_ms FROM governance_audit_checkpoints
    WHERE size = (SELECT MAX(size) FROM governance_audit_anchors WHERE kind = ?)
    """,
)
_WAITING_SINCE = _SQL.add(
    "the oldest checkpoint after a size",
    "SELECT created_ms FROM governance_audit_checkpoints WHERE size > ? ORDER BY size LIMIT 1",
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """That an anchor took a checkpoint.

    Attributes:
        anchor, kind: who. size, note: the checkpoint, as the log signed it. anchored_ms: when, by our clock.
        data: what the anchor gave for it; what that is depends on its kind.
    """

    anchor: str
    size: int
    kind: AnchorKind
    note: str
    anchored_ms: int
    data: bytes


def insert_receipt(transaction: Transaction, receipt: Receipt) -> None:
    """Keep ``receipt``; the first one that an anchor gave for a checkpoint stays."""
    values = (receipt.anchor, receipt.size, receipt.kind, receipt.note, receipt.anchored_ms, receipt.data)
    _INSERT_RECEIPT.run(transaction, values)


def newest_receipt(transaction: Transaction, anchor: str) -> Receipt | None:
    """The newest receipt of ``anchor``; None before the first."""
    rows = _NEWEST_RECEIPT.rows(transaction, (anchor,))
    return _receipt(rows[0]) if rows else None


def newest_receipts(transaction: Transaction) -> list[Receipt]:
    """The newest receipt of every anchor that there ever was, by name."""
    names = sorted(name for (name,) in _ANCHORS.rows(transaction))
    return [receipt for name in names if (receipt := newest_receipt(transaction, name)) is not None]


def receipts_of(transaction: Transaction, size: int) -> list[Receipt]:
    """All receipts for the checkpoint of ``size``, oldest first."""
    return [_receipt(row) for row in _RECEIPTS_OF.rows(transaction, (size,))]


def cosignature_lines(transaction: Transaction, size: int) -> list[str]:
    """The cosignatures on the checkpoint of ``size``, each as its line in a note."""
    receipts = receipts_of(transaction, size)
    return [receipt.data.decode() for receipt in receipts if receipt.kind is AnchorKind.WITNESS]


def newest_anchored(transaction: Transaction, kind: AnchorKind) -> store.SignedHead | None:
    """The newest checkpoint that an anchor of ``kind`` took; None when there is none."""
    rows = _NEWEST_ANCHORED.rows(transaction, (kind,))
    return store.SignedHead(*rows[0]) if rows else None


def published_head(transaction: Transaction, at_least: int = 0) -> store.SignedHead | None:
    """The checkpoint to show to the world, its cosignatures in its note: None for an empty log.

    It is the newest that a witness cosigned, as long as that has ``at_least`` so many entries and is at most a minute
    older than the newest of all; else the newest of all.
    """
    newest = store.checkpoint(transaction)
    if newest is None:
        return None
    cosigned = newest_anchored(transaction, AnchorKind.WITNESS)
    if cosigned is None or cosigned.size < at_least or newest.created_ms - cosigned.created_ms > _COSIGNED_LATELY_MS:
        return newest
    return replace(cosigned, note=add_signatures(cosigned.note, cosignature_lines(transaction, cosigned.size)))


def waiting_since(transaction: Transaction, size: int) -> int | None:
    """When the oldest checkpoint beyond ``size`` was signed, in milliseconds; None when there is none."""
    rows = _WAITING_SINCE.rows(transaction, (size,))
    return int(rows[0][0]) if rows else None


def _receipt(row: tuple[Any, ...]) -> Receipt:
    anchor, size, kind, note, anchored_ms, data = row
    return Receipt(anchor, size, AnchorKind(kind), note, anchored_ms, data)
