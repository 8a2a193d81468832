"""The module's configuration, and the rules files that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.yaml_documents import load_yaml
from synapse_modules.retention.config import RetentionConfig, read_rules_file
from synapse_modules.retention.rules import check_classes

_CONFIG = Path(__file__).resolve().parents[3] / "config"


@pytest.mark.parametrize("folder", ["", "demo"])
def test_shipped_rules_are_for_classes_of_the_policy_beside_them(folder: str) -> None:
    rules = read_rules_file(str(_CONFIG / folder / "retention.yaml"))
    policy = load_yaml((_CONFIG / folder / "policy.yaml").read_text(), "policy.yaml")
    check_classes(rules, {each["name"] for each in policy["room_classes"]}, "retention.yaml:")


def test_without_a_word_nothing_runs_by_itself() -> None:
    assert parse_document(RetentionConfig, {}, "modules") == RetentionConfig(
        rules_file=None, run_every_hours=None, auto_migrate=None
    )


@pytest.mark.parametrize("config", [{"run_every_hours": 0}, {"run_every_hours": 745}, {"run_every_hours": "1"}])
def test_an_interval_is_hours_within_a_month(config: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="modules:run_every_hours"):
        parse_document(RetentionConfig, config, "modules")


def test_a_mistyped_key_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'rules_file'"):
        parse_document(RetentionConfig, {"rule_file": "x"}, "modules")


def test_a_rules_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"rules_file: found .*, expected a file that can be read .*missing\.yaml"):
        read_rules_file(str(tmp_path / "missing.yaml"))
