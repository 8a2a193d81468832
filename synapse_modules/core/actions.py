"""The closed vocabulary of audited actions. A name never changes its meaning; a new meaning gets a new name."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Action", "Outcome"]


class Outcome(StrEnum):
    """How an action ended."""

    SUCCESS = "success"
    DENIED = "denied"
    FAILURE = "failure"


class Action(StrEnum):
    """What was done or tried. The text is the record's ``action`` and every export's event name."""

    AUTH_LOGIN = "auth.login"
    ACCESS_DENIED = "access.denied"
    ROOM_CREATE = "room.create"
    ROOM_JOIN = "room.join"
    ROOM_LEAVE = "room.leave"
    ROOM_KICK = "room.kick"
    ROOM_INVITE = "room.invite"
    ROOM_BAN = "room.ban"
    ROOM_UNBAN = "room.unban"
    ROOM_KNOCK = "room.knock"
    MESSAGE_SEND = "message.send"
    MESSAGE_REDACT = "message.redact"
    POLICY_CHANGE = "policy.change"
    ROLE_DEFINE = "role.define"
    ROLE_UPDATE = "role.update"
    ROLE_DELETE = "role.delete"
    ROLE_GRANT = "role.grant"
    ROLE_REVOKE = "role.revoke"
    GROUP_DEFINE = "group.define"
    GROUP_UPDATE = "group.update"
    GROUP_DELETE = "group.delete"
    GROUP_MEMBER_ADD = "group.member.add"
    GROUP_MEMBER_REMOVE = "group.member.remove"
    HOLD_CREATE = "hold.create"
    HOLD_RELEASE = "hold.release"
    RETENTION_RULES_CHANGE = "retention.rules.change"
    RETENTION_SIMULATE = "retention.simulate"
    RETENTION_PURGE = "retention.purge"
    AUDIT_SEARCH = "audit.search"
    AUDIT_EXPORT = "audit.export"
    AUDIT_START = "audit.start"
    AUDIT_STOP = "audit.stop"
