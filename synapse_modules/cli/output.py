"""What govctl prints: people get sentences and tables, scripts get JSON, nobody gets a terminal escape from a server.

Results go to standard output, progress and errors to standard error. With ``--json`` a result is one JSON document
(one document a line where there is no end, as in ``audit tail``), and an error is one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import unicodedata
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from synapse_modules.core.errors import Denied, GovernanceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Output", "Task", "clean", "moment", "sentence"]

_PATIENCE_S = 1.0
_REDRAW_S = 0.1


def clean(value: object) -> str:
    """``value`` as text that cannot steer a terminal: control and direction characters become visible escapes."""
    return "".join(_visible(character) for character in str(value))


def _visible(character: str) -> str:
    if character == "\n" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
        return character
    return character.encode("unicode_escape").decode()


def moment(milliseconds: int | None) -> str:
    """Milliseconds since the epoch as local time with its offset, to the second; a dash for None."""
    if milliseconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(milliseconds / 1000))


def sentence(text: str) -> str:
    """``text`` on one line, with a full stop."""
    line = " ".join(clean(text).split())
    return line if line.endswith((".", "!", "?")) else f"{line}."


class Output:
    """Where a command leaves its result.

    Args:
        as_json: print JSON for scripts instead of text for people.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() else 160
        self._out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)
        self._err = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, stderr=True)

    def document(self, value: object) -> None:
        """One JSON document on a line of its own, whatever the mode."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, sort_keys=False) + "\n")
        sys.stdout.flush()

    def line(self, text: str = "", style: str = "") -> None:
        """One line for people; nothing in JSON mode."""
        if not self.as_json:
            self._out.print(Text(clean(text), style=style))

    def note(self, text: str, style: str = "dim") -> None:
        """A remark on standard error, in either mode."""
        self._err.print(Text(clean(text), style=style))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "none") -> None:
        """A table for people; ``empty`` stands for no rows."""
        if self.as_json:
            return
        if not rows:
            self.line(empty, style="dim")
            return
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(*(Text(clean("-" if cell is None else cell)) for cell in row))
        # A table folds its own cells; soft wrapping would tear it apart.
        self._out.print(grid, soft_wrap=False)

    def error(self, error: GovernanceError) -> None:
        """One clear line: where, what, what to do; for a denial the rule as well."""
        if self.as_json:
            sys.stderr.write(json.dumps({"error": _as_mapping(error)}, ensure_ascii=False) + "\n")
            return
        self._err.print(Text(f"govctl: {_as_line(error)}", style="bold red"))

    def failure(self, verdict: str, error: GovernanceError) -> None:
        """A verdict on standard output with what is wrong, for commands whose result is a verdict."""
        self.line(verdict, style="bold red")
        self.line(f"  {_as_line(error)}")

    @contextlib.contextmanager
    def task(self, title: str, total: int | None = None, *, size: bool = False) -> Iterator[Task]:
        """Progress on standard error, shown to people only and only once it has taken a second.

        Args:
            title: what is going on.
            total: how much there is to do, None if that is not known.
            size: whether amounts are bytes.
        """
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(),
            DownloadColumn() if size else TextColumn("{task.completed:.0f}"), TimeElapsedColumn(),
        )  # fmt: skip
        progress = Progress(*columns, console=self._err, transient=True)
        task = Task(progress, title, total, shown=self._err.is_terminal and not self.as_json)
        try:
            yield task
        finally:
            if progress.live.is_started:
                progress.stop()


class Task:
    """One thing that takes its time. It appears when it is asked for after its first second, not before."""

    def __init__(self, progress: Progress, title: str, total: int | None, *, shown: bool) -> None:
        self._progress = progress
        self._id = progress.add_task(clean(title), total=total)
        self._due = time.monotonic() + _PATIENCE_S if shown else float("inf")
        self._done = 0.0

    def advance(self, amount: float = 1, *, title: str | None = None) -> None:
        """So much more is done. Cheap enough to be called for every line of a large file."""
        self._done += amount
        if title is not None:
            self._progress.update(self._id, description=clean(title))
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _REDRAW_S
            self._progress.start()
            self._progress.update(self._id, completed=self._done)


def _as_line(error: GovernanceError) -> str:
    if isinstance(error, Denied):
        return f"denied: {sentence(error.problem)} Rule: {clean(error.rule)}; permission: {clean(error.permission)}."
    return sentence(error.sentence())


def _as_mapping(error: GovernanceError) -> Mapping[str, Any]:
    found: dict[str, Any] = {"problem": error.problem, "where": error.where, "advice": error.advice}
    if isinstance(error, Denied):
        found |= {"rule": error.rule, "permission": error.permission}
    return {key: value for key, value in found.items() if value}
