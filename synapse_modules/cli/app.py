"""What every command has in common: its options, its server and login, and how it ends.

Exit status 0: done. 1: failed or denied, after one clear line. 2: wrong usage, from click.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import click
import httpx

from synapse_modules.cli.client import Client, NotLoggedIn, parse_server
from synapse_modules.cli.credentials import LoginFile
from synapse_modules.cli.output import Output
from synapse_modules.core.errors import GovernanceError
from synapse_modules.core.yaml_documents import load_yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["DEFAULT_SERVER", "App", "confirm", "explain_crash", "group_options", "local", "read_document", "remote"]

DEFAULT_SERVER = "http://127.0.0.1:8008"
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Command = TypeVar("_Command", bound="Callable[..., Any]")


class App:
    """What a command works with.

    Attributes:
        output: where results go. server: base address of the homeserver. logins: the logins that are kept.

    Args:
        transport: stands in for the network in tests.
    """

    def __init__(self, output: Output, server: str, transport: httpx.BaseTransport | None = None) -> None:
        self.output = output
        self.server = server
        self.logins = LoginFile()
        self._transport = transport

    def connect(self, token: str | None) -> Client:
        """A client with ``token``, or one that is not logged in."""
        return Client(self.server, token, transport=self._transport)

    def client(self) -> Client:
        """A client that is logged in: by ``GOVCTL_TOKEN``, else by what `govctl login` kept for this server.

        Raises:
            NotLoggedIn: there is neither.
        """
        token = self.token()
        if token is None:
            raise NotLoggedIn(
                "you are not logged in",
                where=self.server,
                advice=f"Run `govctl login USER{self.server_option()}`, or set GOVCTL_TOKEN",
            )
        return self.connect(token)

    def token(self) -> str | None:
        """The access token to use, or None."""
        token = os.environ.get("GOVCTL_TOKEN")
        login = None if token else self.logins.get(self.server)
        return login.access_token if login else token or None

    def server_option(self) -> str:
        """What to add to a command so that it means this server."""
        return "" if self.server == DEFAULT_SERVER else f" --server {self.server}"


def remote(function: Callable[Concatenate[App, _P], _R]) -> Callable[_P, None]:
    """A command that calls a homeserver; it gets an :class:`App` and never shows a traceback."""
    return _server_options(local(function))


def local(function: Callable[Concatenate[App, _P], _R]) -> Callable[_P, None]:
    """A command that needs no homeserver; it gets an :class:`App` and never shows a traceback."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    @click.pass_context
    @functools.wraps(function)
    def command(context: click.Context, /, *args: Any, as_json: bool, **options: Any) -> None:
        common = context.find_root().params
        output = Output(as_json=as_json or bool(common.get("as_json")))
        try:
            app = App(output, _server(common, options), context.find_object(httpx.BaseTransport))
            context.exit(_status(function(app, *args, **options)))
        except GovernanceError as error:
            output.error(error)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            output.error(GovernanceError(error.strerror or str(error), where=str(error.filename or "")))
        context.exit(1)

    return cast("Callable[_P, None]", command)  # click fills in the options


def _status(result: object) -> int:
    return result if isinstance(result, int) else 0


def _server(common: dict[str, Any], own: dict[str, Any]) -> str:
    """The homeserver's address; what stands at the command beats what stands before it."""
    server = own.pop("server", None) or common.get("server") or DEFAULT_SERVER
    unsafe = own.pop("unsafe_plain_http", False) or common.get("unsafe_plain_http", False)
    try:
        return parse_server(server, unsafe_plain_http=unsafe)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--server'") from None


def _server_options(command: _Command) -> _Command:
    """The options that say which homeserver is meant."""
    server = click.option("--server", metavar="URL", help=f"The homeserver. [GOVCTL_SERVER; default {DEFAULT_SERVER}]")
    unsafe = click.option("--unsafe-plain-http", is_flag=True, help="Let your token travel unencrypted. Dangerous.")
    return server(unsafe(command))


def group_options(command: _Command) -> _Command:
    """The common options, for those who put them before the command."""
    server = click.option("--server", metavar="URL", envvar="GOVCTL_SERVER", help="The homeserver.")
    unsafe = click.option("--unsafe-plain-http", is_flag=True, hidden=True)
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    return server(unsafe(as_json(command)))


def read_document(path: Path) -> Any:
    """The YAML document in ``path``.

    Raises:
        GovernanceError: it cannot be read, or is not YAML as we want it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GovernanceError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise GovernanceError("is not UTF-8 text", where=str(path)) from None
    return load_yaml(text, str(path))


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if the user agrees; ``yes`` agrees beforehand.

    Raises:
        click.UsageError: there is nobody to ask.
        click.Abort: the user does not agree.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to confirm this; --yes confirms it beforehand")
    click.confirm(question, abort=True, err=True)


def explain_crash(error: Exception) -> int:
    """Report a mistake of our own in one line; ``GOVCTL_DEBUG=1`` shows the traceback."""
    if os.environ.get("GOVCTL_DEBUG"):
        traceback.print_exception(error)
    text = f"this is a mistake in govctl ({type(error).__name__}: {error})"
    Output().error(GovernanceError(text, advice="GOVCTL_DEBUG=1 shows where; please report it"))
    return 1
