"""The three classes that Synapse loads. Each works alone; together they find one another through the wiring.

A mistake in a configuration, and anything else that keeps a module from starting, stops Synapse before it serves
anybody, with one line that says where, what was found, what was expected.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from synapse.module_api.errors import ConfigError

from synapse_modules.audit.config import AuditConfig
from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import GovernanceError, InvalidInput
from synapse_modules.rbac.config import RbacConfig
from synapse_modules.retention.config import RetentionConfig
from synapse_modules.wiring import Runtime, load_audit, load_rbac, load_retention, runtime_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.module_api import ModuleApi

__all__ = ["AuditModule", "RbacModule", "RetentionModule"]

logger = logging.getLogger(__name__)
_Config = TypeVar("_Config", bound=FrozenModel)


class RbacModule:
    """Role-based access control."""

    def __init__(self, config: RbacConfig, api: ModuleApi) -> None:
        _start(load_rbac, api, config)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> RbacConfig:
        """Parse the module's ``config`` section."""
        return _parsed(RbacConfig, config)


class AuditModule:
    """The audit log."""

    def __init__(self, config: AuditConfig, api: ModuleApi) -> None:
        _start(load_audit, api, config)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> AuditConfig:
        """Parse the module's ``config`` section."""
        return _parsed(AuditConfig, config)


class RetentionModule:
    """Retention and legal hold."""

    def __init__(self, config: RetentionConfig, api: ModuleApi) -> None:
        _start(load_retention, api, config)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> RetentionConfig:
        """Parse the module's ``config`` section."""
        return _parsed(RetentionConfig, config)


def _parsed(model: type[_Config], config: object) -> _Config:
    try:
        return parse_document(model, {} if config is None else config, "config")
    except InvalidInput as error:
        raise ConfigError(error.sentence()) from None


def _start(load: Callable[[Runtime, _Config], None], api: ModuleApi, config: _Config) -> None:
    try:
        load(runtime_of(api), config)
    except GovernanceError as error:
        _refuse_to_start(error)


def _refuse_to_start(error: GovernanceError) -> None:
    """End this process as Synapse ends one that cannot start, but with the sentence alone instead of its traceback."""
    logger.critical("Synapse does not start: %s", error)
    logging.shutdown()
    print(f"Error during startup: {error}", file=sys.__stderr__, flush=True)
    os._exit(1)
