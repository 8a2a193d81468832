"""Checks a bundle: offline, streaming, in constant memory, without Synapse. Reads each byte once and trusts none.

Neighbouring entries are checked by the hundred; where anything about them is wrong they are read once more, one by one,
so that the error names the first thing that is.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from synapse_modules.audit.attestations import Attestation, TimestampCheck, attestations
from synapse_modules.audit.bundle import (
    MAX_GAPS,
    AnchoredCheckpoint,
    Manifest,
    PartLine,
    bundle_note_text,
    part_note_text,
    read_document,
)
from synapse_modules.audit.bundle_lines import BundleInvalid, BundleLines
from synapse_modules.audit.checkpoint import Checkpoint, VerifierKey, open_note, split_note
from synapse_modules.audit.continuity import Comparison, HeldCheckpoint, held_checkpoints
from synapse_modules.audit.entry_line import action_of, lines_of, parse_entry, read_run, split_lines
from synapse_modules.audit.key_change import KnownKey
from synapse_modules.audit.known_checkpoints import KnownCheckpoints, SeenCheckpoint
from synapse_modules.audit.marked_tree import MarkedTree
from synapse_modules.core.actions import Action
from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import GovernanceError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from synapse_modules.audit.cosignature import WitnessKey
    from synapse_modules.audit.entry_line import Row
    from synapse_modules.audit.known_keys import KnownKeys

__all__ = ["BundleInvalid", "Trust", "UnsafeEmbeddedKey", "VerifiedBundle", "verify_bundle"]

_HASH = re.compile("[A-Za-z0-9+/]{43}=")
_GAP = Action.AUDIT_GAP.value.encode()
_Result = TypeVar("_Result")


class UnsafeEmbeddedKey:
    """Stands for "believe the key that the bundle brings along": proves that it is whole, not who made it."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What whoever verifies a bundle knows from elsewhere.

    Attributes:
        keys: of logs. witnesses: whose cosignatures are checked. timestamps: checks time stamps; without it none is.
        checkpoints: older checkpoints that the bundle must be compared with. seen: those that are remembered.
    """

    keys: KnownKeys | UnsafeEmbeddedKey
    witnesses: Sequence[WitnessKey] = ()
    timestamps: TimestampCheck | None = None
    checkpoints: Sequence[str] = ()
    seen: KnownCheckpoints = field(default_factory=KnownCheckpoints)


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """What was proven.

    Attributes:
        manifest: what the bundle is, signed by the log. checkpoint: the tree that its entries belong to.
        key: the key that vouches for both. note: the checkpoint as the log signed it.
        entries: how many were shown and checked. skipped: how many entries of the tree were not shown.
        counts: shown entries by action. erased: personal values that were erased from shown entries.
        comparisons: how the tree stands to the checkpoints that were held.
        attestations: what others say about it, checked or not.
        known: the keys that are trusted now: the log may have told of a new one. None where its own word was taken.
    """

    manifest: Manifest
    checkpoint: Checkpoint
    key: VerifierKey
    note: str
    entries: int
    skipped: int
    counts: dict[str, int]
    erased: int
    comparisons: tuple[Comparison, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    known: KnownKeys | None = None

    @property
    def seen(self) -> SeenCheckpoint:
        """The checkpoint, to be remembered."""
        return SeenCheckpoint(self.note, self.manifest.made_ms)


def verify_bundle(
    stream: BinaryIO,
    trust: Trust | KnownKeys | UnsafeEmbeddedKey,
    progress: Callable[[int], object] = lambda _: None,
) -> VerifiedBundle:
    """Read ``stream`` to its end and check everything in it.

    Args:
        stream: the file, open for reading bytes.
        trust: what is known from elsewhere; at least the keys.
        progress: called with the number of bytes at each reading.

    Raises:
        BundleInvalid: the first thing that is wrong.
        UnknownKey: the bundle's log is not among the known ones.
        InvalidInput: a checkpoint that is given is none of this log.
    """
    lines = BundleLines(stream, progress)
    return _Verification(lines, trust if isinstance(trust, Trust) else Trust(trust)).run()


class _Verification:
    """One pass over one bundle."""

    def __init__(self, lines: BundleLines, trust: Trust) -> None:
        self._lines = lines
        self._trust = trust
        first = lines.line("the manifest")
        self._manifest_sha256 = hashlib.sha256(first).hexdigest()
        self._manifest = self._guarded("", lambda: Manifest.from_line(first))
        self._known = self._learn()
        self._keys = self._counting_keys()
        self._held = self._hold()
        self._tree = MarkedTree([*self._manifest.marks, *(each.checkpoint.size for each in self._held)])
        self._counts: Counter[bytes] = Counter()
        self._gaps: list[int] = []
        self._shown = 0
        self._erased = 0

    def run(self) -> VerifiedBundle:
        totals = self._totals(self._entries())
        self._last_line()
        return totals

    # ------------------------------------------------------------------ before the entries

    def _learn(self) -> KnownKeys | None:
        """The keys that are known, those among them of which the bundle tells; None where its own word is taken."""
        manifest, known = self._manifest, self._trust.keys
        if isinstance(known, UnsafeEmbeddedKey):
            return None
        known.keys_of(manifest.origin, manifest.keys)
        return self._guarded("manifest.key_changes", lambda: known.learn(manifest.origin, manifest.key_changes))

    def _counting_keys(self) -> list[KnownKey]:
        """The keys whose signatures count for this bundle, the newest first."""
        manifest = self._manifest
        if self._known is None:
            key = self._guarded("manifest.keys", lambda: VerifierKey.parse(manifest.keys[0]))
            if key.name != manifest.origin:
                raise self._lines.wrong(key.name, f"a key of {manifest.origin}", "manifest.keys")
            return [KnownKey(key)]
        keys = self._known.keys_of(manifest.origin)
        counting = [each for each in keys if each.counts_for(manifest.tree_size)]
        if not counting:
            largest = max(each.until or 0 for each in keys)
            found = f"a tree of {manifest.tree_size} entries"
            raise self._lines.wrong(
                found, f"at most {largest}: the log has removed the keys that are known", "manifest"
            )
        return counting[::-1]

    def _hold(self) -> list[HeldCheckpoint]:
        """The checkpoints that the bundle is compared with."""
        origin = self._manifest.origin
        keys = self._counting_keys() if self._known is None else self._known.keys_of(origin)
        return list(held_checkpoints(origin, keys, self._trust.checkpoints, self._trust.seen.of(origin)))

    # ------------------------------------------------------------------ entries

    def _entries(self) -> bytes:
        """Read all that is shown and skipped, up to the line with the totals, and return that."""
        while True:
            block = self._lines.block("an entry, a skip or the totals")
            for found in split_lines(block):
                if isinstance(found, list):
                    self._run_of_entries(found)
                elif not self._single_line(found):
                    self._lines.go_back_after(found)
                    return found

    def _run_of_entries(self, rows: list[Row]) -> None:
        first, manifest = self._tree.size, self._manifest
        run = read_run(rows, first) if manifest.begin <= first and first + len(rows) <= manifest.end else None
        if run is None:
            for line in lines_of(rows):
                self._lines.number += 1
                self._entry(line)
            return
        self._lines.number += len(rows)
        if _GAP in run.actions:
            self._gaps += [first + number for number, action in enumerate(map(action_of, rows)) if action == _GAP]
        self._tree.extend(run.nodes)
        self._shown += len(rows)
        self._erased += run.erased
        self._counts.update(run.actions)

    def _single_line(self, line: bytes) -> bool:
        """Read a line that is none of a run of entries; False if it is none that may stand between them."""
        self._lines.number += 1
        if line.startswith(b'{"index":'):
            self._entry(line)
        elif line.startswith(b'{"hashes":'):
            self._skip(line)
        elif line.startswith(b'{"counts":'):
            self._part(line)
        else:
            return False
        return True

    def _entry(self, line: bytes) -> None:
        entry = self._guarded("", lambda: parse_entry(line))
        first, manifest = self._tree.size, self._manifest
        if entry.index != first or not manifest.begin <= first < manifest.end:
            expected = f"{first}, within {manifest.begin} to {manifest.end - 1}"
            raise self._lines.wrong(entry.index, expected, "index")
        if entry.action == _GAP:
            self._gaps.append(first)
        self._tree.extend([entry.node])
        self._shown += 1
        self._erased += entry.erased
        self._counts[entry.action] += 1

    def _skip(self, line: bytes) -> None:
        manifest = self._manifest
        match self._document(line, {"hashes", "skip"}):
            case {"skip": [int(begin), int(end)], "hashes": [*texts]}:
                pass
            case _:
                raise self._lines.wrong(line[:60], "a skip: its range and its hashes")
        if begin != self._tree.size or not begin < end <= manifest.tree_size:
            raise self._lines.wrong([begin, end], f"a range from {self._tree.size}, within the tree", "skip")
        if manifest.kind == "range" and max(begin, manifest.begin) < min(end, manifest.end):
            raise self._lines.wrong([begin, end], "no gap within a complete range", "skip")
        hashes = [self._hash(text) for text in texts]
        self._guarded("skip", lambda: self._tree.skip(end, hashes))

    def _hash(self, text: object) -> bytes:
        if isinstance(text, str) and _HASH.fullmatch(text):
            return base64.b64decode(text)
        raise self._lines.wrong(text, "a hash in base64", "hashes")

    def _part(self, line: bytes) -> None:
        part = self._guarded("", lambda: PartLine.from_line(line))
        totals = {"counts": self._by_action(), "entries": self._shown, "position": self._tree.size}
        if {"counts": part.counts, "entries": part.entries, "position": part.position} != totals:
            raise self._lines.wrong(part.counts, f"{totals}", "counts")
        digest = self._digest_before(line, part.sha256)
        expected = part_note_text(self._manifest.origin, self._manifest_sha256, digest, totals)
        self._require_note(part.signature, expected, "signature")

    # ------------------------------------------------------------------ after the entries

    def _totals(self, line: bytes) -> VerifiedBundle:
        document = self._document(line, {"anchored", "checkpoint", "counts", "entries"})
        manifest, tree = self._manifest, self._tree
        if tree.size != manifest.tree_size:
            raise self._lines.wrong(f"{tree.size} leaves", f"{manifest.tree_size}, as the manifest says")
        if document["counts"] != self._by_action() or document["entries"] != self._shown:
            raise self._lines.wrong(document["counts"], f"{self._by_action()}", "counts")
        if manifest.kind == "range" and manifest.gaps != tuple(self._gaps[:MAX_GAPS]):
            raise self._lines.wrong(manifest.gaps, f"{self._gaps[:MAX_GAPS]}", "manifest.gaps")
        checkpoint, key = self._checkpoint(str(document["checkpoint"]))
        comparisons = [self._compare(each) for each in self._held]
        return VerifiedBundle(
            manifest, checkpoint, key, str(document["checkpoint"]), self._shown, tree.size - self._shown,
            self._by_action(), self._erased, tuple(comparisons), tuple(self._attestations(document["anchored"])),
            self._known,
        )  # fmt: skip

    def _checkpoint(self, note: str) -> tuple[Checkpoint, VerifierKey]:
        """The checkpoint in ``note``, which must be that of the whole tree, and whose key vouches for it."""
        text, signers = self._guarded("checkpoint", lambda: open_note(note, [each.key for each in self._keys]))
        checkpoint = self._guarded("checkpoint", lambda: Checkpoint.parse(text))
        manifest = self._manifest
        if (checkpoint.origin, checkpoint.size) != (manifest.origin, manifest.tree_size):
            found = f"{checkpoint.origin}, size {checkpoint.size}"
            raise self._lines.wrong(found, f"{manifest.origin}, size {manifest.tree_size}", "checkpoint")
        if checkpoint.root != self._tree.root():
            found = f"entries and skips with the root {self._tree.root().hex()}"
            raise self._lines.wrong(found, f"the root {checkpoint.root.hex()}, which the log signed", "checkpoint")
        return checkpoint, signers[0]

    def _compare(self, held: HeldCheckpoint) -> Comparison:
        return self._guarded("checkpoint", lambda: held.compare(self._manifest, self._tree.root_at))

    def _attestations(self, documents: object) -> list[Attestation]:
        if not isinstance(documents, list):
            raise self._lines.wrong(documents, "a list", "anchored")
        checked = [self._guarded("anchored", partial(self._anchored, document)) for document in documents]
        return [each for of_one in checked for each in of_one]

    def _anchored(self, document: object) -> list[Attestation]:
        anchored = parse_document(AnchoredCheckpoint, document, "anchored")
        checkpoint = Checkpoint.parse(split_note(anchored.checkpoint)[0])
        root = self._tree.root_at(checkpoint.size)
        if checkpoint.origin != self._manifest.origin or root != checkpoint.root:
            raise InvalidInput(
                "anchored", checkpoint.text(), "a checkpoint that this tree continues, at one of its marks"
            )
        return list(attestations(anchored, checkpoint.size, self._trust.witnesses, self._trust.timestamps))

    def _last_line(self) -> None:
        line = self._lines.line("the signature")
        document = self._document(line, {"sha256", "signature"})
        digest = self._digest_before(line, document["sha256"])
        self._require_note(str(document["signature"]), bundle_note_text(self._manifest.origin, digest), "signature")
        if not self._lines.at_end():
            self._lines.number += 1
            raise self._lines.wrong("something", "the end of the file")

    # ------------------------------------------------------------------ pieces

    def _digest_before(self, line: bytes, claimed: object) -> str:
        digest = self._lines.digest_before(line)
        if claimed != digest:
            raise self._lines.wrong(claimed, f"{digest}: something before was altered", "sha256")
        return digest

    def _require_note(self, note: str, expected: str, part: str) -> None:
        text, _ = self._guarded(part, lambda: open_note(note, [each.key for each in self._keys]))
        if text != expected:
            raise self._lines.wrong(text, "a signature over what stands before it", part)

    def _by_action(self) -> dict[str, int]:
        return {action.decode(): count for action, count in self._counts.items()}

    def _document(self, line: bytes, keys: set[str]) -> dict[str, Any]:
        return self._guarded("", lambda: read_document(line, keys))

    def _guarded(self, part: str, check: Callable[[], _Result]) -> _Result:
        """``check()``, whose error gets the number of the present line."""
        try:
            return check()
        except BundleInvalid:
            raise
        except InvalidInput as error:
            raise self._lines.wrong(error.found, error.expected, error.where or part) from None
        except (ValueError, GovernanceError) as error:
            raise self._lines.wrong(str(error), "something right", part) from None
