"""All three modules for homeservers of tests and benchmarks, and clients of the governance API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.client import MatrixClient

__all__ = ["OPEN_POLICY", "OPEN_RULES", "all_modules", "apply_policy"]

OPEN_POLICY: dict[str, Any] = {
    "version": 1,
    "roles": {
        "member": {
            "description": "may do what members do",
            "allow": ["login", "room.create", "room.invite", "room.join", "message.send"],
        }
    },
    "bindings": [{"role": "member", "group": "everyone", "scope": "server"}],
}
"""Everybody may chat, nobody may administer."""

OPEN_RULES: dict[str, Any] = {"version": 1, "rules": [], "default": {"delete_after": None}}
"""Everything is kept."""


def all_modules(
    folder: Path,
    policy: Mapping[str, Any] = OPEN_POLICY,
    rules: Mapping[str, Any] = OPEN_RULES,
    *,
    auto_migrate: bool = True,
    **more: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The ``modules`` section with all three.

    Args:
        folder: where the policy, the rules and the audit log's signing key lie.
        policy: the access policy that is applied at the first start.
        rules: the retention rules that are applied at the first start.
        auto_migrate: whether the main process brings the schema up to date.
        more: further settings by module, such as ``AuditModule={"seal_interval_ms": 100}``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(yaml.safe_dump(dict(policy)))
    (folder / "retention.yaml").write_text(yaml.safe_dump(dict(rules)))
    own: dict[str, dict[str, Any]] = {
        "RbacModule": {"policy_file": str(folder / "policy.yaml")},
        "AuditModule": {"signing_key_path": str(folder / "audit.key")},
        "RetentionModule": {"rules_file": str(folder / "retention.yaml")},
    }
    return [
        {
            "module": f"synapse_modules.plugin.{name}",
            "config": {**settings, "auto_migrate": auto_migrate, **more.get(name, {})},
        }
        for name, settings in own.items()
    ]


def apply_policy(officer: MatrixClient, policy: Mapping[str, Any]) -> int:
    """Apply ``policy`` over the one in force and return its version."""
    planned = officer.governance("POST", "rbac/plan", {"document": policy}).expect()
    body = {"document": policy, "expected_version": planned["from_version"]}
    return int(officer.governance("POST", "rbac/apply", body).expect()["version"])
