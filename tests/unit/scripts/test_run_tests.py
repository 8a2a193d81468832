"""The runner of ``make test``: what it counts, what it leaves out, and when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import run_tests

_REPORT = """\
<testsuites>
  <testsuite tests="5" failures="1" errors="1" skipped="1"/>
  <testsuite tests="2" failures="0"/>
</testsuites>
"""


def test_counts_are_summed_over_the_suites_of_a_report(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(_REPORT)
    assert run_tests.counts(report) == (4, 2, 1)


def test_a_layer_without_a_report_counts_nothing(tmp_path: Path) -> None:
    assert run_tests.counts(tmp_path / "absent.xml") == (0, 0, 0)


def test_a_layer_that_fails_without_a_failed_test_counts_as_one_failure() -> None:
    assert run_tests.Outcome("lint", status=2, seconds=1.0).failures == 1
    assert run_tests.Outcome("unit", status=2, seconds=1.0, failed=3).failures == 3
    assert run_tests.Outcome("unit", status=0, seconds=1.0, passed=3).failures == 0


def test_allow_skip_leaves_out_only_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_SKIP", "e2e, smoke")
    layers, left_out = run_tests.chosen()
    assert left_out == ["e2e", "smoke"]
    assert set(layers) == set(run_tests.LAYERS) - {"e2e", "smoke"}


def test_without_allow_skip_every_layer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALLOW_SKIP", raising=False)
    assert run_tests.chosen() == (list(run_tests.LAYERS), [])


def test_allow_skip_with_an_unknown_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_SKIP", "e2")
    with pytest.raises(SystemExit, match="names no layer: e2;"):
        run_tests.chosen()


def test_the_summary_names_what_was_left_out() -> None:
    text = run_tests.summary([run_tests.Outcome("unit", 0, 1.0, passed=7)], ["e2e"])
    assert "unit           passed" in text
    assert "e2e            LEFT OUT" in text


def test_every_layer_is_a_make_target() -> None:
    makefile = Path(run_tests.__file__).parent.parent / "Makefile"
    targets = {line.partition(":")[0] for line in makefile.read_text().splitlines()}
    assert set(run_tests.LAYERS) <= targets
