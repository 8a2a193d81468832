"""Who may do something, and where: the policy read the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.core.config import FrozenModel
from synapse_modules.rbac.decide import ANYBODY
from synapse_modules.rbac.model import SERVER, ScopeKind, SubjectKind, class_scope, room_scope, scope_kind

if TYPE_CHECKING:
    from synapse_modules.core.permissions import Permission
    from synapse_modules.rbac.decide import Snapshot

__all__ = ["Holder", "Room", "who_can"]

Room = tuple[str, str | None]
"""A room's id and its class."""

_Places = tuple[tuple[str, ...], tuple[str, ...]]


class Holder(FrozenModel):
    """Somebody who may do what was asked about.

    Attributes:
        user: a Matrix user id; ``@`` stands for every local user whom the policy does not name.
        scopes: where they may: ``server`` or the room that was asked about, else each narrower scope.
        except_scopes: narrower scopes at which a role of theirs denies it.
    """

    user: str
    scopes: tuple[str, ...]
    except_scopes: tuple[str, ...]


def who_can(snapshot: Snapshot, permission: Permission, now_ms: int, room: Room | None = None) -> list[Holder]:
    """Everybody who may do ``permission`` somewhere at ``now_ms``, in order of their ids.

    Args:
        snapshot: the policy.
        permission: what.
        now_ms: when, in milliseconds since the epoch.
        room: only in this room.
    """
    remembered: dict[object, _Places] = {}
    found = []
    for user in sorted({*snapshot.known_users(), ANYBODY}):
        # People in the same groups without bindings of their own fare alike.
        profile = snapshot.direct_groups_of(user), tuple(snapshot.bindings_of(SubjectKind.USER, user))
        if profile not in remembered:
            remembered[profile] = _places(snapshot, user, permission, now_ms, room)
        scopes, exceptions = remembered[profile]
        if scopes:
            found.append(Holder(user=user, scopes=scopes, except_scopes=exceptions))
    return found


def _places(snapshot: Snapshot, user: str, permission: Permission, now_ms: int, room: Room | None) -> _Places:
    """Where ``user`` may, and where in there they may not; both empty where they may nowhere."""
    whole = _covering(room)
    allowed, denied = snapshot.says(user, permission, whole, now_ms)
    if denied:
        return (), ()
    narrower = sorted(_narrower(snapshot, user, room) - set(whole))
    said = {scope: snapshot.says(user, permission, (*whole, scope), now_ms) for scope in narrower}
    exceptions = tuple(scope for scope in narrower if said[scope][1])
    if allowed:
        return (whole[-1],), exceptions
    scopes = tuple(scope for scope in narrower if said[scope] == (True, False))
    return scopes, exceptions if scopes else ()


def _covering(room: Room | None) -> tuple[str, ...]:
    """The scopes that cover everything that is asked about, the narrowest last."""
    if room is None:
        return (SERVER,)
    room_id, room_class = room
    return (SERVER, *([] if room_class is None else [class_scope(room_class)]), room_scope(room_id))


def _narrower(snapshot: Snapshot, user: str, room: Room | None) -> set[str]:
    """The scopes of what ``user`` holds that can make a difference; in one room, only those about other people."""
    scopes = {binding.scope for binding in snapshot.held_by(user)}
    return scopes if room is None else {scope for scope in scopes if scope_kind(scope) is ScopeKind.USERS}
