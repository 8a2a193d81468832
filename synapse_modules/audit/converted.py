"""Exports in formats that others read: a ZIP archive of the files and of ``manifest.json``, which says what they are.

None of these is the signed form. Before an entry is converted it is compared with the tree all the same, so that what
somebody has altered in the database is not passed on as if it were the log's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Final, cast

from synapse_modules.audit import store
from synapse_modules.audit.entry_line import entry_line, parse_entry
from synapse_modules.audit.formats.entry import Entry, read_entry
from synapse_modules.audit.formats.registry import Lake, LineFormat, format_named
from synapse_modules.audit.search import read_out
from synapse_modules.core.errors import Conflict, GovernanceError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    from synapse_modules.audit.export import Export
    from synapse_modules.audit.formats.registry import DatasetFormat
    from synapse_modules.audit.search import EntryFilter
    from synapse_modules.core.ports import Transaction, TransactionRunner

__all__ = ["MANIFEST_NAME", "EntryAltered", "converted_chunks", "require_format"]

MANIFEST_NAME: Final = "manifest.json"
_NOTICE: Final = (
    "This is not the signed form of the audit log: nothing can be proven from it, and it may have lost what its format "
    "cannot hold. For evidence, export the same range as jsonl and verify that."
)
_LINES_AT_ONCE: Final = 1_000
_ROWS_AT_ONCE: Final = 20_000
_FIRST_YEAR_OF_ZIP: Final = 1980


class EntryAltered(GovernanceError):
    """An entry is not what the tree has at its place: it is not passed on."""


def require_format(name: str) -> LineFormat | DatasetFormat:
    """The format ``name``, which this installation can write.

    Raises:
        InvalidInput: there is none. Unavailable: something that it needs is not installed.
    """
    chosen = format_named(name, "format")
    if not isinstance(chosen, LineFormat):
        chosen.write((), _nowhere, Lake())
    return chosen


async def converted_chunks(reader: TransactionRunner, export: Export, name: str) -> AsyncIterator[bytes]:
    """The bytes of the archive, in pieces.

    Raises:
        EntryAltered: an entry was altered. Conflict: entries are pruned that are still to be read.
    """
    chosen = require_format(name)
    rows = _LINES_AT_ONCE if isinstance(chosen, LineFormat) else _ROWS_AT_ONCE
    with contextlib.closing(_Archive(export.manifest.made_ms)) as archive:
        if isinstance(chosen, LineFormat):
            archive.begin_file(f"audit-{export.manifest.bundle_id}{chosen.suffix}")
            archive.write(b"".join(chosen.stream(())))
        state = _State(export.wanted)
        while not state.finished:
            convert = functools.partial(_page, export=export, chosen=chosen, state=state, rows=rows)
            page, state = await reader.run("audit_export_converted", convert)
            archive.add(page)
            yield archive.taken()
        archive.end_file()
        archive.begin_file(MANIFEST_NAME)
        archive.write(_sidecar(export, chosen, state, archive.files))
        archive.close()
        yield archive.taken()


@dataclass(frozen=True, slots=True)
class _State:
    """How far it is: the filter for what is still to be read, and how many entries of each action there were."""

    left: EntryFilter
    counts: Counter[str] = field(default_factory=Counter)
    finished: bool = False


_File = tuple[str | None, bytes]
"""Path and content of a file; without a path, more of the present one."""


def _page(
    transaction: Transaction, export: Export, chosen: LineFormat | DatasetFormat, state: _State, rows: int
) -> tuple[list[_File], _State]:
    if store.pruned_below(transaction) > export.manifest.begin:
        raise Conflict("entries were pruned while they were exported")
    found = read_out(transaction, state.left, rows)
    nodes = store.nodes(transaction, export.manifest.tree_size)
    entries = [_entry(index, leaf, disclosures, nodes.leaf(index)) for index, _, leaf, disclosures in found]
    left = replace(state.left, begin=entries[-1].idx + 1) if entries else state.left
    counts = state.counts + Counter(entry.action for entry in entries)
    return list(_converted(chosen, entries)), _State(left, counts, len(found) < rows)


def _entry(index: int, leaf: bytes, disclosures: str, node: bytes) -> Entry:
    try:
        if parse_entry(entry_line(index, node, leaf, disclosures.encode())).index == index:
            return read_entry(index, json.loads(leaf), json.loads(disclosures))
    except InvalidInput:
        pass
    raise EntryAltered(f"entry {index} was altered", advice="Export it as jsonl: verifying that names what is wrong")


def _converted(chosen: LineFormat | DatasetFormat, entries: list[Entry]) -> Iterator[_File]:
    if isinstance(chosen, LineFormat):
        yield None, b"".join((chosen.encode(entry) + chosen.end).encode("utf-8", "replace") for entry in entries)
        return
    files: list[_Kept] = []

    def open_file(path: str) -> _Kept:
        files.append(_Kept(path))
        return files[-1]

    chosen.write(entries, open_file, Lake(rows=_ROWS_AT_ONCE))
    yield from ((each.path, each.kept) for each in files)


class _Kept(io.BytesIO):
    """A file in memory whose content outlives it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.kept = b""

    def close(self) -> None:
        """Keep what was written."""
        if not self.closed:
            self.kept = self.getvalue()
        super().close()


def _nowhere(path: str) -> io.BytesIO:
    raise AssertionError(f"no entries make no file, but for {path}")


def _sidecar(
    export: Export, chosen: LineFormat | DatasetFormat, state: _State, files: Mapping[str, Mapping[str, Any]]
) -> bytes:
    document = {
        "signed": False,
        "notice": _NOTICE,
        "format": chosen.name,
        "about_format": chosen.summary,
        "lossless": chosen.lossless,
        "manifest": export.manifest.model_dump(mode="json"),
        "entries": state.counts.total(),
        "counts": dict(sorted(state.counts.items())),
        "checkpoint": export.checkpoint,
        "files": files,
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"


class _Archive:
    """A ZIP archive that is written without looking back, and not compressed: others can do that as well.

    Attributes:
        files: size and SHA-256 of each file so far, by its path.
    """

    def __init__(self, made_ms: int) -> None:
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(cast("IO[bytes]", self._sink), "w")  # needs no more of a file
        self._made = max(time.gmtime(made_ms / 1000)[:6], (_FIRST_YEAR_OF_ZIP, 1, 1, 0, 0, 0))
        self._member: Any = None
        self._digest = hashlib.sha256()
        self._name = ""
        self._size = 0
        self.files: dict[str, dict[str, Any]] = {}

    def begin_file(self, path: str) -> None:
        """Begin the next file; what is written belongs to it."""
        self.end_file()
        self._name, self._size, self._digest = path, 0, hashlib.sha256()
        self._member = self._zip.open(zipfile.ZipInfo(path, self._made), "w", force_zip64=True)

    def write(self, data: bytes) -> None:
        """Write more of the present file."""
        self._member.write(data)
        self._digest.update(data)
        self._size += len(data)

    def add(self, files: Iterable[_File]) -> None:
        """Write ``files``, and more of the present one."""
        for path, data in files:
            if path is not None:
                self.begin_file(path)
            self.write(data)

    def end_file(self) -> None:
        """End the present file, if there is one."""
        if self._member is not None:
            self._member.close()
            self._member = None
            self.files[self._name] = {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def taken(self) -> bytes:
        """The bytes of the archive since the last call."""
        return self._sink.taken()

    def close(self) -> None:
        """End the archive, if that was not done."""
        self.end_file()
        self._zip.close()


class _Sink:
    """A file that can only be written, and from which what was written is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        """Keep ``data``."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: everything is there."""

    def taken(self) -> bytes:
        """All of it, once."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data
