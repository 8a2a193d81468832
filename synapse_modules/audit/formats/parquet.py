"""OCSF in Parquet, for a data lake: one OCSF class a file, in folders by region, account and day.

The names of the folders are those that Hive and Amazon's lake read as columns::

    authentication/region=eu/accountId=example.org/eventDay=20250102/00000000000000000042.parquet

A file is named for the index of its first entry, and is written whole: the same entries make the same files again. Each
class has its own fixed columns; ``unmapped``, which differs from action to action, is JSON in a text.

Needs pyarrow, which the extra ``parquet`` installs; nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple
from urllib.parse import quote

from synapse_modules.audit.formats.ocsf import ocsf_event
from synapse_modules.audit.formats.ocsf_classes import CLASS_NAMES, VERSIONS
from synapse_modules.audit.formats.parquet_columns import columns_of
from synapse_modules.audit.formats.text import PRODUCT_VERSION, iso_time, json_text
from synapse_modules.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_modules.audit.formats.entry import Entry

__all__ = ["PARQUET", "DatasetFormat", "Lake", "OpenFile", "write_parquet"]

OpenFile = Callable[[str], BinaryIO]
"""Opens a new file for writing by its path in the lake, ``/`` between folders."""

_ROWS_IN_MEMORY: Final = 20_000


@dataclass(frozen=True, slots=True)
class Lake:
    """What the folders are called.

    Attributes:
        region: where the homeserver stands. account: whose it is; None for the homeserver's name.
        version: of OCSF.
        rows: how many rows are held in memory, and so the most that a file can have.
    """

    region: str = "default"
    account: str | None = None
    version: str = VERSIONS[0]
    rows: int = _ROWS_IN_MEMORY


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A format that makes many files.

    Attributes:
        name, suffix, media_type, lossless, summary: as of a :class:`~synapse_modules.audit.formats.line.LineFormat`.
        write: writes all entries, and returns how many files it made.
    """

    name: str
    suffix: str
    media_type: str
    lossless: bool
    summary: str
    write: Callable[[Iterable[Entry], OpenFile, Lake], int]


class _Folder(NamedTuple):
    class_uid: int
    account: str
    day: str


def write_parquet(entries: Iterable[Entry], open_file: OpenFile, lake: Lake | None = None) -> int:
    """Write ``entries``, in order of their indexes, in constant memory; returns the number of files.

    Raises:
        Unavailable: pyarrow is not installed.
    """
    lake = lake or Lake()
    writer = _Writer(lake, open_file)
    for entry in entries:
        writer.add(entry)
    writer.flush()
    return writer.files


class _Writer:
    """Collects rows by folder, and writes all of them when there are too many in memory."""

    def __init__(self, lake: Lake, open_file: OpenFile) -> None:
        self._lake = lake
        self._open = open_file
        self._arrow, self._parquet = _pyarrow()
        self._rows: defaultdict[_Folder, list[dict[str, Any]]] = defaultdict(list)
        self._held = 0
        self.files = 0

    def add(self, entry: Entry) -> None:
        event = ocsf_event(entry, self._lake.version)
        event["unmapped"] = json_text(event["unmapped"])
        day = iso_time(entry.time_ms)[:10].replace("-", "")
        account = entry.server if self._lake.account is None else self._lake.account
        self._rows[_Folder(event["class_uid"], account, day)].append(event)
        self._held += 1
        if self._held >= self._lake.rows:
            self.flush()

    def flush(self) -> None:
        for folder, rows in self._rows.items():
            self._write(folder, rows)
        self.files += len(self._rows)
        self._rows.clear()
        self._held = 0

    def _write(self, folder: _Folder, rows: list[dict[str, Any]]) -> None:
        schema = self._schema(folder.class_uid)
        table = self._arrow.Table.from_pylist(rows, schema=schema)
        with self._open(self._path(folder, rows[0]["metadata"]["sequence"])) as file:
            self._parquet.write_table(table, file, compression="zstd")

    def _path(self, folder: _Folder, first: int) -> str:
        region, account = quote(self._lake.region, safe=""), quote(folder.account, safe="")
        name = CLASS_NAMES[folder.class_uid]
        return f"{name}/region={region}/accountId={account}/eventDay={folder.day}/{first:020d}.parquet"

    def _schema(self, class_uid: int) -> Any:
        columns = columns_of(class_uid)
        fields = [self._arrow.field(name, self._kind(kind)) for name, kind in columns.items()]
        facts = {"ocsf.version": self._lake.version, "synapse-governance.version": PRODUCT_VERSION}
        return self._arrow.schema(fields, metadata=facts)

    def _kind(self, kind: Any) -> Any:
        """The Arrow type for a name of one, a list of one kind, or a mapping of names to kinds."""
        if isinstance(kind, str):
            return self._arrow.type_for_alias(kind)
        if isinstance(kind, list):
            return self._arrow.list_(self._kind(kind[0]))
        return self._arrow.struct([(name, self._kind(inner)) for name, inner in kind.items()])


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise Unavailable(
            "Parquet needs pyarrow, which is not installed", advice="Install synapse-governance[parquet]"
        ) from None


PARQUET = DatasetFormat(
    name="parquet",
    suffix=".parquet",
    media_type="application/vnd.apache.parquet",
    lossless=True,
    summary=f"OCSF {VERSIONS[0]} in Parquet: a folder of files by class, region, account and day",
    write=write_parquet,
)
