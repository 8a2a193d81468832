"""The configuration files of a test homeserver, as plain values: no files are written here."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.ports import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Instance", "homeserver_yaml", "instances", "log_yaml", "new_signing_key", "worker_yaml"]

_CLIENT_RESOURCES = ["client", "health", "media", "metrics"]
_UNLIMITED = {"per_second": 100_000, "burst_count": 100_000}


@dataclass(frozen=True, slots=True)
class Instance:
    """One Synapse process: its name (``main`` or ``workerN``) and its ports for clients and for replication."""

    name: str
    port: int = field(default_factory=free_port)
    replication_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://{LOOPBACK}:{self.port}"


def instances(workers: int) -> tuple[Instance, ...]:
    """The main process and ``workers`` generic workers, each with free ports."""
    return (Instance("main"), *(Instance(f"worker{number}") for number in range(1, workers + 1)))


def new_signing_key() -> str:
    """A fresh signing key in the line format of Synapse's key files."""
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"ed25519 a_{secrets.token_hex(2)} {seed}"


def homeserver_yaml(
    folder: Path,
    processes: Sequence[Instance],
    database: Mapping[str, Any],
    *,
    server_name: str,
    shared_secret: str,
    redis_port: int | None,
) -> dict[str, Any]:
    """The shared configuration: no federation, no presence, no statistics, no rate limits, cheap password hashes.

    Args:
        folder: where media and pid files go.
        processes: the main process first; with more than one, replication over Redis is switched on.
        database: Synapse's ``database`` section.
        server_name: the part after the colon in Matrix ids.
        shared_secret: for the registration API.
        redis_port: port of Redis on loopback, if there are workers.
    """
    return {
        "server_name": server_name,
        "public_baseurl": f"{processes[0].url}/",
        "pid_file": str(folder / "main.pid"),
        "listeners": _listeners(processes[0], replication=redis_port is not None),
        "database": dict(database),
        "log_config": str(folder / "log.yaml"),
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(folder / "signing.key"),
        "registration_shared_secret": shared_secret,
        "macaroon_secret_key": secrets.token_hex(16),
        "form_secret": secrets.token_hex(16),
        **_QUIET,
        **_RATE_LIMITS,
        **_replication(processes, redis_port),
    }


def worker_yaml(folder: Path, instance: Instance) -> dict[str, Any]:
    """The configuration that one generic worker has in addition."""
    return {
        "worker_app": "synapse.app.generic_worker",
        "worker_name": instance.name,
        "worker_pid_file": str(folder / f"{instance.name}.pid"),
        "worker_log_config": str(folder / "log.yaml"),
        "worker_listeners": _listeners(instance, replication=True),
    }


def log_yaml() -> dict[str, Any]:
    """Logging to standard error, which the harness keeps in a file for each process."""
    form = "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": form}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "INFO", "handlers": ["console"]},
    }


def _listeners(instance: Instance, *, replication: bool) -> list[dict[str, Any]]:
    common = {"type": "http", "tls": False, "bind_addresses": [LOOPBACK]}
    # `media` on a worker makes it a media repository; clients ask the main process for media.
    names = [name for name in _CLIENT_RESOURCES if name != "media" or instance.name == "main"]
    client = {**common, "port": instance.port, "x_forwarded": True, "resources": [{"names": names}]}
    inner = {**common, "port": instance.replication_port, "resources": [{"names": ["replication"]}]}
    return [client, inner] if replication else [client]


def _replication(processes: Sequence[Instance], redis_port: int | None) -> dict[str, Any]:
    if redis_port is None:
        return {}
    return {
        "redis": {"enabled": True, "host": LOOPBACK, "port": redis_port},
        "worker_replication_secret": secrets.token_hex(16),
        "instance_map": {one.name: {"host": LOOPBACK, "port": one.replication_port} for one in processes},
    }


_QUIET: dict[str, Any] = {
    "report_stats": False,
    "enable_metrics": True,
    "trusted_key_servers": [],
    "federation_domain_whitelist": [],
    "presence": {"enabled": False},
    "bcrypt_rounds": 4,
    "enable_registration": False,
    "suppress_key_server_warning": True,
    "url_preview_enabled": False,
}

_RATE_LIMITS: dict[str, Any] = {
    "rc_message": _UNLIMITED,
    "rc_registration": _UNLIMITED,
    "rc_registration_token_validity": _UNLIMITED,
    "rc_login": {"address": _UNLIMITED, "account": _UNLIMITED, "failed_attempts": _UNLIMITED},
    "rc_admin_redaction": _UNLIMITED,
    "rc_joins": {"local": _UNLIMITED, "remote": _UNLIMITED},
    "rc_joins_per_room": _UNLIMITED,
    "rc_invites": {"per_room": _UNLIMITED, "per_user": _UNLIMITED, "per_issuer": _UNLIMITED},
    "rc_3pid_validation": _UNLIMITED,
    "rc_media_create": _UNLIMITED,
    "rc_room_creation": _UNLIMITED,
    "rc_key_requests": _UNLIMITED,
    "rc_reports": _UNLIMITED,
    "rc_user_directory": _UNLIMITED,
    "rc_delayed_event_mgmt": _UNLIMITED,
}
