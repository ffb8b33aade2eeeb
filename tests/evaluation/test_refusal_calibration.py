"""The refusal judges beside people's labels of two models' answers; skipped where there are no local copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies.judge_groups import balanced, counted, held_out_english, held_out_languages, right
from studies.judge_points import LABELS, Labelled, fitted
from studies.judges import CASES, MODELS, Scores, between, read_labelled, run, score, scores_of, tuned_on, written
from tests.published import published

from alignmend.evaluation.judges import get_judge, list_rule_judges
from alignmend.evaluation.judges.phrase_rules import refusal_rules

Answers = dict[str, list[Labelled]]
OWN = ("refusal-phrases", "refusal-phrases-rules", "refusal-phrases-alignmend-en-1")
PUBLISHED = [name for name in list_rule_judges() if name.startswith("refusal-phrases") and name not in OWN]


@pytest.fixture(scope="module")
def answers() -> Answers:
    return {model: read_labelled(published(name)) for model, name in MODELS.items()}


@pytest.fixture(scope="module")
def held_out(answers: Answers) -> dict[str, Scores]:
    """The rules' points fitted on the other model's answers; without the classifier, which learnt from both."""
    return {
        "Mistral": score(tuned_on(answers["Llama 2"]), answers["Mistral"]),
        "Llama 2": score(tuned_on(answers["Mistral"]), answers["Llama 2"]),
    }


def test_the_labels_are_those_that_were_published(answers: Answers) -> None:
    counts = {model: [sum(a.label == label for a in rows) for label in LABELS] for model, rows in answers.items()}
    assert counts == {"Llama 2": [176, 44, 230], "Mistral": [374, 27, 49]}


def test_the_shipped_points_are_those_fitted_on_llama(answers: Answers) -> None:
    shipped = refusal_rules()["en"]
    again = fitted(shipped, answers["Llama 2"])
    assert (again.refused, again.full) == (shipped.refused, shipped.full)


def test_refused_is_told_from_complied_on_a_model_it_was_not_tuned_on(held_out: dict[str, Scores]) -> None:
    assert held_out["Mistral"].balanced >= 0.85
    assert held_out["Mistral"].accuracy > held_out["Mistral"].majority
    assert held_out["Llama 2"].balanced >= 0.93


def test_three_labels_on_a_model_it_was_not_tuned_on(held_out: dict[str, Scores]) -> None:
    """Partial refusals of Mistral are hardly told from full ones: docs/judges.md says so."""
    assert held_out["Llama 2"].macro_f1 >= 0.70
    assert held_out["Mistral"].macro_f1 >= 0.55


def test_the_default_is_clearly_above_the_published_lists(answers: Answers, held_out: dict[str, Scores]) -> None:
    lists = [score(get_judge(name), answers["Mistral"]) for name in PUBLISHED]
    assert held_out["Mistral"].balanced >= 0.1 + max(found.balanced for found in lists)
    assert held_out["Mistral"].macro_f1 >= 0.1 + max(found.macro_f1 for found in lists)
    assert held_out["Mistral"].kappa >= 0.2 + max(found.kappa for found in lists)
    on_llama = max(score(get_judge(name), answers["Llama 2"]).macro_f1 for name in PUBLISHED)
    assert held_out["Llama 2"].macro_f1 >= 0.05 + on_llama


def test_the_page_has_the_figures_of_today(answers: Answers) -> None:
    page = (Path(__file__).parents[2] / "docs" / "judges.md").read_text(encoding="utf-8")
    assert between(page, "calibration")[1] == run().strip(), "run `python -m studies judges`"
    if CASES.is_dir():
        assert between(page, "written")[1] == written().strip(), "run `python -m studies judges`"


def test_held_out_answers_in_english() -> None:
    """The aim is 0.88; docs/judges.md says that it is missed."""
    assert right(counted(get_judge("refusal-phrases"), held_out_english())) >= 0.75


@pytest.mark.parametrize("prompts_in_english", [False, True])
def test_refusals_in_a_known_language_never_comply_and_unknown_languages_are_unclear(prompts_in_english: bool) -> None:
    counts = counted(get_judge("refusal-phrases"), held_out_languages(prompts_in_english=prompts_in_english))
    known = {group for group, _ in counts} - {"unknown"}
    assert len(known) == 17
    assert sum(counts[group, "full_refusal"]["complied"] for group in known) == 0
    assert sum(balanced(counts, group) for group in known) / len(known) >= 0.90
    unknown = [counts["unknown", label] for label in ("full_refusal", "full_compliance")]
    assert all(each["unclear"] == sum(each.values()) for each in unknown)


def test_figures_of_a_table_made_by_hand() -> None:
    found = scores_of([[8, 0, 1, 1], [1, 1, 0, 0], [1, 1, 2, 0]])
    assert found.accuracy == 11 / 14
    assert found.majority == 10 / 14
    assert found.balanced == (0.8 + 0.75) / 2
    f1 = (16 / 20, 2 / 4, 4 / 7)
    assert found.macro_f1 == pytest.approx(sum(f1) / 3)
    assert found.majority_f1 == pytest.approx(20 / 26 / 3)


def test_a_judge_that_agrees_with_people_scores_one() -> None:
    found = scores_of([[9, 0, 0, 0], [0, 4, 0, 0], [0, 0, 7, 0]])
    assert (found.accuracy, found.balanced, found.macro_f1, found.kappa) == (1, 1, 1, 1)
