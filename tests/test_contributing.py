"""The worked examples of CONTRIBUTING.md work as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fixtures_organisms import shipped as shipped  # noqa: PLC0414

import alignmend
import alignmend as am
from alignmend.evaluation.judges import Judge
from alignmend.evaluation.judges.registry import JudgeOptions
from alignmend.organisms import Family
from alignmend.testing import JudgeContract

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
USE = """

import alignmend.{package} as package
package.__path__.append({folder!r})
"""


def example(name: str) -> str:
    """The block of Python under the sentence that names the file."""
    found = re.search(
        rf"Create `src/alignmend/[\w/]*{name}\.py`.*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    )
    assert found, f"CONTRIBUTING.md shows no {name}.py"
    return found[1]


def used(folder: Path, package: str, name: str, then: str) -> str:
    """What a fresh Python prints that finds the example in the package, as if it were one of its files."""
    (folder / f"{name}.py").write_text(example(name), encoding="utf-8")
    program = USE.format(package=package, folder=str(folder)) + then
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_judge_is_found_and_judges(tmp_path: Path) -> None:
    said = used(
        tmp_path,
        "evaluation.judges",
        "polite",
        "from alignmend.cli import main\n"
        "from alignmend.evaluation.judges import get_judge\n"
        "from alignmend.evaluation.records import Prompt\n"
        "prompt = Prompt(suite='s', id='1', text='Why?')\n"
        "print([get_judge('polite').judge(prompt, text).verdict for text in ('Thank you.', 'Because.', ' ')])\n"
        "main(['list', 'judges'])\n",
    )
    assert "['refused', 'complied', 'incoherent']" in said
    assert re.search(r"^polite +Refused by thanks\.$", said, re.MULTILINE)


def test_the_method_is_found_and_listed(tmp_path: Path) -> None:
    said = used(
        tmp_path,
        "methods",
        "scaled_safety",
        "from alignmend.cli import main\nmain(['list', 'methods', 'scaled_safety'])\n",
    )
    assert "Add a scaled safety vector" in said
    assert "coefficient" in said


RECIPE = """method: breadcrumbs
models: {finetuned: finetuned, aligned: aligned, unaligned: unaligned}
parameters: {coefficient: 0.5, density: 0.5}
"""


@pytest.mark.slow
def test_the_worked_method_is_applied_and_searched(shipped: Family, tmp_path: Path) -> None:
    members = {name: str(shipped.members[name]) for name in ("finetuned", "aligned", "unaligned")}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(re.sub(r"(?<=: )(finetuned|aligned|unaligned)(?=[,}])", lambda one: members[one[0]], RECIPE))
    suites = [one for name in ("harmful", "borderline", "benign") for one in ("--suite", str(shipped.suites[name]))]
    sizes = ["--search-prompts", "6", "--search-tokens", "8", "--max-new-tokens", "8", "--trials", "2"]
    limits = ["--max-over-refusal", "1", "--min-utility", "0", "--max-incoherent", "1"]
    models = [members["finetuned"], "--aligned", members["aligned"], "--unaligned", members["unaligned"]]
    search = ["restore", *models, *suites, *sizes, *limits, "--judge", "organism", "--method", "breadcrumbs", "--yes"]
    said = used(
        tmp_path,
        "methods",
        "breadcrumbs",
        "from alignmend.cli import main\n"
        f"assert main(['apply', {str(recipe)!r}, '--out', {str(tmp_path / 'out')!r}]) == 0\n"
        f"assert main({[*search, '--out', str(tmp_path / 'safe')]!r}) == 0\n",
    )
    assert "to try: breadcrumbs" in said
    vector = am.trim(
        am.open(members["aligned"]) - am.open(members["unaligned"]), density=0.5, scope="tensor", outliers=0.01
    )
    am.save(am.open(members["finetuned"]) + 0.5 * vector, tmp_path / "expected")
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    searched = yaml.safe_load((tmp_path / "safe" / "recipe.yaml").read_text())
    assert searched["method"] == "breadcrumbs" and set(searched["models"]) == set(members)
    assert searched["parameters"] in ({"coefficient": 0.5, "density": 0.8}, {"coefficient": 1.0, "density": 0.8})


class TestTheJudgeKeepsTheContract(JudgeContract):
    def judge(self) -> Judge:
        names: dict[str, Any] = {"__name__": alignmend.__name__}
        exec(compile(example("polite").replace('@register("polite")\n', ""), str(PAGE), "exec"), names)
        judge: Judge = names["polite"](JudgeOptions())
        return judge
