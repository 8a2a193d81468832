"""The reference pages: made from the code, current, and complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic
import pytest

from scripts import write_docs
from synapse_modules.core.actions import Action
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.permissions import Permission

if TYPE_CHECKING:
    from pathlib import Path


class Inner(FrozenModel):
    """Part of a configuration.

    Attributes:
        name: what it is called. size: how large it is, in
            metres.
    """

    name: str
    size: int = pydantic.Field(default=3, ge=1, le=9)


class Sample(FrozenModel):
    """A configuration.

    Attributes:
        inner: a part of it.
        tags: words: any of ``a`` or ``b``.
        only: more than nothing.

    More text.
    """

    inner: Inner | None = None
    tags: tuple[str, ...] = ()
    only: int | None = pydantic.Field(default=None, ge=1)


def test_every_page_is_current() -> None:
    assert write_docs.outdated() == [], "run `make docs`"


def test_a_page_that_was_edited_or_is_missing_is_found(tmp_path: Path) -> None:
    for name, page in write_docs.PAGES.items():
        (tmp_path / name).write_text(page())
    (tmp_path / "actions.md").write_text("edited")
    (tmp_path / "schema.md").unlink()
    assert write_docs.outdated(tmp_path) == ["actions.md", "schema.md"]


def test_keys_are_shown_with_kind_default_and_meaning() -> None:
    assert list(write_docs.keys_of(Sample)) == [
        ("`inner`", "mapping or null", "`null`", "a part of it."),
        ("`inner.name`", "text", "required", "what it is called."),
        ("`inner.size`", "integer, 1 to 9", "`3`", "how large it is, in metres."),
        ("`tags`", "list of text", "empty", "words: any of `a` or `b`."),
        ("`only`", "integer, at least 1 or null", "`null`", "more than nothing."),
    ]


@pytest.mark.parametrize("module", write_docs.MODULES)
def test_every_key_of_a_module_is_described(module: str) -> None:
    model = write_docs.MODULES[module]
    assert set(write_docs.described_keys(model)) == set(model.model_fields)


def test_every_name_of_the_vocabularies_has_a_row() -> None:
    permissions, actions = write_docs.permissions_page(), write_docs.actions_page()
    assert [each for each in Permission if f"| `{each}` |" not in permissions] == []
    assert [each for each in Action if f"| `{each}` |" not in actions] == []


def test_every_permission_is_asked_for_somewhere() -> None:
    asked = {route.permission for route in write_docs.routes()} | set(write_docs.DOORS)
    assert set(Permission) - asked == set()


def test_every_route_has_a_heading() -> None:
    page = write_docs.api_page()
    assert [route for route in write_docs.routes() if f"## {route.method} {route.template}\n" not in page] == []
