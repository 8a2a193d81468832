"""Matrix identifiers and names are checked where they enter."""

from __future__ import annotations

import pytest

from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.identifiers import check_name, check_room_id, check_user_id


@pytest.mark.parametrize("text", ["help-desk", "a", "A.b_c-9", "x" * 64])
def test_names_are_accepted(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a b", "a:b", "ä", "x" * 65, "a\n"])
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="a name of 1 to 64"):
        check_name(text)


@pytest.mark.parametrize("text", ["@a:x", "@a/b=c:example.org:8448", "@a:[::1]"])
def test_user_ids_are_accepted(text: str) -> None:
    assert check_user_id(text) == text


@pytest.mark.parametrize("text", ["", "a:x", "@a", "@:x", "@a:", "@a b:x", "!a:x", "@" + "a" * 253 + ":x"])
def test_what_is_no_user_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="a Matrix user id"):
        check_user_id(text)


@pytest.mark.parametrize("text", ["!a:x", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"])
def test_room_ids_are_accepted_with_and_without_a_domain(text: str) -> None:
    assert check_room_id(text) == text


@pytest.mark.parametrize("text", ["", "!", "!:x", "!a:", "#a:x", "@a:x", "!a b:x"])
def test_what_is_no_room_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="a Matrix room id"):
        check_room_id(text)
