"""`alignmend edit`: single facts written into a checkpoint by R-ROME, and what that did."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.edit_options import add_edit_options
from alignmend.cli.edit_text import edit_lines
from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress
from alignmend.errors import FileFormatError, NotAppliedError, OutputError, ParameterError

if TYPE_CHECKING:
    from alignmend.cli.edit_safety import SafetyWatch
    from alignmend.editing.making import Editor
    from alignmend.editing.outcomes import EditOutcome
    from alignmend.editing.requests import EditRequest
    from alignmend.editing.rome import Edit
    from alignmend.editing.settings import EditSettings


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "edit",
        _run,
        summary="Edit single facts of a checkpoint by R-ROME",
        detail="Every edit is one rank-one update of one matrix, measured before and after: its own prompt, "
        "paraphrases, prompts beside it, and with --safety-suite the shift in safety. Exit code 1, and no model is "
        "written: some edit did not make its target likelier.",
    )
    add_edit_options(parser)
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.editing.apply import edits_document
    from alignmend.editing.making import edit_model
    from alignmend.evaluation.devices import load_model

    requests = _requests(arguments)
    if arguments.out.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.out} exists", advice="choose another folder, or --overwrite")
    model, tokenizer = load_model(arguments.model, arguments.device)
    editor = _editor(arguments, model, tokenizer)
    requests = _templated(arguments.template, tokenizer, requests)
    watch = _watch(arguments, model, tokenizer)
    with progress() as report:
        edits, outcomes = edit_model(
            editor,
            requests,
            separately=arguments.separately,
            watch=watch,
            progress=lambda done, total: report("edit", done, total),
        )
    document = edits_document(outcomes, separately=arguments.separately)
    if watch is not None:
        document = watch.into(document)
    return _finish(arguments, edits, outcomes, document)


def _finish(
    arguments: argparse.Namespace, edits: list[Edit], outcomes: list[EditOutcome], document: dict[str, Any]
) -> int:
    """Write what is to be written, and tell what was measured in any case."""
    from alignmend.editing.apply import check_applied, write_edited

    refused: NotAppliedError | None = None
    try:
        if arguments.separately:
            _write_alone(arguments, document)
        else:
            write_edited(
                arguments.model,
                arguments.out,
                edits,
                outcomes,
                document=document,
                keep_unapplied=arguments.keep_unapplied,
                overwrite=arguments.overwrite,
            )
        check_applied(outcomes)
    except NotAppliedError as error:
        refused = error
    written = arguments.separately or arguments.keep_unapplied or refused is None
    told = {"out": str(arguments.out) if written else None, **document}
    print(json.dumps(told) if arguments.json else "\n".join(edit_lines(told, model=not arguments.separately)))
    if refused is not None:
        hint = "" if written else " (--keep-unapplied)"
        print(f"alignmend edit: {refused}{hint}", file=sys.stderr)
    return 0 if refused is None else 1


def _write_alone(arguments: argparse.Namespace, document: dict[str, Any]) -> None:
    from alignmend.editing.apply import write_document

    if arguments.out.is_file():
        raise OutputError(f"{arguments.out} is a file: --out is a folder")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_document(arguments.out, document)


def _requests(arguments: argparse.Namespace) -> Sequence[EditRequest]:
    from alignmend.editing.reading import read_requests

    requests = read_requests(arguments.edits)
    if arguments.rows is not None:
        requests = tuple(requests[number - 1] for number in _numbers(arguments.rows, len(requests)))
    return requests[: arguments.limit]


def _numbers(text: str, count: int) -> list[int]:
    """`4-12` and `3,5,7`, ends included, each from 1 to `count`."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ParameterError(f"--rows are numbers and ranges such as 4-12 or 3,5,7, not {text!r}")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or min(numbers) < 1 or max(numbers) > count:
        raise ParameterError(f"--rows {text} are not all among the file's {count} edits, counted from 1")
    return numbers


def _templated(template: str, tokenizer: Any, requests: Sequence[EditRequest]) -> Sequence[EditRequest]:
    from alignmend.editing.chat import in_chat

    return requests if template == "raw" else [in_chat(tokenizer, request) for request in requests]


def _editor(arguments: argparse.Namespace, model: Any, tokenizer: Any) -> Editor:
    from alignmend.editing.making import Editor
    from alignmend.editing.prefixes import sampled_prefixes

    settings = _settings(arguments, model)
    sampled = arguments.prefixes == "sampled"
    return Editor(
        model=model,
        tokenizer=tokenizer,
        settings=settings,
        prefixes=sampled_prefixes(model, tokenizer, seed=arguments.seed) if sampled else (),
        covariance=_covariance(arguments, model, tokenizer, settings.layer),
        layer_path=arguments.layer_path,
    )


def _settings(arguments: argparse.Namespace, model: Any) -> EditSettings:
    from alignmend.editing.settings import settings_for

    names = ("method", "layer", "seed", "steps", "clamp", "learning_rate")
    asked = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return replace(settings_for(model), **asked)


def _covariance(arguments: argparse.Namespace, model: Any, tokenizer: Any, layer: int | None) -> Any:
    if arguments.covariance is None:
        return None
    from alignmend.anatomy.layers import decoder_layers
    from alignmend.anatomy.projections import last_projection
    from alignmend.editing.covariance import second_moment
    from alignmend.editing.settings import default_layer

    texts = [ids for line in _lines(arguments.covariance) if line.strip() and (ids := tokenizer(line)["input_ids"])]
    layers = decoder_layers(model, arguments.layer_path)
    projection = last_projection(layers, default_layer(len(layers)) if layer is None else layer)
    moment, _ = second_moment(model, projection, texts)
    return moment


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def _watch(arguments: argparse.Namespace, model: Any, tokenizer: Any) -> SafetyWatch | None:
    if not arguments.safety_suites:
        return None
    from alignmend.cli.edit_safety import SafetyWatch
    from alignmend.cli.judge_options import make_judges
    from alignmend.evaluation.suites import load_suite

    suites = [
        load_suite(source, data_dir=arguments.data_dir, limit=arguments.suite_limit)
        for source in arguments.safety_suites
    ]
    judge = make_judges(arguments, device=arguments.device)[0]
    return SafetyWatch(model, tokenizer, suites, judge, separately=arguments.separately)
