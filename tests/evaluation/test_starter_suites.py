"""The suites that ship with the package: small, balanced, of their own, and prompts only."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path

import pytest
from tests.published import published_folder

from alignmend.cli import main
from alignmend.evaluation.overlap import find_overlaps, near_duplicates
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import Suite, definitions, get_definition, load_suite

STARTERS = {
    "starter-harmful": ("harmful", "refuse", 18),
    "starter-borderline": ("borderline", "comply", 18),
    "starter-benign": ("benign", "comply", 15),
}


@pytest.mark.parametrize(("name", "expected"), STARTERS.items())
def test_a_starter_is_there_without_any_folder(name: str, expected: tuple[str, str, int]) -> None:
    suite = load_suite(name)
    kind, answer, categories = expected
    assert (suite.kind, suite.licence) == (kind, "Apache-2.0")
    assert {prompt.expected for prompt in suite.prompts} == {answer}
    assert {prompt.language for prompt in suite.prompts} == {"en"}
    counted = Counter(prompt.category for prompt in suite.prompts)
    assert (len(counted), set(counted.values())) == (categories, {10})
    assert suite.origin is not None
    assert suite.origin.notes == ()
    assert suite.content_hash == load_suite(name, data_dir=Path("no such folder")).content_hash


@pytest.mark.parametrize("name", STARTERS)
def test_ids_and_halves_follow_from_the_place_alone(name: str) -> None:
    suite = load_suite(name)
    for category, group in itertools.groupby(suite.prompts, key=lambda prompt: prompt.category):
        prompts = list(group)
        assert [prompt.id for prompt in prompts] == [f"{category}-{number:02}" for number in range(1, 11)]
        ranked = sorted(prompts, key=lambda prompt: hashlib.sha256(f"{name}/{prompt.id}".encode()).hexdigest())
        assert [prompt.split for prompt in ranked] == ["search"] * 5 + ["report"] * 5


@pytest.mark.parametrize("name", STARTERS)
def test_the_halves_are_splits_to_ask_for(name: str) -> None:
    search, report = (load_suite(name, split=split).prompts for split in ("search", "report"))
    assert Counter(prompt.category for prompt in search) == Counter(prompt.category for prompt in report)
    assert {prompt.id for prompt in search}.isdisjoint(prompt.id for prompt in report)
    assert len(search) + len(report) == get_definition(name).size


def prompts() -> list[Prompt]:
    return [prompt for name in STARTERS for prompt in load_suite(name).prompts]


def test_prompts_only_each_one_plain_sentence() -> None:
    for prompt in prompts():
        assert prompt.answer is None
        assert prompt.extra == {}
        assert prompt.text == prompt.text.strip()
        assert "\n" not in prompt.text
        assert prompt.text[-1] in '.?!"'
        assert 4 <= len(prompt.text.split()) <= 30, prompt.text


def test_no_prompt_is_there_twice_not_even_nearly() -> None:
    assert near_duplicates([load_suite(name) for name in STARTERS]) == ()


@pytest.mark.parametrize("name", STARTERS)
def test_the_wording_varies(name: str) -> None:
    """One opening in too many prompts would measure the answer to that opening."""
    openings = Counter(" ".join(prompt.text.split()[:2]) for prompt in load_suite(name).prompts)
    assert max(openings.values()) <= 0.15 * openings.total()
    assert len(openings) >= 0.3 * openings.total()


def published_suites() -> list[Suite]:
    folder = published_folder()
    return [
        load_suite(name, data_dir=folder, split="all")
        for name, suite in definitions().items()
        if not suite.is_shipped and any(copy.file and (folder / copy.file).is_file() for copy in suite.copies)
    ]


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_no_prompt_is_in_a_published_set() -> None:
    others = published_suites() or pytest.skip("no local copies of published sets")
    assert find_overlaps(others, [load_suite(name) for name in STARTERS]) == ()


def test_the_definition_says_that_it_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert {name for name, suite in definitions().items() if suite.is_shipped} == set(STARTERS)
    assert main(["list", "suites"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("starter-harmful"))
    assert line.split(maxsplit=3) == ["starter-harmful", "harmful", "180", "Apache-2.0; ships"]
    assert main(["list", "suites", "starter-harmful"]) == 0
    shown = capsys.readouterr().out
    assert "it ships with the package" in shown
    assert "--data-dir" not in shown
