"""Reads every format back into entries, by the published rules and not by our own code.

CSV is read by Python's csv, JSON by Python's json. For CEF and RFC 5424 there are strict parsers here: whatever the
rules do not allow is an error.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from synapse_modules.audit.formats.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "READERS",
    "pictured",
    "read_cef",
    "read_csv",
    "read_syslog",
    "split_frames",
    "syslog_parts",
]

_PERSONAL = ("actor", "target", "address", "user_agent", "device")


def pictured(text: str | None, kept: str = "") -> str | None:
    """``text`` as formats without an escape for control characters show it."""
    if text is None:
        return None
    return "".join(character if character in kept else _picture(character) for character in text)


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0x80 <= code < 0xA0:
        return "\ufffd"
    return "\u2424" if character in "\u2028\u2029" else character


# ---------------------------------------------------------------------------------------------- CSV


def read_csv(data: bytes) -> Iterator[Entry]:
    text = data.decode("utf-8")
    assert text.endswith("\r\n")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = next(rows)
    for row in rows:
        assert len(row) == len(header)
        assert not any(cell.startswith(tuple("=+@\t\r\n\0\uff1d\uff0b\uff0d\uff20")) for cell in row)
        cells = dict(zip(header, row, strict=True))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", cells["time"])
        assert not any(cell.startswith("-") for name, cell in cells.items() if name != "time_ms")
        plain = {name: cell.removeprefix("'") or None for name, cell in cells.items()}
        yield Entry(
            idx=int(cells["index"]),
            id=cells["id"],
            time_ms=int(cells["time_ms"]),
            action=cells["action"],
            outcome=cells["outcome"],
            server=cells["server"],
            process=cells["process"],
            details=json.loads(cells["details"]),
            **{name: plain[name] for name in ("room", "rule", "case", "reason", *_PERSONAL)},
            erased=tuple(cells["erased"].split()),
        )


# ---------------------------------------------------------------------------------------------- CEF

_CEF_HEADER = re.compile(r"CEF:0\|" + r"((?:[^\\|\r\n]|\\[\\|])*)\|" * 6 + r"(.*)", re.DOTALL)
_CEF_PAIR = re.compile(r"(?:^| )([A-Za-z0-9_.\[\]]+)=((?:[^\\=\r\n]|\\[\\=nr])*)(?= [A-Za-z0-9_.\[\]]+=|$)")
_CEF_UNESCAPE = {r"\\": "\\", r"\=": "=", r"\n": "\n", r"\r": "\r"}


def cef_parts(line: str) -> tuple[list[str], dict[str, str]]:
    """Header fields and extension of one line."""
    match = _CEF_HEADER.fullmatch(line)
    assert match, line
    *header, extension = match.groups()
    pairs: dict[str, str] = {}
    position = 0
    for pair in _CEF_PAIR.finditer(extension):
        assert pair.start() == position, extension
        assert pair[1] not in pairs
        pairs[pair[1]] = re.sub(r"\\.", lambda escape: _CEF_UNESCAPE[escape[0]], pair[2])
        position = pair.end()
    assert position == len(extension), extension
    return [re.sub(r"\\(.)", r"\1", field) for field in header], pairs


def read_cef(data: bytes) -> Iterator[Entry]:
    text = data.decode("utf-8")
    assert text == "" or text.endswith("\n")
    for line in text.split("\n")[:-1]:
        header, pairs = cef_parts(line)
        _vendor, _product, _version, action, _name, severity = header
        assert 0 <= int(severity) <= 10
        labels = {pairs[f"{key}Label"]: value for key, value in pairs.items() if f"{key}Label" in pairs}
        yield Entry(
            idx=int(labels["leafIndex"]),
            id=pairs["externalId"],
            time_ms=int(pairs["rt"]),
            action=action,
            outcome=pairs["outcome"],
            server=pairs["dvchost"],
            process=pairs["deviceProcessName"],
            details=json.loads(labels.get("details", "{}")),
            room=labels.get("room"),
            rule=labels.get("rule"),
            case=labels.get("case"),
            reason=pairs.get("reason"),
            actor=pairs.get("suser"),
            target=pairs.get("duser"),
            address=pairs.get("src", labels.get("Source IPv6 Address", pairs.get("shost"))),
            user_agent=pairs.get("requestClientApplication"),
            device=labels.get("device"),
            erased=tuple(filter(None, labels.get("erased", "").split(","))),
        )


# ---------------------------------------------------------------------------------------------- RFC 5424

_NAME = r"[!#-<>-\\^-~]{1,32}"  # PRINTUSASCII but for '=', ']' and '"'
_VALUE = r'(?:[^"\\\]]|\\["\\\]])*'
_ELEMENT = rf'\[{_NAME}(?: {_NAME}="{_VALUE}")*\]'
_MESSAGE = re.compile(
    r"<(?P<priority>0|[1-9]\d{0,2})>1"
    r" (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))"
    r" (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<message_id>[!-~]{1,32})"
    rf" (?P<data>-|(?:{_ELEMENT})+)"
    "(?: \ufeff(?P<text>.*))?",
    re.DOTALL,
)


def syslog_parts(message: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Header and text, and structured data by their names."""
    match = _MESSAGE.fullmatch(message)
    assert match, message
    elements = {}
    for element in re.findall(_ELEMENT, match["data"]):
        name = re.match(rf"\[({_NAME})", element)[1]  # type: ignore[index]  # it has just matched
        pairs = re.findall(rf'({_NAME})="({_VALUE})"', element.removeprefix(f"[{name}"))
        assert len(dict(pairs)) == len(pairs)
        elements[name] = {key: re.sub(r"\\(.)", r"\1", value) for key, value in pairs}
    return match.groupdict(), elements


def read_syslog(data: bytes) -> Iterator[Entry]:
    text = data.decode("utf-8")
    assert text == "" or text.endswith("\n")
    for line in text.split("\n")[:-1]:
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
        header, elements = syslog_parts(line)
        assert 13 * 8 <= int(header["priority"]) < 14 * 8
        found = elements["governance@32473"]
        yield Entry(
            idx=int(found["index"]),
            id=found["id"],
            time_ms=int(found["timeMs"]),
            action=header["message_id"],
            outcome=found["outcome"],
            server=header["host"],
            process=header["process"],
            details=json.loads(found.get("details", "{}")),
            user_agent=found.get("userAgent"),
            erased=tuple(filter(None, found.get("erased", "").split(","))),
            **{
                name: found.get(name)
                for name in ("room", "rule", "case", "reason", "actor", "target", "address", "device")
            },
        )


def split_frames(data: bytes) -> Iterator[bytes]:
    """The messages of a stream with octet counting, RFC 5425."""
    while data:
        count, _, rest = data.partition(b" ")
        assert re.fullmatch(rb"[1-9]\d*", count)
        assert len(rest) >= int(count)
        yield rest[: int(count)]
        data = rest[int(count) :]


# ---------------------------------------------------------------------------------------------- JSON


def _lines(data: bytes) -> Iterator[Any]:
    """Every document; a line must be one by any reader's notion of the end of a line."""
    text = data.decode("ascii")
    assert text == "" or text.endswith("\n")
    assert text.splitlines() == text.split("\n")[:-1]
    yield from map(json.loads, text.splitlines())


def entry_of_ocsf(event: dict[str, Any]) -> Entry:
    unmapped, metadata, actor = event["unmapped"], event["metadata"], event["actor"]
    endpoint = event.get("src_endpoint", {})
    return Entry(
        idx=metadata["sequence"],
        id=metadata["uid"],
        time_ms=event["time"],
        action=metadata["event_code"],
        outcome=event["status_code"],
        server=metadata["tenant_uid"],
        process=unmapped["process"],
        details=unmapped.get("details", {}),
        room=unmapped.get("room"),
        rule=unmapped.get("rule"),
        case=unmapped.get("case"),
        reason=event.get("status_detail"),
        actor=actor.get("user", {}).get("uid"),
        target=unmapped.get("target"),
        address=endpoint.get("ip", endpoint.get("name", unmapped.get("address"))),
        user_agent=event.get("http_request", unmapped).get("user_agent"),
        device=actor.get("session", {}).get("uid"),
        erased=tuple(unmapped.get("erased", ())),
    )


def entry_of_ecs(document: dict[str, Any]) -> Entry:
    own, event, user = document["synapse_governance"], document["event"], document.get("user", {})
    return Entry(
        idx=event["sequence"],
        id=event["id"],
        time_ms=own["time_ms"],
        action=event["action"],
        outcome=own["outcome"],
        server=document["organization"]["id"],
        process=document["service"]["node"]["name"],
        details=json.loads(own.get("details", "{}")),
        room=document.get("group", {}).get("id"),
        rule=document.get("rule", {}).get("name"),
        case=own.get("case"),
        reason=event.get("reason"),
        actor=user.get("id"),
        target=user.get("target", {}).get("id"),
        address=document.get("source", {}).get("address"),
        user_agent=document.get("user_agent", {}).get("original"),
        device=own.get("device"),
        erased=tuple(own.get("erased", ())),
    )


def entry_of_slack(document: dict[str, Any]) -> Entry:
    details, context = document["details"], document["context"]
    own, user = details["governance"], document["actor"]["user"]
    changes = {
        key: details[name] for key, name in (("before", "previous_value"), ("after", "new_value")) if name in details
    }
    assert document["date_create"] == own["time_ms"] // 1000
    return Entry(
        idx=own["index"],
        id=document["id"],
        time_ms=own["time_ms"],
        action=document["action"],
        outcome=own["outcome"],
        server=context["location"]["id"],
        process=own["process"],
        details={**own["facts"], **changes},
        room=own["room"],
        rule=own["rule"],
        case=own["case"],
        reason=details.get("reason"),
        actor=user["id"] if "team" in user else None,
        target=own["target"],
        address=context["ip_address"],
        user_agent=context["ua"],
        device=context["session_id"],
        erased=tuple(own["erased"]),
    )


def _json_reader(read: Callable[[dict[str, Any]], Entry]) -> Callable[[bytes], Iterator[Entry]]:
    return lambda data: map(read, _lines(data))


READERS: dict[str, Callable[[bytes], Iterator[Entry]]] = {
    "csv": read_csv,
    "cef": read_cef,
    "rfc5424": read_syslog,
    "ocsf": _json_reader(entry_of_ocsf),
    "ocsf-1.9": _json_reader(entry_of_ocsf),
    "ecs": _json_reader(entry_of_ecs),
    "slack": _json_reader(entry_of_slack),
}
