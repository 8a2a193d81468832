"""Where the features meet without knowing one another; :mod:`synapse_modules.wiring` joins them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from synapse_modules.core.actions import Action, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.permissions import Permission
    from synapse_modules.core.room_classes import RoomClassifier

__all__ = [
    "BACKFILL",
    "AuditEvent",
    "AuditSink",
    "Authorizer",
    "Decision",
    "EventsLane",
    "HeldSubject",
    "HoldSource",
    "RoomClassSource",
    "RoomClasses",
    "RoomFacts",
    "Rows",
    "Transaction",
    "TransactionRunner",
]

_Result = TypeVar("_Result")
_NOTHING: Mapping[str, Any] = MappingProxyType({})

Rows = list[tuple[Any, ...]]

BACKFILL = "backfill/"
"""Begins the name of a position in the stream of imported history; the name of the writer follows."""


class Transaction(Protocol):
    """One open database transaction. Placeholders are ``?`` on both engines; nothing else is dialect-free."""

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""

    @property
    def rowcount(self) -> int:
        """Rows changed by the last statement."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement with bound parameters."""

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement once for each row, in as few round trips as the engine allows."""

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row of the last statement, or None."""

    def fetchall(self) -> Rows:
        """All remaining rows of the last statement."""


class TransactionRunner(Protocol):
    """Runs a function inside one transaction, off the reactor thread, committed when the awaitable answers.

    The function may be run again after a serialisation failure: it must make no ids and no times of its own and change
    nothing outside the transaction.
    """

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""

    async def run(self, name: str, function: Callable[[Transaction], _Result]) -> _Result:
        """Run ``function`` in a transaction called ``name`` in metrics and logs, and return its result."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one access question, with its reason. The default answer of every policy is no.

    Attributes:
        allowed: whether the action may happen.
        rule: the rule that decided, such as ``role:guest deny room.create``, or ``default`` where none matched.
        reason: one sentence that an end user understands.
    """

    allowed: bool
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class RoomFacts:
    """What a policy may ask of a room. Absent state is None; ``creator`` is the Matrix user id."""

    room_id: str
    name: str | None = None
    alias: str | None = None
    creator: str | None = None
    join_rule: str | None = None
    encrypted: bool = False
    federated: bool = True
    published: bool = False


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something worth recording, before it has an index.

    Attributes:
        action: from the closed vocabulary.
        outcome: how it ended.
        actor: Matrix user id of who did it, or None for the product itself.
        target: Matrix user id or other name of whom it was done to.
        room_id: the room it happened in.
        reason: in words, such as the reason of a denial. Not personal: must hold no message text and no names.
        rule: the rule that decided.
        address: network address of the client. user_agent: the client's own name.
        device_id: the device that acted.
        case_id: the case that justifies it.
        details: further facts, ASCII keys, no floats, no secrets, no message text, nothing personal.
        occurred_ms: milliseconds since the epoch when it happened, or None for "now".
        key: the same key is recorded once only, whatever is retried (an event id, for instance), or None.
    """

    action: Action
    outcome: Outcome = Outcome.SUCCESS
    actor: str | None = None
    target: str | None = None
    room_id: str | None = None
    reason: str | None = None
    rule: str | None = None
    address: str | None = None
    user_agent: str | None = None
    device_id: str | None = None
    case_id: str | None = None
    details: Mapping[str, JsonValue] = field(default_factory=lambda: _NOTHING)
    occurred_ms: int | None = None
    key: str | None = None


class AuditSink(Protocol):
    """Where features leave audit events."""

    async def record(self, event: AuditEvent) -> None:
        """Return once ``event`` is durable.

        Raises:
            Unavailable: it could not be made durable in time; the caller must refuse what it guards.
        """

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        """Write ``event`` in the caller's homeserver-database transaction: both commit or neither does."""


class Authorizer(Protocol):
    """Answers whether a person may do something administrative."""

    async def decide(self, user_id: str, permission: Permission, room_id: str | None = None) -> Decision:
        """Never raises: an inner failure is a denial that says so."""


@dataclass(frozen=True, slots=True)
class HeldSubject:
    """What a legal hold lies on.

    Attributes:
        kind: a room or a user. subject: its id. case_id: the case that the hold belongs to.
    """

    kind: Literal["room", "user"]
    subject: str
    case_id: str


class HoldSource(Protocol):
    """Knows the legal holds that are in force."""

    async def held(self) -> Sequence[HeldSubject]:
        """What is under hold now, the oldest hold first.

        Raises:
            Exception: it is not known just now; whoever removes something must then not remove it.
        """


class RoomClasses(Protocol):
    """Names the class of a room."""

    def classify(self, facts: RoomFacts) -> str | None:
        """The room's class, or None when no class matches."""


class RoomClassSource(Protocol):
    """Knows the room classes that are in force."""

    async def classifier(self) -> RoomClassifier:
        """The classes in force; one without any class where none are defined.

        Raises:
            Unavailable: they are not known just now; whoever acts by class must then not act.
        """


class EventsLane(Protocol):
    """How far the audit log has followed the room events of the homeserver."""

    async def catch_up(self) -> None:
        """Return once every event that was persisted before this call is durable in the audit log.

        Raises:
            Unavailable: that did not happen in time; whoever wants to delete events must then not delete.
        """
