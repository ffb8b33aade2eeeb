"""Trainings side by side: results in order, steps told one at a time, the first error ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

import pytest
import torch

from alignmend.organisms.build import encode
from alignmend.organisms.corpora import draw
from alignmend.organisms.members import LORA_TARGETS, family_recipe
from alignmend.organisms.models import new_model
from alignmend.organisms.side_by_side import Job, side_by_side
from alignmend.organisms.tokenizer import train_tokenizer
from alignmend.training.adapter import with_lora
from alignmend.training.loop import TrainingOptions, train

Step = Callable[[float], None]


def silent(name: str, share: float) -> None:
    pass


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_every_step_is_told(threads: int) -> None:
    told: list[tuple[str, float]] = []

    def job(name: str) -> Job:
        def run(step: Step) -> str:
            for share in (0.5, 1.0):
                step(share)
            return name.upper()

        return run

    found = list(side_by_side({name: job(name) for name in "cab"}, lambda *said: told.append(said), threads))
    assert found == [("c", "C"), ("a", "A"), ("b", "B")]
    assert sorted(told) == [(name, share) for name in "abc" for share in (0.5, 1.0)]


def test_the_first_error_ends_the_others_at_their_next_step() -> None:
    begun, ended = threading.Event(), threading.Event()

    def fails(step: Step) -> None:
        begun.wait()
        raise ValueError("no")

    def goes_on(step: Step) -> None:
        begun.set()
        try:
            while True:
                step(0.1)
        finally:
            ended.set()

    with pytest.raises(ValueError, match="no"):
        list(side_by_side({"fails": fails, "goes on": goes_on}, silent, 2))
    assert ended.is_set()


def test_a_caller_that_stops_listening_ends_them() -> None:
    def endless(step: Step) -> None:
        while True:
            step(0.1)

    results = side_by_side({"done": lambda step: 1, "endless": endless}, silent, 2)
    assert next(results) == ("done", 1)
    results.close()  # type: ignore[attr-defined]  # returns, rather than waiting for ever


def test_company_and_threads_change_no_weight() -> None:
    recipe, tokenizer = family_recipe("small"), train_tokenizer(1024)
    rows = encode(tokenizer, draw(recipe.members["finetuned"].mixture, 12 * 8, Random("rows")))

    def job(lora: bool) -> Job:
        model = new_model(recipe.architecture, tokenizer, 0)
        model = with_lora(model, rank=4, targets=LORA_TARGETS, seed=0) if lora else model

        def run(step: Step) -> list[torch.Tensor]:
            train(model, rows, TrainingOptions(8, 1e-3, batch_size=12, threads=1), step)
            return [parameter.detach() for parameter in model.parameters()]

        return run

    apart, together = (dict(side_by_side({"a": job(False), "b": job(True)}, silent, threads)) for threads in (1, 2))
    for name in "ab":
        assert all(torch.equal(one, other) for one, other in zip(apart[name], together[name], strict=True))
