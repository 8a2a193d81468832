"""Exports: bundles made page by page, in constant memory, off the reactor's thread.

The log only grows, and what has a checkpoint never changes: every page has a transaction of its own. Each is a function
from one state to the bytes and the next state, because a transaction may be repeated.

An export shows what is stored and mends nothing. Hashes come from the tree, not from the leaves beside them: of a log
in which somebody has edited or deleted rows it makes a bundle whose verification names the first of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.bundle import BundleWriter, Manifest
from synapse_modules.audit.checkpoint import Checkpoint, open_note, sign_note
from synapse_modules.audit.merkle import EMPTY_ROOT
from synapse_modules.audit.proof import skip_hashes
from synapse_modules.audit.receipts import published_head
from synapse_modules.audit.search import EntryFilter, read_out
from synapse_modules.core.errors import Conflict, Elsewhere, GovernanceError, InvalidInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import Literal

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.audit.tiles import TiledNodes
    from synapse_modules.core.ports import Rows, Transaction, TransactionRunner

__all__ = ["Export", "ExportOrder", "TreeDamaged", "bundle_chunks", "plan_export"]

_FIRST_ROWS = 200
_MAX_ROWS = 2_000
_PAGE_BYTES = 2 * 2**20


class TreeDamaged(GovernanceError):
    """Hashes of the tree are not there any more: nothing can be proven with it."""


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What is to be exported, for whom and why.

    Attributes:
        kind: ``range``: every entry; ``selection``: those that match ``wanted``.
        wanted: the filter, and from which index up to which; without a beginning (0), from the first entry that was
            not pruned; without an end, up to the newest checkpoint.
        requester, case_id, bundle_id, made_ms: as in :class:`~synapse_modules.audit.bundle.Manifest`.
    """

    kind: Literal["range", "selection"]
    wanted: EntryFilter
    requester: str
    case_id: str
    bundle_id: str
    made_ms: int


@dataclass(frozen=True, slots=True)
class Export:
    """An export that can be made: its manifest, the signed checkpoint, and the filter with its bounds."""

    manifest: Manifest
    checkpoint: str
    wanted: EntryFilter


async def plan_export(reader: TransactionRunner, keys: Sequence[SigningKey], order: ExportOrder) -> Export:
    """What ``order`` means for the log as it stands now.

    Args:
        reader: of the audit log's database.
        keys: what the log signs with, the newest first; their name is the log's origin.
        order: what is wanted.

    Raises:
        InvalidInput: the range is none, ends beyond the newest checkpoint or reaches into what was pruned; or a range
            has a filter.
        Elsewhere: this process has no key. Unavailable: it has not the one that signed the newest checkpoint.
    """
    if not keys:
        raise Elsewhere("this process has no key to sign an export with; the one that runs background tasks has")
    if order.kind == "range" and order.wanted.given():
        found = ", ".join(order.wanted.given())
        raise InvalidInput("kind", f"a range with {found}", "no filter, or kind 'selection'")
    size, note = await _checkpoint(reader, keys, order.wanted.end or 0)
    pruned = await reader.run("audit_pruned", store.pruned_below)
    begin, end = order.wanted.begin or pruned, size if order.wanted.end is None else order.wanted.end
    if min(begin, end) < pruned:
        raise InvalidInput(
            "begin, end", f"{order.wanted.begin} to {end}", f"a range from {pruned}: the rest was pruned"
        )
    if not begin <= end <= size:
        raise InvalidInput("begin, end", f"{begin} to {end}", f"a range of the {size} entries that have a checkpoint")
    manifest = Manifest(
        bundle_id=order.bundle_id,
        origin=keys[0].verifier.name,
        keys=tuple(str(key.verifier) for key in keys),
        tree_size=size,
        kind=order.kind,
        begin=begin,
        end=end,
        filter=order.wanted.given(),
        requester=order.requester,
        case_id=order.case_id,
        made_ms=order.made_ms,
    )
    return Export(manifest, note, replace(order.wanted, begin=begin, end=end))


async def bundle_chunks(reader: TransactionRunner, export: Export, keys: Sequence[SigningKey]) -> AsyncIterator[bytes]:
    """The bytes of the bundle, in pieces of about two MiB.

    Raises:
        TreeDamaged: a part of the tree is not there any more.
        Conflict: entries are pruned that are still to be read.
    """
    writer = BundleWriter(export.manifest)
    yield writer.begin()
    state = _State(writer, export.wanted)
    while not state.finished:
        chunk, state = await reader.run("audit_export", functools.partial(_page, export=export, state=state))
        yield chunk
    yield state.writer.end(export.checkpoint, keys)


@dataclass(frozen=True, slots=True)
class _State:
    """How far an export is.

    Attributes:
        writer: what was written. left: the filter for what is still to be read.
        position: leaves of the tree that are shown or skipped. rows: how many to read next.
        finished: whether the whole tree is.
    """

    writer: BundleWriter
    left: EntryFilter
    position: int = 0
    rows: int = _FIRST_ROWS
    finished: bool = False


def _page(transaction: Transaction, export: Export, state: _State) -> tuple[bytes, _State]:
    if store.pruned_below(transaction) > export.manifest.begin:
        raise Conflict("entries were pruned while they were exported")
    rows = read_out(transaction, state.left, state.rows)
    finished = len(rows) < state.rows
    writer = state.writer.copy()
    nodes = store.nodes(transaction, export.manifest.tree_size)
    try:
        pieces, position = _encode(writer, nodes, rows, state.position)
        if finished:
            pieces += _skip(writer, nodes, position, export.manifest.tree_size)
    except IndexError:
        raise TreeDamaged("hash tiles of the audit log are missing in its database") from None
    chunk = b"".join(pieces)
    left = replace(state.left, begin=position) if rows else state.left
    return chunk, _State(writer, left, position, _rows_for(len(rows), len(chunk)), finished)


def _encode(writer: BundleWriter, nodes: TiledNodes, rows: Rows, position: int) -> tuple[list[bytes], int]:
    """The lines of ``rows`` and of the gaps before them, and the position after them."""
    pieces: list[bytes] = []
    for index, action, leaf, disclosures in rows:
        if position < index:
            pieces += _skip(writer, nodes, position, index)
        pieces.append(writer.entry(index, action, nodes.leaf(index), leaf, disclosures))
        position = index + 1
    return pieces, position


def _skip(writer: BundleWriter, nodes: TiledNodes, begin: int, end: int) -> list[bytes]:
    return [writer.skip(begin, end, skip_hashes(nodes.node, begin, end))] if begin < end else []


def _rows_for(rows: int, size: int) -> int:
    """How many rows the next page may have, going by the present one."""
    return max(1, min(_MAX_ROWS, _PAGE_BYTES * rows // max(1, size)))


async def _checkpoint(reader: TransactionRunner, keys: Sequence[SigningKey], at_least: int) -> tuple[int, str]:
    """Size and note of a newest checkpoint, which one of ``keys`` must have signed; of an empty log a fresh one."""
    signed = await reader.run("audit_checkpoint", lambda transaction: published_head(transaction, at_least))
    if signed is None:
        return 0, sign_note(Checkpoint(keys[0].verifier.name, 0, EMPTY_ROOT).text(), keys)
    try:
        open_note(signed.note, [key.verifier for key in keys])
    except InvalidInput as error:
        raise Unavailable(f"the newest checkpoint is not signed with this process's key: {error}") from None
    return signed.size, signed.note
