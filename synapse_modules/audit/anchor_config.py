"""What the operator says about anchors."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic

from synapse_modules.audit.cosignature import WitnessKey
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput

__all__ = [
    "AnchorConfig",
    "AnchorKind",
    "FileAnchorConfig",
    "HttpAnchorConfig",
    "ServerConfig",
    "TimestampAnchorConfig",
    "WitnessAnchorConfig",
    "check_anchor_names",
    "check_url",
]

_Path = Annotated[str, pydantic.Field(min_length=1)]


class AnchorKind(StrEnum):
    """What an anchor is."""

    FILE = "file"
    HTTP = "http"
    TIMESTAMP = "timestamp"
    WITNESS = "witness"


class _AnchorConfig(FrozenModel):
    """What every anchor has.

    Attributes:
        name: tells it apart in metrics, in the log's database and in exports; never give a name to another anchor.
        interval_s: how often it gets what is new, in seconds. What the log promises is 10 for one anchor at the least.
    """

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    interval_s: float = pydantic.Field(default=5.0, ge=0.1, le=86_400)


class FileAnchorConfig(_AnchorConfig):
    """A file to which checkpoints are appended.

    Attributes:
        kind: tells it from the other kinds.
        path: the file, best on another machine's disk, where whoever can write the database cannot.
    """

    kind: Literal["file"]
    path: _Path


class ServerConfig(_AnchorConfig):
    """What every anchor that is a server has.

    Attributes:
        url: where it is.
        timeout_s: how long each step may take, in seconds.
        ca_file: PEM file with the certificates that its own must come from; by default those that browsers know.
        proxy: URL of the HTTP proxy on the way.
    """

    url: str
    timeout_s: float = pydantic.Field(default=5.0, ge=0.1, le=60)
    ca_file: _Path | None = None
    proxy: str | None = None

    @pydantic.field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, proxy: str | None) -> str | None:
        return None if proxy is None else check_url(proxy, plain_http=True)


class HttpAnchorConfig(ServerConfig):
    """An endpoint that takes checkpoints by POST.

    Attributes:
        kind: tells it from the other kinds.
        read_url: where the latest checkpoint can be read back; without it a rollback cannot be noticed there.
        token_file: file with the bearer token, readable by its owner alone.
        unsafe_plain_http: allow ``http://`` beyond this machine. Whoever is on the way can then answer in its place.
    """

    kind: Literal["http"]
    read_url: str | None = None
    token_file: _Path | None = None
    unsafe_plain_http: bool = False

    @pydantic.model_validator(mode="after")
    def _has_safe_urls(self) -> HttpAnchorConfig:
        _check_urls(self.unsafe_plain_http, url=self.url, read_url=self.read_url)
        return self


class TimestampAnchorConfig(ServerConfig):
    """A time stamping authority (RFC 3161). Its answers prove themselves: ``http://`` is no danger.

    Attributes:
        kind: tells it from the other kinds.
        root_certificates: PEM file with the certificates that the authority's certificate must come from.
    """

    kind: Literal["timestamp"]
    root_certificates: _Path

    @pydantic.model_validator(mode="after")
    def _has_a_url(self) -> TimestampAnchorConfig:
        _check_urls(plain_http=True, url=self.url)
        return self


class WitnessAnchorConfig(ServerConfig):
    """A witness (https://c2sp.org/tlog-witness). Its operator needs the log's origin and verifier key.

    Attributes:
        kind: tells it from the other kinds.
        url: its submission prefix.
        key: its verifier key for cosignatures, ``name+hash+base64`` of type 0x04.
        monitoring_url: its monitoring prefix; by default ``url``.
        unsafe_plain_http: allow ``http://`` beyond this machine. Whoever is on the way can then stop the log.
    """

    kind: Literal["witness"]
    key: str
    monitoring_url: str | None = None
    unsafe_plain_http: bool = False

    @pydantic.field_validator("key")
    @classmethod
    def _is_a_key(cls, key: str) -> str:
        try:
            return str(WitnessKey.parse(key))
        except InvalidInput as error:
            raise InvalidInput("", error.found, error.expected) from None

    @pydantic.model_validator(mode="after")
    def _has_safe_urls(self) -> WitnessAnchorConfig:
        _check_urls(self.unsafe_plain_http, url=self.url, monitoring_url=self.monitoring_url)
        return self


AnchorConfig = Annotated[
    FileAnchorConfig | HttpAnchorConfig | TimestampAnchorConfig | WitnessAnchorConfig,
    pydantic.Field(discriminator="kind"),
]


def check_anchor_names(configs: tuple[AnchorConfig, ...]) -> tuple[AnchorConfig, ...]:
    """Return ``configs`` if no two have the same name.

    Raises:
        InvalidInput: two have.
    """
    names = [config.name for config in configs]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise InvalidInput(f"[{position}].name", name, "a name that no anchor before it has")
    return configs


def check_url(url: str, *, plain_http: bool) -> str:
    """Return ``url`` if an anchor may use it.

    Args:
        url: what the operator wrote.
        plain_http: whether ``http`` may go beyond this machine.

    Raises:
        InvalidInput: it is no URL of a server, carries a password, or is not ``https`` where it has to be.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.fragment:
        raise InvalidInput("", url, "a URL that begins with https://")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("", "a URL with a name or a password in it", "a URL without; use token_file")
    if parts.scheme == "http" and not plain_http and not _is_this_machine(parts.hostname):
        raise InvalidInput("", url, "https:// (or unsafe_plain_http: true, where the network itself can be trusted)")
    return url


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_urls(plain_http: bool, **urls: str | None) -> None:
    for name, url in urls.items():
        if url is not None:
            try:
                check_url(url, plain_http=plain_http)
            except InvalidInput as error:
                raise InvalidInput(name, error.found, error.expected) from None
