"""`govctl audit anchors`: what each anchor of the audit log holds, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from synapse_modules.cli.app import remote
from synapse_modules.cli.output import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.cli.app import App

__all__ = ["anchors"]

_PREFIX = "anchor "


@click.command()
@remote
def anchors(app: App) -> int:
    """Show where checkpoints are kept outside the log's database. Exit status 1 if anything is wrong with that.

    An anchor that the log once had, and has no more, stays in the list with the last that it took.
    """
    with app.client() as client:
        status = client.get("/audit/status")
    found, damage = _anchors(status), status["damage"]
    if app.output.as_json:
        app.output.document({"anchors": found, "size": status["size"], "damage": damage})
    app.output.table(
        ("name", "kind", "entries", "since", "problem"),
        [(each["name"], each["kind"], each["size"], moment(each["anchored_ms"]), each["problem"]) for each in found],
        empty="no anchor has taken anything: whoever controls the log's database can rewrite it unnoticed",
    )
    app.output.line(f"the log has {status['size']} entries with a checkpoint", style="dim")
    if damage:
        app.output.line(f"DAMAGED: {damage}", style="bold red")
    return 1 if damage or not found or any(each["problem"] for each in found) else 0


def _anchors(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that took something, and those of which nothing but a problem is known."""
    problems = {
        source.removeprefix(_PREFIX): problem
        for source, problem in status["problems"].items()
        if source.startswith(_PREFIX)
    }
    found = {each["name"]: each for each in status["anchors"]}
    nothing = {"kind": None, "size": 0, "anchored_ms": None}
    return [
        {"name": name, **nothing, **found.get(name, {}), "problem": problems.get(name)}
        for name in sorted({*found, *problems})
    ]
