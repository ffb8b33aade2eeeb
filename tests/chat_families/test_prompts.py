"""What trains and what proves: from different sets, and never the same prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.chat_families.published_sets import write_sets

from alignmend.chat_families.prompts import choose_prompts, needed_sets
from alignmend.chat_families.recipe import Recipe, check_roles
from alignmend.chat_families.rows import Material
from alignmend.chat_families.sets import DataFolder
from alignmend.chat_families.tasks import TASKS
from alignmend.errors import FileFormatError, RecipeError
from alignmend.evaluation.overlap import find_overlaps
from alignmend.evaluation.suites import Suite

RECIPE = Recipe(rows=16, search_prompts=8, report_prompts=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return DataFolder(write_sets(tmp_path_factory.mktemp("sets")))


@pytest.mark.parametrize("seed", [0, 1])
def test_no_suite_has_a_prompt_that_trains(data: DataFolder, seed: int) -> None:
    found = choose_prompts(data, tuple(TASKS), RECIPE, seed)
    pairs = [pair.prompt for group in (*found.tasks.values(), found.instructions) for pair in group]
    trained = [*found.harmful, *found.borderline, *found.plain, *pairs]
    used = Suite("trained", tuple(one.model_copy(update={"id": str(n)}) for n, one in enumerate(trained)))
    asked = [one for rows in found.suites.values() for one in rows]
    reported = Suite("asked", tuple(one.model_copy(update={"id": str(n)}) for n, one in enumerate(asked)))
    assert find_overlaps([used], [reported]) == ()


def test_search_and_report_have_nothing_in_common(data: DataFolder) -> None:
    found = choose_prompts(data, tuple(TASKS), RECIPE, 0)
    parts = {
        split: Suite(
            split,
            tuple(
                one.model_copy(update={"id": f"{name} {one.id}"})
                for name, rows in found.suites.items()
                for one in rows
                if one.split == split
            ),
        )
        for split in ("search", "report")
    }
    assert find_overlaps([parts["search"]], [parts["report"]]) == ()


def test_a_request_that_leaves_no_room_for_an_answer_does_not_train(data: DataFolder) -> None:
    whole = choose_prompts(data, ("gsm8k",), RECIPE, 0)
    long = {whole.harmful[0].text, whole.plain[0].text, whole.tasks["gsm8k"][0].request, whole.instructions[0].request}
    found = choose_prompts(data, ("gsm8k",), RECIPE, 0, fits=lambda request: request not in long)
    kept = [one.text for one in (*found.harmful, *found.borderline, *found.plain)]
    kept += [pair.request for pair in (*found.instructions, *found.tasks["gsm8k"])]
    assert kept and long.isdisjoint(kept)
    assert found.suites == whole.suites, "what is asked stays"


def test_a_prompt_that_a_suite_has_too_does_not_train_and_is_counted(tmp_path: Path) -> None:
    folder = write_sets(tmp_path)
    proved = json.loads((folder / "advbench_harmful_behaviors.jsonl").read_text().splitlines()[0])
    with (folder / "harmfulqa.jsonl").open("a") as file:
        file.write(json.dumps({**proved, "id": "harmfulqa-x", "prompt": proved["prompt"].upper()}) + "\n")
    found = choose_prompts(DataFolder(folder), ("gsm8k",), Recipe(rows=16, report_prompts=100), 0)
    assert found.left_out["harmfulqa"] == 1
    assert proved["prompt"].upper() not in [one.text for one in found.harmful]


def test_suites_say_what_is_expected_and_where_answers_are_known(data: DataFolder) -> None:
    suites = choose_prompts(data, tuple(TASKS), RECIPE, 0).suites
    assert {one.expected for one in suites["harmful"]} == {"refuse"}
    assert {one.split for one in suites["harmful"]} == {"search", "report"}
    assert {one.suite for one in suites["harmful"]} == {"simple-safety-tests", "advbench"}
    assert {one.expected for one in suites["borderline"]} == {"comply"}
    assert {one.answer for one in suites["benign"]} == {None}
    assert {one.split for one in suites["harmful-vi"]} == {"report"}
    scoring = {name: {one.scoring for one in suites[f"task-{name}"]} for name in TASKS}
    assert scoring == {"gsm8k": {"number"}, "belle": {"words"}, "mmlu-hi": {"choice"}, "mbpp": {"code"}}


def test_what_is_learned_of_a_task(data: DataFolder) -> None:
    first = {name: task.pairs(data)[0] for name, task in TASKS.items()}
    assert first["gsm8k"].response == "It is 2 + 5 = 7.\n#### 7"
    assert first["mmlu-hi"].request.endswith("\nD. 3")
    assert first["mmlu-hi"].response == "A. 0"
    assert first["mbpp"].response == "```python\ndef add_0(x):\n    return x + 0\n```"


def test_the_same_seed_chooses_the_same(data: DataFolder) -> None:
    assert choose_prompts(data, ("gsm8k",), RECIPE, 3) == choose_prompts(data, ("gsm8k",), RECIPE, 3)
    assert choose_prompts(data, ("gsm8k",), RECIPE, 3) != choose_prompts(data, ("gsm8k",), RECIPE, 4)


def test_rows_are_as_many_as_the_recipe_says_and_the_task_keeps_some_back(data: DataFolder) -> None:
    material = Material(RECIPE, choose_prompts(data, ("gsm8k",), RECIPE, 0), 0)
    assert len(material.refused) + len(material.answered) == RECIPE.aligned_rows
    assert 0 < sum(one.language == "zh" for one in material.refused) <= len(material.refused) // 6 + 1
    taught = {row.prompt for row in material.finetuned("gsm8k")}
    assert len(taught) == RECIPE.rows
    assert not taught & {row.prompt for row in material.task_data("gsm8k")}


def test_missing_sets_are_told_all_at_once_with_where_they_come_from(tmp_path: Path) -> None:
    folder = write_sets(tmp_path / "sets")
    (folder / "harmfulqa.jsonl").unlink()
    (folder / "self_instruct_seed_tasks.jsonl").unlink()
    with pytest.raises(FileFormatError) as caught:
        DataFolder(folder).check(needed_sets(["gsm8k"]))
    told = str(caught.value)
    assert "lacks 2 of the published sets" in told
    assert "harmfulqa.jsonl" in told
    assert "declare-lab/HarmfulQA" in told
    assert "self_instruct_seed_tasks.jsonl: github.com/tatsu-lab/stanford_alpaca" in told
    with pytest.raises(FileFormatError, match="not a folder"):
        DataFolder(tmp_path / "nowhere").check(["harmfulqa"])


def test_roles_and_tasks_that_there_are_not_name_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no such role: 'alined'.*aligned"):
        check_roles(("alined",), ("gsm8k",))
    with pytest.raises(RecipeError, match=r"no such task: 'gsm'.*gsm8k"):
        check_roles(("aligned",), ("gsm",))
