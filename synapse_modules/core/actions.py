"""The closed vocabulary of audited actions. A name never changes its meaning; a new meaning gets a new name.

A new action also needs a row in :mod:`synapse_modules.core.action_specs`, and its places in
``audit/formats/ocsf_classes.py`` and ``audit/formats/ecs.py``.
"""

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
    AUTH_LOGOUT = "auth.logout"
    ACCESS_DENIED = "access.denied"
    USER_REGISTER = "user.register"
    USER_DEACTIVATE = "user.deactivate"
    USER_ERASE = "user.erase"
    USER_PASSWORD_RESET = "user.password.reset"  # noqa: S105  the name of an action
    USER_PASSWORD_CHANGE = "user.password.change"  # noqa: S105  the name of an action
    USER_DATA_CHANGE = "user.data.change"
    DEVICE_DELETE = "device.delete"
    REPORT_CREATE = "report.create"
    CLIENT_REQUEST = "client.request"
    ADMIN_API = "admin.api"
    ROOM_CREATE = "room.create"
    ROOM_DELETE = "room.delete"
    ROOM_JOIN = "room.join"
    ROOM_LEAVE = "room.leave"
    ROOM_KICK = "room.kick"
    ROOM_INVITE = "room.invite"
    ROOM_BAN = "room.ban"
    ROOM_UNBAN = "room.unban"
    ROOM_KNOCK = "room.knock"
    ROOM_POWER_RAISE = "room.power.raise"
    ROOM_POWER_LOWER = "room.power.lower"
    ROOM_POWER_DEFAULTS = "room.power.defaults"
    ROOM_SETTING_CHANGE = "room.setting.change"
    MESSAGE_SEND = "message.send"
    MESSAGE_EDIT = "message.edit"
    MESSAGE_REDACT = "message.redact"
    MEDIA_UPLOAD = "media.upload"
    MEDIA_DOWNLOAD = "media.download"
    MEDIA_QUARANTINE = "media.quarantine"
    MEDIA_UNQUARANTINE = "media.unquarantine"
    MEDIA_DELETE = "media.delete"
    POLICY_CHANGE = "policy.change"
    CONFIG_CHANGE = "config.change"
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
    EXPORT_CONTENT = "export.content"
    AUDIT_SEARCH = "audit.search"
    AUDIT_MONITOR = "audit.monitor"
    AUDIT_EXPORT = "audit.export"
    AUDIT_PRUNE = "audit.prune"
    AUDIT_ERASE = "audit.erase"
    AUDIT_KEY_CHANGE = "audit.key.change"
    AUDIT_START = "audit.start"
    AUDIT_STOP = "audit.stop"
    AUDIT_HEARTBEAT = "audit.heartbeat"
    AUDIT_QUIET = "audit.quiet"
    AUDIT_GAP = "audit.gap"
    AUDIT_ROLLBACK = "audit.rollback"


DESCRIPTIONS: dict[Action, str] = {
    Action.AUTH_LOGIN: "somebody logged in, or tried to",
    Action.AUTH_LOGOUT: "somebody logged out of one session, or of all",
    Action.ACCESS_DENIED: "the policy refused something; the record names the permission and the rule",
    Action.USER_REGISTER: "an account was made",
    Action.USER_DEACTIVATE: "an account was deactivated",
    Action.USER_ERASE: "an account was deactivated and its data marked for removal",
    Action.USER_PASSWORD_RESET: "an administrator set somebody's password",
    Action.USER_PASSWORD_CHANGE: "somebody changed their own password",
    Action.USER_DATA_CHANGE: "somebody changed their profile or account data; never its content",
    Action.DEVICE_DELETE: "a device was deleted, and with it its session",
    Action.REPORT_CREATE: "somebody reported a message, a room or a user",
    Action.CLIENT_REQUEST: "a request changed something that has no action of its own; the record names the route",
    Action.ADMIN_API: "the administration API was called; the record names the route",
    Action.ROOM_CREATE: "a room was created",
    Action.ROOM_DELETE: "a room was shut down, or deleted from the homeserver",
    Action.ROOM_JOIN: "somebody joined a room",
    Action.ROOM_LEAVE: "somebody left a room, or refused an invitation",
    Action.ROOM_KICK: "somebody was put out of a room, or their invitation was withdrawn",
    Action.ROOM_INVITE: "somebody was invited into a room",
    Action.ROOM_BAN: "somebody was banned from a room",
    Action.ROOM_UNBAN: "a ban was lifted",
    Action.ROOM_KNOCK: "somebody asked to be let into a room",
    Action.ROOM_POWER_RAISE: "somebody got more power in a room",
    Action.ROOM_POWER_LOWER: "somebody got less power in a room",
    Action.ROOM_POWER_DEFAULTS: "the power that a room asks for, or gives to everybody, was changed",
    Action.ROOM_SETTING_CHANGE: "a setting of a room was changed",
    Action.MESSAGE_SEND: "a message or another event that is no setting of the room was sent; never its content",
    Action.MESSAGE_EDIT: "a message was replaced by its sender; never its content",
    Action.MESSAGE_REDACT: "a message was removed by its sender or by somebody else",
    Action.MEDIA_UPLOAD: "a file was uploaded",
    Action.MEDIA_DOWNLOAD: "a file was fetched",
    Action.MEDIA_QUARANTINE: "a file was put under quarantine: nobody can fetch it",
    Action.MEDIA_UNQUARANTINE: "the quarantine of a file was lifted",
    Action.MEDIA_DELETE: "a file was deleted",
    Action.POLICY_CHANGE: "a new version of the access policy was put in force",
    Action.CONFIG_CHANGE: "a process started with another configuration than before",
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
    Action.EXPORT_CONTENT: "somebody exported the content of rooms",
    Action.AUDIT_SEARCH: "somebody searched the audit log",
    Action.AUDIT_MONITOR: "somebody began to read the log's tiles or entry bundles; one record for an hour",
    Action.AUDIT_EXPORT: "somebody exported the audit log",
    Action.AUDIT_PRUNE: "old entries of the audit log were removed; their hashes stay",
    Action.AUDIT_ERASE: "personal values were erased from the audit log; every proof stays valid",
    Action.AUDIT_KEY_CHANGE: "the keys that sign the audit log were changed",
    Action.AUDIT_START: "a homeserver process began to record, or room events began to be followed",
    Action.AUDIT_STOP: "a homeserver process ended; a failure means without saying so",
    Action.AUDIT_HEARTBEAT: "a homeserver process is alive and records",
    Action.AUDIT_QUIET: "nothing was recorded for an interval",
    Action.AUDIT_GAP: "records are missing, or an action was let through that could not be recorded",
    Action.AUDIT_ROLLBACK: "the audit log is not the continuation of what it was: its database was set back or altered",
}
