"""`python -m benchmarks.chat_model MODEL`: tokens per second of a real chat model on a processor, and what dtype and
batch size change in its answers.

Ways: this package's backend, `generate` of `transformers` on the same padded batch, and llama.cpp (the wheel
`xllamacpp`, where it is installed) on a GGUF file of the model, one request at a time and eight at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.tables import replace_section

TITLE = "Chat model"
JUDGE = "refusal-phrases"
_SLOTS = 8
_SUITES = ("starter-harmful", "starter-borderline", "starter-benign")


@dataclass(frozen=True)
class Said:
    """Answers in the order of the prompts, and how many tokens they have together."""

    answers: tuple[str, ...]
    tokens: int


@dataclass(frozen=True)
class Way:
    """A way of answering all prompts."""

    title: str
    answer: Callable[[], Said]


@dataclass(frozen=True)
class Setting:
    """A model's folder and what it is asked."""

    folder: Path
    prompts: Sequence[Any]
    longest: int
    models: dict[str, tuple[Any, Any]]

    def model(self, dtype: str) -> tuple[Any, Any]:
        """Loaded once for each dtype."""
        from alignmend.evaluation.devices import load_model

        if dtype not in self.models:
            self.models[dtype] = load_model(self.folder, "cpu", dtype)
        return self.models[dtype]

    def ours(self, dtype: str, batch: int | None = None) -> Said:
        """This package's backend."""
        from alignmend.evaluation.generation import TransformersBackend

        model, tokenizer = self.model(dtype)
        backend = TransformersBackend(model, tokenizer, name="model", max_new_tokens=self.longest, batch_size=batch)
        found = backend.generate(self.prompts)
        return Said(tuple(one.response for one in found), sum(one.response_tokens or 0 for one in found))

    def transformers(self, dtype: str) -> Said:
        """`generate` on all prompts as one batch, padded on the left."""
        import torch

        model, tokenizer = self.model(dtype)
        rows = [self.rendered(tokenizer, one.text) for one in self.prompts]
        width = max(map(len, rows))
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ids = torch.tensor([[padding] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            output = model.generate(
                ids, attention_mask=mask, max_new_tokens=self.longest, do_sample=False, pad_token_id=padding
            )
        answers, tokens = [], 0
        for row in output[:, width:].tolist():
            ends = [place for place, token in enumerate(row) if token in (padding, tokenizer.eos_token_id)]
            kept = row[: ends[0]] if ends else row
            tokens += len(kept)
            answers.append(tokenizer.decode(kept, skip_special_tokens=True).strip())
        return Said(tuple(answers), tokens)

    def llama_cpp(self, gguf: Path, slots: int) -> Said:
        """A server in this process, `slots` requests at once."""
        xllamacpp: Any = import_module("xllamacpp")

        options = xllamacpp.CommonParams()
        options.model.path, options.n_gpu_layers, options.warmup, options.verbosity = str(gguf), 0, False, 0
        options.n_parallel, options.n_ctx = slots, 512 * slots
        server = xllamacpp.Server(options)
        tokenizer = self.model("float32")[1]
        bodies = [
            {"prompt": self.rendered(tokenizer, one.text), "n_predict": self.longest, "temperature": 0}
            for one in self.prompts
        ]
        with ThreadPoolExecutor(slots) as pool:
            found = list(pool.map(lambda body: _post(f"{server.listening_address}/completion", body), bodies))
        return Said(tuple(one["content"].strip() for one in found), sum(int(one["tokens_predicted"]) for one in found))

    @staticmethod
    def rendered(tokenizer: Any, text: str) -> list[int]:
        """Token ids in the chat template."""
        found: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        return found


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    setting = Setting(options.model, _prompts(options.prompts), options.longest, {})
    lines = [*_speed(setting, options), "", *_agreement(setting, options)]
    words = ", ".join(f"{name} {value}" for name, value in machine.describe(options.model).items()
                      if name in ("processor", "cores", "torch", "transformers"))  # fmt: skip
    section = "\n".join(
        [
            f"{options.model.name}, {len(setting.prompts)} prompts of the starter suites, at most {options.longest} "
            f"new tokens, greedy; {options.rounds} alternating rounds, medians (least to most). Machine: {words}.",
            "",
            *lines,
        ]
    )
    print(section)
    if options.write:
        replace_section(options.write, TITLE, f"{section}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat_model", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a chat model")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the same model for llama.cpp")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="of this package (default float32)")
    parser.add_argument("--prompts", type=int, default=32, help="evenly chosen (default 32)")
    parser.add_argument("--longest", type=int, default=40, help="the longest answer (default 40)")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    parser.add_argument("--agreement", nargs="+", default=[], metavar="DTYPE:BATCH", help="compared with float32:32")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this Markdown file")
    return parser


def _prompts(count: int) -> list[Any]:
    from alignmend.evaluation.suites import load_suite

    every = [prompt for name in _SUITES for prompt in load_suite(name).prompts]
    step = len(every) / count
    return [every[int(place * step)] for place in range(count)]


def _speed(setting: Setting, options: argparse.Namespace) -> list[str]:
    ways = [Way(f"alignmend, {dtype}", partial(setting.ours, dtype)) for dtype in options.dtypes]
    ways += [Way(f"transformers generate, {dtype}", partial(setting.transformers, dtype)) for dtype in options.dtypes]
    if options.gguf is not None:
        for slots in (1, _SLOTS):
            title = f"llama.cpp on {options.gguf.name}, {slots} at once"
            ways.append(Way(title, partial(setting.llama_cpp, options.gguf, slots)))
    for way in ways:
        way.answer()  # loads and warms
    seconds: dict[str, list[float]] = {way.title: [] for way in ways}
    said: dict[str, Said] = {}
    for number in range(options.rounds):
        for place in range(len(ways)):
            way = ways[(number + place) % len(ways)]
            began = time.perf_counter()
            said[way.title] = way.answer()
            seconds[way.title].append(time.perf_counter() - began)
            print(f"round {number + 1}: {way.title}: {seconds[way.title][-1]:.1f} s", flush=True)
    first = said[ways[0].title]
    rows = []
    for way in ways:
        taken, found = statistics.median(seconds[way.title]), said[way.title]
        same = sum(one == other for one, other in zip(found.answers, first.answers, strict=True))
        rows.append(
            f"| {way.title} | {taken:.1f} ({min(seconds[way.title]):.1f}-{max(seconds[way.title]):.1f}) "
            f"| {found.tokens / taken:.0f} | {same} of {len(first.answers)} |"
        )
    return ["| way | seconds | tokens per second | same answers as the first |", "| --- | ---: | ---: | ---: |", *rows]


def _agreement(setting: Setting, options: argparse.Namespace) -> list[str]:
    if not options.agreement:
        return []
    from alignmend.evaluation.judges import Answer, get_judge

    judge = get_judge(JUDGE)

    def verdicts(said: Said) -> list[str]:
        answers = [Answer(one, text) for one, text in zip(setting.prompts, said.answers, strict=True)]
        return [judgement.verdict for judgement in judge.judge_all(answers)]

    reference = setting.ours("float32", 32)
    expected = verdicts(reference)
    rows = []
    for told in options.agreement:
        dtype, batch = told.split(":")
        found = setting.ours(dtype, int(batch))
        same = sum(one == other for one, other in zip(found.answers, reference.answers, strict=True))
        agreed = sum(one == other for one, other in zip(verdicts(found), expected, strict=True))
        rows.append(f"| {dtype}, batches of {batch} | {same} of {len(expected)} | {agreed} of {len(expected)} |")
        print(rows[-1], flush=True)
    return [
        f"Against float32 in batches of 32, verdicts by `{JUDGE}`:",
        "",
        "| | same answers | same verdicts |",
        "| --- | ---: | ---: |",
        *rows,
    ]


if __name__ == "__main__":
    main()
