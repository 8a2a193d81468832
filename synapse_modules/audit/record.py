"""What stands in the log: a leaf that names nobody, and beside it the disclosures that say who it was.

The leaf is canonical JSON, and its exact bytes are what the tree hashes. Everything that names a person stands in it as
a commitment: the base64url of the SHA-256 of the field's *disclosure*. That is the text ``"field":["salt","value"]`` in
canonical JSON, with a fresh salt of 16 bytes in base64url. Disclosures are kept and exported beside the leaf in just
these bytes, so that checking them takes no parsing; one can be erased without touching the tree.

Text that is not valid Unicode is recorded with ``?`` in the place of what is wrong: nobody may escape the log by
sending nonsense.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from synapse_modules.core.canonical import canonical_bytes, canonical_text, check_canonical
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.clock import RandomBytes
    from synapse_modules.core.ports import AuditEvent

__all__ = [
    "LEAF_VERSION",
    "MAX_LEAF_BYTES",
    "PERSONAL_FIELDS",
    "SALT_BYTES",
    "Record",
    "Recorder",
    "check_disclosures",
    "commitment",
    "disclosure",
    "restore",
]

LEAF_VERSION = 1
MAX_LEAF_BYTES = 60_000
"""A leaf must fit into a C2SP entry bundle, whose lengths have 16 bits."""
PERSONAL_FIELDS = ("actor", "address", "device", "target", "user_agent")
"""In the order of canonical JSON."""
SALT_BYTES = 16

_DISCLOSURE = re.compile(r'"([^"\\]*)":\["[^"\\]*",("(?:[^"\\]|\\.)*")\](?:,(?=")|(?=}$))', re.DOTALL)
_MAX_BYTES = {"actor": 1024, "target": 1024, "address": 256, "device": 1024, "room": 1024, "rule": 1024, "case": 256}
_MAX_REASON_BYTES = 4096
_MAX_USER_AGENT = 512


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is stored, before it has an index.

    Attributes:
        record_id: 32 hexadecimal digits, also in the leaf.
        leaf: the exact bytes that the tree hashes.
        disclosures: canonical JSON, ``{field: [salt in base64url, value]}``.
        key: the same key is recorded once only; None when it does not matter.
        time_ms, action, outcome, actor, target, room_id, address: for searching, in clear.
    """

    record_id: str
    leaf: bytes
    disclosures: str
    key: str | None
    time_ms: int
    action: str
    outcome: str
    actor: str | None = None
    target: str | None = None
    room_id: str | None = None
    address: str | None = None


class Recorder:
    """Turns events into records, in the name of one process.

    Args:
        server: the homeserver's name. process: ``main``, or the worker's name.
        random: where salts and ids come from.
    """

    def __init__(self, server: str, process: str, random: RandomBytes) -> None:
        self._server = server
        self._process = process
        self._random = random

    @property
    def server(self) -> str:
        """The homeserver's name."""
        return self._server

    def record(self, event: AuditEvent, now_ms: int) -> Record:
        """The record of ``event``, which happened ``now_ms`` if it does not say when.

        Raises:
            InvalidInput: a text of it is too long, or its details are no canonical JSON. A user agent that is too
                long is cut instead: it is free text from outside.
        """
        clear = _personal(event)
        disclosures = [disclosure(name, self._random(SALT_BYTES), value) for name, value in clear.items()]
        record_id = self._random(16).hex()
        time_ms = now_ms if event.occurred_ms is None else event.occurred_ms
        room = None if event.room_id is None else _text("room", event.room_id)
        leaf: dict[str, JsonValue] = {
            "v": LEAF_VERSION,
            "id": record_id,
            "action": event.action.value,
            "outcome": event.outcome.value,
            "time_ms": time_ms,
            "server": self._server,
            "process": self._process,
            "details": event.details,
            "personal": dict(zip(clear, map(commitment, disclosures), strict=True)),
        }
        if room is not None:
            leaf["room"] = room
        for name, value in (("rule", event.rule), ("case", event.case_id), ("reason", event.reason)):
            if value is not None:
                leaf[name] = _text(name, value)
        return Record(
            record_id,
            _encode_leaf(leaf),
            f"{{{','.join(disclosures)}}}",
            event.key,
            time_ms,
            event.action.value,
            event.outcome.value,
            _searchable(clear.get("actor")),
            _searchable(clear.get("target")),
            _searchable(room),
            _searchable(clear.get("address")),
        )


def disclosure(field: str, salt: bytes, value: str) -> str:
    """The disclosure of the personal ``field``: what stands in a record's disclosures, and what is hashed."""
    return f'"{field}":["{_base64url(salt)}",{canonical_text(value)}]'


def commitment(disclosure: str) -> str:
    """What stands in the leaf for a disclosure."""
    return _base64url(sha256(disclosure.encode()).digest())


def check_disclosures(personal: Mapping[str, Any], disclosures: str) -> int:
    """Check that every disclosure is the one that the leaf commits to; returns how many there are.

    One that is missing was erased.

    Args:
        personal: the leaf's commitments.
        disclosures: a JSON object, as it stands beside the leaf.

    Raises:
        InvalidInput: at the first that is not.
    """
    fields: set[str] = set()
    position = 1
    while position < len(disclosures) - 1:
        found = _DISCLOSURE.match(disclosures, position)
        if found is None or found[1] in fields or found[1] not in personal:
            raise InvalidInput("disclosures", disclosures[position:], "a salt and a value, for a field of the leaf")
        if commitment(found[0].rstrip(",")) != personal[found[1]]:
            value = json.loads(found[2], strict=False)
            raise InvalidInput(f"disclosures.{found[1]}", value, "the value that the leaf commits to: it was altered")
        fields.add(found[1])
        position = found.end()
    return len(fields)


def restore(leaf: bytes, disclosures: str, key: str | None) -> Record:
    """A record from what was stored of it."""
    document = json.loads(leaf)
    clear = {name: disclosure[1] for name, disclosure in json.loads(disclosures).items()}
    return Record(
        document["id"],
        leaf,
        disclosures,
        key,
        document["time_ms"],
        document["action"],
        document["outcome"],
        _searchable(clear.get("actor")),
        _searchable(clear.get("target")),
        _searchable(document.get("room")),
        _searchable(clear.get("address")),
    )


def _encode_leaf(leaf: dict[str, JsonValue]) -> bytes:
    check_canonical(leaf["details"], "audit.details")  # the only part that others make
    try:
        encoded = canonical_text(leaf).encode()
    except UnicodeEncodeError:
        encoded = canonical_bytes(_valid_unicode(leaf))
    if len(encoded) > MAX_LEAF_BYTES:
        details = len(canonical_bytes(_valid_unicode(leaf["details"])))
        raise InvalidInput("audit.details", f"{details} bytes", f"a record of at most {MAX_LEAF_BYTES} bytes in all")
    return encoded


def _personal(event: AuditEvent) -> dict[str, str]:
    """The personal fields that ``event`` has, in clear and in order."""
    given = (event.actor, event.address, event.device_id, event.target, event.user_agent)
    pairs = zip(PERSONAL_FIELDS, given, strict=True)
    return {name: _text(name, value) for name, value in pairs if value is not None}


def _text(field: str, value: str) -> str:
    """``value`` as valid Unicode within the limit of ``field``."""
    if not value.isascii():
        value = _valid_unicode(value)
    if field == "user_agent":
        return value[:_MAX_USER_AGENT]
    limit = _MAX_REASON_BYTES if field == "reason" else _MAX_BYTES[field]
    if len(value) * 4 > limit and len(value.encode()) > limit:
        raise InvalidInput(f"audit.{field}", f"{len(value.encode())} bytes", f"at most {limit} bytes")
    return value


def _valid_unicode(value: Any) -> Any:
    """``value`` with ``?`` for every lone surrogate in its texts."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_valid_unicode(key): _valid_unicode(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_valid_unicode(child) for child in value]
    return value


def _searchable(value: str | None) -> str | None:
    # PostgreSQL has no NUL in text.
    return value.replace("\x00", "�") if value and "\x00" in value else value


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
