"""What the fast reading of many lines takes, the exact reading of one takes too, and both find the same in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synapse_modules.audit.entry_line import entry_line, lines_of, parse_entry, read_run, split_lines
from synapse_modules.audit.merkle import leaf_hash
from synapse_modules.audit.record import Record, Recorder, commitment
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.canonical import canonical_text
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import AuditEvent
from tests.unit.audit.samples import make_records

RECORDER = Recorder("synapse.test", "worker1", system_random)
hostile = st.text(st.characters(), max_size=30)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | hostile
details = st.dictionaries(
    st.from_regex("[a-z_]{1,6}", fullmatch=True),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex("[a-z]{1,3}", fullmatch=True), inner),
        max_leaves=8,
    ),
    max_size=3,
)
events = st.builds(
    AuditEvent,
    st.sampled_from(Action),
    st.sampled_from(Outcome),
    actor=st.none() | hostile,
    target=st.none() | hostile,
    address=st.none() | hostile,
    user_agent=st.none() | hostile,
    device_id=st.none() | hostile,
    room_id=st.none() | hostile,
    reason=st.none() | hostile,
    rule=st.none() | hostile,
    case_id=st.none() | hostile,
    details=details,
)


def line_of(record: Record, index: int = 0) -> bytes:
    return entry_line(index, leaf_hash(record.leaf), record.leaf, record.disclosures.encode())


def runs(block: bytes) -> list[list[Any]]:
    return [each for each in split_lines(block) if isinstance(each, list)]


@given(st.lists(events, min_size=1, max_size=4), st.integers(0, 10**6))
def test_whatever_is_recorded_is_read_the_same_both_ways(recorded: list[AuditEvent], first: int) -> None:
    lines = [line_of(RECORDER.record(event, 1), first + number) for number, event in enumerate(recorded)]
    entries = [parse_entry(line) for line in lines]
    position = first
    for found in split_lines(b"".join(lines)):
        if isinstance(found, bytes):  # deeper than the fast way goes
            assert found == lines[position - first]
            position += 1
            continue
        end = position + len(found)
        expected = entries[position - first : end - first]
        assert lines_of(found) == lines[position - first : end - first]
        run = read_run(found, position)
        assert run is not None
        assert run.nodes == [each.node for each in expected]
        assert run.erased == sum(each.erased for each in expected)
        assert sorted(run.actions.elements()) == sorted(each.action for each in expected)
        position = end
    assert position == first + len(lines)


def test_what_the_log_usually_writes_is_read_the_fast_way() -> None:
    block = b"".join(line_of(record, index) for index, record in enumerate(make_records(40)))
    assert [len(run) for run in runs(block)] == [40]


def test_details_of_four_levels_are_read_the_fast_way_and_deeper_ones_exactly() -> None:
    def nested(levels: int) -> dict[str, Any]:
        return {"a": nested(levels - 1)} if levels > 1 else {"a": [] if levels else 1}

    for levels, fast in ((3, 1), (4, 0)):
        line = line_of(RECORDER.record(AuditEvent(Action.POLICY_CHANGE, details=nested(levels)), 1))
        assert len(runs(line)) == fast
        assert parse_entry(line).action == b"policy.change"


@st.composite
def nearly_entries(draw: st.DrawFn) -> bytes:
    """A line of an entry in which a few bytes were changed, some of them in its hash and commitments as well."""
    record = RECORDER.record(draw(events), 1)
    leaf = bytearray(record.leaf)
    for _ in range(draw(st.integers(0, 2))):
        position = draw(st.integers(0, len(leaf) - 1))
        leaf[position : position + draw(st.integers(0, 1))] = draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"{", b"}", b",", b":", b"0", b"\xff", b"\n", b"\t", b"\\u0041", b"a", b"[", b"-"]
            )
        )
    line = bytearray(entry_line(0, leaf_hash(bytes(leaf)), bytes(leaf), record.disclosures.encode()))
    for _ in range(draw(st.integers(0, 1))):
        position = draw(st.integers(0, len(line) - 1))
        line[position : position + draw(st.integers(0, 1))] = draw(
            st.sampled_from([b"", b'"', b"}", b"A", b"\xc3", b" "])
        )
    return bytes(line)


@settings(max_examples=1000)
@given(nearly_entries())
def test_the_fast_way_takes_nothing_that_the_exact_way_refuses(block: bytes) -> None:
    for run in runs(block):
        found = read_run(run, 0)
        if found is not None:
            [line] = lines_of(run)
            assert parse_entry(line).node == found.nodes[0]


def _with_leaf(leaf: bytes, disclosures: bytes = b"{}") -> bytes:
    return entry_line(0, leaf_hash(leaf), leaf, disclosures)


def _committed(disclosures: str) -> bytes:
    """A line whose leaf commits to the one text in ``disclosures``, however it is written."""
    leaf = json.loads(RECORDER.record(AuditEvent(Action.AUTH_LOGIN, actor="x"), 1).leaf)
    leaf["personal"]["actor"] = commitment(disclosures[1:-1])
    return _with_leaf(canonical_text(leaf).encode(), disclosures.encode())


SALT = "A" * 22
PLAIN = RECORDER.record(AuditEvent(Action.AUDIT_START), 1).leaf


@pytest.mark.parametrize(
    "line",
    [
        _with_leaf(PLAIN[:-1] + b',"w":1}},"x":{"v":1}'),
        _with_leaf(PLAIN[:-1] + b'},"disclosures":{},"leaf":' + PLAIN),
        _with_leaf(b"[]"),
        _with_leaf(b'{"v":1,"action":"a"}'),
        _with_leaf(b'{"v":1,"action":"a","personal":5}'),
        _with_leaf(b'{"v":2,"action":"a","personal":{}}'),
        _with_leaf(b'{"v":1,"action":"a","personal":{},"details":NaN}'),
        _with_leaf(PLAIN.replace(b'"v":1', b'"v":01')),
        _with_leaf(PLAIN.replace(b'"details":{}', b'"details":{"x":"\xff"}')),
        _with_leaf(PLAIN, b'{"actor":["%b","x"]}' % SALT.encode()),
        _with_leaf(PLAIN).replace(b'"disclosures":{}', b'"disclosures":{}{}'),
        _with_leaf(PLAIN).replace(b'"disclosures":{}', b'"disclosures": {}'),
        _with_leaf(PLAIN).replace(b'{"index":0', b'{"index":00'),
        _with_leaf(PLAIN)[:-1] + b"\r\n",
        _committed(f'{{"actor":["{SALT}","x","y"]}}'),
        _committed(f'{{"actor":["{SALT}", "x"]}}'),
        _committed(f'{{"actor":["{SALT}","\\q"]}}'),
        _committed(f'{{"actor":["{SALT}","x\\"]}}'),
        _with_leaf(PLAIN.replace(b'"personal":{}', b'"personal":{"actor":"%b"}' % b"A" * 43), b"{},"),
        _with_leaf(PLAIN.replace(b'"details":{}', b'"details":{"x":"\n"}')),
        _with_leaf(PLAIN.replace(b'"details":{}', b'"details":{"x":"\\"}')),
        _with_leaf(PLAIN.replace(b'"details":{}', b'"details":{"x":"\\","y":"}')),
    ],
)
def test_a_line_that_could_be_read_in_two_ways_or_in_none_is_refused_by_both(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_entry(line)
    assert all(read_run(run, 0) is None for run in runs(line))


@given(st.binary(max_size=80).filter(lambda line: b"\n" not in line))
@example(b"")
def test_every_line_is_found_once(garbage: bytes) -> None:
    record = make_records(1)[0]
    block = line_of(record, 0) + garbage + b"\n" + line_of(record, 1) + line_of(record, 2)
    rebuilt = [
        line for found in split_lines(block) for line in (lines_of(found) if isinstance(found, list) else [found])
    ]
    assert b"".join(rebuilt) == block


def test_indexes_out_of_order_are_not_read_the_fast_way() -> None:
    record = make_records(1)[0]
    [run] = runs(line_of(record, 5) + line_of(record, 7))
    assert read_run(run, 5) is None
    [run] = runs(line_of(record, 5) + line_of(record, 6))
    assert read_run(run, 4) is None
    assert read_run(run, 5) is not None
