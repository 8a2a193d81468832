"""The file that an export makes: JSON lines, each byte of it covered.

1. ``{"manifest": …}``: what the file claims to be.
2. For each entry ``{"index":…,"hash":…,"leaf":…,"disclosures":…}``, in this order and without spaces. ``leaf`` stands
   there byte for byte as the tree hashes it; ``hash`` is the hash that the tree has for it, in base64. Between entries,
   and before the first and after the last, ``{"hashes":[…],"skip":[begin,end]}`` stands for the leaves that are not
   shown. Entries and skips together rebuild the whole tree, so its root proves every entry, its place, and that nothing
   else lies between.
3. ``{"checkpoint":…,"counts":{action: n},"entries":n}``: the signed checkpoint of that tree, and totals.
4. ``{"sha256":…,"signature":…}``: the hash of all bytes before this line, signed by the log as well, so that neither
   the manifest nor what a selection contains can be changed by somebody else.

A *range* shows every entry from ``begin`` up to, not including, ``end``. A *selection* shows those that match its
filter: that each is genuine is proven, that none is left out is the log's signed word.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final, Literal

import pydantic

from synapse_modules.audit.checkpoint import sign_note
from synapse_modules.core.canonical import canonical_bytes
from synapse_modules.core.config import FrozenModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synapse_modules.audit.checkpoint import SigningKey

__all__ = ["FORMAT", "MAX_LINE_BYTES", "BundleWriter", "Manifest", "bundle_note_text"]

FORMAT: Final = "synapse-governance-audit/1"
MAX_LINE_BYTES = 2**20
"""No line of a bundle is longer; a leaf is far shorter."""


class Manifest(FrozenModel):
    """What a bundle claims to be.

    Attributes:
        format: the format's name and version. bundle_id: 32 hexadecimal digits; the export's own record names them.
        origin: the log. keys: the log's verifier keys; to be trusted only when known from elsewhere.
        tree_size: leaves of the tree whose checkpoint is enclosed.
        kind: ``range`` or ``selection``. begin, end: the indexes that it covers, without ``end``.
        filter: what the entries of a selection have in common; empty for a range.
        requester: who exported. case_id: why. made_ms: when, milliseconds since the epoch.
    """

    format: Literal["synapse-governance-audit/1"] = FORMAT
    bundle_id: str
    origin: str
    keys: tuple[str, ...] = pydantic.Field(min_length=1)
    tree_size: int = pydantic.Field(ge=0)
    kind: Literal["range", "selection"]
    begin: int = pydantic.Field(ge=0)
    end: int = pydantic.Field(ge=0)
    filter: dict[str, str | int]
    requester: str
    case_id: str
    made_ms: int

    def to_line(self) -> bytes:
        """The first line of the bundle."""
        return _line({"manifest": self.model_dump(mode="json")})


class BundleWriter:
    """Makes a bundle piece by piece. Call :meth:`begin`, then :meth:`entry` and :meth:`skip` in the order of their
    indexes, then :meth:`end`; each returns the bytes to write.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._digest = hashlib.sha256()
        self._counts: dict[str, int] = {}

    def copy(self) -> BundleWriter:
        """Another one, the same so far."""
        other = BundleWriter(self._manifest)
        other._digest = self._digest.copy()
        other._counts = self._counts.copy()
        return other

    def begin(self) -> bytes:
        """The manifest."""
        return self._covered(self._manifest.to_line())

    def entry(self, index: int, action: str, node: bytes, leaf: bytes, disclosures: str) -> bytes:
        """One entry, whose leaf says ``action``, and for which the tree has the hash ``node``."""
        self._counts[action] = self._counts.get(action, 0) + 1
        return self._covered(
            b'{"index":%d,"hash":"%b","leaf":%b,"disclosures":%b}\n'
            % (index, base64.b64encode(node), leaf, disclosures.encode())
        )

    def skip(self, begin: int, end: int, hashes: Iterable[bytes]) -> bytes:
        """The leaves ``begin`` up to, not including, ``end``, by the hashes of the subtrees that cover them."""
        encoded = [base64.b64encode(node).decode("ascii") for node in hashes]
        return self._covered(_line({"skip": [begin, end], "hashes": encoded}))

    def end(self, checkpoint: str, keys: Sequence[SigningKey]) -> bytes:
        """The totals, the checkpoint of the tree, and the signature over everything."""
        totals = {"entries": sum(self._counts.values()), "counts": self._counts, "checkpoint": checkpoint}
        line = self._covered(_line(totals))
        digest = self._digest.hexdigest()
        note = sign_note(bundle_note_text(self._manifest.origin, digest), keys)
        return line + _line({"sha256": digest, "signature": note})

    def _covered(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data


def bundle_note_text(origin: str, digest: str) -> str:
    """What the log signs for a bundle. No origin has a space: it can never be taken for a checkpoint."""
    return f"{FORMAT} bundle\n{origin}\n{digest}\n"


def _line(document: dict[str, object]) -> bytes:
    return canonical_bytes(document) + b"\n"  # type: ignore[arg-type]  # JSON by construction
