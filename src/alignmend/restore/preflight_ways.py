"""Preflight of how models are asked: what would fail only when one is loaded, maybe after hours of training."""

from __future__ import annotations

from collections.abc import Iterator

from alignmend.errors import AlignmendError
from alignmend.evaluation.devices import device_of
from alignmend.evaluation.judges.registry import JudgeOptions, get_judge, judge_needs, list_judges
from alignmend.evaluation.templates import check_template
from alignmend.restore.preflight_findings import Finding, from_error
from alignmend.restore.request import Prompts


def look_at_ways(prompts: Prompts) -> Iterator[Finding]:
    """What is wrong with device, template and judge; nothing where all are known here."""
    checks = (("device", _device), ("template", _template), ("judge", _judge))
    for check, look in checks:
        try:
            look(prompts)
        except AlignmendError as error:
            yield from_error(check, error, f"choose another --{check}, or leave it out")


def _device(prompts: Prompts) -> None:
    if prompts.device is not None:
        device_of(prompts.device)


def _template(prompts: Prompts) -> None:
    if prompts.template is not None:
        check_template(prompts.template)


def _judge(prompts: Prompts) -> None:
    """A judge is made here only where that must fail: otherwise it may load a model."""
    name = prompts.judge
    lacks = judge_needs(name) != "nothing" and prompts.judge_model is None
    if lacks or not (name in list_judges() or name.endswith(".json")):
        get_judge(name, JudgeOptions(endpoint=prompts.judge_endpoint, model=prompts.judge_model))
