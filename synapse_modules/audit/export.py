"""Exports: bundles made page by page, in constant memory, off the reactor's thread.

The log only grows, and what has a checkpoint never changes: every page has a transaction of its own. Each is a function
from one state to the bytes and the next state, because a transaction may be repeated.

An export shows what is stored and mends nothing. Hashes come from the tree, not from the leaves beside them: of a log
in which somebody has edited or deleted rows it makes a bundle whose verification names the first of them.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synapse_modules.audit import store
from synapse_modules.audit.bundle import BundleWriter, Manifest, PartLine, part_note_text
from synapse_modules.audit.checkpoint import Checkpoint, open_note, sign_note
from synapse_modules.audit.export_store import anchored_checkpoints, anchored_sizes, checkpoint_of, gaps, notes_of
from synapse_modules.audit.merkle import EMPTY_ROOT
from synapse_modules.audit.proof import skip_hashes
from synapse_modules.audit.search import EntryFilter, read_out
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import Conflict, Elsewhere, GovernanceError, InvalidInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import Literal

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.audit.tiles import TiledNodes
    from synapse_modules.core.ports import Rows, Transaction, TransactionRunner

__all__ = ["Export", "ExportOrder", "TreeDamaged", "bundle_chunks", "plan_export", "plan_resumption"]

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
        wanted: the filter, and from which index up to which; without a beginning, or with 0, from the first that was
            not pruned; without an end, up to the newest checkpoint.
        requester, case_id, bundle_id, made_ms: as in :class:`~synapse_modules.audit.bundle.Manifest`.
        marks: sizes that the tree had before, with whose checkpoints the bundle is to be compared. Those that it never
            had are left aside.
    """

    kind: Literal["range", "selection"]
    wanted: EntryFilter
    requester: str
    case_id: str
    bundle_id: str
    made_ms: int
    marks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """An export that can be made.

    Attributes:
        manifest: of the bundle. checkpoint: the signed one of its tree.
        wanted: the filter, with the bounds of what is still to be read.
        resumed: the part line after which it goes on; None for one from the beginning.
    """

    manifest: Manifest
    checkpoint: str
    wanted: EntryFilter
    resumed: bytes | None = None


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
    _require_keys(keys)
    if order.kind == "range" and order.wanted.given():
        found = ", ".join(order.wanted.given())
        raise InvalidInput("kind", f"a range with {found}", "no filter, or kind 'selection'")
    return await reader.run("audit_export_plan", functools.partial(_plan, keys=keys, order=order))


async def plan_resumption(
    reader: TransactionRunner, keys: Sequence[SigningKey], requester: str, manifest_line: bytes, part_line: bytes
) -> Export:
    """How an export that was interrupted goes on.

    Args:
        reader: of the audit log's database.
        keys: what the log signs with, the newest first.
        requester: who asks; must be who began it.
        manifest_line: the bundle's first line.
        part_line: its last part line. Everything after that is sent again.

    Raises:
        InvalidInput: this log has not made those lines for this requester, or the tree has no checkpoint any more.
        Elsewhere: this process has no key.
    """
    _require_keys(keys)
    manifest, part = Manifest.from_line(manifest_line), PartLine.from_line(part_line)
    totals = {"counts": part.counts, "entries": part.entries, "position": part.position}
    manifest_sha256 = hashlib.sha256(manifest_line).hexdigest()
    text, _ = open_note(part.signature, [key.verifier for key in keys])
    if text != part_note_text(manifest.origin, manifest_sha256, part.sha256, totals):
        raise InvalidInput("part", part.signature, "the signature over this part of this bundle")
    if manifest.requester != requester:
        raise InvalidInput("manifest", requester, f"{manifest.requester}, who began this export")
    note = await reader.run("audit_checkpoint", functools.partial(_checkpoint_of, keys=keys, size=manifest.tree_size))
    begin = min(max(manifest.begin, part.position), manifest.end)
    return Export(manifest, note, _filter(manifest, begin), part_line)


async def bundle_chunks(reader: TransactionRunner, export: Export, keys: Sequence[SigningKey]) -> AsyncIterator[bytes]:
    """The bytes of the bundle, in pieces of about two MiB.

    Raises:
        TreeDamaged: a part of the tree is not there any more.
        Conflict: entries are pruned that are still to be read.
    """
    manifest = export.manifest
    if export.resumed is None:
        writer = BundleWriter(manifest)
        yield writer.begin()
    else:
        writer = BundleWriter.after(manifest, export.resumed)
    state = _State(writer, export.wanted, _FIRST_ROWS)
    while not state.finished:
        chunk, state = await reader.run("audit_export", functools.partial(_page, export=export, state=state, keys=keys))
        yield chunk
    sizes = (*manifest.marks, manifest.tree_size)
    anchored = await reader.run(
        "audit_export_anchored", functools.partial(anchored_checkpoints, origin=manifest.origin, sizes=sizes)
    )
    yield state.writer.end(export.checkpoint, keys, anchored)


# ----------------------------------------------------------------------------------------------------------- planning


def _require_keys(keys: Sequence[SigningKey]) -> None:
    if not keys:
        raise Elsewhere("this process has no key to sign an export with; the one that runs background tasks has")


def _plan(transaction: Transaction, keys: Sequence[SigningKey], order: ExportOrder) -> Export:
    size, note = _newest_checkpoint(transaction, keys)
    begin, end = _bounds(order.wanted, size, store.pruned_below(transaction))
    marks = {*order.marks, *anchored_sizes(transaction, end, size)}
    manifest = Manifest(
        bundle_id=order.bundle_id,
        origin=keys[0].verifier.name,
        keys=tuple(str(key.verifier) for key in keys),
        key_changes=notes_of(transaction, keys[0].verifier.name),
        tree_size=size,
        marks=tuple(sorted(mark for mark in marks if 0 < mark < size)),
        kind=order.kind,
        begin=begin,
        end=end,
        filter=order.wanted.given(),
        gaps=gaps(transaction, begin, end),
        requester=order.requester,
        case_id=order.case_id,
        made_ms=order.made_ms,
    )
    return Export(manifest, note, replace(order.wanted, begin=begin, end=end))


def _bounds(wanted: EntryFilter, size: int, pruned: int) -> tuple[int, int]:
    """From which index up to which, of a log of ``size`` entries that was pruned below an index."""
    begin, end = wanted.begin or pruned, size if wanted.end is None else wanted.end
    if min(begin, end) < pruned:
        raise InvalidInput("begin, end", f"{wanted.begin} to {end}", f"a range from {pruned}: the rest was pruned")
    if not begin <= end <= size:
        raise InvalidInput("begin, end", f"{begin} to {end}", f"a range of the {size} entries that have a checkpoint")
    return begin, end


def _newest_checkpoint(transaction: Transaction, keys: Sequence[SigningKey]) -> tuple[int, str]:
    """Size and note of the newest checkpoint, which one of ``keys`` must have signed; of an empty log a fresh one."""
    signed = store.checkpoint(transaction)
    if signed is None:
        return 0, sign_note(Checkpoint(keys[0].verifier.name, 0, EMPTY_ROOT).text(), keys)
    try:
        open_note(signed.note, [key.verifier for key in keys])
    except InvalidInput as error:
        raise Unavailable(f"the newest checkpoint is not signed with this process's key: {error}") from None
    return signed.size, signed.note


def _checkpoint_of(transaction: Transaction, keys: Sequence[SigningKey], size: int) -> str:
    if size == 0:
        return sign_note(Checkpoint(keys[0].verifier.name, 0, EMPTY_ROOT).text(), keys)
    signed = checkpoint_of(transaction, size)
    if signed is None:
        raise InvalidInput("manifest", f"a tree of {size} entries", "one that has a checkpoint")
    return signed.note


def _filter(manifest: Manifest, begin: int) -> EntryFilter:
    """The filter in ``manifest``, which the log has signed."""
    kinds: dict[str, Callable[[Any], Any]] = {"action": Action, "outcome": Outcome}
    given: dict[str, Any] = {name: kinds.get(name, _same)(value) for name, value in manifest.filter.items()}
    return EntryFilter(**given, begin=begin, end=manifest.end)


def _same(value: Any) -> Any:
    return value


# -------------------------------------------------------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class _State:
    """How far an export is.

    Attributes:
        writer: what was written. left: the filter for what is still to be read.
        rows: how many to read next. finished: whether the whole tree is shown or skipped.
    """

    writer: BundleWriter
    left: EntryFilter
    rows: int
    finished: bool = False


def _page(transaction: Transaction, export: Export, state: _State, keys: Sequence[SigningKey]) -> tuple[bytes, _State]:
    if store.pruned_below(transaction) > export.manifest.begin:
        raise Conflict("entries were pruned while they were exported")
    rows = read_out(transaction, state.left, state.rows)
    finished = len(rows) < state.rows
    writer = state.writer.copy()
    nodes = store.nodes(transaction, export.manifest.tree_size)
    try:
        pieces = _encode(writer, nodes, rows, export.manifest.marks)
        if finished:
            pieces += _skips(writer, nodes, export.manifest.tree_size, export.manifest.marks)
    except IndexError:
        raise TreeDamaged("hash tiles of the audit log are missing in its database") from None
    if not finished:
        pieces.append(writer.part(keys))
    chunk = b"".join(pieces)
    left = replace(state.left, begin=writer.position) if rows else state.left
    return chunk, _State(writer, left, _rows_for(len(rows), len(chunk)), finished)


def _encode(writer: BundleWriter, nodes: TiledNodes, rows: Rows, marks: Sequence[int]) -> list[bytes]:
    """The lines of ``rows`` and of the gaps before them."""
    pieces: list[bytes] = []
    for index, action, leaf, disclosures in rows:
        if writer.position < index:
            pieces += _skips(writer, nodes, index, marks)
        pieces.append(writer.entry(index, action, nodes.leaf(index), leaf, disclosures))
    return pieces


def _skips(writer: BundleWriter, nodes: TiledNodes, end: int, marks: Sequence[int]) -> list[bytes]:
    """The lines for what is skipped up to ``end``; none goes across one of the ``marks``."""
    cuts = [mark for mark in marks if writer.position < mark < end]
    pieces: list[bytes] = []
    for cut in [*cuts, end]:
        begin = writer.position
        if begin < cut:
            pieces.append(writer.skip(begin, cut, skip_hashes(nodes.node, begin, cut)))
    return pieces


def _rows_for(rows: int, size: int) -> int:
    """How many rows the next page may have, going by the present one."""
    return max(1, min(_MAX_ROWS, _PAGE_BYTES * rows // max(1, size)))
