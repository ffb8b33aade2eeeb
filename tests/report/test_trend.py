"""`compare` of many runs: drift is told, chance is not, and p-values are corrected over the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.report.run_folders import AFTER, BEFORE, write_run

from alignmend.cli import main
from alignmend.errors import AlignmendError, RecipeError
from alignmend.evaluation.run_folder import read_run
from alignmend.report.trend import trend, trend_svg


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("weeks")
    said = {"week-1": AFTER, "week-2": AFTER, "week-3": BEFORE}
    return [write_run(place / name, "tuned", rows) for name, rows in said.items()]


def test_drift_is_told_and_sameness_is_not(weeks: list[Path]) -> None:
    found = trend([read_run(week) for week in weeks])
    assert found.runs == ("week-1", "week-2", "week-3")
    attack = [step for step in found.steps if (step.suite, step.metric) == ("catqa", "attack_success_rate")]
    assert [step.verdict for step in attack] == ["", "", "worse"]
    assert [round(step.rate.value, 3) for step in attack] == [0.025, 0.025, 1.0]
    first, last = attack[2].from_first, attack[2].from_previous
    assert first is not None and last is not None and first.test is not None
    assert first.difference == last.difference == pytest.approx(0.975)
    tests = sum(step.from_first is not None and step.from_first.test is not None for step in found.steps)
    tests += sum(step.run == "week-3" and step.from_previous is not None for step in found.steps)
    assert first.p_holm == pytest.approx(min(1, tests * first.test.p_value))  # the smallest of all
    assert attack[1].from_first == attack[1].from_previous


def test_the_command_prints_and_draws(weeks: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "drift.svg"
    assert main(["compare", *map(str, weeks), "--plot", str(plot)]) == 0
    assert "worse than the first run: attack_success_rate on catqa in week-3" in " ".join(
        capsys.readouterr().out.split()
    )
    drawn = ElementTree.parse(plot).getroot()
    assert drawn.tag.endswith("svg") and len(drawn.findall(".//{*}circle")) >= 9
    assert main(["compare", *map(str, weeks), "--plot", str(plot)]) == 2
    assert main(["compare", *map(str, weeks), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == ["week-1", "week-2", "week-3"] and {"verdict", "from_first"} <= told["steps"][0].keys()
    assert main(["compare", *map(str, weeks), "--flips", "2"]) == 2
    assert "--flips and --out are for two runs" in capsys.readouterr().err


def test_names_are_told_apart_and_other_prompts_are_refused(weeks: list[Path], tmp_path: Path) -> None:
    one = read_run(weeks[0])
    assert trend([one, one, one]).runs == ("1: week-1", "2: week-1", "3: week-1")
    other = read_run(write_run(tmp_path / "other", "tuned", [replace(row, suite=f"{row.suite}-2") for row in AFTER]))
    with pytest.raises(AlignmendError, match="no prompt is in both"):
        trend([one, other])
    with pytest.raises(RecipeError, match="two runs or more"):
        trend([one])
    assert trend_svg(trend([one, one])).count("<circle") > 0
