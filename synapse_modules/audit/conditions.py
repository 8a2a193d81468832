"""What those who read the log over HTTP ask for, and the record that they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import pydantic

from synapse_modules.audit.search import EntryFilter
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput, nearest
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.homeserver.routes import Call

__all__ = ["CaseId", "Conditions", "Number", "reading_event"]

_MAX_CASE_BYTES: Final = 256
_MAX_TEXT_BYTES: Final = 1024
_MAX_INTEGER: Final = 2**53 - 1
_IMPERSONAL: Final = ("action", "outcome", "since_ms", "until_ms")
"""Conditions that name nobody: these stand in the record with their values."""


def _text(value: str, most: int) -> str:
    if not value.strip() or "\x00" in value or len(value.encode()) > most:
        raise InvalidInput("", value, f"text of at most {most} bytes")
    return value


def _words(value: str) -> str:
    try:
        EntryFilter(text=_text(value, _MAX_TEXT_BYTES))
    except InvalidInput as error:
        raise InvalidInput("", value, error.expected) from None
    return value


def _named(kind: type[Action | Outcome]) -> Any:
    """Parses a name of a closed vocabulary; an unknown one is refused with the nearest."""

    def parse(value: object) -> object:
        if isinstance(value, str) and value not in set(kind):
            raise InvalidInput("", value, f"a known {kind.__name__.lower()}", suggestion=nearest(value, set(kind)))
        return kind(value) if isinstance(value, str) else value

    return pydantic.BeforeValidator(parse)


CaseId = Annotated[str, pydantic.AfterValidator(lambda value: _text(value, _MAX_CASE_BYTES))]
Number = Annotated[int, pydantic.Field(ge=0, le=_MAX_INTEGER)]
_Text = Annotated[str, pydantic.AfterValidator(lambda value: _text(value, _MAX_TEXT_BYTES))]
_Words = Annotated[str, pydantic.AfterValidator(_words)]
_Action = Annotated[Action, _named(Action)]
_Outcome = Annotated[Outcome, _named(Outcome)]


class Conditions(FrozenModel):
    """What entries have in common; what is not given is not asked for.

    Attributes:
        actor, target: who did it, and to whom. room: id of the room. action, outcome: what was done, how it ended.
        address: network address of the client. since_ms, until_ms: milliseconds since the epoch, without the end.
        text: words that all stand in its reason, rule, case or details, in any order and case.
        begin, end: indexes, without the end.
    """

    actor: _Text | None = None
    target: _Text | None = None
    room: _Text | None = None
    action: _Action | None = None
    outcome: _Outcome | None = None
    address: _Text | None = None
    since_ms: Number | None = None
    until_ms: Number | None = None
    text: _Words | None = None
    begin: Number = 0
    end: Number | None = None

    def wanted(self) -> EntryFilter:
        """The same for the database."""
        return EntryFilter(**{name: getattr(self, name) for name in Conditions.model_fields})


def reading_event(
    call: Call, action: Action, case_id: str, wanted: EntryFilter, details: dict[str, JsonValue]
) -> AuditEvent:
    """The record of a read: who asks, and by which conditions, but for the names of people."""
    given = wanted.given()
    impersonal: dict[str, JsonValue] = {name: given[name] for name in _IMPERSONAL if name in given}
    return AuditEvent(
        action,
        actor=call.caller.user_id,
        target=wanted.actor or wanted.target,
        room_id=wanted.room,
        address=call.caller.address,
        user_agent=call.caller.user_agent,
        device_id=call.caller.device_id,
        case_id=case_id,
        details={"conditions": sorted(given), "filter": impersonal, "request_id": call.request_id, **details},
    )
