"""Which keys the log signs with, as its configuration changes: one key, for some weeks two, then the other one.

Whoever holds the file of a new key names it beside the present one, and both sign from the next start on. When the
present one is named no longer, it is given up for good. Each step leaves a key note, as
:mod:`synapse_modules.audit.key_change` defines it, and a record ``audit.key.change`` with that note. A key that was
given up never signs again, and one that nobody vouched for never signs at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.checkpoint import VerifierKey, signers_of
from synapse_modules.audit.key_change import key_added_note, key_removed_note, parse_key_note
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import GovernanceError, InvalidInput
from synapse_modules.core.ports import AuditEvent
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.core.ports import Transaction

__all__ = ["KeySteps", "WrongKey", "active_keys", "apply_steps", "key_notes", "plan_steps", "steps_for"]

_SQL = StatementHome("audit.key_rotation", database="audit")

_NOTES = _SQL.add("the key notes", "SELECT note FROM governance_audit_key_notes ORDER BY number")
_INSERT_NOTE = _SQL.add(
    "keep a key note", "INSERT INTO governance_audit_key_notes (number, note, recorded_ms) VALUES (?, ?, ?)"
)


class WrongKey(GovernanceError):
    """The signing keys are not those that this log may sign with now."""


@dataclass(frozen=True, slots=True)
class KeySteps:
    """What has to be written down before a log signs with the keys that are held.

    Attributes:
        added: keys that it has not signed with before. removed: keys that it signs with no longer.
    """

    added: tuple[VerifierKey, ...] = ()
    removed: tuple[VerifierKey, ...] = ()


def plan_steps(
    recorded: Sequence[VerifierKey], removed: Collection[VerifierKey], held: Sequence[VerifierKey]
) -> KeySteps:
    """What changes when a log with the ``recorded`` keys signs with those that are ``held``.

    Args:
        recorded: what the log ever signed with, oldest first; the name of the last is the log's.
        removed: what of that was given up.
        held: the present key and, if there is one, the next one.

    Raises:
        WrongKey: the present key is not one that the log signs with, or the next one was given up.
    """
    present = held[0]
    if not recorded:
        return KeySteps(added=tuple(held))
    active = [key for key in recorded if key.name == recorded[-1].name and key not in removed]
    if present not in active:
        raise WrongKey(_wrong(present, active), advice=_advice(active, removed, present))
    for key in held[1:]:
        if key in removed:
            raise WrongKey(f"the key {key} was given up", advice="Make another one with `govctl audit rotate-key`")
    added = tuple(key for key in held if key not in active)
    return KeySteps(added, tuple(key for key in active if key not in held))


def steps_for(transaction: Transaction, held: Sequence[VerifierKey]) -> KeySteps:
    """The same for a log as it is stored. Raises as :func:`plan_steps` does."""
    recorded = [VerifierKey.parse(text) for text in store.keys(transaction)]
    return plan_steps(recorded, _removed(transaction), held)


def apply_steps(
    transaction: Transaction, steps: KeySteps, held: Sequence[SigningKey], now_ms: int
) -> Iterator[AuditEvent]:
    """Write down ``steps``, and give the events to record in the same transaction.

    The first key of a log needs nobody to vouch for it: there is neither note nor event of it.

    Raises:
        WrongKey: a key would be given up although none that stays has signed the newest checkpoint.
    """
    first = not store.keys(transaction)
    by_verifier = {key.verifier: key for key in held}
    for position, verifier in enumerate(steps.added):
        store.insert_key(transaction, str(verifier), now_ms + position)  # so that they have an order
        if verifier != held[0].verifier or not first:
            note = key_added_note(by_verifier[verifier], [held[0]])
            yield _noted(transaction, note, now_ms, {"keys_added": [str(verifier)], "succession": note})
    for verifier in steps.removed:
        note = key_removed_note(verifier, _signed_size(transaction, held), held)
        yield _noted(transaction, note, now_ms, {"keys_removed": [str(verifier)], "succession": note})


def active_keys(transaction: Transaction) -> list[VerifierKey]:
    """What the log signs with now, the newest first."""
    recorded = [VerifierKey.parse(text) for text in store.keys(transaction)]
    removed = _removed(transaction)
    return [key for key in reversed(recorded) if key.name == recorded[-1].name and key not in removed]


def key_notes(transaction: Transaction) -> tuple[str, ...]:
    """All key notes, oldest first."""
    return tuple(note for (note,) in _NOTES.rows(transaction))


def _removed(transaction: Transaction) -> set[VerifierKey]:
    changes = [parse_key_note(note) for note in key_notes(transaction)]
    return {change.key for change in changes if change.until is not None}


def _signed_size(transaction: Transaction, staying: Sequence[SigningKey]) -> int:
    """The size of the newest checkpoint, which one of the keys that stay must have signed."""
    newest = store.checkpoint(transaction)
    if newest is None:
        return 0
    try:
        _, signers = signers_of(newest.note, [key.verifier for key in staying])
    except InvalidInput:
        signers = []
    if not signers:
        raise WrongKey(
            "no key that stays has signed the newest checkpoint: who knows the present key could not follow",
            advice="Start once with both, signing_key_path and next_signing_key_path",
        )
    return newest.size


def _noted(transaction: Transaction, note: str, now_ms: int, details: dict[str, list[str] | str]) -> AuditEvent:
    _INSERT_NOTE.run(transaction, (len(key_notes(transaction)), note, now_ms))
    return AuditEvent(Action.AUDIT_KEY_CHANGE, details=details)


def _wrong(present: VerifierKey, active: Sequence[VerifierKey]) -> str:
    return f"the signing key is {present}, but this log is signed with {' and '.join(map(str, active)) or 'none'}"


def _advice(active: Sequence[VerifierKey], removed: Collection[VerifierKey], present: VerifierKey) -> str:
    if present in removed:
        return "That key was given up: name the one that replaced it"
    if any(key.name == present.name for key in active):
        return (
            f"Bring back the key file of {present.name}; to replace it, name the new one as next_signing_key_path first"
        )
    return f"Bring back the key file of {active[-1].name if active else 'this log'}, or point to another database"
