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
_decode_json = json.JSONDecoder(parse_constant=int, strict=False).raw_decode
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
    disclosed = check_disclosures(personal, disclosures)
    return ShownEntry(index, computed, action.encode(), leaf_text.encode(), len(personal) - disclosed)


def _parts(line: bytes) -> tuple[int, str, str, dict[str, Any], str]:
    try:
        text = line.decode()
        head = _HEAD.match(text)
        if head is not None and text.find("\n") == len(text) - 1:
            leaf, end = _decode_json(text, head.end())
            if text.startswith(_MIDDLE, end) and isinstance(leaf, dict):
                start = end + len(_MIDDLE)
                disclosures, end_of_both = _decode_json(text, start)
                if isinstance(disclosures, dict) and text[end_of_both:] == "}\n":
                    return int(head[1]), head[2], text[head.end() : end], leaf, text[start:end_of_both]
    except (ValueError, RecursionError):
        pass
    raise InvalidInput("", line[:60], "an entry: index, hash, leaf and disclosures")


# ------------------------------------------------------------------------------------------------ many lines, fast

_PLAIN: Final = '"[^"]*+"'
"""Text without a quote in it; whether there is a backslash is for others to see. No pattern is faster."""
_ESCAPED: Final = r'"[^"\\]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\]*+)*+"'
_NUMBERS: Final = ("[1-9][0-9]{0,15}+", "0", "-[1-9][0-9]{0,15}+")
_DEPTH: Final = 4
"""How deep the details of a leaf may be for the fast way."""


def _value(text: str, depth: int) -> str:
    """The pattern of a JSON value that is at most ``depth`` deep, without any space."""
    kinds = [text, *_NUMBERS, "true", "false", "null"]
    if depth:
        inner = _value(text, depth - 1)
        kinds += [_object(text, inner), rf"\[(?:\]|{inner}(?:,{inner})*+\])"]
    return f"(?:{'|'.join(kinds)})"


def _object(text: str, value: str) -> str:
    return rf"\{{(?:\}}|{text}:{value}(?:,{text}:{value})*+\}})"


def _leaf(text: str) -> str:
    """The pattern of a leaf as the log writes it. Groups: the action, and each personal field's commitment."""

    def optional(name: str) -> str:  # from after its first quote to after that of the next member
        return rf'(?:{name}":{text},"|)'

    commitments = "".join(rf'(?:{name}":"([^"]{{43}})"(?:,"|\}})|)' for name in PERSONAL_FIELDS)
    return (
        rf'\{{"action":"([^"\\]*+)","{optional("case")}details":{_object(text, _value(text, _DEPTH - 1))}'
        rf',"id":{text},"outcome":{text},"personal":\{{(?:\}}|"){commitments}'
        rf',"process":{text},"{optional("reason")}{optional("room")}{optional("rule")}server":{text}'
        rf',"time_ms":(?:{"|".join(_NUMBERS)}),"v":{LEAF_VERSION}\}}'
    )


def _entry(text: str) -> str:
    """The pattern of an entry. Groups: index, hash, leaf, those of the leaf, and each personal field's disclosure."""
    disclosures = "".join(rf'(?:("{name}":\[{text},{text}\])(?:,|\}})|)' for name in PERSONAL_FIELDS)
    return (
        rf'\{{"index":(0|[1-9][0-9]{{0,18}}+),"hash":"([^"]{{43}})=","leaf":({_leaf(text)})'
        rf',"disclosures":\{{(?:\}}|(?="){disclosures})\}}\n'
    )


_LINES: Final = re.compile(rf"{_entry(_PLAIN)}|([^\n]*+\n)".encode())
"""Every match is a line: an entry in its parts or, in one group more, another line as a whole."""
_LINE: Final = re.compile(_entry(_ESCAPED).encode())
_LEAF, _ACTION = 2, 3  # of the groups
_FIELDS: Final = len(PERSONAL_FIELDS)
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")

_other_line = itemgetter(-1)

Row = tuple[bytes, ...]
"""The parts of one line, as the pattern finds them."""


def split_lines(block: bytes) -> Iterator[bytes | list[Row]]:
    """The lines of ``block``, in order: neighbouring entries as one list for :func:`read_run`, others as they are."""
    rows: list[Row] = _LINES.findall(block)
    if block.count(b"\n") != len(rows):  # some text goes across lines
        rows = [_read_again(line + b"\n") for line in block.split(b"\n")[:-1]]
    elif b"\\" in block:
        rows = [_careful(row) for row in rows]
    start = 0
    if any(map(_other_line, rows)):
        for position, other in enumerate(map(_other_line, rows)):
            if other:
                if start < position:
                    yield rows[start:position]
                yield other
                start = position + 1
    if start < len(rows):
        yield rows[start:] if start else rows


def _careful(row: Row) -> Row:
    """``row`` if there is no backslash in it, else read again in a way that knows them."""
    if row[-1]:
        return _read_again(row[-1])
    if b"\\" in row[_LEAF] or b"\\" in b"".join(row[-_FIELDS - 1 : -1]):
        return _read_again(_line_of(row))
    return row


def _read_again(line: bytes) -> Row:
    found = _LINE.fullmatch(line)
    return (*found.groups(b""), b"") if found else (*(b"",) * _LINE.groups, line)


def lines_of(run: Sequence[Row]) -> list[bytes]:
    """The lines that a run was read from."""
    return [_line_of(row) for row in run]


def _line_of(row: Row) -> bytes:
    disclosures = b",".join(filter(None, row[-_FIELDS - 1 : -1]))
    return b'{"index":%b,"hash":"%b=","leaf":%b,"disclosures":{%b}}\n' % (*row[:3], disclosures)


def action_of(row: Row) -> bytes:
    """The action of the entry that ``row`` was read from."""
    return row[_ACTION]


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
    if b"".join(texts).isascii():
        return True
    try:
        for text in texts:
            text.decode()
    except UnicodeDecodeError:
        return False
    return True
