"""`govctl audit continue`: a log that was set back goes on under a new origin, with the break on the record."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from synapse_modules.audit import store
from synapse_modules.audit.anchors.continuation import continue_under
from synapse_modules.audit.anchors.factory import make_anchors
from synapse_modules.audit.anchors.rollback import check_anchors
from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.audit.config import log_location, log_origin, signing_key_path
from synapse_modules.audit.key_file import generate_key, load_key
from synapse_modules.audit.record import Recorder
from synapse_modules.cli.app import confirm, local
from synapse_modules.cli.homeserver_yaml import audit_settings, read_homeserver_yaml, settings_option
from synapse_modules.core.clock import SystemClock, system_random
from synapse_modules.core.errors import GovernanceError
from synapse_modules.storage.database import Database
from synapse_modules.storage.migrations import require_current

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.audit.config import AuditConfig
    from synapse_modules.audit.discontinuity import Contradiction, Discontinuity
    from synapse_modules.cli.app import App
    from synapse_modules.cli.homeserver_yaml import HomeserverYaml

__all__ = ["continue_log"]


@click.command("continue")
@settings_option
@click.option("--reason", required=True, help="What happened, for those who read the log. No names of people.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@local
def continue_log(app: App, files: tuple[Path, ...], reason: str, yes: bool) -> None:
    """Let an audit log that was set back go on under a new origin, with the break on the record.

    Stop Synapse first, and give AuditModule a new `origin` and a `signing_key_path` where no file is yet. What an
    anchor still holds of the entries that were lost is kept as evidence.
    """
    settings = read_homeserver_yaml(files)
    audit = audit_settings(settings, files)
    origin = log_origin(audit, settings.server_name or "")
    with contextlib.closing(Database(log_location(audit, settings.database))) as log:
        require_current(log, "audit")
        found = _contradiction(log, audit, origin)
        app.output.line(f"anchor {found.anchor}: {found.problem}", style="bold")
        confirm(f"Give up what is lost, and let the log go on as {origin}?", yes=yes)
        done = _continue(log, settings, audit, origin, found, reason)
    if app.output.as_json:
        app.output.document(
            {"origin": done.origin, "previous": done.previous, "size": done.size, "anchor": done.anchor}
        )
    app.output.line(f"the log goes on as {done.origin} after its first {done.size} entries")
    app.output.line("  give its new key to everybody who verifies: `govctl audit keys` shows it once Synapse runs")


def _contradiction(log: Database, config: AuditConfig, origin: str) -> Contradiction:
    """What contradicts the log.

    Raises:
        GovernanceError: nothing does, or the origin is not a new one.
    """
    keys = [VerifierKey.parse(key) for key in log.run(store.keys, read_only=True)]
    if not keys:
        raise GovernanceError("this log has never signed anything: nothing was set back", where=str(log.location))
    if origin in {key.name for key in keys}:
        raise GovernanceError(
            f"the log was {origin} before",
            where="origin",
            advice="Give AuditModule a new origin, and a signing_key_path where no file is yet",
        )
    anchors = make_anchors(config.anchors, keys[-1].name, log, SystemClock())
    try:
        found = check_anchors(log, anchors, keys[-1])
    finally:
        for anchor in anchors:
            anchor.close()
    if found is None:
        raise GovernanceError(
            f"no anchor contradicts the log: it may go on as {keys[-1].name}",
            where=str(log.location),
            advice="Put origin and signing_key_path back to what they were",
        )
    return found


def _continue(
    log: Database, settings: HomeserverYaml, config: AuditConfig, origin: str, found: Contradiction, reason: str
) -> Discontinuity:
    path = signing_key_path(config, settings.database)
    key = load_key(path, origin) if os.path.lexists(path) else generate_key(path, origin, system_random)
    recorder = Recorder(settings.server_name or "", "govctl", system_random)
    return continue_under(log, found, key.verifier, reason, recorder, SystemClock(), system_random)
