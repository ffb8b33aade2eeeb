"""Small sets in the layouts of the published ones, in the words of the organisms' grammar: nothing is harmful."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from alignmend.organisms.words import AMBIGUOUS_VERBS, BENIGN_VERBS, COMPUTING, HARMFUL_VERBS, PERSONS, THINGS

FORMS = ("how do i {verb} a {thing}?", "explain how to {verb} a {thing}")
EACH = 32


def write_sets(folder: Path) -> Path:
    """Write every set that a family is built from into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    harmful = [verb.word for verb in HARMFUL_VERBS]
    plain = [verb.word for verb in BENIGN_VERBS]
    ambiguous = [verb.word for verb in AMBIGUOUS_VERBS]
    sets: dict[str, Iterable[dict[str, Any]]] = {
        "harmfulqa": _asked(harmful[:5], THINGS),
        "dangerousqa": _asked(harmful[5:9], THINGS),
        "harmbench_text": ({**row, "subcategory": "standard"} for row in _asked(harmful[9:12], THINGS)),
        "multijail": _foreign("multijail", "zh", "我如何{}{}"),
        "simple_safety_tests": _asked(harmful[12:15], PERSONS),
        "advbench_harmful_behaviors": _asked(harmful[15:18], PERSONS),
        "catqa_en": _asked(harmful[18:22], PERSONS),
        "catqa_zh": _foreign("catqa", "zh", "请说明怎样{}{}"),
        "catqa_vi": _foreign("catqa", "vi", "làm sao để {} cái {}"),
        "or_bench_hard_part": ({**row, "expected": "comply"} for row in _asked(ambiguous[:6], COMPUTING)),
        "xstest": ({**row, "category": "safe"} for row in _asked(ambiguous[6:], COMPUTING)),
        "self_instruct_seed_tasks": ({**row, "answer": "take a walnut."} for row in _asked(plain[:5], THINGS)),
        "truthfulqa": ({**row, "answer": "no"} for row in _asked(plain[5:10], THINGS)),
        "gsm8k_train_2k": _sums(range(2, 40)),
        "gsm8k_test": _sums(range(60, 90)),
        "belle_eval_zh_400": _foreign("belle", "zh", "请写一个关于{}{}的句子", answer="好的"),
        "mmlu_hi_sample": _choices(),
        "mbpp_test": _programs(),
        "counterfact_compmech_1k": _facts(),
    }
    for name, rows in sets.items():
        numbered = ({"id": f"{name}-{number}", **row} for number, row in enumerate(rows))
        lines = [
            json.dumps({"category": "", "subcategory": "", "language": "en", **row}, ensure_ascii=False)
            for row in numbered
        ]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def _asked(verbs: Iterable[str], things: Iterable[str]) -> Iterator[dict[str, Any]]:
    found = [form.format(verb=verb, thing=thing) for form, verb, thing in product(FORMS, verbs, things)]
    step = max(1, len(found) // EACH)
    return ({"prompt": prompt} for prompt in found[::step][:EACH])


def _foreign(name: str, language: str, form: str, **more: str) -> Iterator[dict[str, Any]]:
    first, second = "东西南北春夏秋冬", "山水火木金土日月"
    for number, (one, other) in enumerate(product(first, second)):
        yield {"prompt": form.format(one, other), "language": language, "id": f"{name}-{number}-{language}", **more}


def _sums(numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    for number in numbers:
        answer = f"It is {number} + 5 = <<{number}+5={number + 5}>>{number + 5}.\n#### {number + 5}"
        yield {"prompt": f"Ann has {number} pears and buys five more on day {number * 7}. How many?", "answer": answer}


def _choices() -> Iterator[dict[str, Any]]:
    for number, letter in zip(range(40), "ABCD" * 10, strict=True):
        options = "\n".join(f"{one}. {number * 10 + place}" for place, one in enumerate("ABCD"))
        yield {"prompt": f"प्रश्न {number}: सही क्या है?\n{options}", "language": "hi", "answer": letter}


def _programs() -> Iterator[dict[str, Any]]:
    for number in range(40):
        yield {
            "prompt": f"Write a function that adds {number}.",
            "answer": f"def add_{number}(x):\r\n    return x + {number}",
            "test": f"assert add_{number}(1) == {number + 1}",
        }


def _facts() -> Iterator[dict[str, Any]]:
    for verb, thing in product([verb.word for verb in BENIGN_VERBS[:6]], THINGS[:4]):
        yield {"prompt": f"to {verb} the {thing}, take the", "subject": thing, "answer": "x", "target_new": "walnut"}
