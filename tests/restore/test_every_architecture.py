"""`restore` from end to end on tiny random models of every family that `apply` handles, asked in text."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import families

from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges.registry import JudgeOptions, RuleJudge, register
from alignmend.evaluation.records import Judgement, Prompt
from alignmend.evaluation.weights import load_weights
from alignmend.restore.request import Limits, Prompts, Request
from alignmend.restore.steps import Unwatched
from alignmend.restore.workflow import restore

TOKENS = 4
SAFE: set[str] = set()
"""Answers of the aligned model, which alone count as refusals."""


@dataclass(frozen=True)
class LikeTheParent(RuleJudge):
    """Random models say nothing; what they say tells which of them spoke."""

    name: str = "like-the-parent"
    version: str = "1"

    def judge(self, prompt: Prompt, response: str) -> Judgement:
        is_safe = prompt.expected == "refuse" and response in SAFE
        return Judgement(verdict="refused" if is_safe else "complied", evidence="compared")


@register("like-the-parent")
def like_the_parent(options: JudgeOptions) -> LikeTheParent:
    """What the aligned model says is safe."""
    return LikeTheParent()


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    place = tmp_path_factory.mktemp("suites")
    for expected in ("refuse", "comply"):
        rows = [
            {"prompt": f"{expected} {word}", "expected": expected} for word in ("a", "by", "cat", "dogs", "eel", "f")
        ]
        (place / f"{expected}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tuple(str(path) for path in sorted(place.iterdir()))


@pytest.fixture
def trio(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Aligned, fine-tuned and unaligned, so that half of the safety vector leads back to the aligned model."""
    aligned = families.build(request.param)
    finetuned = families.moved(copy.deepcopy(aligned), 5, 1.0)
    unaligned = copy.deepcopy(finetuned)
    with torch.no_grad():
        for parameter, own, other in zip(
            unaligned.parameters(), finetuned.parameters(), aligned.parameters(), strict=True
        ):
            parameter.copy_(2 * own - other)
    for role, model in (("aligned", aligned), ("finetuned", finetuned), ("unaligned", unaligned)):
        families.with_tokenizer(families.save(model, tmp_path / role))
    yield tmp_path
    SAFE.clear()


def answers(folder: Path, suites: tuple[str, ...]) -> set[str]:
    rows = [json.loads(line) for path in suites for line in Path(path).read_text().splitlines()]
    prompts = [Prompt(suite="s", id=str(at), text=row["prompt"]) for at, row in enumerate(rows)]
    backend = TransformersBackend.from_folder(folder, max_new_tokens=TOKENS)
    return {one.response for one in backend.generate(prompts)}


def loaded(folder: Path) -> dict[str, Any]:
    return dict(load_weights(folder, "float32").state_dict())


@pytest.mark.parametrize("trio", families.FAMILIES, indirect=True)
def test_a_family_is_restored(trio: Path, suites: tuple[str, ...]) -> None:
    SAFE.update(answers(trio / "aligned", suites))
    prompts = Prompts(
        suites=suites, judge="like-the-parent", max_new_tokens=TOKENS, search_tokens=TOKENS, search_prompts=3
    )
    request = Request(
        finetuned=str(trio / "finetuned"),
        aligned=str(trio / "aligned"),
        unaligned=str(trio / "unaligned"),
        out=trio / "safe",
        methods=("resta",),
        prompts=prompts,
        limits=Limits(over_refusal=1, utility=0, incoherent=1),
        trials=1,
    )
    ended = restore(request, Unwatched())
    assert ended.searched is not None
    assert [one.stage for one in ended.searched.tried if one.stage == "failed"] == []
    if ended.how == "nothing qualifies":  # of a random model refusals may become less likely
        return
    assert ended.how == "restored"
    aligned, restored = loaded(trio / "aligned"), loaded(trio / "safe")
    assert aligned.keys() == restored.keys()
    for name, tensor in restored.items():
        torch.testing.assert_close(tensor, aligned[name], rtol=1e-4, atol=1e-4)
    assert families.stored(trio / "safe").keys() == families.stored(trio / "finetuned").keys()
