"""Whatever is put into an entry comes out of every format again, and nothing of it can break a format."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.formats.entry import Entry, entries_of_bundle, read_entry
from synapse_modules.audit.formats.registry import FORMATS, LineFormat, format_named
from synapse_modules.audit.formats.rfc5424 import SYSLOG, octet_counted
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import InvalidInput
from tests.unit.audit.formats.made_entries import entries, every_entry, make_entry
from tests.unit.audit.formats.readers import READERS, pictured, split_frames, syslog_parts
from tests.unit.audit.samples import SampleLog, make_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINE_FORMATS = {name: each for name, each in FORMATS.items() if isinstance(each, LineFormat)}
TEXT_FIELDS = ("room", "rule", "case", "reason", "actor", "target", "address", "user_agent", "device")


def as_shown(entry: Entry, name: str) -> Entry:
    """What can be read back from the format called ``name``."""
    if name not in {"csv", "cef", "rfc5424"}:
        return entry
    shown: dict[str, Any] = {field: getattr(entry, field) for field in TEXT_FIELDS}
    for field, text in shown.items():
        # In CSV an empty field is an absent one.
        shown[field] = (text or None) if name == "csv" else pictured(text, "\r\n" if name == "cef" else "")
    return entry._replace(**shown)


def written(chosen: LineFormat, given_entries: Iterable[Entry]) -> bytes:
    return b"".join(chosen.stream(given_entries))


def test_every_format_of_lines_has_a_reader_and_only_those_that_lose_nothing_say_so() -> None:
    assert set(READERS) == set(LINE_FORMATS)
    assert {name for name, each in LINE_FORMATS.items() if not each.lossless} == {"csv", "cef", "rfc5424"}


@given(st.lists(entries(), max_size=3))
def test_hostile_text_in_any_field_comes_back_from_every_format(given_entries: list[Entry]) -> None:
    for name, read in READERS.items():
        data = written(LINE_FORMATS[name], given_entries)
        assert list(read(data)) == [as_shown(entry, name) for entry in given_entries], name


@pytest.mark.parametrize("name", READERS)
def test_every_action_comes_back_from_every_format(name: str) -> None:
    made = list(every_entry())
    assert list(READERS[name](written(LINE_FORMATS[name], made))) == [as_shown(entry, name) for entry in made]


@pytest.mark.parametrize("name", READERS)
def test_an_action_that_this_version_does_not_know_is_exported_all_the_same(name: str) -> None:
    entry = make_entry(Action.AUTH_LOGIN, actor="@a:x", address="192.0.2.1", user_agent="x", device_id="D")
    entry = entry._replace(action="of.a.later.version")
    assert list(READERS[name](written(LINE_FORMATS[name], [entry]))) == [entry]


@pytest.mark.parametrize("name", READERS)
def test_no_format_holds_more_in_memory_for_a_longer_log(name: str) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in LINE_FORMATS[name].stream(make_entry(Action.AUTH_LOGIN, actor=f"@{n}:x") for n in range(count)):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)  # what is made once, at the first use
    assert peak(3000) < peak(100) + 50_000


@given(st.lists(entries(), max_size=4))
def test_octet_counting_keeps_messages_apart(given_entries: list[Entry]) -> None:
    messages = [SYSLOG.encode(entry).encode() for entry in given_entries]
    stream = b"".join(map(octet_counted, messages))
    assert list(split_frames(stream)) == messages
    for message in messages:
        syslog_parts(message.decode())


def test_an_entry_is_read_from_leaf_and_disclosures_and_says_what_was_erased() -> None:
    entry = make_entry(Action.ROOM_KICK, actor="@a:x", target="@b:x", room_id="!r", erased=("target",), index=4)
    assert (entry.idx, entry.actor, entry.target, entry.room, entry.erased) == (4, "@a:x", None, "!r", ("target",))


def test_the_entries_of_a_bundle_are_those_that_it_shows() -> None:
    records = make_records(7)
    lines = SampleLog(records).export([1, 5]).splitlines(keepends=True)
    wanted = [
        read_entry(index, json.loads(records[index].leaf), json.loads(records[index].disclosures)) for index in (1, 5)
    ]
    assert list(entries_of_bundle(lines)) == wanted


def test_a_bundle_is_read_line_by_line() -> None:
    lines: Iterator[bytes] = iter(SampleLog(make_records(3)).export().splitlines(keepends=True))
    entries_read = entries_of_bundle(lines)
    assert next(entries_read).idx == 0
    assert next(lines).startswith(b'{"index":1,')


def test_a_format_that_there_is_none_of_is_refused_with_the_nearest() -> None:
    assert format_named("cef", "--format") is FORMATS["cef"]
    with pytest.raises(InvalidInput, match=r"--format: found 'oscf', expected one of csv, .* Did you mean 'ocsf'\?"):
        format_named("oscf", "--format")


def test_every_format_says_what_it_is() -> None:
    for name, each in FORMATS.items():
        assert each.name == name
        assert each.suffix.startswith(".")
        assert "/" in each.media_type
        assert not each.summary.endswith(".")


def test_a_login_that_was_denied_is_a_failure_everywhere() -> None:
    entry = make_entry(Action.AUTH_LOGIN, Outcome.DENIED, actor="@a:x")
    assert 'event":{"kind":"event","category":["authentication"],"type":["start"]' in LINE_FORMATS["ecs"].encode(entry)
    assert '"outcome":"failure"' in LINE_FORMATS["ecs"].encode(entry)
    assert '"type_uid":300201' in LINE_FORMATS["ocsf"].encode(entry)
    assert '"status_id":2' in LINE_FORMATS["ocsf"].encode(entry)
