"""The differences between two policies: as values that the store writes and the audit log records, and in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_modules.core.actions import Action
from synapse_modules.rbac.model import Binding, Group, Policy, Role
from synapse_modules.rbac.parsing import format_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from synapse_modules.core.room_classes import RoomClass

__all__ = ["Change", "Entity", "Membership", "differences", "in_words", "successor"]


class Membership(NamedTuple):
    """One user listed as a member of one group."""

    group: str
    user: str


class RoomClasses(NamedTuple):
    """A policy's room classes, in order."""

    classes: tuple[RoomClass, ...]


Entity = Role | Group | Membership | Binding | RoomClasses


class Change(NamedTuple):
    """One difference between two policies.

    Attributes:
        action: what it is, as the audit log calls it. A grant with a ``before`` changes a binding's window or papers;
            ``policy.change`` stands for the room classes as a whole.
        before, after: the thing as it was and as it will be; None where it did not or will not exist. Groups are
            given without their members: each of those is a change of its own.
    """

    action: Action
    before: Entity | None
    after: Entity | None

    @property
    def entity(self) -> Entity:
        """The thing as it will be, or as it was where it will not be."""
        entity = self.before if self.after is None else self.after
        if entity is None:
            raise ValueError("a change has a before, an after, or both")
        return entity


def successor(old: Policy, new: Policy) -> Policy:
    """``new`` with its bindings numbered as follow-ups of ``old``: what stays keeps its number, what is new gets one
    that was never used.
    """
    numbers = {binding.key: binding.number for binding in old.bindings}
    following = old.next_number
    bindings = []
    for binding in new.bindings:
        number = numbers.get(binding.key)
        if number is None:
            number, following = following, following + 1
        bindings.append(binding._replace(number=number))
    return replace(new, bindings=tuple(sorted(bindings)), next_number=following)


def differences(old: Policy, new: Policy) -> list[Change]:
    """Every change from ``old`` to its :func:`successor` ``new``, in an order in which they can be carried out."""
    changes = []
    if old.room_classes != new.room_classes:
        changes.append(Change(Action.POLICY_CHANGE, RoomClasses(old.room_classes), RoomClasses(new.room_classes)))
    changes += _between(_bare(old.groups), _bare(new.groups), _GROUP_ACTIONS)
    changes += _between(_members(old.groups), _members(new.groups), _MEMBER_ACTIONS)
    changes += _between(old.roles, new.roles, _ROLE_ACTIONS)
    changes += _between(_by_key(old.bindings), _by_key(new.bindings), _BINDING_ACTIONS)
    return changes


_GROUP_ACTIONS = (Action.GROUP_DEFINE, Action.GROUP_UPDATE, Action.GROUP_DELETE)
_MEMBER_ACTIONS = (Action.GROUP_MEMBER_ADD, Action.GROUP_MEMBER_ADD, Action.GROUP_MEMBER_REMOVE)
_ROLE_ACTIONS = (Action.ROLE_DEFINE, Action.ROLE_UPDATE, Action.ROLE_DELETE)
_BINDING_ACTIONS = (Action.ROLE_GRANT, Action.ROLE_GRANT, Action.ROLE_REVOKE)


def _between(
    old: Mapping[Any, Entity], new: Mapping[Any, Entity], actions: tuple[Action, Action, Action]
) -> Iterator[Change]:
    added, changed, removed = actions
    for key in sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
        before, after = old.get(key), new.get(key)
        yield Change(added if before is None else removed if after is None else changed, before, after)


def _bare(groups: Mapping[str, Group]) -> dict[str, Group]:
    return {name: replace(group, members=frozenset()) for name, group in groups.items()}


def _members(groups: Mapping[str, Group]) -> dict[Membership, Membership]:
    memberships = (Membership(group.name, user) for group in groups.values() for user in group.members)
    return {membership: membership for membership in memberships}


def _by_key(bindings: Iterable[Binding]) -> dict[tuple[str, ...], Binding]:
    return {binding.key: binding for binding in bindings}


def in_words(change: Change) -> str:
    """A change as one sentence without a full stop."""
    before, after, entity = change.before, change.after, change.entity
    if isinstance(entity, Membership):
        return (
            f"add {entity.user} to group {entity.group}" if after else f"remove {entity.user} from group {entity.group}"
        )
    if isinstance(entity, Binding):
        verb = "give" if before is None else "take away" if after is None else "change"
    else:
        verb = "add" if before is None else "remove" if after is None else "change"
    facts = _altered(before, after) if before is not None and after is not None else _facts(entity)
    return ": ".join(part for part in (f"{verb} {_name(entity)}", "; ".join(facts)) if part)


def _name(entity: Entity) -> str:
    match entity:
        case Role():
            return f"role {entity.name}"
        case Group():
            return f"group {entity.name}"
        case Binding():
            subject = f"{entity.subject_kind.value} {entity.subject}"
            return f"binding {entity.number}, role {entity.role} for {subject}, scope {entity.scope}"
        case Membership():
            return f"{entity.user} in group {entity.group}"
        case RoomClasses():
            return "room classes"


def _facts(entity: Entity) -> list[str]:
    """What there is to say about a thing beside its name."""
    return [f"{label} {value}" for label, value in _attributes(entity).items() if value]


def _altered(before: Entity, after: Entity) -> list[str]:
    """What is different, attribute by attribute; sets by what comes and goes."""
    old, new = _attributes(before), _attributes(after)
    return [
        f"{label} {new.get(label) or 'nothing'} instead of {old.get(label) or 'nothing'}"
        for label in dict.fromkeys((*old, *new))
        if old.get(label) != new.get(label)
    ]


def _attributes(entity: Entity) -> dict[str, str]:
    match entity:
        case Role():
            return {
                "allows": ", ".join(sorted(entity.allow)),
                "denies": ", ".join(sorted(entity.deny)),
                "inherits": ", ".join(entity.inherits),
                "described as": _quoted(entity.description),
            }
        case Group():
            return {"contains groups": ", ".join(sorted(entity.groups)), "described as": _quoted(entity.description)}
        case Binding():
            return {
                "from": _instant(entity.not_before_ms),
                "until": _instant(entity.expires_ms),
                "because": _quoted(entity.justification),
                "case": entity.case_id,
            }
        case RoomClasses():
            order = {"in the order": " → ".join(each.name for each in entity.classes)}
            return order | {f"{each.name} matches": _match(each) for each in entity.classes}
        case Membership():
            return {}


def _match(room_class: RoomClass) -> str:
    matchers = room_class.match.model_dump(exclude_none=True)
    return " and ".join(f"{name} {value!r}" for name, value in matchers.items())


def _instant(milliseconds: int | None) -> str:
    return "" if milliseconds is None else format_instant(milliseconds)


def _quoted(text: str) -> str:
    return f'"{text}"' if text else ""
