"""What the project's documents tell people to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Command", "documents", "inline_commands", "shell_commands", "yaml_blocks"]

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(govctl [^`]+)`")


class Command(NamedTuple):
    """A command and where it stands."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        """For the names of tests."""
        return f"{self.document}: {shlex.join(self.words)}"


def documents() -> list[Path]:
    """Every document that is meant for people who use the product."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def shell_commands(document: Path) -> list[Command]:
    """The commands of the document's ``sh`` blocks, one a line."""
    return [
        Command(document.name, tuple(shlex.split(line, comments=True)))
        for kind, body in _BLOCK.findall(document.read_text())
        if kind == "sh"
        for line in body.splitlines()
        if line.strip() and not line.startswith("#")
    ]


def inline_commands(document: Path) -> list[Command]:
    """The whole `govctl` commands in running text; what is left out with an ellipsis is none."""
    text = _BLOCK.sub("", document.read_text())
    return [Command(document.name, tuple(shlex.split(found))) for found in _INLINE.findall(text) if "…" not in found]


def yaml_blocks(document: Path) -> list[str]:
    """The document's ``yaml`` blocks."""
    return [body for kind, body in _BLOCK.findall(document.read_text()) if kind == "yaml"]
