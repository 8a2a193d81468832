"""Entries for the tests of the formats: of every action, and with hostile text in every field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from synapse_modules.audit.formats.entry import Entry, read_entry
from synapse_modules.audit.record import Recorder
from synapse_modules.core.action_details import DETAILS, Kind
from synapse_modules.core.action_specs import COMMON_DETAILS, SPECS
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.clock import system_random
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_modules.core.canonical import JsonValue

__all__ = ["SERVER", "entries", "every_entry", "make_entry"]

SERVER = "synapse.test"
_VALUES: dict[Kind, JsonValue] = {
    Kind.TEXT: "text",
    Kind.NUMBER: 7,
    Kind.FLAG: True,
    Kind.LIST: ["a", 1],
    Kind.MAPPING: {"a": 1},
    Kind.STATE: {"was": ["so"]},
}
_NASTY = (
    "",
    "=1+1",
    "@SUM(A1)",
    "\uff1d1",
    "'",
    "''=1",
    "+49",
    "-1",
    "\t=1",
    "\r\n",
    "a\nb",
    "\0",
    '"',
    '""',
    '","',
    "|",
    r"\|",
    "\\",
    r"\n",
    r"\\=",
    "=",
    " suser=eve ",
    "]",
    r"\]",
    '"]',
    '" actor="eve',
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\x9b2J",
    "\u2028",
    "\u2029",
    "\ufeff",
    "\u202e",
    "\ud800",
    "😀",
    "a b",
    " ",
    "null",
    "[erased]",
    "[unknown]",
    "192.0.2.1",
    "2001:db8::1",
    "::ffff:192.0.2.1",
    "fe80::1%eth0",
    "</script>",
)


def make_entry(
    action: Action, outcome: Outcome = Outcome.SUCCESS, *, index: int = 0, erased: tuple[str, ...] = (), **fields: Any
) -> Entry:
    """The entry of an event, as the log would hold it."""
    event = AuditEvent(action, outcome, **fields)
    record = Recorder(SERVER, "worker1", system_random).record(event, now_ms=1_735_776_000_123)
    disclosures = json.loads(record.disclosures)
    return read_entry(
        index, json.loads(record.leaf), {name: value for name, value in disclosures.items() if name not in erased}
    )


def every_entry() -> Iterator[Entry]:
    """Each action with each outcome: with all it may have, with nothing, and with all people erased."""
    full: dict[str, Any] = {
        "actor": "@alice:synapse.test",
        "target": "@bob:synapse.test",
        "room_id": "!room:synapse.test",
        "reason": "Because.",
        "rule": "default",
        "address": "192.0.2.7",
        "user_agent": "Element",
        "device_id": "PHONE",
        "case_id": "C-1",
    }
    erased = ("actor", "target", "address", "user_agent", "device")
    index = 0
    for action, spec in SPECS.items():
        details = {key: _VALUES[DETAILS[key].kind] for key in sorted(spec.details | COMMON_DETAILS)}
        for outcome in Outcome:
            yield make_entry(action, outcome, index=index, **full, details=details)
            yield make_entry(action, outcome, index=index + 1)
            yield make_entry(action, outcome, index=index + 2, erased=erased, **full)
            index += 3


_text = st.one_of(
    st.sampled_from(_NASTY),
    st.text(st.characters(), max_size=40),
    st.lists(st.sampled_from(_NASTY), max_size=6).map("".join),
)
_address = st.one_of(_text, st.ip_addresses().map(str))
_numbers = st.integers(-(2**53) + 1, 2**53 - 1)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_=]\"'", max_size=4), inner, max_size=3),
    max_leaves=6,
)
_KNOWN = sorted(DETAILS)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An entry with hostile text wherever text can stand, values of wrong kinds in its details, and parts erased."""
    maybe = st.none() | _text
    return make_entry(
        draw(st.sampled_from(Action)),
        draw(st.sampled_from(Outcome)),
        index=draw(st.integers(0, 2**53 - 1)),
        erased=tuple(draw(st.sets(st.sampled_from(["actor", "target", "address", "user_agent", "device"])))),
        actor=draw(maybe),
        target=draw(maybe),
        room_id=draw(maybe),
        reason=draw(maybe),
        rule=draw(maybe),
        address=draw(st.none() | _address),
        user_agent=draw(maybe),
        device_id=draw(maybe),
        case_id=draw(maybe),
        details=draw(st.dictionaries(st.sampled_from(_KNOWN) | st.text("xyz.=", max_size=4), _json, max_size=4)),
        occurred_ms=draw(_numbers),
    )
