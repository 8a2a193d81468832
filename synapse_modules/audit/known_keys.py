"""Which keys belong to which log, remembered as SSH remembers hosts: one line for each key.

The name in a verifier key is the log's origin. The first key of a log is remembered when it is met. Another one is
refused, never taken instead, unless a key that is known vouches for it: see :mod:`synapse_modules.audit.key_change`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.audit.key_change import KnownKey, apply_key_notes
from synapse_modules.core.errors import GovernanceError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KeyChanged", "KnownKeys", "UnknownKey"]

_LINE = re.compile(r"(\S+)(?: until (0|[1-9][0-9]{0,18}))?")
_HEAD = """\
# The keys of audit logs: a log can have several while it replaces one. "until N": the key was replaced, and counts for
# trees of at most N entries. A line is removed by hand, and only for a reason.
"""


class UnknownKey(GovernanceError):
    """There is no key to check this log with."""


class KeyChanged(GovernanceError):
    """A log shows another key than the one that is remembered, and no known key vouches for it."""


class KnownKeys:
    """The keys that are trusted; frozen.

    Args:
        keys: of any logs. Those of one log are in the order in which they came.
    """

    def __init__(self, keys: Iterable[VerifierKey | KnownKey] = ()) -> None:
        self._by_origin: dict[str, list[KnownKey]] = {}
        for each in keys:
            known = each if isinstance(each, KnownKey) else KnownKey(each)
            of_log = self._by_origin.setdefault(known.key.name, [])
            if known not in of_log:
                of_log.append(known)

    @classmethod
    def parse(cls, text: str, where: str = "known keys") -> KnownKeys:
        """Read a known-keys file: a key on each line, empty lines and lines that begin with ``#`` aside.

        Raises:
            InvalidInput: at the first line that is none.
        """
        lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
        return cls(_known_key(line, f"{where}:{number}") for number, line in lines if line and line[0] != "#")

    def format(self) -> str:
        """The content of a known-keys file."""
        return _HEAD + "".join(f"{_as_line(each)}\n" for keys in self._by_origin.values() for each in keys)

    def __len__(self) -> int:
        return sum(map(len, self._by_origin.values()))

    def __contains__(self, key: VerifierKey) -> bool:
        return any(each.key == key for each in self._by_origin.get(key.name, ()))

    def keys_of(self, origin: str, shown: Iterable[str] = ()) -> list[KnownKey]:
        """The keys of the log ``origin``, at least one.

        Args:
            origin: the log's name.
            shown: keys that the log itself shows, for the advice.

        Raises:
            UnknownKey: none is remembered.
        """
        keys = self._by_origin.get(origin)
        if not keys:
            advised = " or ".join(f"--key '{each}'" for each in shown)
            raise UnknownKey(
                f"no key is known for the log {origin}: whoever made this may have put in a key of his own",
                advice=f"Get the log's key in another way and compare; if it is the same, use {advised or '--key'}",
            )
        return list(keys)

    def learn(self, origin: str, notes: Iterable[str]) -> KnownKeys:
        """These keys and those that the log ``origin`` has besides, as its key ``notes`` tell, oldest first.

        Raises:
            UnknownKey: none of its keys is remembered. InvalidInput: a note is malformed or forged.
        """
        learned = apply_key_notes(self.keys_of(origin), notes)
        others = (each for name, keys in self._by_origin.items() if name != origin for each in keys)
        return KnownKeys([*others, *learned]) if learned != self._by_origin[origin] else self

    def remember(self, key: VerifierKey) -> KnownKeys:
        """These keys and ``key``, which is met for the first time or again.

        Raises:
            KeyChanged: only other keys are remembered for that log.
        """
        known = self._by_origin.get(key.name)
        if not known:
            return KnownKeys([*(each for keys in self._by_origin.values() for each in keys), KnownKey(key)])
        if key not in self:
            remembered = " and ".join(str(each.key) for each in known)
            raise KeyChanged(
                f"the log {key.name} shows the key {key}, but {remembered} is remembered",
                advice="Somebody stands in between, or the key was replaced: ask the log's operator in another way",
            )
        return self


def _known_key(line: str, where: str) -> KnownKey:
    match = _LINE.fullmatch(line)
    if match is None:
        raise InvalidInput(where, line, "a verifier key, alone or with 'until' and a number")
    try:
        return KnownKey(VerifierKey.parse(match[1]), int(match[2]) if match[2] else None)
    except InvalidInput as error:
        raise InvalidInput(where, error.found, error.expected) from None


def _as_line(known: KnownKey) -> str:
    return str(known.key) if known.until is None else f"{known.key} until {known.until}"
