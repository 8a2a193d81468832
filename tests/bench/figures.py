"""Figures are printed by a run and kept in ``docs/figures/NAME.json``; ``docs/performance.md`` is made from them.

Nobody types a figure. The last line that a benchmark prints is one JSON object with its figures.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.postgres import find_postgres_program

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Benchmark", "render_page", "report"]

_ROOT = Path(__file__).resolve().parents[2]
_FIGURES = _ROOT / "docs" / "figures"
_PAGE = _ROOT / "docs" / "performance.md"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: the ``NAME`` of ``make bench-NAME``. title: its heading. method: how it measures, in a sentence or two.
        meanings: what each figure is, with its unit and its goal, in the order of the table.
        target: of make, where it is not ``bench-NAME``.
    """

    name: str
    title: str
    method: str
    meanings: Mapping[str, str]
    target: str = ""

    @property
    def command(self) -> str:
        """What to type to see it again."""
        return f"make {self.target or f'bench-{self.name}'}"


def report(benchmark: Benchmark, figures: Mapping[str, float]) -> None:
    """Keep the figures, make the page anew and print the JSON line."""
    rounded = {key: _round(value) for key, value in figures.items()}
    kept = {
        "command": benchmark.command,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "title": benchmark.title,
        "method": benchmark.method,
        "meanings": dict(benchmark.meanings),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "versions": _versions(),
        "figures": rounded,
    }
    _FIGURES.mkdir(parents=True, exist_ok=True)
    (_FIGURES / f"{benchmark.name}.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    _PAGE.write_text(render_page())
    print(json.dumps({"bench": benchmark.name, **rounded}), flush=True)


def render_page() -> str:
    """``docs/performance.md`` as the kept figures have it."""
    introduction = (
        "Made by the benchmarks from [figures/](figures): every figure was printed by the command beside it. Times are "
        "medians; ratios compare what ran in turn within one run, so that they hold on a machine whose speed drifts.\n"
    )
    parts = ["# Performance\n", introduction]
    parts += [_section(json.loads(file.read_text())) for file in sorted(_FIGURES.glob("*.json"))]
    return "\n".join(parts)


def _section(kept: Mapping[str, Any]) -> str:
    rows = [f"| `{key}` | {kept['meanings'].get(key, '')} | {value} |" for key, value in kept["figures"].items()]
    versions = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
    machine = f"{kept['cores']} cores, {kept['memory_gib']} GiB"
    head = f"## {kept['title']}\n\n`{kept['command']}`, {kept['date']}, {machine}; {versions}.\n\n{kept['method']}\n"
    return "\n".join([head, "| figure | meaning | value |", "|---|---|---|", *rows, ""])


def _versions() -> dict[str, str]:
    postgres = subprocess.run(
        [find_postgres_program("postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[2]
    return {"Python": platform.python_version(), "Synapse": version("matrix-synapse"), "PostgreSQL": postgres}


def _round(value: float) -> float | int:
    """Three significant digits are what these runs can tell; whole numbers from a hundred on."""
    return round(value) if abs(value) >= 100 else float(f"{value:.4g}")
