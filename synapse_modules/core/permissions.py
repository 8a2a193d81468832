"""The closed vocabulary of permissions: ``object.verb``, each with what it lets one do.

A permission that is not in this list cannot be granted, denied or asked for: an unknown name is refused where it is
parsed, with the nearest valid one.
"""

from __future__ import annotations

from enum import StrEnum

from synapse_modules.core.errors import InvalidInput, nearest

__all__ = ["DESCRIPTIONS", "Permission", "parse_permission"]


class Permission(StrEnum):
    """What a role can allow or deny."""

    LOGIN = "login"
    ROOM_CREATE = "room.create"
    ROOM_INVITE = "room.invite"
    ROOM_JOIN = "room.join"
    MESSAGE_SEND = "message.send"
    POLICY_READ = "governance.policy.read"
    POLICY_WRITE = "governance.policy.write"
    AUDIT_READ = "audit.read"
    AUDIT_EXPORT = "audit.export"
    AUDIT_ERASE = "audit.erase"
    AUDIT_PRUNE = "audit.prune"
    RETENTION_READ = "retention.read"
    RETENTION_WRITE = "retention.write"
    RETENTION_RUN = "retention.run"
    HOLD_READ = "hold.read"
    HOLD_CREATE = "hold.create"
    HOLD_RELEASE = "hold.release"

    @property
    def administrative(self) -> bool:
        """Whether it administers the homeserver or its governance, rather than using chat."""
        return self.value.startswith(("governance.", "audit.", "retention.", "hold."))


DESCRIPTIONS: dict[Permission, str] = {
    Permission.LOGIN: "log in with a password, a token or single sign-on",
    Permission.ROOM_CREATE: "create a room",
    Permission.ROOM_INVITE: "invite somebody into a room",
    Permission.ROOM_JOIN: "join a room",
    Permission.MESSAGE_SEND: "send a message, a reaction or any other event that is no setting of the room",
    Permission.POLICY_READ: "read roles, groups and bindings, and explain decisions about anybody",
    Permission.POLICY_WRITE: "apply a new access policy",
    Permission.AUDIT_READ: "search the audit log",
    Permission.AUDIT_EXPORT: "export the audit log as a verifiable bundle",
    Permission.AUDIT_ERASE: "erase a person from the audit log",
    Permission.AUDIT_PRUNE: "remove old entries of the audit log",
    Permission.RETENTION_READ: "read retention rules and simulate a run",
    Permission.RETENTION_WRITE: "apply new retention rules",
    Permission.RETENTION_RUN: "delete what the retention rules say is due",
    Permission.HOLD_READ: "see which legal holds exist",
    Permission.HOLD_CREATE: "place a room or a user under legal hold",
    Permission.HOLD_RELEASE: "release a legal hold",
}


def parse_permission(name: str, where: str) -> Permission:
    """Return the permission called ``name``.

    Raises:
        InvalidInput: there is none; the error names the nearest one.
    """
    try:
        return Permission(name)
    except ValueError:
        raise InvalidInput(where, name, "a known permission", suggestion=nearest(name, list(Permission))) from None
