"""The data lake: what is written can be read with pyarrow, and is the same as the JSON."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse_modules.audit.formats.ocsf import ocsf_event
from synapse_modules.audit.formats.ocsf_classes import CLASS_NAMES, VERSIONS
from synapse_modules.audit.formats.parquet import PARQUET, Lake, write_parquet
from synapse_modules.audit.formats.parquet_columns import Kind, columns_of
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Unavailable
from tests.unit.audit.formats.made_entries import entries, every_entry, make_entry

if TYPE_CHECKING:
    from synapse_modules.audit.formats.entry import Entry


class _Folder:
    """A file system in memory."""

    def __init__(self) -> None:
        self.files: dict[str, io.BytesIO] = {}

    def open(self, path: str) -> BinaryIO:
        assert path not in self.files
        self.files[path] = kept = _Kept()
        return kept

    def tables(self) -> dict[str, Any]:
        return {path: pyarrow.parquet.read_table(io.BytesIO(file.getvalue())) for path, file in self.files.items()}

    def rows(self) -> list[dict[str, Any]]:
        found = [row for table in self.tables().values() for row in table.to_pylist()]
        return sorted(found, key=lambda row: row["metadata"]["sequence"])


class _Kept(io.BytesIO):
    def close(self) -> None:
        """Keep the content."""


def written(given_entries: Iterable[Entry], **lake: Any) -> _Folder:
    folder = _Folder()
    assert write_parquet(given_entries, folder.open, Lake(**lake)) == len(folder.files)
    return folder


def without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: plain for name, inner in value.items() if (plain := without_nulls(inner)) is not None} or None
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def as_event(row: dict[str, Any]) -> Any:
    return without_nulls(row | {"unmapped": None}) | {"unmapped": json.loads(row["unmapped"])}


def unknown_columns(event: Mapping[str, Any], columns: Mapping[str, Kind], prefix: str = "") -> list[str]:
    """What ``event`` has and no column takes up: pyarrow would drop it without a word."""
    found = []
    for name, value in event.items():
        kind = columns.get(name)
        if kind is None:
            found.append(prefix + name)
        inner = value[0] if isinstance(value, list) else value
        if isinstance(inner, Mapping) and kind != "string":
            found += unknown_columns(inner, kind[0] if isinstance(kind, list) else kind or {}, f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_whatever_an_event_has_there_is_a_column_for(version: str) -> None:
    for entry in every_entry():
        event = ocsf_event(entry, version)
        assert unknown_columns(event, columns_of(event["class_uid"])) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_action_comes_back_from_the_lake(version: str) -> None:
    made = [entry._replace(idx=number) for number, entry in enumerate(every_entry())]
    rows = written(made, version=version, rows=100).rows()
    assert [as_event(row) for row in rows] == [ocsf_event(entry, version) for entry in made]


@settings(max_examples=25, deadline=None)
@given(st.lists(entries(), max_size=12, unique_by=lambda entry: entry.idx), st.integers(1, 5))
def test_hostile_text_comes_back_from_the_lake(given_entries: list[Entry], rows: int) -> None:
    given_entries.sort(key=lambda entry: entry.idx)
    found = written(given_entries, rows=rows).rows()
    assert [as_event(row) for row in found] == [ocsf_event(entry) for entry in given_entries]


def test_each_file_has_one_class_and_stands_under_region_account_and_day() -> None:
    day = 24 * 3600 * 1000
    made = [
        make_entry(Action.AUTH_LOGIN, index=0, occurred_ms=20 * day),
        make_entry(Action.ROOM_JOIN, index=1, occurred_ms=20 * day),
        make_entry(Action.AUTH_LOGOUT, index=2, occurred_ms=20 * day + 5),
        make_entry(Action.AUTH_LOGIN, index=3, occurred_ms=21 * day),
    ]
    tables = written(made, region="eu/west", account="acme").tables()
    assert {path: table.column("class_uid").to_pylist() for path, table in tables.items()} == {
        f"authentication/region=eu%2Fwest/accountId=acme/eventDay=19700121/{0:020d}.parquet": [3002, 3002],
        f"group_management/region=eu%2Fwest/accountId=acme/eventDay=19700121/{1:020d}.parquet": [3006],
        f"authentication/region=eu%2Fwest/accountId=acme/eventDay=19700122/{3:020d}.parquet": [3002],
    }


def test_the_account_is_the_homeserver_where_none_is_named() -> None:
    assert ["/accountId=synapse.test/" in path for path in written([make_entry(Action.AUTH_LOGIN)]).files] == [True]


def test_rows_are_written_as_soon_as_there_are_as_many_as_memory_may_hold() -> None:
    folder = _Folder()
    files_before = []

    def feed() -> Iterable[Entry]:
        for index in range(7):
            files_before.append(len(folder.files))
            yield make_entry(Action.AUTH_LOGIN, index=index)

    assert write_parquet(feed(), folder.open, Lake(rows=3)) == 3
    assert files_before == [0, 0, 0, 1, 1, 1, 2]
    assert [table.num_rows for table in folder.tables().values()] == [3, 3, 1]


def test_the_same_entries_make_the_same_files() -> None:
    made = list(every_entry())
    first, second = written(made), written(made)
    assert {path: file.getvalue() for path, file in first.files.items()} == {
        path: file.getvalue() for path, file in second.files.items()
    }


def test_a_file_says_which_schema_it_follows() -> None:
    (table,) = written([make_entry(Action.AUTH_LOGIN)], version=VERSIONS[1]).tables().values()
    assert table.schema.metadata[b"ocsf.version"] == b"1.9.0"


def test_an_empty_log_makes_no_file() -> None:
    assert written([]).files == {}


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unavailable, match=r"Install synapse-governance\[parquet\]"):
        PARQUET.write([], _Folder().open, Lake())


def test_every_class_has_a_name_and_columns() -> None:
    assert len(set(CLASS_NAMES.values())) == len(CLASS_NAMES)
    for class_uid in CLASS_NAMES:
        assert "metadata" in columns_of(class_uid)
