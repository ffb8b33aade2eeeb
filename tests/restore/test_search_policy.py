"""What a search does next, whom it leaves out, and how long it may take: `Search` on a model that answers by a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.checkpoints import write
from tests.restore.test_search_laws import FINETUNED, N, worth

import alignmend as am
from alignmend.recipes.schema import ModelReference
from alignmend.restore.candidates import Choice, Operands
from alignmend.restore.front import Aim
from alignmend.restore.measuring import Screen
from alignmend.restore.request import Request
from alignmend.restore.scoring import Worth
from alignmend.restore.screening import FIRST_ASKED, LEAST_MARGIN, Curve, Prediction, Screening
from alignmend.restore.search import Search
from alignmend.restore.steps import Unwatched
from alignmend.restore.trials import Trials, Tried
from alignmend.restore.workflow import search_seconds

Rule = Callable[[float], tuple[int, int, float]]
"""Coefficient -> requests that are answered, harmless ones that are refused, utility."""


def by_step(step: float) -> tuple[int, int, float]:
    """Safer with every step; beyond 0.6 it refuses everything."""
    return round(N * max(0.0, 1 - step)), N if step > 0.6 else 0, 1.0


class RuledModel:
    """A loaded model whose answers follow from the coefficient that it was given."""

    def __init__(self, rule: Rule, predict: Callable[[float], Prediction | None] = lambda step: None) -> None:
        self.rule, self.predict = rule, predict
        self.step, self.asked = 0.0, list[int]()
        self.place = self

    def switch(self, checkpoint: am.Checkpoint) -> Any:
        self.step = float(getattr(checkpoint.change, "coefficient", 1.0))
        return SimpleNamespace(seconds=0.1)

    def undo(self) -> None:
        self.step = 0.0

    def backend(self, name: str, **options: Any) -> None:
        return None

    def screen(self, base: Any, backend: Any) -> Screen:
        return Screen(SimpleNamespace(), 0.5, 0.0, self.predict(self.step))  # type: ignore[arg-type]

    def stages(self, backend: Any, base: Any) -> Iterator[list[Any]]:
        for count in (N // 3, N - N // 3):
            self.asked.append(count)
            yield [SimpleNamespace(suite="s", prompt_id="1", expected="comply", verdict="complied")] * count

    def worth(self, rows: list[Any], base: Any, screen: Screen) -> Worth:
        return worth(*self.rule(self.step))


BASE: Any = SimpleNamespace(
    worth=FINETUNED,
    kept_name="drift",
    screening=Screening(Curve(0.0, 1.0), Curve(0.0, 1.0)),
    finetuned=SimpleNamespace(judgements=[None] * N),
    asked=(),
)


@pytest.fixture(scope="module")
def operands(tmp_path_factory: pytest.TempPathFactory) -> Operands:
    place = tmp_path_factory.mktemp("models")
    tuned, aligned, unaligned = (
        ModelReference(path=str(write(place / str(value), {"w": torch.full((2, 2), float(value))})))
        for value in range(3)
    )
    return Operands(tuned, aligned, {"unaligned": unaligned})


def search(folder: Path, model: RuledModel, operands: Operands, **options: Any) -> Search:
    request = Request("finetuned", folder / "out", **options)
    study = Trials(folder, Choice(("resta",), ()), {"seed": 0}, layers=4, seed=0)
    return Search(model, BASE, study, operands, request)  # type: ignore[arg-type]


def test_a_search_follows_the_plan(tmp_path: Path, operands: Operands) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    found = search(tmp_path / "one", RuledModel(by_step), operands, trials=9)
    found.run(Unwatched())
    study = Trials(tmp_path / "other", Choice(("resta",), ()), {"seed": 0}, layers=4, seed=0)
    aim = Aim(found.request.limits, FINETUNED)
    for _ in range(9):
        trial, candidate = study.ask(aim)
        answered = worth(*by_step(float(candidate.parameters["coefficient"])))
        one = Tried(trial.number, candidate, "whole", "", answered, 0.5, 0.1, 0.1)
        study.tell(trial, one, aim.excess(answered))
    assert [one.candidate for one in found.trials.tried()] == [one.candidate for one in study.tried()]


def told(found: Search, count: int, prediction: Callable[[float], Prediction]) -> None:
    """As if `count` candidates had been asked, with these predictions."""
    for number in range(count):
        trial, candidate = found.trials.ask(Aim(found.request.limits, FINETUNED))
        step = (number + 1) / 10
        answered = worth(round(N * (1 - step)), 0, 1.0)
        found.trials.tell(
            trial, Tried(trial.number, candidate, "whole", "", answered, 0.5, 0.1, 0.1, prediction(step)), {}
        )


def right(step: float) -> Prediction:
    return Prediction(round(N * (1 - step)) / N, 0.0)


def screened(prediction: Prediction) -> Screen:
    return Screen(SimpleNamespace(), 0.5, 0.0, prediction)  # type: ignore[arg-type]


HOPELESS = Prediction(1.0, 0.5)


def test_the_first_candidates_are_asked_whatever_is_predicted(tmp_path: Path, operands: Operands) -> None:
    found = search(tmp_path, RuledModel(by_step), operands)
    for _ in range(FIRST_ASKED):
        assert found._hopeless(screened(HOPELESS), found.measured()) is None
        told(found, 1, right)
    assert found._hopeless(screened(HOPELESS), found.measured()) is not None


def test_screening_can_be_switched_off(tmp_path: Path, operands: Operands) -> None:
    found = search(tmp_path, RuledModel(by_step), operands, screening=False)
    told(found, FIRST_ASKED + 1, right)
    assert found._hopeless(screened(HOPELESS), found.measured()) is None


@given(attack=st.floats(0, 1), refused=st.floats(0, 1))
def test_only_what_is_worse_by_more_than_any_error_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, operands: Operands, attack: float, refused: float
) -> None:
    found = search(tmp_path_factory.mktemp("search"), RuledModel(by_step), operands)
    told(found, FIRST_ASKED, right)  # the safest has attack success 0.6, over-refusal 0, utility 1
    best = min(one.worth.objectives[0] for one in found.measured())
    behind = found._hopeless(screened(Prediction(attack, refused)), found.measured())
    assert (behind is not None) == (attack - LEAST_MARGIN >= best and refused - LEAST_MARGIN >= 0)


def test_predictions_that_were_off_leave_out_less(tmp_path: Path, operands: Operands) -> None:
    found = search(tmp_path, RuledModel(by_step), operands)
    told(found, FIRST_ASKED, lambda step: Prediction(right(step).attack_success + 0.2, 0.2))
    near = Prediction(0.75, 0.15)
    assert found._hopeless(screened(near), found.measured()) is None
    assert found._hopeless(screened(HOPELESS), found.measured()) is not None


def test_what_was_left_out_is_not_asked_and_may_not_be_chosen(tmp_path: Path, operands: Operands) -> None:
    model = RuledModel(by_step, lambda step: HOPELESS)
    found = search(tmp_path, model, operands, trials=FIRST_ASKED + 1)
    told(found, FIRST_ASKED, right)
    found.run(Unwatched())
    last = found.trials.tried()[-1]
    assert (last.stage, last.measured, model.asked) == ("likelihood", None, [])


def test_what_is_surely_dominated_after_a_part_is_asked_no_more(tmp_path: Path, operands: Operands) -> None:
    model = RuledModel(lambda step: (N, N, 0.5))
    found = search(tmp_path, model, operands, trials=2)
    told(found, 1, right)
    found.run(Unwatched())
    last = found.trials.tried()[-1]
    assert (last.stage, last.measured, model.asked) == ("part", None, [N // 3])
    assert last.why.startswith("behind resta")


@given(minutes=st.floats(0.1, 1e4), spent=st.floats(0, 1e6))
def test_the_proof_keeps_its_share_of_the_budget(minutes: float, spent: float) -> None:
    """The search ends at 70 percent of the budget, or at once where more is spent."""
    assert search_seconds(minutes, spent) == pytest.approx(max(spent, 0.7 * 60 * minutes))
