"""Which server, and as whom: the environment first, then what `govctl login` kept.

A token is never an argument, because every user of a machine can read the process list. Logins are kept in one file
below the user's configuration folder that nobody else can read.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synapse_modules.core.errors import GovernanceError

__all__ = ["Login", "LoginFile", "configuration_folder", "write_private"]


@dataclass(frozen=True, slots=True)
class Login:
    """One login that is kept: whose it is, and the token that proves it."""

    user_id: str
    device_id: str
    access_token: str

    def __repr__(self) -> str:
        """Never the token."""
        return f"Login({self.user_id}, {self.device_id})"


def configuration_folder() -> Path:
    """``GOVCTL_HOME``, else ``synapse-governance`` below ``XDG_CONFIG_HOME`` or ``~/.config``."""
    own = os.environ.get("GOVCTL_HOME")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "synapse-governance"


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` as a whole by ``text``, readable and writable by its owner alone from the first byte on.

    Raises:
        GovernanceError: the folder cannot be made or written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise GovernanceError(f"cannot be written: {error.strerror}", where=str(path)) from None


class LoginFile:
    """The logins that are kept, one for each server.

    Args:
        path: the file; by default ``logins.json`` in the configuration folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or configuration_folder() / "logins.json"

    def get(self, server: str) -> Login | None:
        """The login kept for ``server``, or None."""
        found = self._read().get(server)
        return None if found is None else Login(**found)

    def keep(self, server: str, login: Login) -> None:
        """Keep ``login`` for ``server``, in place of an earlier one."""
        write_private(self.path, json.dumps(self._read() | {server: asdict(login)}, indent=1))

    def forget(self, server: str) -> None:
        """Keep no login for ``server`` any more."""
        kept = self._read()
        if kept.pop(server, None) is not None:
            write_private(self.path, json.dumps(kept, indent=1))

    def _read(self) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise GovernanceError(f"cannot be read: {error.strerror}", where=str(self.path)) from None
        kept = _parse(text)
        if kept is None:
            raise GovernanceError(
                "is not a file of logins", where=str(self.path), advice="Delete it and run `govctl login` again"
            )
        return kept


def _parse(text: str) -> dict[str, Any] | None:
    """The logins by server, or None if ``text`` does not hold logins only."""
    try:
        kept = json.loads(text)
        for login in kept.values():
            Login(**login)
    except (ValueError, TypeError, AttributeError):
        return None
    return dict(kept)
