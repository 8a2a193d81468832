"""`govctl dev` and `govctl smoke`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synapse_modules.cli.app import local

if TYPE_CHECKING:
    from synapse_modules.cli.app import App

__all__ = ["dev", "smoke"]

_PORT = click.IntRange(1, 65535)


@click.command()
@click.option("--port", type=_PORT, default=8008, show_default=True, help="Where to listen, on 127.0.0.1 only.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".dev"),
    show_default=True,
    help="Where everything is kept.",
)
@local
def dev(app: App, port: int, data: Path) -> None:
    """Start stock Synapse with all modules and a demo organisation, until Ctrl-C."""
    from synapse_modules.cli.demo import dev as demo  # noqa: PLC0415  Synapse's launcher is for these commands only

    demo.run(app.output, data, port)


@click.command()
@click.option("--port", type=_PORT, help="Where to listen, on 127.0.0.1 only.  [default: a free port]")
@click.option("--keep", is_flag=True, help="Keep the folder with the homeserver's data and log.")
@local
def smoke(app: App, port: int | None, keep: bool) -> int:
    """Play one scenario through every module with a real Matrix client, in a temporary folder."""
    from synapse_modules.cli.demo import smoke as demo  # noqa: PLC0415  matrix-nio is for this command only

    return demo.run(app.output, port, keep=keep)
