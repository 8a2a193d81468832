"""What the audit log keeps of a change of policy. No names of people outside the personal fields."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synapse_modules.core.actions import Action
from synapse_modules.core.canonical import canonical_bytes
from synapse_modules.core.ports import AuditEvent
from synapse_modules.rbac.changes import Membership, RoomClasses
from synapse_modules.rbac.model import Binding, Group, Role, ScopeKind, SubjectKind, scope_kind, scope_name
from synapse_modules.rbac.parsing import binding_document, group_document, role_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.rbac.changes import Change, Entity

__all__ = ["Author", "policy_events"]

_MAX_BYTES = 16_384
"""What is longer stands in the log by its hash: a record has a limit."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who applies a policy; ``user_id`` is None for the product itself, at its first start."""

    user_id: str | None = None
    device_id: str | None = None
    address: str | None = None
    user_agent: str | None = None
    case_id: str | None = None


def policy_events(changes: Sequence[Change], author: Author, version: int, now_ms: int) -> Iterator[AuditEvent]:
    """The records of one applied policy: the whole first, then each change with before and after.

    Args:
        changes: all of them.
        author: who applied it.
        version: the policy's new version.
        now_ms: when, in milliseconds since the epoch.
    """
    classes = next((change for change in changes if change.action is Action.POLICY_CHANGE), None)
    summary: dict[str, JsonValue] = {"version": version, "changes": len(changes)}
    if classes is not None:
        summary |= {"room_classes_before": _state(classes.before), "room_classes_after": _state(classes.after)}
    yield _event(Action.POLICY_CHANGE, author, now_ms, details=summary, case_id=author.case_id)
    for change in changes:
        if change is not classes:
            yield _event(change.action, author, now_ms, **_subject(change, author))


def _event(action: Action, author: Author, now_ms: int, **fields: Any) -> AuditEvent:
    return AuditEvent(
        action,
        actor=author.user_id,
        address=author.address,
        user_agent=author.user_agent,
        device_id=author.device_id,
        occurred_ms=now_ms,
        **fields,
    )


def _subject(change: Change, author: Author) -> dict[str, Any]:
    """What the change is about, as fields of the record."""
    entity = change.entity
    states = {"before": _state(change.before), "after": _state(change.after)}
    match entity:
        case Membership():
            return {"target": entity.user, "case_id": author.case_id, "details": {"group": entity.group}}
        case Role():
            return {"case_id": author.case_id, "details": {"role": entity.name, **states}}
        case Group():
            return {"case_id": author.case_id, "details": {"group": entity.name, **states}}
        case Binding():
            of_group = {"group": entity.subject} if entity.subject_kind is SubjectKind.GROUP else {}
            return {
                "target": None if of_group else entity.subject,
                "room_id": scope_name(entity.scope) if scope_kind(entity.scope) is ScopeKind.ROOM else None,
                "reason": entity.justification or None,
                "case_id": entity.case_id or author.case_id,
                "details": {
                    "binding": entity.number,
                    "role": entity.role,
                    "scope": entity.scope,
                    **of_group,
                    **states,
                },
            }
        case RoomClasses():
            raise AssertionError("room classes stand in the record of the whole")


def _state(entity: Entity | None) -> JsonValue:
    """What can change about a thing, without names of people."""
    match entity:
        case None | Membership():
            return None
        case Role():
            return _bounded(role_document(entity))
        case Group():
            return _bounded(group_document(entity))
        case Binding():
            window = binding_document(entity)
            return {key: window[key] for key in ("not_before", "expires", "case") if key in window}
        case RoomClasses():
            # A pattern of creators may be somebody's name.
            hidden = {"match": {"creator"}}
            return _bounded(
                [each.model_dump(mode="json", exclude_none=True, exclude=hidden) for each in entity.classes]
            )


def _bounded(value: Mapping[str, JsonValue] | Sequence[JsonValue]) -> JsonValue:
    encoded = canonical_bytes(value)
    if len(encoded) <= _MAX_BYTES:
        return value
    return {"sha256": hashlib.sha256(encoded).hexdigest(), "bytes": len(encoded)}
