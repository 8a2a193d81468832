"""Which key signs a log: its own, never one that has signed another.

Two logs of one name, signed with one key, are what every verifier must take for fraud. So a key leaves a mark beside
its file before it signs for the first time (:func:`~synapse_modules.audit.key_file.mark_used`), and where there is a
mark and the log is empty, the log is somewhere else: in the SQLite file that the homeserver had before, say.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.key_file import generate_key, load_key, mark_used, was_used
from synapse_modules.audit.key_rotation import steps_for
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.core.clock import RandomBytes
    from synapse_modules.storage.database import Database

__all__ = ["keys_of_log", "marking"]

logger = logging.getLogger(__name__)


def keys_of_log(log: Database, paths: Sequence[Path], origin: str, random: RandomBytes) -> tuple[SigningKey, ...]:
    """The keys in the files ``paths``: the present one and, if it is named, the next.

    The present one is made for a log that was never signed.

    Raises:
        InvalidInput: one is missing, or cannot be used.
        WrongKey: they are not those that this log may be signed with.
        GovernanceError: the present one has signed a log, and this one is empty.
    """
    present, *following = paths
    keys = (_present_key(log, present, origin, random), *(load_key(path, origin) for path in following))
    log.run(lambda transaction: steps_for(transaction, [key.verifier for key in keys]), read_only=True)
    return keys


def _present_key(log: Database, path: Path, origin: str, random: RandomBytes) -> SigningKey:
    signed_with = log.run(store.keys, read_only=True)
    if not signed_with and not os.path.lexists(path):
        return generate_key(path, origin, random)
    if not signed_with and was_used(path):
        raise GovernanceError(
            f"this audit log is empty, but the key {path} has signed one before",
            where=str(log.location),
            advice="Bring the log here with `govctl audit port`, or point AuditModule's database to where it is",
        )
    return load_key(path, origin)


def marking(paths: Sequence[Path], may_sign: Callable[[], bool]) -> Callable[[], bool]:
    """``may_sign``, which leaves the keys' marks before it says yes."""

    def ask() -> bool:
        if not may_sign():
            return False
        for path in paths:
            _mark(path)
        return True

    return ask


def _mark(path: Path) -> None:
    try:
        mark_used(path)
    except OSError as error:
        logger.warning("no mark can be left beside %s that it has signed: %s", path, error.strerror)
