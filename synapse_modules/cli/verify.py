"""`govctl verify`: is an exported bundle whole and genuine? Offline, without a server and without Synapse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.verify import UnsafeEmbeddedKey, VerifiedBundle, verify_bundle
from synapse_modules.cli.app import local
from synapse_modules.cli.known_keys_file import KnownKeysFile
from synapse_modules.cli.output import moment
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.cli.app import App

__all__ = ["verify"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", metavar="VKEY", help="The log's verifier key, from its operator, not from the bundle.")
@click.option(
    "--unsafe-embedded-key",
    is_flag=True,
    help="Believe the key inside the bundle: shows that it is whole, not who made it.",
)
@local
def verify(app: App, bundle: Path, key: str | None, unsafe_embedded_key: bool) -> int:
    """Check an exported bundle: exit status 0 if it is whole and genuine, 1 with the first thing that is wrong.

    The log's key is the one given, else the one remembered since an earlier export (`govctl audit export`).
    """
    if key is not None and unsafe_embedded_key:
        raise click.UsageError("--key and --unsafe-embedded-key exclude one another")
    try:
        trust = UnsafeEmbeddedKey() if unsafe_embedded_key else _known(key)
        verified = _verify(app, bundle, trust)
    except GovernanceError as error:
        return _refuse(app, bundle, error)
    _report(app, bundle, verified, trusted=not unsafe_embedded_key)
    return 0


def _known(key: str | None) -> KnownKeys:
    return KnownKeysFile().read() if key is None else KnownKeys([VerifierKey.parse(key)])


def _verify(app: App, bundle: Path, trust: KnownKeys | UnsafeEmbeddedKey) -> VerifiedBundle:
    try:
        with bundle.open("rb") as file:
            size = bundle.stat().st_size
            with app.output.task(f"verifying {bundle.name}", size, size=True) as task:
                return verify_bundle(file, trust, task.advance)
    except OSError as error:
        raise GovernanceError(f"cannot be read: {error.strerror}", where=str(bundle)) from None


def _refuse(app: App, bundle: Path, error: GovernanceError) -> int:
    if app.output.as_json:
        app.output.document(
            {"bundle": str(bundle), "valid": False, "where": error.where, "problem": error.problem}
            | ({"advice": error.advice} if error.advice else {})
        )
    else:
        app.output.failure(f"NOT GENUINE: {bundle}", error)
    return 1


def _report(app: App, bundle: Path, verified: VerifiedBundle, *, trusted: bool) -> None:
    if app.output.as_json:
        app.output.document({"bundle": str(bundle), "valid": True, "trusted": trusted, **_facts(verified)})
        return
    manifest = verified.manifest
    if trusted:
        app.output.line(f"WHOLE AND GENUINE: {bundle}", style="bold green")
    else:
        app.output.line(f"WHOLE, BUT BY WHOM? {bundle}: its own key was believed, unchecked", style="bold yellow")
    kind = "every entry" if manifest.kind == "range" else f"a selection: {_filter(manifest.filter)}"
    app.output.line(f"  log      {manifest.origin}, {manifest.tree_size} entries")
    app.output.line(f"  shown    {verified.entries} entries ({kind} from {manifest.begin} to before {manifest.end})")
    app.output.line(f"  made     {moment(manifest.made_ms)} by {manifest.requester}, case {manifest.case_id}")
    app.output.line(f"  key      {verified.key}")
    if verified.erased:
        app.output.line(f"  erased   {verified.erased} personal values, as the log allows")
    for action, count in sorted(verified.counts.items(), key=lambda each: (-each[1], each[0])):
        app.output.line(f"  {count:>7}  {action}")


def _filter(given: Mapping[str, str | int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in given.items()) or "no filter"


def _facts(verified: VerifiedBundle) -> dict[str, object]:
    return {
        "manifest": verified.manifest.model_dump(mode="json"),
        "entries": verified.entries,
        "skipped": verified.skipped,
        "counts": verified.counts,
        "erased": verified.erased,
        "root": verified.checkpoint.root.hex(),
        "key": str(verified.key),
    }
