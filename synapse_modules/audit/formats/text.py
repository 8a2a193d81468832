"""What the formats have in common."""

from __future__ import annotations

import functools
import ipaddress
import json
from datetime import UTC, datetime
from typing import Final

import synapse_modules

__all__ = ["PRODUCT", "PRODUCT_VERSION", "ip_version", "iso_time", "json_text", "visible"]

PRODUCT: Final = "synapse-governance"
PRODUCT_VERSION: Final = synapse_modules.__version__

json_text: Final = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False, default=dict
).encode
"""JSON in ASCII and on one line, whatever the text in it: no reader takes U+2028 or NEL for the end of a line."""

_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59
_LONGEST_IP = 40

_PICTURES: Final = {
    **{code: 0x2400 + code for code in range(0x20)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    0x2028: 0x2424,
    0x2029: 0x2424,
}


def visible(text: str) -> str:
    """``text`` with a picture (U+2400 and on) in the place of each control character and line separator.

    So nobody ends a line, cuts off a record or drives a terminal with what they put into a field.
    """
    return text if text.isprintable() else text.translate(_PICTURES)


def iso_time(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds. What lies outside the years 1970 to 9999 becomes the nearest end of them."""
    seconds, milliseconds = divmod(time_ms, 1000)
    if not 0 <= seconds <= _LAST_SECOND:
        seconds, milliseconds = (0, 0) if seconds < 0 else (_LAST_SECOND, 999)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@functools.lru_cache(maxsize=4096)
def ip_version(address: str) -> int:
    """4 or 6; 0 for what is no plain address, such as a name or an address with a zone."""
    if len(address) > _LONGEST_IP or "%" in address:
        return 0
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
