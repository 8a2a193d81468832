"""A mutation whose answer was lost can be sent again: it is answered again, and not done again.

The client names an attempt by the header ``Idempotency-Key`` (IETF draft-ietf-httpapi-idempotency-key-header). Rules:

- A key belongs to its user, and to one method, path and body; with another request it is refused.
- A repeat of what was done gets the first answer, with the header ``Idempotent-Replayed: true``, for a day.
- A repeat while the first attempt goes on, or after its process died in the middle, is a conflict: the caller looks.
- An attempt that ended in an error has left nothing behind, its key included: it can be tried again.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from synapse_modules.core.errors import Conflict, InvalidInput
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_modules.core.ports import Transaction
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["Attempts", "check_key", "fingerprint_of"]

_KEPT_MS = 24 * 3600 * 1000
_KEY = re.compile(r"[\x21-\x7e]{1,128}")

_SQL = StatementHome("homeserver.idempotency", database="homeserver")

_BEGIN = _SQL.add(
    "begin an attempt",
    """
    INSERT INTO governance_idempotency (user_id, idempotency_key, fingerprint, begun_ms) VALUES (?, ?, ?, ?)
    ON CONFLICT (user_id, idempotency_key) DO NOTHING
    """,
)
_FIRST = _SQL.add(
    "the first attempt",
    "SELECT fingerprint, answer FROM governance_idempotency WHERE user_id = ? AND idempotency_key = ?",
)
_END = _SQL.add(
    "keep an answer", "UPDATE governance_idempotency SET answer = ? WHERE user_id = ? AND idempotency_key = ?"
)
_FORGET = _SQL.add("forget an attempt", "DELETE FROM governance_idempotency WHERE user_id = ? AND idempotency_key = ?")
_EXPIRE = _SQL.add("forget old attempts", "DELETE FROM governance_idempotency WHERE begun_ms < ?")


def check_key(key: str) -> str:
    """Return ``key`` if it can name an attempt.

    Raises:
        InvalidInput: it is not 1 to 128 visible ASCII characters.
    """
    if not _KEY.fullmatch(key):
        raise InvalidInput("header:Idempotency-Key", key, "1 to 128 visible ASCII characters, such as a UUID")
    return key


def fingerprint_of(*parts: bytes) -> str:
    """What tells one request from another: hexadecimal SHA-256 over the parts, each with its length."""
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


class Attempts:
    """The attempts of all users, in the homeserver's database, so that a repeat may reach any process.

    Args:
        homeserver: this process.
    """

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver

    async def once(
        self, user_id: str, key: str, fingerprint: str, attempt: Callable[[], Awaitable[Any]]
    ) -> tuple[Any, bool]:
        """The JSON that ``attempt`` answers, or has answered before; and whether it is a replay.

        Raises:
            InvalidInput: the key was used for another request. Conflict: how the first attempt ends is not known.
            Exception: whatever ``attempt`` raises; its key can then be used again.
        """
        now_ms = self._homeserver.now_ms()
        database = self._homeserver.database
        first = await database.run("attempt", lambda tx: _begin(tx, user_id, key, fingerprint, now_ms))
        if first is not None:
            return _replay(first, fingerprint), True
        try:
            answer = await attempt()
        except Exception:
            await database.run("attempt_failed", lambda tx: _FORGET.run(tx, (user_id, key)))
            raise
        text = json.dumps(answer, separators=(",", ":"))
        await database.run("attempt_done", lambda tx: _END.run(tx, (text, user_id, key)))
        return answer, False


def _begin(
    transaction: Transaction, user_id: str, key: str, fingerprint: str, now_ms: int
) -> tuple[str, str | None] | None:
    """Note an attempt; fingerprint and answer of the first one if this is not it."""
    _EXPIRE.run(transaction, (now_ms - _KEPT_MS,))
    if _BEGIN.run(transaction, (user_id, key, fingerprint, now_ms)):
        return None
    ((known, answer),) = _FIRST.rows(transaction, (user_id, key))
    return known, answer


def _replay(first: tuple[str, str | None], fingerprint: str) -> Any:
    known, answer = first
    if known != fingerprint:
        raise InvalidInput("header:Idempotency-Key", "a key of another request", "a key that was not used before")
    if answer is None:
        raise Conflict(
            "the first attempt with this Idempotency-Key has not ended, or its end is not known",
            advice="Look whether it was done before you try with another key",
        )
    return json.loads(answer)
