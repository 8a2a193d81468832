"""`govctl audit rotate-key`: makes the key that is to replace the one that signs the log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synapse_modules.audit.config import log_origin
from synapse_modules.audit.key_file import generate_key
from synapse_modules.cli.app import local
from synapse_modules.cli.homeserver_yaml import audit_settings, read_homeserver_yaml, settings_option
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from synapse_modules.cli.app import App

__all__ = ["rotate_key"]


@click.command("rotate-key")
@settings_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the new key file goes.")
@local
def rotate_key(app: App, files: tuple[Path, ...], out: Path) -> None:
    """Make the key that is to replace the one that signs the log, and say what to do with it.

    Run it on the machine of the process with the background tasks, as the user that Synapse runs as. Nothing changes
    before Synapse starts with the new key named as `next_signing_key_path`.
    """
    settings = read_homeserver_yaml(files)
    audit = audit_settings(settings, files)
    if os.path.lexists(out):
        raise GovernanceError("there is a file already", where=str(out), advice="Name a file that is not there yet")
    path = out.absolute()
    key = generate_key(path, log_origin(audit, settings.server_name or ""), system_random)
    if app.output.as_json:
        app.output.document({"path": str(path), "key": str(key.verifier)})
    app.output.line(f"the new key is in {path}: back it up")
    app.output.line(f"  its verifier key is {key.verifier}")
    app.output.line(f"1. give AuditModule next_signing_key_path: {path}, and restart every process")
    app.output.line("2. give the verifier key to those who verify and to the witnesses, and wait some weeks")
    app.output.line("3. make it the signing_key_path, take next_signing_key_path away, and restart every process")
