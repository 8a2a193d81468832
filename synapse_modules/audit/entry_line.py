"""The line that a bundle has for an entry: written, read exactly, and read fast by the thousand.

The fast way is one pattern over many lines. It knows how this log writes its leaves, and takes nothing that
:func:`parse_entry` would not take; what it does not take is for :func:`parse_entry` to judge.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from itertools import compress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse_modules.audit.merkle import leaf_hash
from synapse_modules.audit.record import LEAF_VERSION, PERSONAL_FIELDS, check_disclosures
from synapse_modules.core.canonical import canonical_text
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Row",
    "ShownEntry",
    "ShownRun",
    "action_of",
    "entry_line",
    "lines_of",
    "parse_entry",
    "read_run",
    "split_lines",
]


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """An entry that was read and is consistent in itself; whether it belongs to the tree is for others to check.

    Attributes:
        index: its place. node: the hash of its leaf. action: what its leaf says.
        leaf: its exact bytes. erased: how many of its personal values are not disclosed.
    """

    index: int
    node: bytes
    action: bytes
    leaf: bytes
    erased: int


class ShownRun(NamedTuple):
    """The same of neighbouring entries.

    Attributes:
        nodes: the hashes of their leaves. actions: how many of each there are. erased: undisclosed values of all.
    """

    nodes: list[bytes]
    actions: Counter[bytes]
    erased: int


def entry_line(index: int, node: bytes, leaf: bytes, disclosures: bytes) -> bytes:
    """The line for an entry, for which the tree has the hash ``node``."""
    encoded = binascii.b2a_base64(node, newline=False)
    return b'{"index":%d,"hash":"%b","leaf":%b,"disclosures":%b}\n' % (index, encoded, leaf, disclosures)


# ------------------------------------------------------------------------------------------------ one line, exactly

_HEAD: Final = re.compile(r'\{"index":(0|[1-9][0-9]{0,18}),"hash":"([A-Za-z0-9+/]{43}=)","leaf":')
_MIDDLE: Final = ',"disclosures":'
_decode_json = json.JSONDecoder(parse_constant=int).raw_decode
"""Of what Python takes for JSON, not the numbers NaN and Infinity: they are no integers."""


def parse_entry(line: bytes) -> ShownEntry:
    """The entry on ``line``.

    Raises:
        InvalidInput: it is none, or its hash or a disclosure does not fit its leaf.
    """
    index, node, leaf_text, leaf, disclosures = _parts(line)
    computed = leaf_hash(leaf_text.encode())
    encoded = base64.b64encode(computed).decode()
    if encoded != node:
        raise InvalidInput("hash", node, f"{encoded}: the leaf was altered")
    action, personal = leaf.get("action"), leaf.get("personal")
    if leaf.get("v") != LEAF_VERSION or not isinstance(action, str) or not isinstance(personal, dict):
        raise InvalidInput(
            "leaf", leaf_text[:60], f"a leaf of version {LEAF_VERSION} with its action and what is personal"
        )
    check_disclosures(personal, disclosures)
    return ShownEntry(index, computed, action.encode(), leaf_text.encode(), len(personal) - len(disclosures))


def _parts(line: bytes) -> tuple[int, str, str, dict[str, Any], dict[str, Any]]:
    try:
        text = line.decode()
        head = _HEAD.match(text)
        if head is not None:
            leaf, end = _decode_json(text, head.end())
            if text.startswith(_MIDDLE, end) and isinstance(leaf, dict):
                start = end + len(_MIDDLE)
                disclosures, _ = _decode_json(text, start)
                if isinstance(disclosures, dict) and text[start:] == canonical_text(disclosures) + "}\n":
                    return int(head[1]), head[2], text[head.end() : end], leaf, disclosures
    except (ValueError, RecursionError):
        pass
    raise InvalidInput("", line[:60], "an entry: index, hash, leaf and disclosures")


# ------------------------------------------------------------------------------------------------ many lines, fast

_CHARACTERS: Final = r'[^"\\\x00-\x1f]*+'
_ESCAPE: Final = r'\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))'
_TEXT: Final = rf'"{_CHARACTERS}(?:"|(?:{_ESCAPE}{_CHARACTERS})++")'
_NUMBER: Final = "(?:0|-?[1-9][0-9]{0,15}+)"
_SCALAR: Final = rf"(?:{_TEXT}|{_NUMBER}|true|false|null)"
_DEPTH: Final = 4
"""How deep the details of a leaf may be for the fast way."""


def _value(depth: int) -> str:
    """The pattern of a JSON value that is at most ``depth`` deep, without any space."""
    if depth == 0:
        return _SCALAR
    inner = _value(depth - 1)
    array = rf"\[(?:\]|{inner}(?:,{inner})*+\])"
    return rf"(?:{_SCALAR}|{_object(inner)}|{array})"


def _object(value: str) -> str:
    member = rf'"{_CHARACTERS}":{value}'
    return rf"\{{(?:\}}|{member}(?:,{member})*+\}})"


def _optional(name: str) -> str:
    """The pattern of a member that may be absent. It begins after its first quote, and ends after the next one's."""
    return rf'(?:{name}":{_TEXT},"|)'


_COMMITMENTS: Final = "".join(rf'(?:{name}":"([A-Za-z0-9_-]{{43}})"(?:,"|\}})|)' for name in PERSONAL_FIELDS)
_DISCLOSURES: Final = "".join(
    rf'(?:("{name}":\["[A-Za-z0-9_-]{{22}}",{_TEXT}\])(?:,|\}})|)' for name in PERSONAL_FIELDS
)
_LEAF: Final = (
    rf'\{{"action":"([a-z.]++)","{_optional("case")}details":{_object(_value(_DEPTH - 1))}'
    rf',"id":"[0-9a-f]{{32}}","outcome":"[a-z]++","personal":\{{(?:\}}|"){_COMMITMENTS}'
    rf',"process":{_TEXT},"{_optional("reason")}{_optional("room")}{_optional("rule")}server":{_TEXT}'
    rf',"time_ms":{_NUMBER},"v":{LEAF_VERSION}\}}'
)
_LINES: Final = re.compile(
    (
        rf'\{{"index":(0|[1-9][0-9]{{0,18}}+),"hash":"(.{{43}})=","leaf":({_LEAF})'
        rf',"disclosures":\{{(?:\}}|(?="){_DISCLOSURES})\}}\n'
        r"|([^\n]*+\n)"
    ).encode(),
    re.DOTALL,
)
"""Every match is a line: an entry in its parts or, in the last group, another line as a whole."""
_FIELDS: Final = len(PERSONAL_FIELDS)
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")

_other_line = itemgetter(-1)

Row = tuple[bytes, ...]
"""The parts of one line, as the pattern finds them."""


def split_lines(block: bytes | memoryview) -> Iterator[bytes | list[Row]]:
    """The lines of ``block``, in order: neighbouring entries as one list for :func:`read_run`, others as they are."""
    rows: list[Row] = _LINES.findall(block)
    others = list(map(_other_line, rows))
    start = 0
    if any(others):
        for position, other in enumerate(others):
            if other:
                if start < position:
                    yield rows[start:position]
                yield other
                start = position + 1
    if start < len(rows):
        yield rows[start:]


def lines_of(run: Sequence[Row]) -> list[bytes]:
    """The lines that a run was read from."""
    written = b'{"index":%b,"hash":"%b=","leaf":%b,"disclosures":{%b}}\n'
    return [written % (*row[:3], b",".join(filter(None, row[-_FIELDS - 1 : -1]))) for row in run]


def action_of(row: Row) -> bytes:
    """The action of the entry that ``row`` was read from."""
    return row[3]


def read_run(run: Sequence[Row], first: int) -> ShownRun | None:
    """The entries of ``run``, which must have the indexes from ``first`` on; None when anything about them is wrong."""
    indexes, hashes, leaves, actions, *personal = zip(*run, strict=True)
    nodes = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    disclosed: list[bytes] = []
    committed: list[bytes] = []
    erased = 0
    for commitments, disclosures in zip(personal[:_FIELDS], personal[_FIELDS:-1], strict=True):
        shown = list(filter(None, disclosures))
        disclosed += shown
        committed += compress(commitments, disclosures)
        erased += len(run) - commitments.count(b"") - len(shown)
    right = (
        list(map(int, indexes)) == list(range(first, first + len(run)))
        and _encoded(nodes) == _joined(hashes)
        and _encoded([sha256(each).digest() for each in disclosed]).translate(_URL_SAFE) == _joined(committed)
        and _all_unicode(leaves)
        and _all_unicode(disclosed)
    )
    return ShownRun(nodes, Counter(actions), erased) if right else None


def _encoded(digests: Sequence[bytes]) -> bytes:
    """All ``digests`` in base64, in one call: a zero byte after each makes its last character an A and no padding."""
    return binascii.b2a_base64(b"\x00".join([*digests, b""]), newline=False)


def _joined(texts: Sequence[bytes]) -> bytes:
    """What :func:`_encoded` makes of the digests whose base64 is ``texts``, without their padding."""
    return b"A".join([*texts, b""])


def _all_unicode(texts: Sequence[bytes]) -> bool:
    try:
        for text in texts:
            if not text.isascii():
                text.decode()
    except UnicodeDecodeError:
        return False
    return True
