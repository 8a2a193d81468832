"""Exports in formats that others read, from a stored log, on both engines."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from synapse_modules.audit import converted
from synapse_modules.audit.converted import MANIFEST_NAME, EntryAltered, converted_chunks, require_format
from synapse_modules.audit.export import ExportOrder, plan_export
from synapse_modules.audit.formats.registry import FORMATS
from synapse_modules.audit.search import EntryFilter
from synapse_modules.core.actions import Outcome
from synapse_modules.core.errors import InvalidInput
from tests.support.audit_log import KEY, execute
from tests.support.filled_log import FilledLog, finished, sample_events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.storage.database import Database

SIZE = 70


@pytest.fixture
def log(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> FilledLog:
    monkeypatch.setattr(converted, "_LINES_AT_ONCE", 13)
    monkeypatch.setattr(converted, "_ROWS_AT_ONCE", 30)
    log = FilledLog(empty_database)
    log.fill(sample_events(SIZE))
    return log


def convert(log: FilledLog, name: str, wanted: EntryFilter | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest of the archive, and its other files."""
    wanted = wanted or EntryFilter()
    order = ExportOrder("selection" if wanted.given() else "range", wanted, "@officer:x", "CASE-1", "b" * 32, 10**12)

    async def pieces() -> bytes:
        export = await plan_export(log.reader, [KEY], order)
        return b"".join([piece async for piece in converted_chunks(log.reader, export, name)])

    with zipfile.ZipFile(io.BytesIO(finished(pieces()))) as archive:
        assert archive.testzip() is None
        files = {each: archive.read(each) for each in archive.namelist()}
    return json.loads(files.pop(MANIFEST_NAME)), files


@pytest.mark.parametrize("name", FORMATS)
def test_the_manifest_says_what_the_files_are_and_that_they_prove_nothing(log: FilledLog, name: str) -> None:
    manifest, files = convert(log, name)
    assert (manifest["format"], manifest["signed"], manifest["entries"]) == (name, False, SIZE)
    assert "not the signed form" in manifest["notice"]
    assert manifest["counts"]["auth.login"] == 18
    assert manifest["manifest"]["case_id"] == "CASE-1"
    assert manifest["files"] == {
        path: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
    }


def rows_of(name: str, files: Mapping[str, bytes]) -> list[Any]:
    if name == "parquet":
        return [row for data in files.values() for row in pq.read_table(io.BytesIO(data)).to_pylist()]
    [text] = (data.decode() for data in files.values())
    if name == "csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return text.splitlines() if name in {"cef", "rfc5424"} else [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.mark.parametrize("name", FORMATS)
def test_every_entry_is_there_once(log: FilledLog, name: str) -> None:
    assert len(rows_of(name, convert(log, name)[1])) == SIZE
    assert len(rows_of(name, convert(log, name, EntryFilter(outcome=Outcome.DENIED, end=41))[1])) == 10


def test_an_empty_export_has_its_header_and_its_manifest(log: FilledLog) -> None:
    manifest, files = convert(log, "csv", EntryFilter(actor="@nobody:x"))
    [data] = files.values()
    assert (manifest["entries"], data.count(b"\n")) == (0, 1)
    assert convert(log, "parquet", EntryFilter(actor="@nobody:x"))[1] == {}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE governance_audit_records SET leaf = (SELECT leaf FROM governance_audit_records WHERE wseq = 3)",
        """UPDATE governance_audit_records SET disclosures = '{"actor":["AAAAAAAAAAAAAAAAAAAAAA","@eve:x"]}'""",
        "UPDATE governance_audit_records SET disclosures = 'nonsense'",
    ],
)
def test_an_entry_that_was_altered_is_not_passed_on(log: FilledLog, change: str) -> None:
    execute(log.database, f"{change} WHERE wseq = 41")
    with pytest.raises(EntryAltered, match="entry 41 was altered"):
        convert(log, "csv")
    assert convert(log, "csv", EntryFilter(end=41))[0]["entries"] == 41


def test_a_format_that_there_is_not_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'parquet'"):
        require_format("parket")
