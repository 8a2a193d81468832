"""`govctl retention`: what is kept for how long, what a run would delete, and the run itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from synapse_modules.cli.app import confirm, read_document, remote
from synapse_modules.cli.client import segment
from synapse_modules.cli.output import moment
from synapse_modules.retention.rules import parse_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.cli.app import App
    from synapse_modules.cli.client import Client

__all__ = ["retention"]

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


@click.group()
def retention() -> None:
    """Show and change retention rules, simulate a run, run."""


@retention.group("rules")
def rules() -> None:
    """How long messages are kept in each class of rooms."""


@rules.command("show")
@remote
def show(app: App) -> None:
    """Show the rules that are in force."""
    with app.client() as client:
        answer = client.get("/retention/rules")
    if app.output.as_json:
        app.output.document(answer)
        return
    if answer["version"] == 0:
        app.output.line("no rules were ever applied: everything is kept", style="dim")
        return
    applied = f"{moment(answer['applied_ms'])} by {answer['applied_by'] or 'the product itself'}"
    app.output.line(f"version {answer['version']}, applied {applied}", style="bold")
    document = answer["document"]
    app.output.table(
        ("rooms of class", "delete after"),
        [
            *((rule["class"], rule["delete_after"] or "never") for rule in document["rules"]),
            ("any other", document["default"]["delete_after"] or "never"),
        ],
    )


@rules.command("plan")
@_FILE
@remote
def plan(app: App, file: Path) -> None:
    """Show what applying the rules in FILE would change, and what a run would then delete; change nothing."""
    document = _rules(file)
    with app.client() as client:
        planned = _plan(client, document)
    if app.output.as_json:
        app.output.document(planned)
    _show_plan(app, planned)


@rules.command("apply")
@_FILE
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
def apply(app: App, file: Path, yes: bool) -> None:
    """Put the rules in FILE in force. Nothing is deleted before the next run."""
    document = _rules(file)
    with app.client() as client:
        planned = _plan(client, document)
        _show_plan(app, planned)
        confirm("Apply these rules?", yes=yes or not planned["changes"])
        body = {"document": document, "expected_version": planned["from_version"]}
        answer = client.post("/retention/rules/apply", body)
    if app.output.as_json:
        app.output.document(answer)
    app.output.line(f"in force: version {answer['version']}", style="bold green")


@retention.command("simulate")
@click.option("--rooms", type=click.IntRange(0, 1000), default=20, show_default=True, help="Rooms to name.")
@remote
def simulate(app: App, rooms: int) -> None:
    """Show what a run would delete now, and what legal holds keep. Deletes nothing."""
    with app.client() as client:
        found = _simulation(app, client, rooms)
    if app.output.as_json:
        app.output.document(found)
        return
    _show_simulation(app, found)


@retention.command("run")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
def run(app: App, yes: bool) -> int:
    """Delete what is due, and wait until that is done. What is under hold stays.

    The run goes on even if this command is interrupted. Exit status 1 if anything due is still there afterwards.
    """
    with app.client() as client:
        if not yes:
            _show_simulation(app, _simulation(app, client, rooms=20))
        confirm("Delete this? It cannot be undone.", yes=yes)
        ended = _follow(app, client, client.post("/retention/run"))
    if app.output.as_json:
        app.output.document(ended)
    _show_run(app, ended)
    return 0 if ended["state"] == "done" and not ended["problems"] else 1


def _rules(file: Path) -> Any:
    """The rules document in ``file``, checked before anything is sent."""
    document = read_document(file)
    parse_rules(document, str(file))
    return document


def _plan(client: Client, document: Any) -> Any:
    return client.post("/retention/rules/plan", {"document": document})


def _simulation(app: App, client: Client, rooms: int) -> Any:
    with app.output.task("looking through all rooms"):
        return client.get("/retention/simulation", rooms=rooms)


def _follow(app: App, client: Client, started: Mapping[str, Any]) -> Mapping[str, Any]:
    """Wait until the run has ended, showing how far it is."""
    path = f"/retention/runs/{segment(started['run_id'])}"
    found, pause_s, done = started, _FIRST_PAUSE_S, 0
    with app.output.task("rooms done") as task:
        while found["state"] == "running":
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            found = client.get(path)
            total = f" of {found['rooms_planned']}" if found["rooms_planned"] else ""
            task.advance(found["rooms_done"] - done, title=f"{found['deleted']} messages deleted, rooms done{total}")
            done = found["rooms_done"]
    return found


def _show_plan(app: App, planned: Mapping[str, Any]) -> None:
    app.output.line(f"compared with version {planned['from_version']}:", style="bold")
    for change in planned["changes"] or ["no change"]:
        app.output.line(f"  {change}")
    totals = planned["totals"]
    app.output.line("a run under these rules would now", style="bold")
    app.output.line(
        f"  delete {_counted(totals['due'])} in {_counted(totals['rooms'], 'room')} ({decimal(totals['bytes_due'])})"
    )
    app.output.line(
        f"  keep {_counted(totals['kept_by_hold'])} in {_counted(totals['rooms_held'], 'room')} because of legal holds"
    )


def _show_simulation(app: App, found: Mapping[str, Any]) -> None:
    totals = found["totals"]
    due = f"{_counted(totals['due'])} in {_counted(totals['rooms'], 'room')} ({decimal(totals['bytes_due'])})"
    app.output.line(f"due under version {found['rules_version']} of the rules: {due}", style="bold")
    app.output.line(
        f"kept by legal holds: {_counted(totals['kept_by_hold'])} in {_counted(totals['rooms_held'], 'room')}"
    )
    if totals["copied_for_hold"]:
        people = "because their senders are under hold"
        app.output.line(f"copied before they are deleted, {people}: {_counted(totals['copied_for_hold'])}")
    if found["copies_to_drop"]:
        app.output.line(f"copies that no hold covers any more, deleted as well: {found['copies_to_drop']}")
    app.output.table(
        ("room", "decided by", "received before", "due", "size", "kept"),
        [
            (
                room["room_id"], room["decided_by"], moment(room["cutoff_ms"]), room["due"], decimal(room["bytes_due"]),
                room["kept_by_hold"],
            )
            for room in found["rooms"]
        ],
        empty="nothing is due",
    )  # fmt: skip
    if found["rooms_left_out"]:
        app.output.line(f"and {_counted(found['rooms_left_out'], 'more room')}", style="dim")


def _show_run(app: App, ended: Mapping[str, Any]) -> None:
    style = "bold green" if ended["state"] == "done" else "bold red"
    app.output.line(f"run {ended['run_id']}: {ended['state']}", style=style)
    app.output.line(f"  deleted {_counted(ended['deleted'])} of {ended['due']} that were due")
    app.output.line(f"  kept by legal holds: {_counted(ended['kept_by_hold'])}")
    if ended["copied_for_hold"]:
        app.output.line(f"  copied for legal holds before deletion: {_counted(ended['copied_for_hold'])}")
    if ended["problems"]:
        app.output.line(f"  rooms in which something due is left: {ended['problems']}; see the audit log", style="red")
    if ended["problem"]:
        app.output.line(f"  {ended['problem']}", style="red")


def _counted(count: int, noun: str = "message") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
