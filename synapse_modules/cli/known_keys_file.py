"""The file in which govctl remembers the keys of audit logs, as SSH remembers hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.cli.credentials import configuration_folder, write_private
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.audit.checkpoint import VerifierKey

__all__ = ["KnownKeysFile"]


class KnownKeysFile:
    """Verifier keys by log, one a line.

    Args:
        path: the file; by default ``known_keys`` in the configuration folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or configuration_folder() / "known_keys"

    def read(self) -> KnownKeys:
        """The keys that are remembered; none if there is no file.

        Raises:
            GovernanceError: it cannot be read, or holds something else.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return KnownKeys()
        except OSError as error:
            raise GovernanceError(f"cannot be read: {error.strerror}", where=str(self.path)) from None
        except UnicodeDecodeError:
            raise GovernanceError("is not UTF-8 text", where=str(self.path)) from None
        return KnownKeys.parse(text, str(self.path))

    def remember(self, key: VerifierKey) -> bool:
        """Remember ``key``; whether it is new.

        Raises:
            KeyChanged: another key is remembered for that log.
        """
        before = self.read()
        after = before.remember(key)
        if after is before:
            return False
        write_private(self.path, after.format())
        return True
