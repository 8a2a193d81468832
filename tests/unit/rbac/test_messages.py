"""Every sentence exists in every language."""

from __future__ import annotations

import pytest

from synapse_modules.core.permissions import Permission
from synapse_modules.rbac.messages import PHRASES, SENTENCES, Language, granted, refusal, refused


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("language", Language)
def test_every_permission_can_be_spoken_of(permission: Permission, language: Language) -> None:
    general, here = PHRASES[permission][language]
    assert general
    assert here
    assert SENTENCES[language]


def test_a_denial_reads_well_in_english() -> None:
    plain = refused(Permission.ROOM_CREATE, "guest")
    assert refusal(plain) == "Your role 'guest' may not create rooms. Ask the security officer if you need it."


def test_a_denial_reads_well_in_chinese() -> None:
    plain = refused(Permission.ROOM_CREATE, "guest", language=Language.CHINESE)
    assert refusal(plain, language=Language.CHINESE) == "您的角色“guest”不允许创建聊天室。如有需要，请联系安全管理员。"  # noqa: RUF001 - Chinese


def test_the_operator_says_whom_to_ask() -> None:
    plain = refused(Permission.ROOM_JOIN, None, here=True)
    assert refusal(plain, contact="Call 4711.") == "None of your roles lets you join this room. Call 4711."
    assert refusal(plain, contact="") == "None of your roles lets you join this room."


def test_an_allowance_names_the_role() -> None:
    assert granted(Permission.LOGIN, "employee") == "The role 'employee' lets you log in to this server."
