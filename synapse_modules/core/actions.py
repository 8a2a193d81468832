"""The closed vocabulary of audited actions. A name never changes its meaning; a new meaning gets a new name."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DESCRIPTIONS", "Action", "Outcome"]


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


DESCRIPTIONS: dict[Action, str] = {
    Action.AUTH_LOGIN: "somebody logged in, or had the right password and was refused",
    Action.ACCESS_DENIED: "the policy refused something; the record names the permission and the rule",
    Action.ROOM_CREATE: "a room was created",
    Action.ROOM_JOIN: "somebody joined a room",
    Action.ROOM_LEAVE: "somebody left a room, or refused an invitation",
    Action.ROOM_KICK: "somebody was put out of a room, or their invitation was withdrawn",
    Action.ROOM_INVITE: "somebody was invited into a room",
    Action.ROOM_BAN: "somebody was banned from a room",
    Action.ROOM_UNBAN: "a ban was lifted",
    Action.ROOM_KNOCK: "somebody asked to be let into a room",
    Action.MESSAGE_SEND: "a message or another event that is not room state was sent; never its content",
    Action.MESSAGE_REDACT: "a message was removed by its sender or by somebody else",
    Action.POLICY_CHANGE: "a new version of the access policy was put in force",
    Action.ROLE_DEFINE: "a role was added",
    Action.ROLE_UPDATE: "what a role allows, denies or inherits was changed",
    Action.ROLE_DELETE: "a role was removed",
    Action.ROLE_GRANT: "a binding gave a role to a user or a group",
    Action.ROLE_REVOKE: "a binding was removed",
    Action.GROUP_DEFINE: "a group was added",
    Action.GROUP_UPDATE: "a group's description or inner groups were changed",
    Action.GROUP_DELETE: "a group was removed",
    Action.GROUP_MEMBER_ADD: "a user was put into a group",
    Action.GROUP_MEMBER_REMOVE: "a user was taken out of a group",
    Action.HOLD_CREATE: "a room or a user was placed under legal hold",
    Action.HOLD_RELEASE: "a legal hold was released",
    Action.RETENTION_RULES_CHANGE: "new retention rules were put in force",
    Action.RETENTION_SIMULATE: "somebody looked at what a retention run would delete",
    Action.RETENTION_PURGE: "a retention run deleted from a room, or was stopped by a hold",
    Action.AUDIT_SEARCH: "somebody searched the audit log",
    Action.AUDIT_EXPORT: "somebody exported the audit log",
    Action.AUDIT_START: "a homeserver process began to record",
    Action.AUDIT_STOP: "a homeserver process ended in order",
}
