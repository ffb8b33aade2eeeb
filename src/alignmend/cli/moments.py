"""`alignmend moments`: what enters each linear layer of a model on harmful and on harmless texts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress

if TYPE_CHECKING:
    from alignmend.io.moments import MomentsRecord

_DETAIL = """The mean of x x^T over tokens, x what enters
a linear layer, one matrix per input and kind of text. Method resta_weighted
needs the file, taken in the fine-tuned model: harmful prompts with refusals,
harmless and borderline ones with answers that comply. Take texts that neither
choose nor prove."""


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "moments",
        _run,
        summary="Take second moments of a model's inputs on texts",
        detail=_DETAIL,
        interrupted="run again with --resume to go on",
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="the fine-tune: a folder or hub id, or the folder of an adapter or a delta",
    )
    parser.add_argument("--adapter", metavar="A", help="adapter that is merged into MODEL meanwhile")
    parser.add_argument("--base", metavar="B", help="what an adapter or delta MODEL stands on, if it does not say")
    for kind, meaning in (
        ("harmful", "harmful prompts and refusals"),
        ("harmless", "plain prompts and the fine-tune's answers"),
        ("borderline", "prompts that only sound harmful, and answers that comply"),
    ):
        parser.add_argument(f"--{kind}", type=Path, metavar="PAIRS", help=f"JSONL or CSV: {meaning}")
    parser.add_argument("--aligned", metavar="M", help="answers harmful prompts that have no answer")
    parser.add_argument(
        "--own-answers", action="store_true", help="MODEL itself answers other prompts that have no answer"
    )
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="FILE", help="put these files of moments together, instead of MODEL"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .safetensors file; it appears whole or not at all"
    )
    _add_numbers(parser)
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_json(parser)


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    """What `MomentSettings` takes by name; options that are not given are left to its defaults."""
    parser.add_argument(
        "--positions",
        choices=("last", "all"),
        default=argparse.SUPPRESS,
        help="the prompt's last token and the answer's first, or every token (default: last)",
    )
    options: tuple[tuple[str, Any, str, str], ...] = (
        ("--answer-tokens", int, "N", "of the answer, with --positions last (default: 4)"),
        ("--own-tokens", int, "N", "longest answer that a model gives here (default: 32)"),
        ("--batch-size", int, "N", "texts at once; the same moments for any (default: 8)"),
        ("--layers-at-once", int, "N", "less memory: N layers, then pass over the texts again (default: all)"),
        ("--max-length", int, "N", "longest text in tokens; longer answers are cut (default: 1024)"),
        ("--template", str, "T", "as in train (default: chat, or raw without a chat template)"),
    )
    for name, kind, metavar, meaning in options:
        parser.add_argument(name, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=meaning)


def _run(arguments: argparse.Namespace) -> int:
    record, notes = _merged(arguments) if arguments.merge else _observed(arguments)
    size = arguments.out.stat().st_size
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "bytes": size, **record.model_dump(), "notes": notes}))
    else:
        print(_summary(arguments.out, size, record, notes))
    return 0


def _merged(arguments: argparse.Namespace) -> tuple[MomentsRecord, list[str]]:
    from alignmend.errors import ParameterError
    from alignmend.execution.moment_checks import few_texts
    from alignmend.training.moment_merging import merge_moments

    if arguments.model or arguments.harmful or arguments.harmless or arguments.borderline:
        raise ParameterError("--merge puts files together", advice="leave out MODEL and texts")
    record = merge_moments(arguments.merge, arguments.out, overwrite=arguments.overwrite)
    return record, list(few_texts(record))


def _observed(arguments: argparse.Namespace) -> tuple[MomentsRecord, list[str]]:
    from dataclasses import fields

    from alignmend.errors import ParameterError
    from alignmend.training.moment_settings import MomentSettings
    from alignmend.training.moments import write_moments

    if arguments.model is None or not (arguments.harmful or arguments.harmless or arguments.borderline):
        raise ParameterError("give MODEL and texts: --harmful PAIRS --harmless PAIRS --borderline PAIRS; or --merge")
    given = {field.name: vars(arguments)[field.name] for field in fields(MomentSettings) if field.name in arguments}
    with progress() as report:
        made = write_moments(
            arguments.model,
            arguments.out,
            harmful=arguments.harmful,
            harmless=arguments.harmless,
            borderline=arguments.borderline,
            settings=MomentSettings(**given),
            adapter=arguments.adapter,
            base=arguments.base,
            aligned=arguments.aligned,
            use_own_answers=arguments.own_answers,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            progress=report,
        )
    return made.record, made.manifest.notes


def _summary(out: Path, size: int, record: MomentsRecord, notes: list[str]) -> str:
    from alignmend.io.shards import human_bytes

    texts = ", ".join(f"{one.texts:,} {kind} ({one.positions:,} tokens)" for kind, one in record.kinds.items())
    return "\n".join(
        [
            f"{out}: moments of {len(record.sites)} inputs, which {len(record.weights)} weights meet",
            f"  texts       {texts}",
            f"  wrote       {human_bytes(size)}",
            *(f"  note        {note}" for note in notes),
        ]
    )
