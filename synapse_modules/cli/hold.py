"""`govctl hold`: legal holds on rooms and users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from synapse_modules.cli.app import remote
from synapse_modules.cli.client import segment
from synapse_modules.cli.output import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.cli.app import App

__all__ = ["hold"]


@click.group()
def hold() -> None:
    """Place, list and release legal holds. What is under hold cannot be deleted by anybody."""


@hold.command("create")
@click.option("--room", metavar="ROOM", help="Everything in this room, by its id.")
@click.option("--user", metavar="USER", help="Everything this user sent, by their Matrix id.")
@click.option("--case", "case_id", required=True, help="The case that the hold belongs to.")
@click.option("--reason", required=True, help="Why, in words; it is kept with the hold.")
@remote
def create(app: App, room: str | None, user: str | None, case_id: str, reason: str) -> None:
    """Place a room or a user under hold, at once."""
    if (room is None) == (user is None):
        raise click.UsageError("say either --room or --user")
    kind, subject = ("room", room) if room is not None else ("user", user)
    body = {"kind": kind, "subject": subject, "case_id": case_id, "reason": reason}
    with app.client() as client:
        made = client.post("/holds", body)
    _show(app, made)


@hold.command("list")
@click.option("--all", "everything", is_flag=True, help="Released holds too.")
@remote
def list_holds(app: App, everything: bool) -> None:
    """List the holds that are in force."""
    with app.client() as client:
        holds = [
            each for each in client.pages("/holds", "holds", limit=None) if everything or each["released_ms"] is None
        ]
    if app.output.as_json:
        app.output.document({"holds": holds})
    app.output.table(
        ("hold", "on", "subject", "case", "by", "since", "released"),
        [
            (
                each["hold_id"], each["kind"], each["subject"], each["case_id"], each["owner"],
                moment(each["created_ms"]), moment(each["released_ms"]),
            )
            for each in holds
        ],
        empty="nothing is under hold",
    )  # fmt: skip


@hold.command("show")
@click.argument("hold_id")
@remote
def show(app: App, hold_id: str) -> None:
    """Show one hold."""
    with app.client() as client:
        _show(app, client.get(f"/holds/{segment(hold_id)}"))


@hold.command("release")
@click.argument("hold_id")
@click.option("--reason", required=True, help="Why it ends, in words.")
@remote
def release(app: App, hold_id: str, reason: str) -> None:
    """Release a hold: from now on retention and deletion apply again."""
    with app.client() as client:
        _show(app, client.post(f"/holds/{segment(hold_id)}/release", {"reason": reason}))


def _show(app: App, hold: Mapping[str, Any]) -> None:
    if app.output.as_json:
        app.output.document(hold)
        return
    state = "in force" if hold["released_ms"] is None else f"released {moment(hold['released_ms'])}"
    app.output.line(f"hold {hold['hold_id']}: {state}", style="bold")
    app.output.line(f"  {hold['kind']} {hold['subject']}")
    app.output.line(f"  case {hold['case_id']}, placed by {hold['owner']} at {moment(hold['created_ms'])}")
    app.output.line(f"  {hold['reason']}")
