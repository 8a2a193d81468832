"""`govctl`: roles, audit, retention and holds of a homeserver from the command line."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from synapse_modules import __version__
from synapse_modules.cli import (
    audit,
    audit_anchors,
    audit_continue,
    audit_maintenance,
    audit_port,
    audit_rotate,
    hold,
    migrate,
    rbac,
    retention,
    session,
    verify,
)
from synapse_modules.cli.app import explain_crash, group_options
from synapse_modules.cli.demo import commands as demo

__all__ = ["govctl", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="govctl")
@group_options
def govctl(**_: object) -> None:
    """Govern a Matrix homeserver: who may do what, what was done, what is kept.

    Log in with `govctl login USER`, or put a Matrix access token into GOVCTL_TOKEN. What you may do is decided by
    the roles on the server, and what you do is in its audit log.
    """


for _command in (
    demo.dev, demo.smoke, migrate.migrate, session.status, session.login, session.logout,
    rbac.rbac, audit.audit, verify.verify, retention.retention, hold.hold,
):  # fmt: skip
    govctl.add_command(_command)
audit.audit.add_command(audit_anchors.anchors)
audit.audit.add_command(audit_continue.continue_log)
audit.audit.add_command(audit_maintenance.erase)
audit.audit.add_command(audit_maintenance.prune)
audit.audit.add_command(audit_port.port)
audit.audit.add_command(audit_rotate.rotate_key)


def main() -> NoReturn:
    """Run the command line and end with its exit status."""
    try:
        govctl.main(prog_name="govctl")
    except Exception as error:  # noqa: BLE001  the last line of defence: one line instead of a traceback
        sys.exit(explain_crash(error))
