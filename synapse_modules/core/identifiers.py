"""Names and Matrix identifiers, checked where they enter: the same rules in policies, rules, holds and requests."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from synapse_modules.core.errors import InvalidInput

__all__ = ["Name", "RoomId", "UserId", "check_name", "check_room_id", "check_statement", "check_user_id"]

_MAX_ID_BYTES = 255  # Matrix specification, "Identifier grammar": the whole id, sigil included, in UTF-8
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_USER_ID = re.compile(r"@[^:\s\x00]+:[^\s\x00]+")
_ROOM_ID = re.compile(r"![^:\s\x00]+(:[^\s\x00]+)?")  # room version 12 ids have no domain


def check_name(text: str) -> str:
    """Return ``text`` if it can name a role, a group or a room class.

    Raises:
        InvalidInput: it is not 1 to 64 ASCII letters, digits, ``_``, ``.`` and ``-``, the first a letter or digit.
    """
    if not _NAME.fullmatch(text):
        raise InvalidInput("", text, "a name of 1 to 64 letters, digits, '_', '.' and '-', such as 'help-desk'")
    return text


def check_user_id(text: str) -> str:
    """Return ``text`` if it has the form of a Matrix user id.

    Raises:
        InvalidInput: it has not.
    """
    if not _USER_ID.fullmatch(text) or len(text.encode()) > _MAX_ID_BYTES:
        raise InvalidInput("", text, "a Matrix user id such as '@alice:example.org'")
    return text


def check_room_id(text: str) -> str:
    """Return ``text`` if it has the form of a Matrix room id, with or without a domain.

    Raises:
        InvalidInput: it has not.
    """
    if not _ROOM_ID.fullmatch(text) or len(text.encode()) > _MAX_ID_BYTES:
        raise InvalidInput("", text, "a Matrix room id such as '!abcdef:example.org'")
    return text


def check_statement(text: str) -> str:
    """Return ``text`` if it says something, such as why somebody does something.

    Raises:
        InvalidInput: it is empty or blank, or has control characters, which no database text and no terminal should
            get; new lines and tabs are text.
    """
    if not text.strip() or _CONTROLS.search(text):
        raise InvalidInput("", text, "some text, without control characters")
    return text


Name = Annotated[str, AfterValidator(check_name)]
UserId = Annotated[str, AfterValidator(check_user_id)]
RoomId = Annotated[str, AfterValidator(check_room_id)]
