"""How a log replaces its signing key, so that whoever knows the old one comes to know the new one by themselves.

A *key note* is a signed note with one of these texts (each line ends with a newline; no log has a space in its name, so
that neither can be taken for a checkpoint)::

    synapse-governance-audit/1 key added        synapse-governance-audit/1 key removed
    <origin>                                    <origin>
    <verifier key>                              <verifier key>
                                                <size>

*Added* is signed by a key that the log has already and by the new one, which shows that the log has that too. *Removed*
is signed by a key that stays; the removed one counts for trees of at most ``size`` entries from then on, so that who
steals an old key cannot go on with the log.

A replacement takes these steps. Each key note stands in ``details.succession`` of a record ``audit.key.change`` in the
log itself, beside ``keys_added`` or ``keys_removed``; the manifest of every bundle repeats all key notes of its log,
oldest first. The record alone proves nothing: whoever can write records, but has no key, cannot make a key note.

1. The log makes a new key and records *added*. From then on it signs everything with both keys, the newest first.
2. When all who verify have met the new key, after some weeks, it records *removed* for the old one, with the size of
   the newest checkpoint that this has signed. From then on it signs with the new key alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from synapse_modules.audit.checkpoint import VerifierKey, open_note, sign_note, signers_of, split_note
from synapse_modules.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synapse_modules.audit.checkpoint import SigningKey

__all__ = ["KeyChange", "KnownKey", "apply_key_notes", "key_added_note", "key_removed_note", "parse_key_note"]

_ADDED: Final = "synapse-governance-audit/1 key added"
_REMOVED: Final = "synapse-governance-audit/1 key removed"
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that is trusted.

    Attributes:
        key: the key. until: the largest tree that it may sign, if it was removed; None while it is in use.
    """

    key: VerifierKey
    until: int | None = None

    def counts_for(self, size: int) -> bool:
        """Whether its signature means anything on a tree of ``size`` leaves."""
        return self.until is None or size <= self.until


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What a key note says.

    Attributes:
        origin: the log. key: the key that came or went. until: None if it came; else the largest tree that it signed.
    """

    origin: str
    key: VerifierKey
    until: int | None = None


def key_added_note(new: SigningKey, by: Iterable[SigningKey]) -> str:
    """The key note that the log has the key ``new`` now, signed by the keys ``by`` that it had before and by itself."""
    verifier = new.verifier
    return sign_note(f"{_ADDED}\n{verifier.name}\n{verifier}\n", [new, *by])


def key_removed_note(old: VerifierKey, until: int, by: Iterable[SigningKey]) -> str:
    """The key note that ``old`` signs no tree of more than ``until`` leaves, signed by the keys ``by`` that stay."""
    return sign_note(f"{_REMOVED}\n{old.name}\n{old}\n{until}\n", by)


def parse_key_note(note: str) -> KeyChange:
    """What ``note`` says, to be believed only once its signatures were checked.

    Raises:
        InvalidInput: it is no key note.
    """
    match split_note(note)[0].split("\n"):
        case [title, origin, text, ""] if title == _ADDED:
            until = None
        case [title, origin, text, size, ""] if title == _REMOVED and _SIZE.fullmatch(size):
            until = int(size)
        case _:
            raise InvalidInput("key note", note, "that a key was added or removed")
    key = VerifierKey.parse(text)
    if key.name != origin:
        raise InvalidInput("key note", str(key), f"a key of {origin}")
    return KeyChange(origin, key, until)


def apply_key_notes(known: Sequence[KnownKey], notes: Iterable[str]) -> list[KnownKey]:
    """The keys of one log that are trusted after ``notes``, which are read in their order.

    What nobody signed who is trusted by then is left aside: it may tell of keys from before. A key that was removed
    vouches for no other any more.

    Args:
        known: the keys of that log that are trusted already.
        notes: its key notes, oldest first.

    Raises:
        InvalidInput: something is no key note or of another log, or a signature by a trusted key is wrong.
    """
    keys = list(known)
    for note in notes:
        change = parse_key_note(note)
        if any(each.key.name != change.origin for each in keys):
            raise InvalidInput("key note", change.origin, f"the log {keys[0].key.name}")
        if _vouched_for(note, change, keys):
            keys = _changed(keys, change)
    return keys


def _vouched_for(note: str, change: KeyChange, keys: Sequence[KnownKey]) -> bool:
    in_use = [each.key for each in keys if each.until is None and each.key != change.key]
    if not signers_of(note, in_use)[1]:
        return False
    if change.until is None:
        open_note(note, [change.key])
    return True


def _changed(keys: Sequence[KnownKey], change: KeyChange) -> list[KnownKey]:
    if change.until is None:
        return list(keys) if any(each.key == change.key for each in keys) else [*keys, KnownKey(change.key)]
    return [replace(each, until=change.until) if each.key == change.key else each for each in keys]
