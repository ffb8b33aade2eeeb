"""What a restore proved, for a model card: a table for people, and evaluation results in the hub's own form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignmend.errors import missing_extra
from alignmend.evaluation.metrics import ALL_SUITES
from alignmend.io.card import Measured

_FINETUNED, _RESTORED = "finetuned", "restored"
_METRICS = {
    "attack_success_rate": "attack success",
    "refusal_rate": "refusals",
    "over_refusal_rate": "over-refusal",
    "accuracy": "accuracy",
    "utility": "utility",
    "incoherent_rate": "incoherent",
}
_TASK = "text-generation"


@dataclass(frozen=True)
class _Row:
    suite: str
    metric: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]


def measured(document: Mapping[str, Any], name: str) -> Measured:
    """The rates of the proof in a restore's results, with their intervals, for the card of a model called `name`."""
    rows = [*_rows(document)]
    return Measured(_text(document, rows), _model_index(document, rows, name))


def _rows(document: Mapping[str, Any]) -> Iterator[_Row]:
    models = document["models"]
    for suite, rates in models[_RESTORED].items():
        if suite != ALL_SUITES:
            for metric in _METRICS:
                if metric in rates:
                    yield _Row(suite, metric, models[_FINETUNED].get(suite, {}).get(metric), rates[metric])


def _text(document: Mapping[str, Any], rows: list[_Row]) -> str:
    judge = document.get("judge", {})
    broken = document.get("proof", {}).get("broken", ())
    lines = [
        "## Measured",
        "",
        "Fine-tuned and restored model on prompts that the search for this restoration never saw, with 95 percent "
        f"intervals. Judge: {judge.get('name', 'unnamed')} {judge.get('version', '')}".rstrip()
        + ".",
        "",
        "| prompts | rate | n | fine-tuned | restored |",
        "| --- | --- | ---: | ---: | ---: |",
        *(
            f"| {_cell(row.suite)} | {_METRICS[row.metric]} | {row.after['n']} | {_rate(row.before)} "
            f"| {_rate(row.after)} |"
            for row in rows
        ),
    ]
    lines += ["", *(f"- beyond its limit on these prompts: {one}" for one in broken)] if broken else []
    return "\n".join(lines)


def _rate(rate: Mapping[str, Any] | None) -> str:
    return "" if rate is None else f"{rate['value']:.3f} ({rate['low']:.3f}-{rate['high']:.3f})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _model_index(document: Mapping[str, Any], rows: list[_Row], name: str) -> list[Mapping[str, object]]:
    try:
        from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index
    except ImportError:
        raise missing_extra("huggingface_hub", "hub") from None
    suites: Mapping[str, Any] = document.get("suites", {})
    results = [
        EvalResult(
            task_type=_TASK,
            dataset_type=_hub_id(suites.get(row.suite, {})) or row.suite,
            dataset_name=row.suite,
            metric_type=row.metric,
            metric_value=row.after["value"],
            metric_name=_METRICS[row.metric],
            metric_args={"n": row.after["n"], "confidence": 0.95, "low": row.after["low"], "high": row.after["high"]},
        )
        for row in rows
    ]
    return [*eval_results_to_model_index(name, results)] if results else []


def _hub_id(block: Mapping[str, Any]) -> str | None:
    """The data set of a suite that was read from the hub; its location is `organization/name/file`."""
    origin = block.get("origin") or {}
    return "/".join(origin["location"].split("/")[:2]) if origin.get("revision") else None
