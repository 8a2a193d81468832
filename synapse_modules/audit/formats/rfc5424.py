r"""Syslog messages by RFC 5424, and their framing for TLS by RFC 5425.

Everything stands in structured data, where ``"``, ``\`` and ``]`` are escaped; control characters, LF among them, are
shown by their pictures. The text after it says in words what the action is. The facility is 13, "log audit".
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from synapse_modules.audit.formats.line import LineFormat
from synapse_modules.audit.formats.text import PRODUCT, PRODUCT_VERSION, iso_time, json_text, visible
from synapse_modules.core.action_specs import SPECS, Severity, severity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse_modules.audit.formats.entry import Entry

__all__ = ["SYSLOG", "octet_counted", "syslog_format"]

_FACILITY: Final = 13
_PRIORITIES: Final[Mapping[Severity, int]] = {
    Severity.INFO: _FACILITY * 8 + 6,  # informational
    Severity.LOW: _FACILITY * 8 + 5,  # notice
    Severity.MEDIUM: _FACILITY * 8 + 4,  # warning
    Severity.HIGH: _FACILITY * 8 + 3,  # error
    Severity.CRITICAL: _FACILITY * 8 + 2,  # critical
}
_SENTENCES: Final[Mapping[str, str]] = {action.value: spec.sentence for action, spec in SPECS.items()}
_NO_NAME: Final = re.compile(r"[^!-~]")
_EXAMPLE_ENTERPRISE = 32473
"""The private enterprise number that RFC 5612 sets aside for everybody who has none."""


def octet_counted(message: bytes) -> bytes:
    """``message`` as one frame of RFC 5425, section 4.3.1."""
    return b"%d %b" % (len(message), message)


def syslog_format(enterprise: int = _EXAMPLE_ENTERPRISE) -> LineFormat:
    """The format whose structured data are named for a private ``enterprise`` number."""
    return LineFormat(
        name="rfc5424",
        suffix=".log",
        media_type="text/plain; charset=utf-8",
        lossless=False,
        summary="RFC 5424 messages, one a line; control characters are shown by their pictures",
        encode=_encoder(enterprise),
    )


def _encoder(enterprise: int) -> Callable[[Entry], str]:
    origin = f'[origin software="{_value(PRODUCT)}" swVersion="{_value(PRODUCT_VERSION)}"]'

    def encode(entry: Entry) -> str:
        priority = _PRIORITIES[severity_of(entry.action, entry.outcome)]
        host, process = _name(entry.server, 255), _name(entry.process, 128)
        return (
            f"<{priority}>1 {iso_time(entry.time_ms)} {host} {PRODUCT} {process} {_name(entry.action, 32)}"
            f" [governance@{enterprise} {_parameters(entry)}]{origin}"
            f" \ufeff{_SENTENCES.get(entry.action, 'an action that this version does not know')}"
        )

    return encode


def _parameters(entry: Entry) -> str:
    parts = [f'index="{entry.idx}" id="{_value(entry.id)}" timeMs="{entry.time_ms}" outcome="{_value(entry.outcome)}"']
    for key, value in (
        ("actor", entry.actor),
        ("target", entry.target),
        ("room", entry.room),
        ("address", entry.address),
        ("userAgent", entry.user_agent),
        ("device", entry.device),
        ("reason", entry.reason),
        ("rule", entry.rule),
        ("case", entry.case),
    ):
        if value is not None:
            parts.append(f'{key}="{_value(value)}"')
    if entry.details:
        parts.append(f'details="{_value(json_text(entry.details))}"')
    if entry.erased:
        parts.append(f'erased="{",".join(entry.erased)}"')
    return " ".join(parts)


def _value(text: str) -> str:
    return visible(text.replace("\\", r"\\").replace('"', r"\"").replace("]", r"\]"))


@functools.lru_cache(maxsize=1024)
def _name(text: str, longest: int) -> str:
    """``text`` for a field of the header: printable ASCII without spaces."""
    if not text:
        return "-"
    return _NO_NAME.sub("?", text[:longest])


SYSLOG = syslog_format()
