"""The alert rules for Prometheus: it accepts them, they come when they should, and the guide names each of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import write_docs

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "config" / "prometheus" / "rules" / "synapse-governance-audit.yaml"
CASES = Path(__file__).with_name("prometheus_audit_rules.yaml")
WATCHED_OTHERWISE = {
    "synapse_governance_audit_anchor_age_seconds",  # grows where nothing is new; what waits is what matters
    "synapse_governance_audit_anchor_failures",  # one that fails for long makes what is new wait
    "synapse_governance_audit_heartbeat_age_seconds",  # its limit is an interval of the configuration: process_problem
}


def _rules() -> list[dict[str, Any]]:
    document: dict[str, Any] = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def _promtool(*words: str) -> str:
    program = shutil.which("promtool")
    assert program, "promtool is missing: scripts/install_system_packages brings it"
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(_rules())} rules found" in _promtool("check", "rules", str(RULES))


def test_each_alarm_comes_when_it_should_and_only_then(tmp_path: Path) -> None:
    text = CASES.read_text()
    assert {rule["alert"] for rule in _rules()} == set(re.findall(r"alertname: (\w+)", text))
    cases = tmp_path / "cases.yaml"
    cases.write_text(text.replace("[RULES]", f"[{RULES}]"))
    assert "SUCCESS" in _promtool("test", "rules", str(cases))


def _named(text: str) -> set[str]:
    """The metrics of the audit log that are named in ``text``, without what Prometheus adds to a name."""
    return {re.sub(r"_(total|bucket)$", "", name) for name in re.findall(r"synapse_governance_audit_\w+", text)}


def test_a_rule_asks_for_metrics_that_there_are_and_every_metric_is_watched() -> None:
    used = _named(" ".join(rule["expr"] for rule in _rules()))
    assert used | WATCHED_OTHERWISE == _named(write_docs.metrics_page())


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])
def test_an_alarm_says_what_is_wrong_and_the_guide_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert f"| `{rule['alert']}` |" in (ROOT / "docs" / "operator.md").read_text()
