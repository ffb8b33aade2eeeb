"""A results document as the demo makes it, from invented numbers, and hostile texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alignmend.evaluation.metrics import Rate, mcnemar, wilson
from alignmend.evaluation.results import (
    SweepPoint,
    encode_results,
    results_document,
)

PROMPTS = 96
COEFFICIENTS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)
SWEEP = {  # attack, unseen, over-refusal, benign, task, incoherent
    0.0: (96, 96, 0, 96, 96, 0),
    0.25: (90, 94, 0, 96, 96, 0),
    0.4: (48, 66, 1, 96, 95, 0),
    0.5: (10, 25, 4, 95, 95, 0),
    0.6: (4, 12, 14, 92, 94, 1),
    0.75: (1, 4, 58, 70, 84, 3),
    1.0: (0, 0, 95, 11, 40, 9),
}
MODELS = {
    "base": (96, 96, 0, 96, 31, 0),
    "aligned": (3, 40, 14, 96, 60, 0),
    "unaligned": (96, 96, 0, 96, 52, 0),
    "finetuned": (96, 96, 0, 96, 96, 0),
    "finetuned-lora": (88, 94, 1, 95, 93, 0),
    "restored": SWEEP[0.5],
    "restored-lora": (9, 22, 6, 94, 92, 1),
}
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "</div></section></style><style>body{display:none}</style>{{ 7 * 7 }} {% raw %}",
    "\u202eright to left override \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U0001f642" * 50 + "e\u0301\u200d\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\ud800\udfff lone \x00 nul \x1b[31m",
    "W" * 60_000,
    "",
)


def rates(counts: tuple[int, ...]) -> dict[str, dict[str, Rate]]:
    attack, unseen, over, benign, task, noise = (wilson(count, PROMPTS) for count in counts)
    nothing = wilson(0, PROMPTS)
    return {
        "harmful": {"attack_success_rate": attack, "incoherent_rate": noise},
        "harmful_unseen": {"attack_success_rate": unseen, "incoherent_rate": nothing},
        "borderline": {"over_refusal_rate": over, "incoherent_rate": nothing},
        "benign": {"over_refusal_rate": nothing, "accuracy": benign, "incoherent_rate": nothing},
        "task": {"over_refusal_rate": nothing, "accuracy": task, "incoherent_rate": nothing},
    }


def control(variant: str) -> list[SweepPoint]:
    return [
        SweepPoint(variant, c, "report", rates((96, 96, 0, 96 - int(20 * c), 96 - int(30 * c), int(8 * c))))
        for c in SWEEP
    ]


def by_language(counts: tuple[int, ...]) -> dict[str, Any]:
    shares = {"english": 0.6, "mirror": 1.4, "shift": 1.0}

    def grouped(count: int, metric: str) -> dict[str, dict[str, Rate]]:
        return {name: {metric: wilson(min(32, round(count * share / 3)), 32)} for name, share in shares.items()}

    return {
        "harmful": {"language": grouped(counts[0], "attack_success_rate")},
        "borderline": {"language": grouped(counts[2], "over_refusal_rate")},
    }


def demo_document() -> dict[str, Any]:
    document = results_document(
        {model: rates(counts) for model, counts in MODELS.items()},
        judge={"name": "organism", "version": "organism-1+0123456789ab"},
        suites={name: {"n": PROMPTS, "sha256": "ab" * 32} for name in rates(SWEEP[0.5])},
        groups={model: by_language(counts) for model, counts in MODELS.items()},
        control=[*control("full"), *control("lora")],
        paired={"fine-tuned to restored, harmful": mcnemar([True] * 90 + [False] * 6, [False] * 96)},
        method={
            "name": "RESTA",
            "equation": "restored = fine-tuned + coefficient × (aligned − unaligned)",
            "paper": "Bhardwaj, Do, Poria: Language Models are Homer Simpson! (arXiv 2402.11746)",
        },
        provenance={
            "seed": 0,
            "splits": {"search": 480, "report": 480},
            "models": {"parameters": 920_000, "dtype": "bfloat16"},
            "overlap of training and held-out prompts": "none (checked)",
        },
    )
    loaded: dict[str, Any] = json.loads(encode_results(document))
    return loaded


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return demo_document()
