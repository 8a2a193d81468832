"""The anchors that come of what the operator says about them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_modules.audit.anchor_config import (
    FileAnchorConfig,
    HttpAnchorConfig,
    TimestampAnchorConfig,
    WitnessAnchorConfig,
)
from synapse_modules.audit.anchors.file import FileAnchor, same_file_system
from synapse_modules.audit.anchors.http import HttpAnchor
from synapse_modules.audit.anchors.model import PROMISED_S
from synapse_modules.audit.anchors.reader import StoredLog
from synapse_modules.audit.anchors.timestamp import TimestampAnchor, load_certificates
from synapse_modules.audit.anchors.transport import Transport
from synapse_modules.audit.anchors.witness import WitnessAnchor
from synapse_modules.audit.cosignature import WitnessKey
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.anchor_config import AnchorConfig, ServerConfig
    from synapse_modules.audit.anchors.model import Anchor
    from synapse_modules.core.clock import Clock
    from synapse_modules.storage.database import Database, DatabaseLocation

__all__ = ["anchor_warnings", "make_anchors"]


def make_anchors(configs: Sequence[AnchorConfig], origin: str, log: Database, clock: Clock) -> dict[Anchor, float]:
    """The anchors, each with its interval in seconds.

    Args:
        configs: what the operator says.
        origin: the log's name.
        log: the audit log's database.
        clock: for what people read.

    Raises:
        InvalidInput: a file that one of them names cannot be read.
    """
    return {_make(config, origin, log, clock): config.interval_s for config in configs}


def anchor_warnings(configs: Sequence[AnchorConfig], location: DatabaseLocation) -> list[str]:
    """What the operator should hear at every start, a sentence each without a full stop.

    Args:
        configs: what the operator says.
        location: where the audit log's database is.
    """
    warnings = [f"anchor {config.name}: {text}" for config in configs for text in _warnings(config, location)]
    if not configs:
        warnings.append("the audit log has no anchor: whoever controls its database can rewrite it unnoticed")
    elif min(config.interval_s for config in configs) > PROMISED_S:
        warnings.append(f"no anchor gets what is new every {PROMISED_S:g} seconds: what is newer is not protected")
    return warnings


def _make(config: AnchorConfig, origin: str, log: Database, clock: Clock) -> Anchor:
    match config:
        case FileAnchorConfig():
            return FileAnchor(config.name, Path(config.path), clock)
        case HttpAnchorConfig():
            token_file = None if config.token_file is None else Path(config.token_file)
            return HttpAnchor(
                config.name, config.url, _transport(config), read_url=config.read_url, token_file=token_file
            )
        case TimestampAnchorConfig():
            roots = load_certificates(Path(config.root_certificates))
            return TimestampAnchor(config.name, config.url, _transport(config), roots)
        case WitnessAnchorConfig():
            return WitnessAnchor(
                config.name,
                config.url,
                WitnessKey.parse(config.key),
                _transport(config),
                origin,
                StoredLog(log),
                monitoring_url=config.monitoring_url,
            )


def _transport(config: ServerConfig) -> Transport:
    ca_file = None if config.ca_file is None else Path(config.ca_file)
    try:
        return Transport(config.name, timeout_s=config.timeout_s, ca_file=ca_file, proxy=config.proxy)
    except (OSError, ssl.SSLError) as error:
        where = f"anchor {config.name}, ca_file {config.ca_file}"
        raise InvalidInput(where, str(error), "certificates in PEM form") from None


def _warnings(config: AnchorConfig, location: DatabaseLocation) -> list[str]:
    match config:
        case FileAnchorConfig():
            same = same_file_system(Path(config.path), location)
            if same is None:
                return [f"cannot tell whether {config.path} is on another disk than the log's database"]
            return [f"{config.path} is on the file system of the log's database, and shares its fate"] if same else []
        case HttpAnchorConfig() | WitnessAnchorConfig() if config.unsafe_plain_http:
            return ["unsafe_plain_http is set, so anybody on the way can answer in its place"]
    return []
