"""The three classes that Synapse loads. Each works alone; together they find one another through the wiring.

A mistake in a configuration stops Synapse before it serves anybody, with the path, what was found, what was expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from synapse.module_api.errors import ConfigError

from synapse_modules.audit.config import AuditConfig
from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import InvalidInput
from synapse_modules.rbac.config import RbacConfig
from synapse_modules.retention.config import RetentionConfig
from synapse_modules.wiring import load_audit, load_rbac, load_retention, runtime_of

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

__all__ = ["AuditModule", "RbacModule", "RetentionModule"]

_Config = TypeVar("_Config", bound=FrozenModel)


class RbacModule:
    """Role-based access control."""

    def __init__(self, config: RbacConfig, api: ModuleApi) -> None:
        load_rbac(runtime_of(api), config)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> RbacConfig:
        """Parse the module's ``config`` section."""
        return _parsed(RbacConfig, config)


class AuditModule:
    """The audit log."""

    def __init__(self, config: AuditConfig, api: ModuleApi) -> None:
        load_audit(runtime_of(api), config)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> AuditConfig:
        """Parse the module's ``config`` section."""
        return _parsed(AuditConfig, config)


class RetentionModule:
    """Retention and legal hold."""

    def __init__(self, config: RetentionConfig, api: ModuleApi) -> None:
        load_retention(runtime_of(api), config)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> RetentionConfig:
        """Parse the module's ``config`` section."""
        return _parsed(RetentionConfig, config)


def _parsed(model: type[_Config], config: object) -> _Config:
    try:
        return parse_document(model, {} if config is None else config, "config")
    except InvalidInput as error:
        raise ConfigError(error.sentence()) from None
