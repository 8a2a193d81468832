"""The guides do not rot: every command in them is one that `govctl` takes, every snippet of settings loads."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from synapse_modules.cli.main import govctl
from tests.support.documents import ROOT, Command, documents, inline_commands, shell_commands, yaml_blocks

COMMANDS = [command for document in documents() for command in shell_commands(document) + inline_commands(document)]
GOVCTL = [command for command in COMMANDS if Path(command.words[0]).name == "govctl"]
SNIPPETS = [(document.name, block) for document in documents() for block in yaml_blocks(document)]


def _parse(words: tuple[str, ...]) -> None:
    """Parse a command line as `govctl` would, and run nothing."""
    context = govctl.make_context("govctl", [*words])
    command: click.Command = govctl
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
        if not rest:
            return  # the name of a command, not a command
        context = command.make_context(command.name, rest, parent=context)


def test_there_are_commands_to_check() -> None:
    assert len(GOVCTL) > 20
    assert {Path(command.words[0]).name for command in COMMANDS} == {"govctl", "make", "pip"}


@pytest.mark.parametrize("command", GOVCTL, ids=str)
def test_govctl_takes_the_command(command: Command) -> None:
    _parse(command.words[1:])


@pytest.mark.parametrize(
    "words", [("rbac", "pln", "x.yaml"), ("audit", "search", "--nothing"), ("migrate", "x", "-c", "y")]
)
def test_a_command_that_govctl_does_not_take_is_found(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        _parse(words)


@pytest.mark.parametrize(("document", "block"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_a_snippet_of_modules_loads(document: str, block: str) -> None:
    del document
    settings: Any = yaml.safe_load(block)
    assert set(settings) == {"modules"}
    for entry in settings["modules"]:
        module, _, name = entry["module"].rpartition(".")
        getattr(import_module(module), name).parse_config(entry["config"])


def test_both_readmes_tell_the_same_commands_and_show_the_same_session() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert [each.words for each in shell_commands(english)] == [each.words for each in shell_commands(chinese)]
    sessions = [file.read_text().partition("```console\n")[2].partition("```")[0] for file in (english, chinese)]
    assert sessions[0]
    assert sessions[0] == sessions[1]
