"""Which key belongs to which log, remembered as SSH remembers hosts: one line for each log, its verifier key.

The name in a verifier key is the log's origin. A key that differs from the remembered one is refused, never replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.core.errors import GovernanceError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KeyChanged", "KnownKeys", "UnknownKey"]


class UnknownKey(GovernanceError):
    """There is no key to check this log with."""


class KeyChanged(GovernanceError):
    """A log shows another key than the one that is remembered."""


class KnownKeys:
    """The keys that are trusted; frozen.

    Args:
        keys: one for each log.

    Raises:
        InvalidInput: two different keys for one log.
    """

    def __init__(self, keys: Iterable[VerifierKey] = ()) -> None:
        self._by_origin: dict[str, VerifierKey] = {}
        for key in keys:
            if self._by_origin.setdefault(key.name, key) != key:
                raise InvalidInput("known keys", str(key), f"no second key for {key.name}")

    @classmethod
    def parse(cls, text: str, where: str = "known keys") -> KnownKeys:
        """Read a known-keys file: a verifier key on each line, empty lines and lines that begin with ``#`` aside.

        Raises:
            InvalidInput: at the first line that is no verifier key.
        """
        keys = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                try:
                    keys.append(VerifierKey.parse(line.strip()))
                except InvalidInput as error:
                    raise InvalidInput(f"{where}:{number}", error.found, error.expected) from None
        return cls(keys)

    def format(self) -> str:
        """The content of a known-keys file."""
        head = "# The keys of audit logs, one for each log. A line is removed by hand, and only for a reason.\n"
        return head + "".join(f"{key}\n" for key in self._by_origin.values())

    def __len__(self) -> int:
        return len(self._by_origin)

    def __contains__(self, key: VerifierKey) -> bool:
        return self._by_origin.get(key.name) == key

    def key_of(self, origin: str, shown: Iterable[str] = ()) -> VerifierKey:
        """The key of the log ``origin``.

        Args:
            origin: the log's name.
            shown: keys that the log itself shows, for the advice.

        Raises:
            UnknownKey: none is remembered.
        """
        key = self._by_origin.get(origin)
        if key is None:
            keys = " or ".join(f"--key '{each}'" for each in shown)
            raise UnknownKey(
                f"no key is known for the log {origin}: whoever made this may have put in a key of his own",
                advice=f"Get the log's key in another way and compare; if it is the same, use {keys or '--key'}",
            )
        return key

    def remember(self, key: VerifierKey) -> KnownKeys:
        """These keys and ``key``, which is met for the first time or again.

        Raises:
            KeyChanged: another key is remembered for that log.
        """
        known = self._by_origin.get(key.name)
        if known is not None and known != key:
            raise KeyChanged(
                f"the log {key.name} shows the key {key}, but {known} is remembered",
                advice="Somebody stands in between, or the key was replaced: ask the log's operator in another way",
            )
        return self if known else KnownKeys([*self._by_origin.values(), key])
