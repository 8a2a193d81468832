"""Checks a bundle: offline, streaming, in constant memory, without Synapse. Reads each byte once and trusts none."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from synapse_modules.audit.bundle import MAX_LINE_BYTES, Manifest, bundle_note_text
from synapse_modules.audit.checkpoint import Checkpoint, VerifierKey, open_note
from synapse_modules.audit.merkle import Frontier, leaf_hash
from synapse_modules.audit.proof import append_skip
from synapse_modules.audit.record import LEAF_VERSION, check_disclosures
from synapse_modules.core.canonical import canonical_bytes
from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import GovernanceError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from synapse_modules.audit.known_keys import KnownKeys

__all__ = ["BundleInvalid", "UnsafeEmbeddedKey", "VerifiedBundle", "verify_bundle"]

_ENTRY = re.compile(r'\{"index":(0|[1-9][0-9]{0,18}),"hash":"([A-Za-z0-9+/]{43}=)","leaf":')
_DISCLOSURES = ',"disclosures":'
_Result = TypeVar("_Result")
_decode_json = json.JSONDecoder().raw_decode


class BundleInvalid(InvalidInput):
    """The bundle is not whole and genuine: ``where`` names the line, and this is the first thing wrong with it."""


class UnsafeEmbeddedKey:
    """Stands for "believe the key that the bundle brings along": proves that it is whole, not who made it."""


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """What was proven.

    Attributes:
        manifest: what the bundle is, signed by the log. checkpoint: the tree that its entries belong to.
        key: the key that vouches for both.
        entries: how many were shown and checked. skipped: how many entries of the tree were not shown.
        counts: shown entries by action. erased: personal values that were erased from shown entries.
    """

    manifest: Manifest
    checkpoint: Checkpoint
    key: VerifierKey
    entries: int
    skipped: int
    counts: dict[str, int]
    erased: int


def verify_bundle(
    stream: BinaryIO, trust: KnownKeys | UnsafeEmbeddedKey, progress: Callable[[int], object] = lambda _: None
) -> VerifiedBundle:
    """Read ``stream`` to its end and check everything in it.

    Args:
        stream: the file, open for reading bytes.
        trust: the keys that are known.
        progress: called with the number of bytes read, line by line.

    Raises:
        BundleInvalid: the first thing that is wrong.
        UnknownKey: the bundle's log is not among the known ones.
    """
    return _Verification(_Lines(stream, progress), trust).run()


class _Lines:
    """The lines of a file, each once, hashed as they are consumed."""

    def __init__(self, stream: BinaryIO, progress: Callable[[int], object]) -> None:
        self._stream = stream
        self._progress = progress
        self.number = 0
        self.digest = hashlib.sha256()

    def next(self, expected: str) -> bytes:
        """The next line without its newline; :attr:`digest` does not cover it yet."""
        self.number += 1
        line = self._stream.readline(MAX_LINE_BYTES)
        if not line:
            raise self.wrong("the end of the file", expected)
        if not line.endswith(b"\n"):
            raise self.wrong("a line that is cut off or too long", expected)
        self._progress(len(line))
        return line

    def wrong(self, found: object, expected: str, part: str = "") -> BundleInvalid:
        """The error that the present line deserves."""
        return BundleInvalid(f"line {self.number}{part and ', '}{part}", found, expected)


class _Verification:
    """One pass over one bundle."""

    def __init__(self, lines: _Lines, trust: KnownKeys | UnsafeEmbeddedKey) -> None:
        self._lines = lines
        self._trust = trust
        self._tree = Frontier()
        self._counts: dict[str, int] = {}
        self._shown = 0
        self._erased = 0

    def run(self) -> VerifiedBundle:
        manifest = self._manifest()
        key = self._key(manifest)
        checkpoint = self._entries(manifest, key)
        self._last_line(manifest, key)
        return VerifiedBundle(
            manifest, checkpoint, key, self._shown, checkpoint.size - self._shown, self._counts, self._erased
        )

    def _manifest(self) -> Manifest:
        document = self._document(self._lines.next("the manifest"), {"manifest"})
        manifest = self._guarded("manifest", lambda: parse_document(Manifest, document["manifest"], "manifest"))
        if not manifest.begin <= manifest.end <= manifest.tree_size:
            found = f"begin {manifest.begin}, end {manifest.end}, tree_size {manifest.tree_size}"
            raise self._lines.wrong(found, "begin <= end <= tree_size", "manifest")
        return manifest

    def _key(self, manifest: Manifest) -> VerifierKey:
        if not isinstance(self._trust, UnsafeEmbeddedKey):
            return self._trust.key_of(manifest.origin, manifest.keys)
        key = self._guarded("manifest.keys", lambda: VerifierKey.parse(manifest.keys[0]))
        if key.name != manifest.origin:
            raise self._lines.wrong(key.name, f"a key of {manifest.origin}", "manifest.keys")
        return key

    def _entries(self, manifest: Manifest, key: VerifierKey) -> Checkpoint:
        """Read entries and skips up to the totals, and check those."""
        while True:
            line = self._lines.next("an entry, a skip or the totals")
            if line.startswith(b'{"index":'):
                self._entry(line, manifest)
            elif line.startswith(b'{"hashes":'):
                self._skip(line, manifest)
            else:
                return self._totals(line, manifest, key)

    def _entry(self, line: bytes, manifest: Manifest) -> None:
        index, node, leaf_text, leaf, disclosures = self._parts(line)
        if index != self._tree.size or not manifest.begin <= index < manifest.end:
            last = manifest.end - 1
            raise self._lines.wrong(index, f"{self._tree.size}, within {manifest.begin} to {last}", "index")
        computed = leaf_hash(leaf_text.encode())
        if base64.b64encode(computed).decode() != node:
            raise self._lines.wrong(node, f"{base64.b64encode(computed).decode()}: the leaf was altered", "hash")
        if leaf.get("v") != LEAF_VERSION or not isinstance(leaf.get("action"), str):
            raise self._lines.wrong(leaf.get("v"), f"a leaf of version {LEAF_VERSION} with an action", "leaf")
        self._guarded("", lambda: check_disclosures(leaf, disclosures))
        self._tree.append(computed)
        self._shown += 1
        self._erased += len(leaf.get("personal", ())) - len(disclosures)
        self._counts[leaf["action"]] = self._counts.get(leaf["action"], 0) + 1

    def _parts(self, line: bytes) -> tuple[int, str, str, dict[str, Any], dict[str, Any]]:
        try:
            text = line.decode()
            start = _ENTRY.match(text)
            if start is not None:
                leaf, leaf_end = _decode_json(text, start.end())
                if text.startswith(_DISCLOSURES, leaf_end):
                    disclosures, end = _decode_json(text, leaf_end + len(_DISCLOSURES))
                    if text[end:] == "}\n" and isinstance(leaf, dict) and isinstance(disclosures, dict):
                        self._lines.digest.update(line)
                        return int(start[1]), start[2], text[start.end() : leaf_end], leaf, disclosures
        except (ValueError, RecursionError):
            pass
        raise self._lines.wrong(line[:60], "an entry: index, hash, leaf and disclosures")

    def _skip(self, line: bytes, manifest: Manifest) -> None:
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
        self._guarded("skip", lambda: append_skip(self._tree, end, hashes))

    def _hash(self, text: object) -> bytes:
        if isinstance(text, str) and re.fullmatch("[A-Za-z0-9+/]{43}=", text):
            return base64.b64decode(text)
        raise self._lines.wrong(text, "a hash in base64", "hashes")

    def _totals(self, line: bytes, manifest: Manifest, key: VerifierKey) -> Checkpoint:
        document = self._document(line, {"checkpoint", "counts", "entries"})
        if self._tree.size != manifest.tree_size:
            raise self._lines.wrong(f"{self._tree.size} leaves", f"{manifest.tree_size}, as the manifest says")
        if document["counts"] != self._counts or document["entries"] != self._shown:
            raise self._lines.wrong(document["counts"], f"{self._counts}", "counts")
        text, _ = self._guarded("checkpoint", lambda: open_note(str(document["checkpoint"]), [key]))
        checkpoint = self._guarded("checkpoint", lambda: Checkpoint.parse(text))
        if (checkpoint.origin, checkpoint.size) != (manifest.origin, manifest.tree_size):
            found = f"{checkpoint.origin}, size {checkpoint.size}"
            raise self._lines.wrong(found, f"{manifest.origin}, size {manifest.tree_size}", "checkpoint")
        if checkpoint.root != self._tree.root():
            found = f"entries and skips with the root {self._tree.root().hex()}"
            raise self._lines.wrong(found, f"the root {checkpoint.root.hex()}, which the log signed", "checkpoint")
        return checkpoint

    def _last_line(self, manifest: Manifest, key: VerifierKey) -> None:
        digest = self._lines.digest.hexdigest()
        document = self._document(self._lines.next("the signature"), {"sha256", "signature"})
        if document["sha256"] != digest:
            raise self._lines.wrong(document["sha256"], f"{digest}: something before was altered", "sha256")
        text, _ = self._guarded("signature", lambda: open_note(str(document["signature"]), [key]))
        if text != bundle_note_text(manifest.origin, digest):
            raise self._lines.wrong(text, "a signature over this bundle's hash", "signature")
        self._require_end()

    def _require_end(self) -> None:
        try:
            rest = self._lines.next("nothing")
        except BundleInvalid as end:
            if end.found == "the end of the file":
                return
            raise
        raise self._lines.wrong(rest[:60], "the end of the file")

    def _document(self, line: bytes, keys: set[str]) -> dict[str, Any]:
        """The JSON object on ``line``, which must be canonical and have exactly ``keys``."""
        expected = f"an object of {', '.join(sorted(keys))}, as canonical JSON"
        try:
            document = json.loads(line)
            if not isinstance(document, dict) or set(document) != keys or canonical_bytes(document) + b"\n" != line:
                raise self._lines.wrong(line[:60], expected)
        except (ValueError, RecursionError) as error:
            if isinstance(error, BundleInvalid):
                raise
            raise self._lines.wrong(line[:60], expected) from None
        self._lines.digest.update(line)
        return document

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
