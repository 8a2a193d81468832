"""The file that an export makes: JSON lines, each byte of it covered. docs/audit-bundle.md describes it for others.

1. ``{"manifest": …}``: what the file claims to be.
2. For each entry ``{"index":…,"hash":…,"leaf":…,"disclosures":…}``, in this order and without spaces. ``leaf`` stands
   there byte for byte as the tree hashes it; ``hash`` is the hash that the tree has for it, in base64. Between entries,
   and before the first and after the last, ``{"hashes":[…],"skip":[begin,end]}`` stands for the leaves that are not
   shown. Entries and skips together rebuild the whole tree, so its root proves every entry, its place, and that nothing
   else lies between.
3. Now and then ``{"counts":…,"entries":…,"position":…,"sha256":…,"signature":…}``, a *part line*: totals so far, and
   the hash of all bytes since the part line before, itself included, signed by the log. From there an export that was
   interrupted goes on.
4. ``{"anchored":[…],"checkpoint":…,"counts":{action: n},"entries":n}``: the signed checkpoint of the tree, totals, and
   older checkpoints of it that somebody else vouches for.
5. ``{"sha256":…,"signature":…}``: as in a part line, signed as the end of the bundle, so that neither the manifest nor
   what a selection contains can be changed by somebody else.

A *range* shows every entry from ``begin`` up to, not including, ``end``. A *selection* shows those that match its
filter: that each is genuine is proven, that none is left out is the log's signed word.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

import pydantic

from synapse_modules.audit.checkpoint import sign_note
from synapse_modules.audit.entry_line import entry_line
from synapse_modules.core.canonical import canonical_bytes, canonical_text
from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synapse_modules.audit.checkpoint import SigningKey

__all__ = [
    "FORMAT",
    "MAX_GAPS",
    "MAX_LINE_BYTES",
    "AnchoredCheckpoint",
    "BundleWriter",
    "Manifest",
    "PartLine",
    "TimeStamp",
    "bundle_note_text",
    "part_note_text",
    "read_document",
]

FORMAT: Final = "synapse-governance-audit/1"
MAX_LINE_BYTES: Final = 2**20
"""No line of a bundle is longer; a leaf is far shorter."""
MAX_GAPS: Final = 1_000
"""A manifest names no more gaps than that."""
_MAX_MARKS: Final = 256


class Manifest(FrozenModel):
    """What a bundle claims to be.

    Attributes:
        format: the format's name and version. bundle_id: 32 hexadecimal digits; the export's own record names them.
        origin: the log. keys: the log's verifier keys, the newest first; to be trusted only when known from elsewhere.
        key_changes: how the log came by them, oldest first: see :mod:`synapse_modules.audit.key_change`.
        tree_size: leaves of the tree whose checkpoint is enclosed.
        marks: sizes that the tree had before, ascending, at which nothing that is skipped straddles: the roots of those
            trees can be computed, and compared with checkpoints from then.
        kind: ``range`` or ``selection``. begin, end: the indexes that it covers, without ``end``.
        filter: what the entries of a selection have in common; empty for a range.
        gaps: indexes within, whether shown or not, at which the log itself says that records are missing: the first
            thousand entries ``audit.gap``.
        requester: who exported. case_id: why. made_ms: when, milliseconds since the epoch.
    """

    format: Literal["synapse-governance-audit/1"] = FORMAT
    bundle_id: str
    origin: str
    keys: tuple[str, ...] = pydantic.Field(min_length=1)
    key_changes: tuple[str, ...] = ()
    tree_size: int = pydantic.Field(ge=0)
    marks: tuple[int, ...] = pydantic.Field(default=(), max_length=_MAX_MARKS)
    kind: Literal["range", "selection"]
    begin: int = pydantic.Field(ge=0)
    end: int = pydantic.Field(ge=0)
    filter: dict[str, str | int]
    gaps: tuple[int, ...] = pydantic.Field(default=(), max_length=MAX_GAPS)
    requester: str
    case_id: str
    made_ms: int

    def to_line(self) -> bytes:
        """The first line of the bundle."""
        return _line({"manifest": self.model_dump(mode="json")})

    @classmethod
    def from_line(cls, line: bytes) -> Manifest:
        """The manifest on the first line of a bundle.

        Raises:
            InvalidInput: it is none, or says what cannot be true.
        """
        manifest = parse_document(cls, read_document(line, {"manifest"})["manifest"], "manifest")
        if not manifest.begin <= manifest.end <= manifest.tree_size:
            found = f"begin {manifest.begin}, end {manifest.end}, tree_size {manifest.tree_size}"
            raise InvalidInput("manifest", found, "begin <= end <= tree_size")
        for name, sizes, most in (("marks", manifest.marks, manifest.tree_size), ("gaps", manifest.gaps, manifest.end)):
            if list(sizes) != sorted({size for size in sizes if 0 <= size < most}):
                raise InvalidInput(f"manifest.{name}", sizes, f"ascending numbers below {most}")
        return manifest


class TimeStamp(FrozenModel):
    """What a time stamping authority said: ``anchor`` is the operator's name for it, ``token`` its answer in base64."""

    anchor: str
    token: str


class AnchoredCheckpoint(FrozenModel):
    """A checkpoint of the tree, of any size up to its own, that others vouch for.

    Attributes:
        checkpoint: the note as the log signed it. cosignatures: lines of witnesses, to stand below it.
        timestamps: over that note.
    """

    checkpoint: str
    cosignatures: tuple[str, ...] = ()
    timestamps: tuple[TimeStamp, ...] = ()


class PartLine(FrozenModel):
    """Where an export can go on.

    Attributes:
        counts, entries: what was shown so far, by action and in all. position: leaves that were shown or skipped.
        sha256: of all bytes since the part line before. signature: over :func:`part_note_text`.
    """

    counts: dict[str, int]
    entries: int
    position: int
    sha256: str
    signature: str

    @classmethod
    def from_line(cls, line: bytes) -> PartLine:
        """Read a part line.

        Raises:
            InvalidInput: it is none.
        """
        return parse_document(cls, read_document(line, set(cls.model_fields)), "")


class BundleWriter:
    """Makes a bundle piece by piece. Call :meth:`begin`, then :meth:`entry` and :meth:`skip` in the order of their
    indexes, :meth:`part` wherever you like, then :meth:`end`; each returns the bytes to write.

    Attributes:
        position: leaves that were shown or skipped.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.position = 0
        self._manifest = manifest
        self._manifest_sha256 = hashlib.sha256(manifest.to_line()).hexdigest()
        self._digest = hashlib.sha256()
        self._counts: Counter[str] = Counter()

    @classmethod
    def after(cls, manifest: Manifest, part: bytes) -> BundleWriter:
        """One that goes on after the part line ``part``, whose signature was checked."""
        read = PartLine.from_line(part)
        writer = cls(manifest)
        writer.position = read.position
        writer._digest = hashlib.sha256(part)
        writer._counts = Counter(read.counts)
        return writer

    def copy(self) -> BundleWriter:
        """Another one, the same so far."""
        other = BundleWriter(self._manifest)
        other.position = self.position
        other._digest = self._digest.copy()
        other._counts = self._counts.copy()
        return other

    def begin(self) -> bytes:
        """The manifest."""
        return self._covered(self._manifest.to_line())

    def entry(self, index: int, action: str, node: bytes, leaf: bytes, disclosures: str) -> bytes:
        """One entry, whose leaf says ``action``, and for which the tree has the hash ``node``."""
        self._counts[action] += 1
        self.position = index + 1
        return self._covered(entry_line(index, node, leaf, disclosures.encode()))

    def skip(self, begin: int, end: int, hashes: Iterable[bytes]) -> bytes:
        """The leaves ``begin`` up to, not including, ``end``, by the hashes of the subtrees that cover them."""
        self.position = end
        encoded = [base64.b64encode(node).decode("ascii") for node in hashes]
        return self._covered(_line({"skip": [begin, end], "hashes": encoded}))

    def part(self, keys: Sequence[SigningKey]) -> bytes:
        """A part line."""
        totals = {**self._totals(), "position": self.position}
        digest = self._digest.hexdigest()
        text = part_note_text(self._manifest.origin, self._manifest_sha256, digest, totals)
        line = _line({**totals, "sha256": digest, "signature": sign_note(text, keys)})
        self._digest = hashlib.sha256(line)
        return line

    def end(self, checkpoint: str, keys: Sequence[SigningKey], anchored: Iterable[AnchoredCheckpoint] = ()) -> bytes:
        """The totals, the checkpoint of the tree, and the signature over everything."""
        shown = [each.model_dump(mode="json") for each in anchored]
        line = self._covered(_line({**self._totals(), "anchored": shown, "checkpoint": checkpoint}))
        digest = self._digest.hexdigest()
        note = sign_note(bundle_note_text(self._manifest.origin, digest), keys)
        return line + _line({"sha256": digest, "signature": note})

    def _totals(self) -> dict[str, Any]:
        return {"entries": self._counts.total(), "counts": dict(self._counts)}

    def _covered(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data


def bundle_note_text(origin: str, digest: str) -> str:
    """What the log signs for a bundle. No origin has a space: it can never be taken for a checkpoint."""
    return f"{FORMAT} bundle\n{origin}\n{digest}\n"


def part_note_text(origin: str, manifest_sha256: str, digest: str, totals: Mapping[str, Any]) -> str:
    """What the log signs in a part line, whose ``totals`` are its counts, entries and position."""
    return f"{FORMAT} part\n{origin}\n{manifest_sha256}\n{digest}\n{canonical_text(totals)}\n"


def read_document(line: bytes, keys: set[str]) -> dict[str, Any]:
    """The JSON object on ``line``, which must be canonical and have exactly ``keys``.

    Raises:
        InvalidInput: it is something else.
    """
    try:
        document = json.loads(line)
        if isinstance(document, dict) and set(document) == keys and canonical_bytes(document) + b"\n" == line:
            return document
    except (ValueError, RecursionError):
        pass
    raise InvalidInput("", line[:60], f"an object of {', '.join(sorted(keys))}, as canonical JSON")


def _line(document: dict[str, Any]) -> bytes:
    return canonical_bytes(document) + b"\n"
