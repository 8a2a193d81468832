"""Canonical JSON: one value, one sequence of bytes.

A subset of RFC 8785: object keys must be ASCII strings and numbers must be integers within ±(2**53 - 1), which removes
the two places where implementations differ (number formatting, and the order of keys outside the basic plane).
Verifiers hash the stored bytes and never canonicalise again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from synapse_modules.core.errors import InvalidInput

__all__ = ["JsonValue", "canonical_bytes", "canonical_text", "check_canonical"]

JsonValue = None | bool | int | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

_MAX_SAFE_INTEGER = 2**53 - 1
_ENCODER = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,
    default=dict,  # the only value that the check lets through and the encoder does not know is a read-only mapping
)


def canonical_bytes(value: JsonValue) -> bytes:
    """Encode ``value`` as canonical JSON in UTF-8.

    Raises:
        InvalidInput: for a float, an integer beyond ±(2**53 - 1), a key that is not ASCII, or a lone surrogate.
    """
    check_canonical(value, "$")
    try:
        return canonical_text(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("$", error.object[error.start : error.end], "text without lone surrogates") from error


def canonical_text(checked: JsonValue) -> str:
    """Canonical JSON of a value that :func:`check_canonical` lets pass, or that is right by construction."""
    return _ENCODER.encode(checked)


def check_canonical(value: JsonValue, where: str) -> None:
    """Refuse what has no canonical form, but for lone surrogates, which the encoding to UTF-8 refuses.

    Args:
        value: what is to be encoded.
        where: its path, for the error.

    Raises:
        InvalidInput: for a float, an integer beyond ±(2**53 - 1), a key that is not ASCII, or another type.
    """
    _check(value, where)


def _check(value: JsonValue, where: str) -> None:
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if abs(value) > _MAX_SAFE_INTEGER:
            raise InvalidInput(where, value, "an integer within ±(2**53 - 1)")
        return
    for step, child in _children(value, where):
        _check(child, where + step)


def _children(value: JsonValue, where: str) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            if not key.isascii():
                raise InvalidInput(where, key, "an ASCII key")
            yield f".{key}", child
    elif isinstance(value, list | tuple):
        yield from ((f"[{position}]", child) for position, child in enumerate(value))
    else:
        raise InvalidInput(where, value, "null, a boolean, an integer, text, a list or an object")
