r"""Common Event Format, version 0.

The header escapes ``\`` and ``|``, the extension ``\``, ``=``, LF and CR; other control characters are shown by their
pictures. Values are not cut to the lengths of the dictionary: a receiver that cuts them says so itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse_modules.audit.formats.line import LineFormat
from synapse_modules.audit.formats.text import PRODUCT, PRODUCT_VERSION, ip_version, json_text, visible
from synapse_modules.core.action_specs import SPECS, Severity, severity_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.audit.formats.entry import Entry

__all__ = ["CEF"]

_SEVERITIES: Final[Mapping[Severity, int]] = {
    Severity.INFO: 1,
    Severity.LOW: 3,
    Severity.MEDIUM: 5,
    Severity.HIGH: 8,
    Severity.CRITICAL: 10,
}
_NAMES: Final[Mapping[str, str]] = {action.value: spec.sentence for action, spec in SPECS.items()}
_CLASSES: Final[Mapping[str, str]] = {action.value: spec.action_class.value for action, spec in SPECS.items()}


def _header(text: str) -> str:
    return visible(text.replace("\\", r"\\").replace("|", r"\|"))


def _value(text: str) -> str:
    return visible(text.replace("\\", r"\\").replace("=", r"\=").replace("\n", r"\n").replace("\r", r"\r"))


_PREFIX: Final = f"CEF:0|{_header(PRODUCT)}|audit|{_header(PRODUCT_VERSION)}|"


def _encode(entry: Entry) -> str:
    action = entry.action
    severity = _SEVERITIES[severity_of(action, entry.outcome)]
    parts = [
        f"{_PREFIX}{_header(action)}|{_header(_NAMES.get(action, action))}|{severity}|rt={entry.time_ms}",
        f"externalId={_value(entry.id)} cn1Label=leafIndex cn1={entry.idx}",
        f"cat={_CLASSES.get(action, 'unknown')} outcome={_value(entry.outcome)}",
        f"dvchost={_value(entry.server)} deviceProcessName={_value(entry.process)}",
    ]
    for key, value in (
        ("suser", entry.actor),
        ("duser", entry.target),
        (None if entry.address is None else _address_key(entry.address), entry.address),
        ("requestClientApplication", entry.user_agent),
        ("reason", entry.reason),
        ("cs1Label=room cs1", entry.room),
        ("cs2Label=rule cs2", entry.rule),
        ("cs3Label=case cs3", entry.case),
        ("cs4Label=device cs4", entry.device),
    ):
        if value is not None:
            parts.append(f"{key}={_value(value)}")
    if entry.details:
        parts.append(f"cs5Label=details cs5={_value(json_text(entry.details))}")
    if entry.erased:
        parts.append(f"cs6Label=erased cs6={','.join(entry.erased)}")
    return " ".join(parts)


def _address_key(address: str) -> str:
    """``src`` is for IPv4 alone."""
    version = ip_version(address)
    if version == 4:  # noqa: PLR2004  as in IPv4
        return "src"
    return "c6a2Label=Source IPv6 Address c6a2" if version else "shost"


CEF = LineFormat(
    name="cef",
    suffix=".cef",
    media_type="text/plain; charset=utf-8",
    lossless=False,
    summary="Common Event Format; control characters are shown by their pictures",
    encode=_encode,
)
