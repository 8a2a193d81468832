"""What people read when a policy decides: every sentence in every language, in one table.

A decision's own reason is the plain sentence in :data:`DEFAULT_LANGUAGE`; whoever answers a client writes the refusal
anew with :func:`refusal`, in the client's language and with the line that says whom to ask.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.core.permissions import Permission

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_LANGUAGE", "PHRASES", "SENTENCES", "Language", "Phrase", "granted", "refusal", "refused"]


class Language(StrEnum):
    """A language the product speaks to people, by its BCP 47 tag."""

    ENGLISH = "en"
    CHINESE = "zh"


DEFAULT_LANGUAGE = Language.ENGLISH


class Phrase(NamedTuple):
    """What a permission lets one do, to stand after "may not": in general, and where one room or person is meant."""

    general: str
    here: str


def _same(text: str) -> Phrase:
    return Phrase(text, text)


PHRASES: Mapping[Permission, Mapping[Language, Phrase]] = {
    Permission.LOGIN: {
        Language.ENGLISH: _same("log in to this server"),
        Language.CHINESE: _same("登录此服务器"),
    },
    Permission.ROOM_CREATE: {
        Language.ENGLISH: Phrase("create rooms", "create rooms of this kind"),
        Language.CHINESE: Phrase("创建聊天室", "创建此类聊天室"),
    },
    Permission.ROOM_INVITE: {
        Language.ENGLISH: Phrase("invite people", "send this invitation"),
        Language.CHINESE: Phrase("邀请他人", "发送此邀请"),
    },
    Permission.ROOM_JOIN: {
        Language.ENGLISH: Phrase("join rooms", "join this room"),
        Language.CHINESE: Phrase("加入聊天室", "加入此聊天室"),
    },
    Permission.MESSAGE_SEND: {
        Language.ENGLISH: Phrase("send messages", "send messages to this room"),
        Language.CHINESE: Phrase("发送消息", "在此聊天室发送消息"),
    },
    Permission.POLICY_READ: {
        Language.ENGLISH: _same("read the access policy"),
        Language.CHINESE: _same("查看访问策略"),
    },
    Permission.POLICY_WRITE: {
        Language.ENGLISH: _same("change the access policy"),
        Language.CHINESE: _same("更改访问策略"),
    },
    Permission.AUDIT_READ: {
        Language.ENGLISH: _same("search the audit log"),
        Language.CHINESE: _same("查询审计日志"),
    },
    Permission.AUDIT_EXPORT: {
        Language.ENGLISH: _same("export the audit log"),
        Language.CHINESE: _same("导出审计日志"),
    },
    Permission.AUDIT_ERASE: {
        Language.ENGLISH: _same("erase people from the audit log"),
        Language.CHINESE: _same("从审计日志中删除个人信息"),
    },
    Permission.AUDIT_PRUNE: {
        Language.ENGLISH: _same("remove old entries of the audit log"),
        Language.CHINESE: _same("清除审计日志的旧条目"),
    },
    Permission.RETENTION_READ: {
        Language.ENGLISH: _same("read the retention rules"),
        Language.CHINESE: _same("查看保留规则"),
    },
    Permission.RETENTION_WRITE: {
        Language.ENGLISH: _same("change the retention rules"),
        Language.CHINESE: _same("更改保留规则"),
    },
    Permission.RETENTION_RUN: {
        Language.ENGLISH: _same("start a retention run"),
        Language.CHINESE: _same("执行保留清理"),
    },
    Permission.HOLD_READ: {
        Language.ENGLISH: _same("see legal holds"),
        Language.CHINESE: _same("查看法律保全"),
    },
    Permission.HOLD_CREATE: {
        Language.ENGLISH: _same("place a legal hold"),
        Language.CHINESE: _same("设置法律保全"),
    },
    Permission.HOLD_RELEASE: {
        Language.ENGLISH: _same("release a legal hold"),
        Language.CHINESE: _same("解除法律保全"),
    },
}


class Sentences(NamedTuple):
    """The sentences of one language; ``{role}`` and ``{phrase}`` are filled in.

    Attributes:
        denied: a role forbids it. default: no role allows it. allowed: a role allows it.
        contact: whom to ask, where the operator configured nothing else. join: stands between two sentences.
    """

    denied: str
    default: str
    allowed: str
    contact: str
    join: str


SENTENCES: Mapping[Language, Sentences] = {
    Language.ENGLISH: Sentences(
        denied="Your role '{role}' may not {phrase}.",
        default="None of your roles lets you {phrase}.",
        allowed="The role '{role}' lets you {phrase}.",
        contact="Ask the security officer if you need it.",
        join=" ",
    ),
    Language.CHINESE: Sentences(
        denied="您的角色“{role}”不允许{phrase}。",
        default="您的角色均不允许{phrase}。",
        allowed="角色“{role}”允许{phrase}。",
        contact="如有需要，请联系安全管理员。",  # noqa: RUF001 - the comma of Chinese
        join="",
    ),
}


def refused(
    permission: Permission, role: str | None, *, here: bool = False, language: Language = DEFAULT_LANGUAGE
) -> str:
    """The plain sentence of a denial.

    Args:
        permission: what was asked for.
        role: the role that forbids it; None where no role allows it.
        here: whether the rule is about this room or person rather than about the whole server.
        language: the reader's.
    """
    sentences = SENTENCES[language]
    phrase = _phrase(permission, language, here=here)
    return (
        sentences.default.format(phrase=phrase) if role is None else sentences.denied.format(role=role, phrase=phrase)
    )


def granted(permission: Permission, role: str, *, here: bool = False, language: Language = DEFAULT_LANGUAGE) -> str:
    """The plain sentence of an allowance by ``role``."""
    return SENTENCES[language].allowed.format(role=role, phrase=_phrase(permission, language, here=here))


def refusal(plain: str, *, contact: str | None = None, language: Language = DEFAULT_LANGUAGE) -> str:
    """What the client shows: the ``plain`` sentence and whom to ask; an empty ``contact`` adds nothing."""
    sentences = SENTENCES[language]
    line = sentences.contact if contact is None else contact
    return sentences.join.join(part for part in (plain, line) if part)


def _phrase(permission: Permission, language: Language, *, here: bool) -> str:
    phrase = PHRASES[permission][language]
    return phrase.here if here else phrase.general
