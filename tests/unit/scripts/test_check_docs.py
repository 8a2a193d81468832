"""The check of links and make targets in documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts import check_docs

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_to_a_file_or_a_heading_that_does_not_exist_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    text = "# One thing\n[here](#one-thing) [gone](#two) [b](b.md) [self](a.md#one-thing) [out](https://example.org)\n"
    document.write_text(text)
    assert check_docs.broken_links(document, text) == ["link leads nowhere: #two", "link leads nowhere: b.md"]


def test_a_target_that_the_makefile_lacks_is_found() -> None:
    text = "```\n$ make run\n```\nTry `make nothing` or `make lint type`; `make bench-NAME` stands for any."
    assert check_docs.unknown_targets(text, {"run", "lint", "type"}) == ["no such target: make nothing"]


def test_a_decision_record_with_a_number_twice_or_another_in_its_title_is_found(tmp_path: Path) -> None:
    for name, title in (("0001-a", "# 1. A"), ("0002-b", "# 3. B"), ("0002-c", "# 2. C")):
        (tmp_path / f"{name}.md").write_text(f"{title}\n")
    assert check_docs.misnumbered(tmp_path) == [
        "0002-b.md: expected number 2 in name and title",
        "0002-c.md: expected number 3 in name and title",
    ]
