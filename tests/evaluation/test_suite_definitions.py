"""Every known suite is one file that says the truth about itself, as far as the file alone can show."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from alignmend.errors import AlignmendError, FileFormatError
from alignmend.evaluation.suites import Definition, definitions, get_definition, load_suite
from alignmend.evaluation.suites.definition import FOLDER, _read

NAMES = sorted(definitions())
ASKED_FOR = {
    "catqa-en", "catqa-zh", "catqa-vi", "advbench", "adversarialqa", "harmfulqa", "dangerousqa", "nichehazardqa",
    "hex-phi", "beavertails", "harmbench", "strongreject", "jailbreakbench-harmful", "jailbreakbench-benign",
    "simple-safety-tests", "malicious-instruct", "multijail", "xstest", "oktest", "or-bench", "gsm8k", "mmlu", "arc",
    "hellaswag", "truthfulqa", "humaneval", "mbpp", "xcopa-zh", "xnli-hi",
}  # fmt: skip


def test_the_suites_of_the_papers_are_known() -> None:
    assert set(NAMES) >= ASKED_FOR


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_hangs_together(name: str) -> None:
    suite = get_definition(name)
    structure = suite.structure
    if structure.categories and structure.per_category and not suite.default_split:
        assert structure.categories * structure.per_category == suite.size
    if structure.subcategories and structure.per_subcategory:
        assert structure.subcategories * structure.per_subcategory == suite.size
    if structure.languages and structure.per_language:
        assert structure.languages * structure.per_language == suite.size
    if structure.splits:
        assert sum(structure.splits.values()) == suite.size
        assert suite.default_split is None or suite.default_split in structure.splits
    assert (suite.expected == "refuse") == (suite.kind == "harmful")
    if not suite.is_shipped:
        assert str(suite.address).startswith("https://")
        assert "arXiv:" in str(suite.paper)


@pytest.mark.parametrize("name", NAMES)
def test_each_suite_can_be_given_as_a_local_file(name: str) -> None:
    copies = get_definition(name).copies
    assert any(copy.file for copy in copies)
    assert len({copy.name for copy in copies}) == len(copies)
    assert all(not copy.groups or len(copy.groups) == len(copy.path) for copy in copies)


def test_no_two_suites_read_one_file() -> None:
    files = [copy.file for suite in definitions().values() for copy in suite.copies if copy.file]
    assert len(files) == len(set(files))


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(AlignmendError, match=r"unknown suite 'advbech': did you mean 'advbench'\?"):
        load_suite("advbech")
    with pytest.raises(AlignmendError, match="unknown suite 'qqqqqqq'; `alignmend list suites` shows"):
        load_suite("qqqqqqq")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": 3}, "Extra inputs are not permitted"),
        ({"kind": "nasty"}, "Input should be"),
        ({"copies": []}, "at least 1 item"),
        ({"copies": [{"name": "a", "shape": "plian"}]}, "unknown shape 'plian': did you mean 'plain'"),
        ({"copies": [{"name": "a", "hub": "org/name"}]}, "`hub` and `path` go together"),
        ({"copies": [{"name": "a", "shipped": True}]}, "a shipped copy needs its `file`"),
        ({"paper": None}, "a published suite needs its `paper` and `address`"),
        ({"copies": [{"name": "a", "sample": True}]}, "a sample needs its own `size`"),
        ({"copies": [{"name": "a", "sha256": "abc"}]}, "String should match pattern"),
        ({"unverified": ["weather"]}, "Input should be"),
    ],
)
def test_a_wrong_definition_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    written = yaml.safe_load((FOLDER / "gsm8k.yaml").read_text(encoding="utf-8")) | change
    with pytest.raises(ValidationError, match=message):
        Definition.model_validate(written)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"wrong\.yaml: not a definition of a suite"):
        _read(path)
