"""A run's records in the log format of inspect (github.com/UKGovernmentBEIS/inspect_ai), to read in its viewer.

One log for each model and suite: every prompt is a sample, every judge a scorer whose value is the verdict, `accuracy`
a scorer of C and I where answers are known; the rates of `results.json` are the metrics of the judge that made them,
each with its interval and n as metadata. Records say nothing of time, so every date is the fixed `NO_DATE` and equal
runs give equal bytes. inspect itself is not needed. The logs hold the responses in full: keep them as private as the
run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError, OutputError
from alignmend.evaluation.record_files import read_rows
from alignmend.evaluation.records import Generation, JudgementRow, RowKey
from alignmend.evaluation.results import read_results
from alignmend.io.atomic import replace_bytes

NO_DATE = "1970-01-01T00:00:00+00:00"
LOG_VERSION = 2
ACCURACY = "accuracy"
_STOP_REASONS = {"stop": "stop", "length": "max_tokens", "filter": "content_filter", "rejected": "unknown"}

Judgements = Mapping[RowKey, Sequence[JudgementRow]]


@dataclass(frozen=True)
class InspectLog:
    """`document` is the log as plain JSON; `name` the file name under which inspect lists it."""

    name: str
    document: Mapping[str, Any]


def inspect_logs(run: Path) -> list[InspectLog]:
    """The logs of an evaluation's folder, in the order of its records; `FileFormatError` for what is no such folder."""
    generations = read_rows(run / "generations.jsonl", Generation)
    judged = _by_answer(read_rows(run / "judgements.jsonl", JudgementRow))
    results = read_results(run / "results.json")
    parts = groupby(generations, key=lambda row: (row.model, row.suite))
    return [_log(list(rows), judged, results) for _, rows in parts]


def export_inspect(run: Path, out: Path) -> list[Path]:
    """Writes the logs of `run` into the folder `out`, or, where `out` ends in `.json`, the only one to that file.

    `OutputError` where there are several logs for one file or `out` cannot be written. Open a folder with
    `inspect view --log-dir OUT`.
    """
    logs = inspect_logs(run)
    if out.suffix != ".json":
        paths = [out / log.name for log in logs]
    elif len(logs) == 1:
        paths = [out]
    else:
        raise OutputError(
            f"{out}: the run has {len(logs)} logs (one for each model and suite);", advice="name a folder"
        )
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{paths[0].parent}: cannot be made ({error.strerror})") from error
    for path, log in zip(paths, logs, strict=True):
        replace_bytes(path, json.dumps(log.document, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n")
    return paths


def _by_answer(rows: Sequence[JudgementRow]) -> Judgements:
    found: dict[RowKey, list[JudgementRow]] = {}
    for row in rows:
        found.setdefault(row.key[:3], []).append(row)
    return found


def _log(rows: Sequence[Generation], judged: Judgements, results: Mapping[str, Any]) -> InspectLog:
    first = rows[0]
    identity = _identity("eval", first.model, first.model_hash, first.suite)
    samples = [_sample(row, _judgements(row, judged)) for row in rows]
    scorers = list(dict.fromkeys(name for sample in samples for name in sample["scores"]))
    document = {
        "version": LOG_VERSION,
        "status": "success",
        "eval": _spec(rows, scorers, results, identity),
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": {}},
        "results": _results(rows, scorers, samples, results),
        "stats": {"started_at": NO_DATE, "completed_at": NO_DATE, "model_usage": {first.model: _usage(rows)}},
        "samples": samples,
    }
    task = re.sub(r"[^\w.-]|_", "-", first.suite)
    return InspectLog(f"{NO_DATE.replace(':', '-')}_{task}_{identity}.json", document)


def _judgements(row: Generation, judged: Judgements) -> Sequence[JudgementRow]:
    if row.key not in judged:
        raise FileFormatError(
            f"judgements.jsonl has no row for prompt {row.prompt_id!r} of suite {row.suite!r} by {row.model!r}: "
            "the run is not finished;",
            advice="run it again",
        )
    return judged[row.key]


def _identity(*parts: str) -> str:
    """22 letters and digits, as inspect's own ids are long, that depend on nothing but `parts`."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:22]


def _spec(
    rows: Sequence[Generation], scorers: Sequence[str], results: Mapping[str, Any], identity: str
) -> dict[str, Any]:
    first = rows[0]
    ids = [row.prompt_id for row in rows]
    return {
        "eval_id": identity,
        "run_id": _identity("run", *sorted({row.model_hash for row in rows}), first.model),
        "task_id": _identity("task", first.suite),
        "created": NO_DATE,
        "task": first.suite,
        "dataset": {"name": first.suite, "samples": len(rows), "sample_ids": ids, "shuffled": False},
        "model": first.model,
        "config": {},
        "packages": {"alignmend": version("alignmend")},
        "scorers": [{"name": name} for name in scorers],
        "metadata": {
            "model_hash": first.model_hash,
            "templates": sorted({row.template for row in rows}),
            "sampling": sorted({row.sampling for row in rows}),
            "suite": results.get("suites", {}).get(first.suite, {}),
            "judge": results.get("judge", {}),
            "provenance": results.get("provenance", {}),
        },
    }


def _results(
    rows: Sequence[Generation], scorers: Sequence[str], samples: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> dict[str, Any]:
    """The rates stand under the judge that made them."""
    rates = results["models"].get(rows[0].model, {}).get(rows[0].suite, {})
    judge = results.get("judge", {}).get("name", scorers[0])
    scores = []
    for name in scorers:
        own = {key: rate for key, rate in rates.items() if (key == ACCURACY) == (name == ACCURACY)}
        count = sum(name in sample["scores"] for sample in samples)
        scores.append(
            {
                "name": name,
                "scorer": name,
                "scored_samples": count,
                "unscored_samples": len(rows) - count,
                "metrics": dict(_metrics(own)) if name in (judge, ACCURACY) else {},
            }
        )
    return {"total_samples": len(rows), "completed_samples": len(rows), "scores": scores}


def _metrics(rates: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, rate in rates.items():
        rest = {key: value for key, value in rate.items() if key != "value"}
        yield name, {"name": name, "value": rate["value"], "metadata": rest}


def _usage(rows: Sequence[Generation]) -> dict[str, int]:
    """Tokens, those that a server did not count left out."""
    asked = sum(row.prompt_tokens or 0 for row in rows)
    written = sum(row.response_tokens or 0 for row in rows)
    return {"input_tokens": asked, "output_tokens": written, "total_tokens": asked + written}


def _sample(row: Generation, judgements: Sequence[JudgementRow]) -> dict[str, Any]:
    first = judgements[0]
    message = {"role": "assistant", "content": _content(row), "source": "generate", "model": row.model}
    about = ("category", "subcategory", "language", "expected")
    return {
        "id": row.prompt_id,
        "epoch": 1,
        "input": row.prompt,
        "target": first.expected or "",
        "messages": [{"role": "user", "content": row.prompt, "source": "input"}, message],
        "output": {
            "model": row.model,
            "choices": [{"message": message, "stop_reason": _STOP_REASONS[row.finish_reason]}],
            "usage": _usage([row]),
        },
        "scores": dict(_scores(row, judgements)),
        "metadata": {
            **{name: value for name in about if (value := getattr(first, name)) is not None},
            "template": row.template,
            "prompt_hash": row.prompt_hash,
            "rendered_hash": row.rendered_hash,
            **({"option_log_likelihoods": list(row.scores)} if row.scores else {}),
        },
    }


def _content(row: Generation) -> str | list[dict[str, str]]:
    if row.reasoning is None:
        return row.response
    return [{"type": "reasoning", "reasoning": row.reasoning}, {"type": "text", "text": row.response}]


def _scores(row: Generation, judgements: Sequence[JudgementRow]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in judgements:
        about = one.model_dump(include={"partial", "harmful", "empty", "score", "parsed", "judge_version"})
        yield one.judge, {"value": one.verdict, "explanation": one.evidence, "metadata": about}
    correct = judgements[0].correct
    if correct is not None:
        yield ACCURACY, {"value": "C" if correct else "I", "answer": row.response}
