from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.cli.output import Output, clean, moment, sentence
from synapse_modules.core.errors import Denied, GovernanceError

if TYPE_CHECKING:
    import pytest

DENIED = Denied("You may not.", rule="role:guest deny room.create", permission="room.create")


@given(st.text())
def test_no_text_can_steer_the_terminal(text: str) -> None:
    shown = map(ord, clean(text).replace("\n", ""))
    assert all(32 <= code < 127 or code >= 160 for code in shown)


def test_what_reverses_or_hides_text_becomes_visible() -> None:
    assert clean("a\u202eb\x1b[31m\u200b") == "a\\u202eb\\x1b[31m\\u200b"


def test_markup_is_shown_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.line("[red]not red[/red] :smile:")
    output.table(("name",), [("[bold]x",)])
    shown = capsys.readouterr().out
    assert "[red]not red[/red] :smile:" in shown
    assert "[bold]x" in shown


def test_an_error_is_one_line_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(GovernanceError("is broken\nbadly", where="file", advice="Mend it"))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "govctl: file: is broken badly. Mend it.\n")


def test_a_denial_shows_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(DENIED)
    assert capsys.readouterr().err == (
        "govctl: denied: You may not. Rule: role:guest deny room.create; permission: room.create.\n"
    )


def test_a_long_line_is_not_torn_apart(capsys: pytest.CaptureFixture[str]) -> None:
    Output().line("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_in_json_mode_an_error_is_one_object_and_people_get_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.line("for people")
    output.table(("a",), [("b",)])
    output.error(DENIED)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert json.loads(shown.err)["error"] == {
        "problem": "You may not.",
        "rule": "role:guest deny room.create",
        "permission": "room.create",
    }


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().task("working", total=3) as task:
        task.advance()
        task.advance(2, title="still working")
    assert capsys.readouterr().err == ""


def test_a_sentence_ends_once() -> None:
    assert [sentence("a"), sentence("a."), sentence("a?")] == ["a.", "a.", "a?"]


def test_a_moment_that_never_came_is_a_dash() -> None:
    assert moment(None) == "-"
    assert moment(0).startswith(("1970-01-01", "1969-12-31"))
