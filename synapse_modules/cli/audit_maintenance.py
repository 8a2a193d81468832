"""`govctl audit erase` and `govctl audit prune`: what takes something out of the audit log, for good and on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from synapse_modules.cli.app import confirm, remote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.cli.app import App
    from synapse_modules.cli.client import Client

__all__ = ["erase", "prune"]


def _words(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Anything but nothing."""
    if not value.strip():
        raise click.BadParameter("say something", context, parameter)
    return value


_BASIS = click.option(
    "--basis", required=True, callback=_words, help="The law or decision that it rests on. It is kept: no names."
)
_CASE = click.option(
    "--case", "case_id", required=True, callback=_words, help="The case that justifies it. It is kept: no names."
)
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Change nothing, and tell how much there is.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command("erase")
@click.option("--subject", metavar="USER", required=True, callback=_words, help="The person, by their Matrix id.")
@_BASIS
@_CASE
@_DRY_RUN
@_YES
@remote
def erase(app: App, subject: str, basis: str, case_id: str, dry_run: bool, yes: bool) -> None:
    """Erase a person from every entry of the audit log. Every proof stays valid.

    What names them goes, with the addresses and devices they used; that something was done stays. The record of it
    tells which entries, and not who it was. Exports made before, backups and what was sent elsewhere are out of reach.
    Interrupted, the same command goes on.
    """
    body = {"subject": subject, "basis": basis, "case_id": case_id}
    with app.client() as client:
        found = _found(client, body) if dry_run or not yes else None
        if dry_run:
            _tell(app, {"entries": found, "erased": False}, f"{found} entries name {subject}; nothing is erased")
            return
        confirm(f"Erase {subject} from {found} entries of the audit log, for good?", yes=yes)
        done = _erase(app, client, body, found)
    fields = ", ".join(done["fields"]) or "nothing"
    _tell(app, {**done, "erased": True}, f"erased {subject} from {done['entries']} entries: {fields}")
    if done["records"]:
        app.output.line(f"  and from {done['records']} records that never got an index")
    app.output.line("  exports made before, backups and what was sent elsewhere still have it")


@click.command("prune")
@click.option("--before-index", metavar="N", type=click.IntRange(0), help="Remove what is below this index.")
@click.option(
    "--older-than", "older_than_days", metavar="DAYS", type=click.IntRange(1, 36_500), help="Or what is older."
)
@_BASIS
@_CASE
@_DRY_RUN
@_YES
@remote
def prune(
    app: App,
    before_index: int | None,
    older_than_days: int | None,
    basis: str,
    case_id: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove old entries of the audit log; their hashes stay, and what is left is proven as before.

    Only what is sealed, anchored and old enough goes, in multiples of 256 entries, and nothing under legal hold.
    Interrupted, the same command goes on.
    """
    if (before_index is None) == (older_than_days is None):
        raise click.UsageError("say either --before-index or --older-than")
    body = {"before_index": before_index, "older_than_days": older_than_days, "basis": basis, "case_id": case_id}
    with app.client() as client:
        planned = client.post("/audit/prune", {**body, "dry_run": True})
        end, left = planned["end"], planned["left"]
        if dry_run or not left:
            what = "nothing is removed" if left else "there is nothing to remove"
            _tell(app, planned, f"{left} entries below {end}; {what}")
            return
        confirm(f"Remove the {left} entries of the audit log below {end}, for good?", yes=yes)
        done = _prune(app, client, {"before_index": end, "basis": basis, "case_id": case_id}, left)
    _tell(app, done, f"removed {done['removed']} entries: the log begins at {done['end']}")
    app.output.line(f"  root of what went  {done['root']}")


def _found(client: Client, body: Mapping[str, Any]) -> int:
    """How many entries name the subject; looking is recorded, without the name."""
    return int(client.post("/audit/erase", {**body, "dry_run": True})["entries"])


def _erase(app: App, client: Client, body: Mapping[str, Any], total: int | None) -> dict[str, Any]:
    """Take all steps of an erasure; returns the sums."""
    fields: set[str] = set()
    sums = {"entries": 0, "records": 0}
    place: dict[str, Any] = {}
    with app.output.task("erasing", total) as task:
        while place.get("begin", 0) is not None:
            step = client.post("/audit/erase", {**body, **place})
            fields.update(step["fields"])
            sums = {name: sums[name] + step[name] for name in sums}
            place = {"begin": step["following"], "end": step["end"]}
            task.advance(step["entries"])
    return {**sums, "fields": sorted(fields)}


def _prune(app: App, client: Client, body: Mapping[str, Any], total: int) -> dict[str, Any]:
    """Take all steps of pruning; returns the last answer with the sum of what was removed."""
    removed = 0
    with app.output.task("removing", total) as task:
        while True:
            step = client.post("/audit/prune", body)
            removed += step["removed"]
            task.advance(step["removed"])
            if not step["left"]:
                return {**step, "removed": removed}


def _tell(app: App, document: Mapping[str, Any], sentence: str) -> None:
    if app.output.as_json:
        app.output.document(document)
    app.output.line(sentence, style="bold")
