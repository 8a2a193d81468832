"""`govctl audit`: search the audit log, follow it, take it away as a bundle that can be verified anywhere."""

from __future__ import annotations

import re
import shlex
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.cli.app import remote
from synapse_modules.cli.audit_tail import Tail
from synapse_modules.cli.bundle_file import arriving, require_free
from synapse_modules.cli.known_keys_file import KnownKeysFile
from synapse_modules.cli.output import moment
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import GovernanceError, NotFound, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse_modules.audit.verify import VerifiedBundle
    from synapse_modules.cli.app import App
    from synapse_modules.cli.bundle_file import Arriving

__all__ = ["audit"]

_PAGE = 1000
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_Command = TypeVar("_Command", bound="Callable[..., Any]")


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Milliseconds since the epoch: of ISO 8601, local time without an offset, or of so long ago, such as ``36h``."""
    if value is None:
        return None
    ago = _DURATION.fullmatch(value)
    if ago:
        return int((time.time() - int(ago[1]) * _UNITS_S[ago[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(value).timestamp() * 1000)
    except (ValueError, OverflowError):
        expected = "a time such as 2026-03-01, 2026-03-01T09:30+01:00 or 36h"
        raise click.BadParameter(f"found {value!r}, expected {expected}", context, parameter) from None


def _action(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A known action."""
    if value is not None and value not in set(Action):
        near = nearest(value, Action)
        advice = f"; did you mean {near}?" if near else ""
        raise click.BadParameter(f"found {value!r}, no known action{advice}", context, parameter)
    return value


def _case(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Anything but nothing."""
    if not value.strip():
        raise click.BadParameter("say which case justifies it", context, parameter)
    return value


_CASE = click.option(
    "--case", "case_id", required=True, callback=_case, help="The case that justifies it; it is recorded."
)
_CONDITIONS = (
    click.option("--actor", metavar="USER", help="Done by this user, by their Matrix id."),
    click.option("--target", metavar="USER", help="Done to this user."),
    click.option("--room", metavar="ROOM", help="In this room, by its id."),
    click.option("--action", metavar="ACTION", callback=_action, help="Such as auth.login or access.denied."),
    click.option("--outcome", type=click.Choice([each.value for each in Outcome]), help="How it ended."),
    click.option("--address", metavar="IP", help="From this network address."),
    click.option("--text", metavar="WORDS", help="With all these words in its reason, rule, case or details."),
    click.option("--since", "since_ms", callback=_moment, help="Since then: 2026-03-01, 2026-03-01T09:30, 36h, 7d."),
)
_BOUNDS = (
    click.option("--until", "until_ms", callback=_moment, help="Before then."),
    click.option("--from", "begin", metavar="N", type=click.IntRange(0), help="From this index on."),
    click.option("--to", "end", metavar="N", type=click.IntRange(0), help="Up to, not including, this index."),
)


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group()
def audit() -> None:
    """Search, follow and export the audit log. Whoever reads it is in it, with the case they named."""


@audit.command("search")
@_options(_CASE, *_CONDITIONS, *_BOUNDS)
@click.option("-n", "--limit", type=click.IntRange(1), default=100, show_default=True, help="How many, the newest.")
@remote
def search(app: App, /, case_id: str, limit: int, **conditions: Any) -> None:
    """Show the newest entries that match, newest first."""
    with app.client() as client:
        pages = client.pages("/audit/entries", "entries", limit=limit, page=_PAGE, case=case_id, **conditions)
        entries = list(pages)
    if app.output.as_json:
        app.output.document({"entries": entries})
    app.output.table(
        ("no.", "time", "action", "outcome", "actor", "target", "room", "why"),
        [
            (
                each["index"], moment(each["time_ms"]), each["action"], each["outcome"], _person(each, "actor"),
                _person(each, "target"), each["room"], each["reason"] or each["rule"],
            )
            for each in entries
        ],
        empty="no entry matches",
    )  # fmt: skip
    if len(entries) == limit:
        app.output.line(f"there may be more: --limit shows more, --to {entries[-1]['index']} older ones", style="dim")


@audit.command("tail")
@_options(_CASE, *_CONDITIONS)
@click.option(
    "-n", "--lines", type=click.IntRange(0, _PAGE), default=10, show_default=True, help="Begin that far back."
)
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between looks."
)
@remote
def tail(app: App, /, case_id: str, lines: int, interval: float, **conditions: Any) -> None:
    """Show the newest entries that match, and those that come, until Ctrl-C. Looks that find something are recorded."""

    def show(entry: Mapping[str, Any]) -> None:
        if app.output.as_json:
            app.output.document(entry)
        app.output.line(_as_line(entry))

    with app.client() as client:
        following = Tail(client, {"case": case_id, **conditions}, show, app.output.note)
        following.run(lines, interval, time.sleep)


@audit.command("export")
@_options(_CASE, *_CONDITIONS, *_BOUNDS)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@remote
def export(app: App, /, case_id: str, out: Path, force: bool, **conditions: Any) -> int:
    """Take the audit log away as one file that proves itself: all of it, a range of it, or what matches.

    The log's key is remembered when it is met for the first time; another key is refused ever after.
    """
    require_free(out, force=force)
    named = any(value is not None for name, value in conditions.items() if name not in {"begin", "end"})
    body = {"case_id": case_id, "kind": "selection" if named else "range", **conditions}
    with app.client() as client, arriving(out, force=force) as bundle:
        with app.output.task(f"exporting into {out.name}", size=True) as task:
            client.download("/audit/export", body, bundle.file, task.advance)
        known = KnownKeysFile().read()
        key = bundle.key(known)
        known.remember(key)  # refuses another key than the one that is known
        verified = _verified(app, bundle, key)
    if isinstance(verified, GovernanceError):
        return _damaged(app, out, verified)
    _exported(app, out, verified, new=KnownKeysFile().remember(key))
    return 0


@audit.command("keys")
@remote
def keys(app: App) -> None:
    """Show the log's verifier keys, for those who verify its exports, and remember the newest."""
    with app.client() as client:
        answer = client.get("/audit/checkpoint")
    if not answer["keys"]:
        raise NotFound("the log has no key yet", where=app.server)
    new = KnownKeysFile().remember(VerifierKey.parse(answer["keys"][0]))
    if app.output.as_json:
        app.output.document({"keys": answer["keys"], "size": answer["size"], "new": new})
    for key in answer["keys"]:
        app.output.line(key)
    app.output.note("remembered" if new else "known")


def _verified(app: App, bundle: Arriving, key: VerifierKey) -> VerifiedBundle | GovernanceError:
    """What was proven of the bundle, or the first thing that is wrong with it."""
    with app.output.task("verifying", bundle.size(), size=True) as task:
        try:
            return bundle.verify(key, task.advance)
        except GovernanceError as error:
            return error


def _damaged(app: App, out: Path, wrong: GovernanceError) -> int:
    """The server sent all it has, and that does not verify: the file is evidence of it, and stays."""
    if app.output.as_json:
        app.output.document({"bundle": str(out), "valid": False, "where": wrong.where, "problem": wrong.problem})
    app.output.failure(f"NOT GENUINE: {out}", wrong)
    app.output.line(
        "  This is what the server sent, all of it. Its audit log is damaged, or somebody stands in between."
    )
    return 1


def _exported(app: App, out: Path, verified: VerifiedBundle, *, new: bool) -> None:
    manifest = verified.manifest
    if app.output.as_json:
        app.output.document(
            {
                "bundle": str(out), "valid": True, "entries": verified.entries, "counts": verified.counts,
                "manifest": manifest.model_dump(mode="json"), "key": str(verified.key), "new_key": new,
            }
        )  # fmt: skip
        return
    app.output.line(f"exported {verified.entries} of {manifest.tree_size} entries into {out}", style="bold green")
    app.output.line(f"  log      {manifest.origin}")
    app.output.line(f"  key      {verified.key}")
    if new:
        app.output.line("           met for the first time, and remembered: compare it with what the operator says")
    file = shlex.quote(str(out))
    app.output.line(f"  verify   govctl verify {file}")
    app.output.line(f"  or, on any other machine,  govctl verify --key '{verified.key}' {file}")


def _person(entry: Mapping[str, Any], name: str) -> Any:
    return "(erased)" if name in entry["erased"] else entry[name]


def _as_line(entry: Mapping[str, Any]) -> str:
    """One entry for people, on one line."""
    parts = [
        f"{entry['index']:>8}  {moment(entry['time_ms'])}  {entry['action']:<16} {entry['outcome']:<8}",
        str(_person(entry, "actor") or "-"),
    ]
    parts += [f"{name}={value}" for name in ("target", "room") if (value := _person(entry, name)) is not None]
    return " ".join([*parts, *filter(None, [entry["reason"] or entry["rule"]])])
