"""Documents are parsed strictly, and a mistake is named with path, found, expected and the nearest name."""

from __future__ import annotations

import pytest
from pydantic import Field

from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.permissions import DESCRIPTIONS, Permission, parse_permission


class Inner(FrozenModel):
    allow: tuple[str, ...] = ()


class Outer(FrozenModel):
    version: int
    roles: dict[str, Inner] = Field(default_factory=dict)
    owner: Inner | None = None


@pytest.mark.parametrize(
    ("document", "where", "said"),
    [
        ({"version": 1, "rolse": {}}, "policy.yaml:rolse", "Did you mean 'roles'?"),
        ({"version": 1, "roles": {"a": {"alow": []}}}, "policy.yaml:roles.a.alow", "Did you mean 'allow'?"),
        ({"version": 1, "owner": {"zzz": 1}}, "policy.yaml:owner.zzz", "expected one of allow"),
        ({"version": "1"}, "policy.yaml:version", "found '1'"),
        ({}, "policy.yaml:version", "this key is required"),
        ({"version": 1, "roles": {"a": {"allow": [3]}}}, "policy.yaml:roles.a.allow[0]", "found 3"),
        ([], "policy.yaml", "expected a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_path(document: object, where: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_document(Outer, document, "policy.yaml")
    assert refusal.value.where == where
    assert said in refusal.value.sentence()


def test_a_parsed_document_cannot_be_changed() -> None:
    parsed = parse_document(Outer, {"version": 1}, "x")
    with pytest.raises(ValueError, match="frozen"):
        parsed.version = 2  # type: ignore[misc]  # wrong on purpose


def test_an_unknown_permission_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInput, match=r"Did you mean 'room\.create'"):
        parse_permission("room.creat", "roles.x.allow[0]")


def test_every_permission_says_what_it_lets_one_do() -> None:
    assert set(DESCRIPTIONS) == set(Permission)
