"""The data folder of a demo homeserver: settings for stock Synapse, secrets, and one lock for whoever runs it.

Secrets are made once, at random, readable by their owner alone. Settings are written anew at each start, so that they
follow the port and the release; data and secrets stay until the folder is deleted.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from synapse_modules.cli.credentials import write_private
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SERVER_NAME", "DataFolder", "find_demo_configuration"]

SERVER_NAME = "demo.localhost"
_NEEDED_BYTES = 100 * 2**20
_PLENTY = {"per_second": 1000, "burst_count": 1000}


class DataFolder:
    """One folder that holds everything of one demo homeserver.

    Args:
        path: the folder; it is made when it is missing.
        configuration: where the demo's ``policy.yaml`` and ``retention.yaml`` are.
    """

    def __init__(self, path: Path, configuration: Path) -> None:
        self.path = path.absolute()
        self._configuration = configuration
        self._lock: int | None = None

    # ------------------------------------------------------------------ places

    @property
    def settings(self) -> Path:
        """The settings that Synapse starts with."""
        return self.path / "homeserver.yaml"

    @property
    def log(self) -> Path:
        """Synapse's own log."""
        return self.path / "homeserver.log"

    @property
    def console(self) -> Path:
        """What Synapse printed: it complains there about settings, before it has a log."""
        return self.path / "homeserver.out"

    @property
    def policy(self) -> Path:
        """The demo's access policy, there to be edited and applied."""
        return self.path / "policy.yaml"

    @property
    def retention(self) -> Path:
        """The demo's retention rules, there to be edited and applied."""
        return self.path / "retention.yaml"

    def password_file(self, account: str) -> Path:
        """The file that holds the password of ``account``."""
        return self.path / "passwords" / account

    # ------------------------------------------------------------------ preparing

    def claim(self) -> None:
        """Make the folder this process's own, until it and its children end.

        Raises:
            GovernanceError: the folder cannot be made or written, is in use, or the disk is as good as full.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise GovernanceError(
                "is in use by another `govctl dev`", where=str(self.path), advice="Stop that one, or use --data FOLDER"
            ) from None
        self._lock = lock
        self._require_space()

    @property
    def claim_descriptor(self) -> int | None:
        """The descriptor of the lock, for children that use the folder as well; None before :meth:`claim`."""
        return self._lock

    def release(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def prepare(self, port: int) -> None:
        """Write what Synapse needs to start on ``port``; secrets and edited policies that exist are kept.

        Raises:
            GovernanceError: the folder cannot be written, or the disk is full.
        """
        try:
            (self.path / "media").mkdir(exist_ok=True)
            for source in ("policy.yaml", "retention.yaml"):
                if not (self.path / source).exists():
                    shutil.copyfile(self._configuration / source, self.path / source)
        except OSError as error:
            raise self._unusable(error) from None
        self._secret("signing.key", f"ed25519 a_{secrets.token_hex(2)} {_unpadded(secrets.token_bytes(32))}\n")
        for name in ("registration.secret", "macaroon.secret", "form.secret"):
            self._secret(name, secrets.token_urlsafe(32))
        write_private(self.path / "logging.yaml", yaml.safe_dump(_logging(self.log), sort_keys=False))
        write_private(self.settings, yaml.safe_dump(self._homeserver(port), sort_keys=False))

    def passwords(self, accounts: Iterable[str]) -> dict[str, str]:
        """The password of each account, made at random the first time."""
        return {account: self._secret(f"passwords/{account}", secrets.token_urlsafe(9)) for account in accounts}

    @property
    def registration_secret(self) -> str:
        """What lets its holder register accounts."""
        return (self.path / "registration.secret").read_text(encoding="utf-8")

    def remember(self, name: str, facts: dict[str, Any]) -> None:
        """Keep ``facts`` under ``name``."""
        write_private(self.path / f"{name}.json", json.dumps(facts, indent=1))

    def recall(self, name: str) -> dict[str, Any]:
        """What was kept under ``name``; empty if nothing was."""
        try:
            return dict(json.loads((self.path / f"{name}.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    # ------------------------------------------------------------------ inside

    def _secret(self, name: str, fresh: str) -> str:
        path = self.path / name
        if not path.exists():
            write_private(path, fresh)
        return path.read_text(encoding="utf-8")

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < _NEEDED_BYTES:
            raise GovernanceError(
                f"the disk is full: {free // 2**20} MiB free, {_NEEDED_BYTES // 2**20} MiB needed",
                where=str(self.path),
                advice="Free some space, or use --data FOLDER on another disk",
            )

    def _unusable(self, error: OSError) -> GovernanceError:
        return GovernanceError(
            f"cannot be written: {error.strerror}",
            where=str(error.filename or self.path),
            advice="Use --data FOLDER with a folder that is yours",
        )

    def _homeserver(self, port: int) -> dict[str, Any]:
        """Settings for one process, on loopback only, without federation."""
        return {
            "server_name": SERVER_NAME,
            "public_baseurl": f"http://127.0.0.1:{port}/",
            "pid_file": str(self.path / "homeserver.pid"),
            "listeners": [
                {
                    "type": "http",
                    "port": port,
                    "bind_addresses": ["127.0.0.1"],
                    "resources": [{"names": ["client"]}],
                }
            ],
            "federation_domain_whitelist": [],
            "trusted_key_servers": [],
            "database": {"name": "sqlite3", "args": {"database": str(self.path / "homeserver.db")}},
            "media_store_path": str(self.path / "media"),
            "log_config": str(self.path / "logging.yaml"),
            "signing_key_path": str(self.path / "signing.key"),
            "registration_shared_secret_path": str(self.path / "registration.secret"),
            "macaroon_secret_key_path": str(self.path / "macaroon.secret"),
            "form_secret_path": str(self.path / "form.secret"),
            "report_stats": False,
            "enable_registration": False,
            "url_preview_enabled": False,
            # The passwords are random, 72 bits each: a slow hash adds nothing but waiting.
            "bcrypt_rounds": 4,
            # Loopback only, and one person plays everybody: Synapse's limits for the open internet are in the way.
            "rc_message": _PLENTY,
            "rc_login": {"address": _PLENTY, "account": _PLENTY, "failed_attempts": _PLENTY},
            "rc_joins": {"local": _PLENTY, "remote": _PLENTY},
            "rc_invites": {"per_room": _PLENTY, "per_user": _PLENTY, "per_issuer": _PLENTY},
            "rc_admin_redaction": _PLENTY,
            "modules": self._modules(),
        }

    def _modules(self) -> list[dict[str, Any]]:
        return [
            {"module": "synapse_modules.plugin.RbacModule", "config": {"policy_file": str(self.policy)}},
            {"module": "synapse_modules.plugin.AuditModule", "config": {}},
            {"module": "synapse_modules.plugin.RetentionModule", "config": {"rules_file": str(self.retention)}},
        ]


def find_demo_configuration() -> Path:
    """The folder ``config/demo`` of the project.

    Raises:
        GovernanceError: this is an installed package, without the project around it.
    """
    folder = Path(__file__).resolve().parents[3] / "config" / "demo"
    if not folder.is_dir():
        raise GovernanceError(
            "not found", where=str(folder), advice="The demo runs from a checkout of the project: `make run`"
        )
    return folder


def _logging(file: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
        "handlers": {
            "file": {
                "class": "logging.handlers.RotatingFileHandler",
                "formatter": "line",
                "filename": str(file),
                "maxBytes": 20 * 2**20,
                "backupCount": 1,
                "encoding": "utf-8",
            }
        },
        "root": {"level": "INFO", "handlers": ["file"]},
        "disable_existing_loggers": False,
    }


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
