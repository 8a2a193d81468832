"""The closed vocabulary of what stands in a record's ``details``: each key with its kind and its one meaning.

Nothing in details is personal: who did it, to whom, from where and with what has fields of its own, whose values can be
erased. Message text and secrets stand nowhere in a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["DETAILS", "Detail", "Kind"]


class Kind(StrEnum):
    """What a value may be. Null may stand for any of them: "there was none"."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "true or false"
    LIST = "list"
    MAPPING = "mapping"
    STATE = "any value"

    def allows(self, value: object) -> bool:
        """Whether ``value`` is of this kind."""
        return value is None or _CHECKS[self](value)


_CHECKS: Final[Mapping[Kind, Callable[[object], bool]]] = {
    Kind.TEXT: lambda value: isinstance(value, str),
    Kind.NUMBER: lambda value: isinstance(value, int) and not isinstance(value, bool),
    Kind.FLAG: lambda value: isinstance(value, bool),
    Kind.LIST: lambda value: isinstance(value, list | tuple),
    Kind.MAPPING: lambda value: isinstance(value, Mapping),
    Kind.STATE: lambda _: True,
}


@dataclass(frozen=True, slots=True)
class Detail:
    """One key. ``meaning`` is a phrase without a full stop."""

    kind: Kind
    meaning: str


def _details(kind: Kind, /, **meanings: str) -> dict[str, Detail]:
    return {key: Detail(kind, meaning) for key, meaning in meanings.items()}


DETAILS: Final[Mapping[str, Detail]] = {
    **_details(
        Kind.STATE,
        before="what it was before a change; null where it did not exist",
        after="what it is after a change; null where it exists no more",
        room_classes_before="the room classes before a change of them",
        room_classes_after="the room classes after a change of them",
    ),
    **_details(
        Kind.TEXT,
        request_id="the homeserver's own id of the request",
        method="the HTTP method",
        route="method and path of the route, with placeholders instead of names",
        errcode="the Matrix error code of the answer",
        permission="the permission that was asked for",
        login_type="how the client wanted to log in, such as `m.login.password`, or `registration`",
        event_id="the event",
        event_type="the event's type",
        origin="the homeserver that a remote event or file came from",
        redacts="the event that was removed",
        replaces="the event that was replaced",
        relation="how a message relates to another event, such as `m.thread`",
        related="the event that a message relates to",
        arrival="how an event came if not as a new one: `backfilled`, `outlier`, `soft_failed` or `rejected`",
        room_version="the version of the room's rules",
        media_id="the file",
        media_type="the file's type, as its uploader put it",
        role="the role",
        group="the group",
        scope="where a role holds",
        hold="the hold",
        kind="what is meant: a `room`, a `user` or an `event`; for a bundle a `range` or a `selection`",
        run="the retention run",
        room_class="the room's class",
        problem="what went wrong",
        bundle="the id of the exported bundle",
        format="the format of the export",
        basis="the law or the decision that it rests on",
        process="the homeserver process",
        writer="the process, and the time it began",
        product_version="the version of the product",
        action_class="the class of actions that this happened to",
        root="the root of the tree of all entries below `end`",
        expected_root="the root of the tree that was signed or held elsewhere",
        found_root="the root of the tree that was found instead",
        log_origin="the name under which the log signs from here on",
        succession="what the key before signed to say that the new one is the log's own",
    ),
    **_details(
        Kind.NUMBER,
        status="the HTTP status of the answer",
        sent_ms="when an event was sent, as its sender says: milliseconds since the epoch",
        devices="how many devices",
        bytes="how many bytes",
        version="the version that is in force after it",
        changes="how many differences",
        binding="the binding's number",
        rules_version="the version of the retention rules",
        cutoff_ms="what is older was due: milliseconds since the epoch",
        rooms="how many rooms",
        events="how many events",
        files="how many files",
        due="how many events were due",
        deleted="how many events were deleted",
        kept_by_hold="how many events a hold kept",
        copied_for_hold="how many events a hold had copied before they went",
        copies_dropped="how many copies of formerly held events were dropped",
        problems="how many rooms could not be done",
        entries="how many entries of the log",
        records="how many records",
        unrecorded="how many actions could not be recorded in time",
        repeated="for how many more the record stands: the same was refused so often since the record before",
        begin="the first index",
        end="the index after the last one",
        since_ms="the beginning, milliseconds since the epoch",
        until_ms="the end, milliseconds since the epoch",
        tree_size="how many leaves the tree has",
        expected_size="how many leaves the tree had that was signed or held elsewhere",
    ),
    **_details(
        Kind.FLAG,
        everywhere="whether all sessions are meant",
        encrypted="whether it is encrypted",
        federated="whether users of other homeservers may take part",
        allowed="whether it was let through all the same",
    ),
    **_details(
        Kind.LIST,
        conditions="the names of the conditions of a search; whom they name stands in `target`",
        fields="the names of the personal fields",
        modules="the modules that the process has loaded",
        positions="by writer of events, where the following of its events began",
        indexes="the entries, as ranges `[begin, end]` without the end",
        keys_added="the verifier keys that came",
        keys_removed="the verifier keys that went",
    ),
    **_details(
        Kind.MAPPING,
        filter="the conditions, without anybody's name",
        query="the numbers and switches in the query of a request",
    ),
}
"""Every key that any action may have in its details."""
