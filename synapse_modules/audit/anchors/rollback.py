"""Whether a checkpoint that somebody else holds is still a prefix of the log.

It no longer is when the database was restored from a backup, when a lagging replica took over, or when somebody edited
or truncated the log. The log must then not sign: two checkpoints of one origin that contradict one another are what
every verifier is warned of.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.anchors.model import AnchorContradicts, AnchorFailed, Held
from synapse_modules.audit.checkpoint import Checkpoint, open_note
from synapse_modules.audit.discontinuity import Contradiction, discontinuities, log_keys
from synapse_modules.audit.merkle import EMPTY_ROOT
from synapse_modules.audit.proof import consistency_proof, verify_consistency
from synapse_modules.audit.receipts import newest_receipts
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synapse_modules.audit.anchors.model import Anchor
    from synapse_modules.audit.checkpoint import VerifierKey
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = [
    "ask",
    "check_anchors",
    "check_held",
    "check_receipts",
    "compare",
    "judge",
]

logger = logging.getLogger(__name__)


def check_anchors(database: Database, anchors: Iterable[Anchor], key: VerifierKey) -> Contradiction | None:
    """Compare the kept receipts, and what every anchor holds, with the log: the first contradiction, or None.

    An anchor that cannot be asked is left out, with a warning.

    Args:
        database: the audit log's.
        anchors: whom to ask.
        key: what the log signs with now.
    """
    found = check_receipts(database, key)
    newest = database.run(store.checkpoint, read_only=True)
    for anchor in anchors:
        if found is not None:
            break
        try:
            _, found = ask(database, anchor, key, None if newest is None else newest.note)
        except AnchorFailed as error:
            logger.warning("the log could not be compared with what an anchor holds: %s", error)
    return found


def check_receipts(database: Database, key: VerifierKey) -> Contradiction | None:
    """Compare the newest receipt of every anchor there ever was with the log."""
    for receipt in database.run(newest_receipts, read_only=True):
        try:
            found = check_held(database, receipt.anchor, Held(receipt.size, receipt.note), key)
        except AnchorFailed as error:
            logger.warning("a receipt in the log's database is none: %s", error)
        else:
            if found is not None:
                return found
    return None


def ask(
    database: Database, anchor: Anchor, key: VerifierKey, offered: str | None
) -> tuple[Held | None, Contradiction | None]:
    """What ``anchor`` holds, and how it contradicts the log, if it does.

    Args:
        database: the audit log's.
        anchor: whom to ask.
        key: what the log signs with.
        offered: the checkpoint that the anchor would be handed next.

    Raises:
        AnchorFailed: it cannot be asked, or what it holds is no checkpoint of this log.
    """
    try:
        held = anchor.latest(offered)
    except AnchorContradicts as refusal:
        return refusal.held, judge(database, anchor.name, refusal, key)
    return held, None if held is None else check_held(database, anchor.name, held, key)


def check_held(database: Database, anchor: str, held: Held, key: VerifierKey) -> Contradiction | None:
    """Compare what ``anchor`` is known to hold with the log. Raises as :func:`compare` does."""
    return database.run(
        lambda transaction: compare(transaction, anchor, held, log_keys(transaction, key)), read_only=True
    )


def judge(database: Database, anchor: str, refusal: AnchorContradicts, key: VerifierKey) -> Contradiction:
    """What it means that ``anchor`` refused a checkpoint as contradicting its own.

    Raises:
        AnchorFailed: nothing: it holds a larger one, which the log has reached meanwhile.
    """
    held = refusal.held
    found = None if held is None else check_held(database, anchor, held, key)
    if found is None and not refusal.compared:
        raise AnchorFailed(refusal.problem, where=anchor, advice="The log has got there meanwhile")
    # Without a checkpoint that proves it, there is the word of an anchor that the operator chose to trust.
    return found or Contradiction(anchor, 0 if held is None else held.size, refusal.problem)


def compare(transaction: Transaction, anchor: str, held: Held, keys: Sequence[VerifierKey]) -> Contradiction | None:
    """The contradiction between the log and what ``anchor`` holds, or None.

    Args:
        transaction: on the audit log's database.
        anchor: the name of who holds it.
        held: what it holds.
        keys: what the log has ever signed with, its present key first.

    Raises:
        AnchorFailed: what it holds was not signed by this log.
    """
    try:
        signed = _signed_head(transaction, keys)
    except InvalidInput as error:
        return Contradiction(anchor, held.size, f"the log's own newest checkpoint is not genuine: {error}", held.note)
    if held.note is None:
        return Contradiction(anchor, held.size, _larger(held, signed)) if held.size > signed.size else None
    outside = _checkpoint_of_this_log(anchor, held.note, keys)
    if _is_abandoned(transaction, anchor, outside, keys[0].name):
        return None
    if outside.size > signed.size:
        return Contradiction(anchor, outside.size, _larger(held, signed), held.note)
    if not _continues(transaction, outside, signed):
        problem = f"the first {outside.size} entries of the log are not those that it signed before"
        return Contradiction(anchor, outside.size, problem, held.note)
    return None


def _signed_head(transaction: Transaction, keys: Sequence[VerifierKey]) -> Checkpoint:
    """The newest checkpoint, its signature checked: of size 0 for a log without any."""
    newest = store.checkpoint(transaction)
    if newest is None:
        return Checkpoint(keys[0].name, 0, EMPTY_ROOT)
    checkpoint = Checkpoint.parse(open_note(newest.note, keys)[0])
    if (checkpoint.size, checkpoint.root) != (newest.size, newest.root):
        raise InvalidInput("checkpoint", f"one of size {checkpoint.size}", f"that of size {newest.size}")
    return checkpoint


def _checkpoint_of_this_log(anchor: str, note: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    try:
        text, signers = open_note(note, keys)
        checkpoint = Checkpoint.parse(text)
    except InvalidInput as error:
        raise AnchorFailed(f"holds something that this log did not sign: {error}", where=anchor) from None
    if checkpoint.origin not in {signer.name for signer in signers}:
        raise AnchorFailed(f"holds a checkpoint of {checkpoint.origin}, signed by another key", where=anchor)
    return checkpoint


def _is_abandoned(transaction: Transaction, anchor: str, outside: Checkpoint, origin: str) -> bool:
    """Whether ``outside`` belongs to what was given up, on the record, when the log went on under another origin."""
    if outside.origin == origin:
        return False
    for found in discontinuities(transaction):
        if found.previous == outside.origin:
            return outside.size > found.size
    raise AnchorFailed(f"holds a checkpoint of {outside.origin}, not of {origin}", where=anchor)


def _continues(transaction: Transaction, outside: Checkpoint, signed: Checkpoint) -> bool:
    if outside.size == 0:
        return outside.root == EMPTY_ROOT
    nodes = store.nodes(transaction, signed.size)
    try:
        proof = consistency_proof(nodes, outside.size, signed.size)
    except IndexError:  # a part of the tree is gone
        return False
    return verify_consistency(outside.size, outside.root, signed.size, signed.root, proof)


def _larger(held: Held, signed: Checkpoint) -> str:
    return f"it holds a checkpoint of {held.size} entries, but the log's newest has {signed.size}"
