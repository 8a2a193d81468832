"""Configuration of ``synapse_modules.plugin.RetentionModule``."""

from __future__ import annotations

import pydantic

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.yaml_documents import read_named_yaml
from synapse_modules.retention.rules import Rules, parse_rules

__all__ = ["RetentionConfig", "read_rules_file"]


class RetentionConfig(FrozenModel):
    """What the operator sets.

    Attributes:
        rules_file: applied once, at the first start, when the database has no rules yet. Later changes go through
            ``govctl retention rules apply``.
        run_every_hours: how often what is due is deleted without being asked; None only by hand.
        auto_migrate: whether the main process brings the database's schema up to date; by default on SQLite only.
    """

    rules_file: str | None = None
    run_every_hours: int | None = pydantic.Field(default=None, ge=1, le=24 * 31)
    auto_migrate: bool | None = None


def read_rules_file(path: str) -> Rules:
    """Read and check a rules file; whether its classes exist can only be asked of a running homeserver.

    Raises:
        InvalidInput: it cannot be read, or anything in it is wrong.
    """
    return parse_rules(read_named_yaml(path, "rules_file"), path)
