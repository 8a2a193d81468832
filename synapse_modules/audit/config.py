"""Configuration of ``synapse_modules.plugin.AuditModule``: what the operator sets, and what follows from it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from synapse_modules.audit.anchor_config import AnchorConfig, check_anchor_names
from synapse_modules.audit.checkpoint import check_key_name
from synapse_modules.core.action_specs import SPECS
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput
from synapse_modules.storage.database import DatabaseLocation
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from synapse_modules.core.actions import Action

__all__ = [
    "AuditConfig",
    "LogDatabase",
    "Reaction",
    "WhenUnavailable",
    "log_location",
    "log_origin",
    "signing_key_path",
    "signing_key_paths",
]

_DATABASE_FILE = "governance-audit.db"
_KEY_FILE = "governance-audit.key"
_MEMORY = ":memory:"


class Reaction(StrEnum):
    """What comes of an action that cannot be recorded."""

    DENY = "deny"
    ALLOW_AND_ALARM = "allow-and-alarm"


class WhenUnavailable(FrozenModel):
    """What comes of the actions of each class (:class:`~synapse_modules.core.action_specs.ActionClass`) when the log
    cannot be written. Without a word they are refused.

    A refusal that cannot be recorded stands in either case. What is read from Synapse's tables, such as room events,
    waits for no record and is never refused.
    """

    login: Reaction = Reaction.DENY
    denial: Reaction = Reaction.DENY
    account: Reaction = Reaction.DENY
    administration: Reaction = Reaction.DENY
    governance: Reaction = Reaction.DENY
    room: Reaction = Reaction.DENY
    message: Reaction = Reaction.DENY
    media: Reaction = Reaction.DENY
    log: Reaction = Reaction.DENY

    def reaction_to(self, action: Action) -> Reaction:
        """What comes of ``action``."""
        reaction: Reaction = getattr(self, SPECS[action].action_class)
        return reaction


class LogDatabase(FrozenModel):
    """Where the log is, in the words of Synapse's own ``database`` section.

    Attributes:
        name: the engine. args: for ``sqlite3`` the path ``database``; for ``psycopg2`` what it takes to connect.
            Settings of Synapse's pool (``cp_…``) are left aside.
    """

    name: Literal["sqlite3", "psycopg2"]
    args: dict[str, Any]

    @pydantic.field_validator("args", mode="before")
    @classmethod
    def _is_a_mapping(cls, args: object) -> object:
        if not isinstance(args, dict):
            raise InvalidInput("", type(args).__name__, "a mapping")  # never its text: a password may be in it
        return args

    @pydantic.model_validator(mode="after")
    def _has_what_its_engine_takes(self) -> LogDatabase:
        path = self.args.get("database")
        if self.name == "sqlite3":
            if set(self.args) != {"database"}:
                raise InvalidInput("args", sorted(self.args), "the key 'database' and no other")
            if not isinstance(path, str) or path in ("", _MEMORY):
                raise InvalidInput("args.database", path, "the path of a file")
        return self

    def location(self) -> DatabaseLocation:
        """The same, for a connection."""
        if self.name == "sqlite3":
            return DatabaseLocation(Dialect.SQLITE, {"database": self.args["database"]})
        arguments = {key: value for key, value in self.args.items() if not key.startswith("cp_")}
        return DatabaseLocation(Dialect.POSTGRES, arguments)


class AuditConfig(FrozenModel):
    """What the operator sets.

    Attributes:
        database: the log's own database. By default, where the homeserver is on SQLite, the file
            ``governance-audit.db`` beside its database file; on PostgreSQL the homeserver's own database, over
            connections of our own.
        maintenance_database: the same database by a role that may erase and prune, which serves nothing else. Needed
            only where the role in ``database`` may not; without it this process refuses to erase and prune.
        signing_key_path: the file with the key that signs checkpoints, readable by its owner alone; made at the first
            start. By default, where the homeserver is on SQLite, ``governance-audit.key`` beside its database file; on
            PostgreSQL it has to be set.
        next_signing_key_path: the file with the key that is to replace it. While it is named both sign, so that whoever
            knows the present one comes to know the next; see the guide for operators.
        origin: the log's name, for good; by default ``<server name>/governance-audit``.
        on_unavailable: what comes of actions that cannot be recorded.
        queue_capacity: records that may wait in one process. When as many do, whoever comes next waits too.
        ack_timeout_ms: how long an action waits for its record to be durable before it counts as not recorded.
        seal_interval_ms: how long new records wait, at the most, until they get their index and a signed checkpoint;
            with the time that this takes it is less than a second.
        prune_after_days: nothing that was sealed later than so long ago is ever pruned.
        heartbeat_interval_s: how often every process says in the log that it is there, and what it runs. One that has
            not for 1.8 times as long is reported as silent.
        quiet_interval_s: after so long without anything but heartbeats a record says that nothing happened.
        anchors: where signed checkpoints are kept beyond the reach of whoever controls the database.
        auto_migrate: whether the main process brings the schema up to date; by default on SQLite only.
    """

    database: LogDatabase | None = None
    maintenance_database: LogDatabase | None = None
    signing_key_path: str | None = pydantic.Field(default=None, min_length=1)
    next_signing_key_path: str | None = pydantic.Field(default=None, min_length=1)
    origin: str | None = None
    on_unavailable: WhenUnavailable = WhenUnavailable()
    queue_capacity: int = pydantic.Field(default=10_000, ge=1, le=1_000_000)
    # A guard has five seconds in all: the record must have failed before, so that the reaction is ours to choose.
    ack_timeout_ms: int = pydantic.Field(default=3_000, ge=100, le=4_500)
    seal_interval_ms: int = pydantic.Field(default=800, ge=50, le=1_000)
    prune_after_days: int = pydantic.Field(default=90, ge=1, le=36_500)
    heartbeat_interval_s: int = pydantic.Field(default=30, ge=1, le=60)
    quiet_interval_s: int = pydantic.Field(default=3_600, ge=60, le=86_400)
    anchors: tuple[AnchorConfig, ...] = ()
    auto_migrate: bool | None = None

    @pydantic.field_validator("database", "maintenance_database", mode="before")
    @classmethod
    def _is_a_mapping(cls, database: object) -> object:
        if database is not None and not isinstance(database, dict | LogDatabase):
            raise InvalidInput("", type(database).__name__, "a mapping")  # never its text: a password may be in it
        return database

    @pydantic.field_validator("maintenance_database")
    @classmethod
    def _has_roles(cls, database: LogDatabase | None) -> LogDatabase | None:
        if database is not None and database.name == "sqlite3":
            raise InvalidInput("name", database.name, "psycopg2: SQLite knows no roles, and needs no second connection")
        return database

    @pydantic.field_validator("origin")
    @classmethod
    def _names_a_log(cls, origin: str | None) -> str | None:
        return None if origin is None else check_key_name(origin)

    @pydantic.field_validator("anchors")
    @classmethod
    def _have_names_of_their_own(cls, anchors: tuple[AnchorConfig, ...]) -> tuple[AnchorConfig, ...]:
        return check_anchor_names(anchors)


def log_location(config: AuditConfig, homeserver: DatabaseLocation) -> DatabaseLocation:
    """Where the log's database is, given where the homeserver's is.

    Raises:
        InvalidInput: both would be the same SQLite file, where each would keep the other waiting.
    """
    if config.database is None:
        return homeserver if homeserver.dialect is Dialect.POSTGRES else _sqlite(_beside(homeserver, _DATABASE_FILE))
    location = config.database.location()
    if location.dialect is homeserver.dialect is Dialect.SQLITE and _file(location) == _file(homeserver):
        raise InvalidInput("config.database.args.database", str(_file(location)), "another file than the homeserver's")
    return location


def signing_key_path(config: AuditConfig, homeserver: DatabaseLocation) -> Path:
    """Where the signing key is, given where the homeserver's database is.

    Raises:
        InvalidInput: nothing says where.
    """
    if config.signing_key_path is not None:
        return Path(config.signing_key_path)
    if homeserver.dialect is Dialect.POSTGRES:
        raise InvalidInput(
            "config.signing_key_path", None, "a path: there is no default where the homeserver is on PostgreSQL"
        )
    return _beside(homeserver, _KEY_FILE)


def signing_key_paths(config: AuditConfig, homeserver: DatabaseLocation) -> list[Path]:
    """Where the present signing key is and, if one is named, the next. Raises as :func:`signing_key_path` does."""
    following = config.next_signing_key_path
    return [signing_key_path(config, homeserver), *([] if following is None else [Path(following)])]


def log_origin(config: AuditConfig, server_name: str) -> str:
    """The log's name."""
    return config.origin or f"{server_name}/governance-audit"


def _file(location: DatabaseLocation) -> Path:
    return Path(location.arguments["database"]).resolve()


def _beside(homeserver: DatabaseLocation, name: str) -> Path:
    return Path(homeserver.arguments["database"]).with_name(name)


def _sqlite(path: Path) -> DatabaseLocation:
    return DatabaseLocation(Dialect.SQLITE, {"database": str(path)})
