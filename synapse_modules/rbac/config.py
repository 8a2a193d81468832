"""Configuration of ``synapse_modules.plugin.RbacModule``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.yaml_documents import read_named_yaml
from synapse_modules.rbac.messages import DEFAULT_LANGUAGE, Language
from synapse_modules.rbac.parsing import parse_policy

if TYPE_CHECKING:
    from synapse_modules.rbac.model import Policy

__all__ = ["RbacConfig", "read_policy_file"]


class RbacConfig(FrozenModel):
    """What the operator sets.

    Attributes:
        policy_file: applied once, at the first start, when the database has no policy yet. A room that it names must
            exist, unless the homeserver has no room at all. Later changes go through ``govctl rbac apply``.
        contact: the line that says whom to ask, at the end of each refusal; empty for none.
        language: of refusals.
        poll_seconds: how often each process looks whether the policy changed, should it have missed the signal.
        stale_seconds: a process that could not look for so long denies everything until it can again.
        auto_migrate: whether the main process brings the database's schema up to date; by default on SQLite only.
    """

    policy_file: str | None = None
    contact: str | None = pydantic.Field(default=None, max_length=500)
    language: Language = DEFAULT_LANGUAGE
    poll_seconds: int = pydantic.Field(default=5, ge=1, le=60)
    stale_seconds: int = pydantic.Field(default=60, ge=5, le=3600)
    auto_migrate: bool | None = None

    @pydantic.model_validator(mode="after")
    def _looks_before_it_is_stale(self) -> RbacConfig:
        if self.stale_seconds < 2 * self.poll_seconds:
            raise InvalidInput("stale_seconds", self.stale_seconds, "at least twice poll_seconds")
        return self


def read_policy_file(path: str) -> Policy:
    """Read and check a policy file.

    Raises:
        InvalidInput: it cannot be read, or anything in it is wrong.
    """
    return parse_policy(read_named_yaml(path, "policy_file"), path)
