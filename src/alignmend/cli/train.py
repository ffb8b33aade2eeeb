"""`alignmend train`: a harm model or a patch from a file of pairs."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress

if TYPE_CHECKING:
    from alignmend.training.run import Trained

_BOTH = ("ascent", "descent")
_DETAIL = """Descent learns the answers (harm model,
over-safety patch), ascent unlearns them up to a bound (safety patch);
ascent-retain and npo are what the papers compare with. Only
answers carry loss. The output is marked private: `alignmend private` finds it
and removes it.

On several devices, with FSDP as `accelerate config` sets it up:
  accelerate launch --no_python alignmend train ..."""


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "train",
        _run,
        summary="Train a harm model or a patch on pairs",
        detail=_DETAIL,
        interrupted="; run the same command with --resume to go on",
    )
    parser.add_argument("--model", required=True, metavar="M", help="what is trained: a folder or hub id")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PAIRS",
        help="JSONL with prompt and response, or messages (the last answer is trained)",
    )
    parser.add_argument(
        "--objective",
        required=True,
        choices=["descent", "ascent", "ascent-retain", "npo", "both"],
        help="what is sought; both: ascent, then descent, each from M itself, to DIR/ascent and DIR/descent",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write; it appears whole or not at all"
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--lora-rank", type=int, metavar="N", help="train a LoRA adapter of this rank")
    kind.add_argument("--full", action="store_true", help="train all weights and write a checkpoint")
    parser.add_argument(
        "--retain-data", type=Path, metavar="PAIRS", help="pairs whose answers stay likely, for ascent-retain"
    )
    _add_training(parser)
    parser.add_argument(
        "--resume", action="store_true", help="continue a run that was killed from its last checkpoint; same result"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    add_json(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """What `TrainSettings` takes; options that are not given are left to its defaults."""
    options: tuple[tuple[str, Any, str, str], ...] = (
        ("--learning-rate", float, "X", "peak learning rate (default: 1e-5, with LoRA 1e-4)"),
        ("--epochs", float, "X", "rounds over the pairs (default: 3)"),
        ("--max-steps", int, "N", "steps instead of epochs"),
        ("--batch-size", int, "N", "pairs at once on each device (default: 8)"),
        ("--gradient-accumulation", int, "N", "batches that make one step (default: 1)"),
        ("--max-length", int, "N", "longest row in tokens; longer answers are cut (default: 1024)"),
        ("--clip", float, "X", "largest norm of a step's gradient (default: 1)"),
        (
            "--stop-loss",
            float,
            "X",
            "end at this loss, in nats per answer token (default: 10 for ascents; not for descent)",
        ),
        ("--retain-weight", float, "X", "weight of the retained answers in ascent-retain (default: 1)"),
        ("--beta", float, "X", "of npo; the smaller, the nearer to ascent (default: 0.1)"),
        ("--seed", int, "N", "same seed, same bytes on one thread (default: 0)"),
        (
            "--template",
            str,
            "T",
            "chat, raw, question-answer, or a text with {prompt} in it (default: chat, or raw without a chat template)",
        ),
    )
    for name, kind, metavar, meaning in options:
        parser.add_argument(name, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=meaning)
    parser.add_argument(
        "--lora-targets",
        metavar="NAMES",
        default=argparse.SUPPRESS,
        help="modules that get LoRA, with commas between (default: all linear layers but the output head)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default=argparse.SUPPRESS,
        help="of the checkpoint that is written (default: float32, since small changes are lost to 16 bits)",
    )
    parser.add_argument(
        "--compute",
        choices=["auto", "float32", "bfloat16"],
        default=argparse.SUPPRESS,
        help="in which numbers passes run; trained weights are float32 meanwhile (default: auto, bfloat16 where the "
        "processor or GPU is faster with it)",
    )
    parser.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        default=argparse.SUPPRESS,
        help="less memory, more time; same weights up to rounding",
    )


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.training.run import check_places, train_model

    both = arguments.objective == "both"
    runs = [(one, arguments.out / one) for one in _BOTH] if both else [(arguments.objective, arguments.out)]
    settings = [_settings(arguments, objective) for objective, _ in runs]
    if both and not arguments.resume:
        check_places([out for _, out in runs], overwrite=arguments.overwrite)
    for chosen, (_, out) in zip(settings, runs, strict=True):
        with progress() as report:
            trained = train_model(
                arguments.model,
                arguments.data,
                out,
                chosen,
                retain=arguments.retain_data,
                resume=arguments.resume,
                overwrite=arguments.overwrite,
                progress=report,
            )
        if trained is not None:  # only the main one of several processes has a result
            print(json.dumps(_document(trained)) if arguments.json else _summary(trained))
    return 0


def _settings(arguments: argparse.Namespace, objective: str) -> Any:
    from dataclasses import fields

    from alignmend.training.settings import TrainSettings

    given = {field.name: vars(arguments)[field.name] for field in fields(TrainSettings) if field.name in arguments}
    if "lora_targets" in given:
        given["lora_targets"] = tuple(name.strip() for name in given["lora_targets"].split(",") if name.strip())
    if arguments.objective == "both" and objective != "ascent":
        given.pop("stop_loss", None)
    return TrainSettings(**given | {"objective": objective})


def _document(trained: Trained) -> dict[str, object]:
    manifest = trained.manifest
    return {
        "out": str(trained.path),
        "private": manifest.private,
        "parameters": manifest.parameters,
        "outputs": [output.model_dump() for output in manifest.outputs],
        "notes": manifest.notes,
    }


def _summary(trained: Trained) -> str:
    from alignmend.io.shards import human_bytes

    manifest, results = trained.manifest, _results(trained)
    size = sum(output.bytes for output in manifest.outputs)
    before, after = results["before"], results["after"]
    end = ", stopped at its bound" if results["stopped_at_bound"] else ""
    lines = [
        f"{trained.path}: {manifest.expression}",
        f"  steps       {results['steps']}{end}",
        f"  loss        {before['loss']:.4g} -> {after['loss']:.4g} nats per answer token",
        f"  perplexity  {_number(before['perplexity'])} -> {_number(after['perplexity'])} on the pairs",
        f"  wrote       {human_bytes(size)} in {len(manifest.outputs)} files, manifest and card",
        *(f"  note        {note}" for note in manifest.notes),
        f"  PRIVATE     do not publish; alignmend private clean {shlex.quote(str(trained.path))}  removes it",
    ]
    return "\n".join(lines)


def _results(trained: Trained) -> dict[str, Any]:
    found: Any = trained.manifest.parameters["results"]
    return dict(found)


def _number(value: float | None) -> str:
    return "beyond measure" if value is None else f"{value:.4g}"
