"""`govctl rbac`: the access policy, what a new one would change, and why something is allowed or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from synapse_modules.cli.app import confirm, read_document, remote
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.permissions import parse_permission
from synapse_modules.rbac.decide import ANYBODY
from synapse_modules.rbac.parsing import parse_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.cli.app import App
    from synapse_modules.cli.client import Client

__all__ = ["rbac"]

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def rbac() -> None:
    """Roles and bindings: read them, plan and apply a new policy, explain decisions."""


@rbac.command("roles")
@remote
def roles(app: App) -> None:
    """List the roles."""
    with app.client() as client:
        answer = client.get("/rbac/roles")
    if app.output.as_json:
        app.output.document(answer)
    app.output.table(
        ("role", "allows", "denies", "inherits", "description"),
        [
            (
                role["name"], ", ".join(role["allow"]), ", ".join(role["deny"]), ", ".join(role["inherits"]),
                role["description"],
            )
            for role in answer["roles"]
        ],
        empty="there are no roles: nobody may do anything",
    )  # fmt: skip


@rbac.command("bindings")
@click.option("--role", metavar="ROLE", help="Only of this role.")
@click.option("--subject", metavar="NAME", help="Only what this user or group was given.")
@remote
def bindings(app: App, role: str | None, subject: str | None) -> None:
    """List who has which role, where and for how long."""
    with app.client() as client:
        found = list(client.pages("/rbac/bindings", "bindings", limit=None, role=role, subject=subject))
    if app.output.as_json:
        app.output.document({"bindings": found})
    app.output.table(
        ("no.", "role", "for", "scope", "from", "until", "in force", "case", "because"),
        [
            (
                each["number"], each["role"], each["subject"], each["scope"], each["not_before"], each["expires"],
                "yes" if each["in_force"] else "no", each["case"], each["justification"],
            )
            for each in found
        ],
        empty="nobody has a role",
    )  # fmt: skip


@rbac.command("policy")
@remote
def policy(app: App) -> None:
    """Print the whole policy in force, as a file that can be changed and applied."""
    with app.client() as client:
        found = client.get("/rbac/policy")
    if app.output.as_json:
        app.output.document(found)
    app.output.line(f"# version {found['version']}, {_origin(found)}")
    app.output.line(yaml.safe_dump(found["document"], sort_keys=False, allow_unicode=True, width=110).rstrip())


@rbac.command("plan")
@_FILE
@remote
def plan(app: App, file: Path) -> None:
    """Show what applying the policy in FILE would change, and for whom; change nothing."""
    document = _policy(file)
    with app.client() as client:
        _show_plan(app, _plan(client, document))


@rbac.command("apply")
@_FILE
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--case", "case_id", metavar="CASE", help="The case that the change belongs to; it is recorded.")
@remote
def apply(app: App, file: Path, yes: bool, case_id: str | None) -> None:
    """Put the policy in FILE in force, all of it or nothing, on every worker, without a restart.

    What is applied is what was shown: if somebody else changed the policy meanwhile, nothing is applied.
    """
    document = _policy(file)
    with app.client() as client:
        planned = _plan(client, document)
        if not planned["changes"]:
            _applied(app, {"version": planned["from_version"], "changes": []})
            return
        if not app.output.as_json:
            _show_plan(app, planned)
        confirm("Apply this policy?", yes=yes)
        body = {"document": document, "expected_version": planned["from_version"], "case_id": case_id}
        _applied(app, client.post("/rbac/apply", body))


@rbac.command("explain")
@click.argument("user")
@click.argument("permission")
@click.option("--room", metavar="ROOM", help="In this room, by its id.")
@click.option("--target", metavar="USER", help="Done to this user.")
@remote
def explain(app: App, user: str, permission: str, room: str | None, target: str | None) -> None:
    """Explain why USER may or may not do PERMISSION: every group, role and binding that was looked at.

    The exit status is 0 for either answer; `--json` has it as `allowed`. Everybody may ask about themselves.
    """
    asked = _permission(permission)
    with app.client() as client:
        found = client.get("/rbac/explain", user=user, permission=asked, room=room, target=target)
    if app.output.as_json:
        app.output.document(found)
    verdict, *rest = found["lines"]
    app.output.line(verdict, style="bold green" if found["allowed"] else "bold red")
    for line in rest:
        app.output.line(line)


@rbac.command("who-can")
@click.argument("permission")
@click.option("--room", metavar="ROOM", help="In this room, by its id.")
@remote
def who_can(app: App, permission: str, room: str | None) -> None:
    """List who may do PERMISSION, and where."""
    asked = _permission(permission)
    with app.client() as client:
        found = list(client.pages("/rbac/who-can", "holders", limit=None, permission=asked, room=room))
    if app.output.as_json:
        app.output.document({"permission": asked, "room": room, "holders": found})
    app.output.table(
        ("who", "where", "but not"),
        [(_who(each["user"]), ", ".join(each["scopes"]), ", ".join(each["except_scopes"]) or None) for each in found],
        empty=f"nobody may do {asked}",
    )


def _policy(file: Path) -> Any:
    """The policy document in ``file``, checked before anything is sent."""
    document = read_document(file)
    parse_policy(document, str(file))
    return document


def _permission(name: str) -> str:
    try:
        return parse_permission(name, "PERMISSION").value
    except InvalidInput as error:
        raise click.UsageError(error.sentence()) from None


def _plan(client: Client, document: Any) -> Any:
    return client.post("/rbac/plan", {"document": document})


def _show_plan(app: App, planned: Mapping[str, Any]) -> None:
    if app.output.as_json:
        app.output.document(planned)
        return
    app.output.line(f"compared with version {planned['from_version']}:", style="bold")
    for change in planned["changes"] or ["no change"]:
        app.output.line(f"  {change}")
    if planned["consequences"]:
        app.output.line("who gains or loses what:", style="bold")
    for consequence in planned["consequences"]:
        app.output.line(f"  {consequence['words']}", style="green" if consequence["gains"] else "yellow")
    for warning in planned["warnings"]:
        app.output.line(f"WARNING: {warning}", style="bold red")


def _applied(app: App, answer: Mapping[str, Any]) -> None:
    if app.output.as_json:
        app.output.document(answer)
    app.output.line(f"in force: version {answer['version']}", style="bold green")


def _origin(found: Mapping[str, Any]) -> str:
    if found["applied_at"] is None:
        return "no policy was ever applied"
    return f"applied at {found['applied_at']} by {found['applied_by'] or 'the file of the configuration'}"


def _who(user: str) -> str:
    return "every local user not named in the policy" if user == ANYBODY else user
