"""The options of `alignmend restore`, and the request that they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import add_json
from alignmend.cli.thinking_options import add_thinking_options, thinking_of
from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from alignmend.recipes.schema import Training
    from alignmend.restore.request import Request

_TRAINED = ("lora_rank", "learning_rate", "epochs", "max_steps", "batch_size", "max_length")


def add_restore_options(parser: argparse.ArgumentParser) -> None:
    """Everything that decides a restore."""
    parser.add_argument("finetuned", help="folder or hub id of the fine-tuned model, or of its adapter")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _models(parser.add_argument_group("models and data"))
    _prompts(parser.add_argument_group("prompts and answers"))
    _search(parser.add_argument_group("search"))
    _output(parser.add_argument_group("output"))
    _training(parser.add_argument_group("training of what is missing"))
    parser.add_argument(
        "--log-to",
        choices=("trackio", "wandb", "mlflow", "tensorboard"),
        metavar="TRACKER",
        help="tell trackio, wandb, mlflow or tensorboard the numbers when all is done: no prompts, answers or paths",
    )
    parser.add_argument(
        "--log-project", default="alignmend", metavar="NAME", help="with --log-to: its project (default: alignmend)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check, and stop there")
    parser.add_argument("--yes", action="store_true", help="write the best candidate without asking")
    parser.add_argument("--resume", action="store_true", help="go on with a restore that was stopped or killed")
    parser.add_argument("--join", action="store_true", help="help a restore that is searching, from another process")
    add_json(parser)


def _models(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--aligned", metavar="A", help="the model it was fine-tuned from (default: as its own files say)"
    )
    group.add_argument("--unaligned", metavar="U", help="the aligned model without its safety, or a stand-in for it")
    group.add_argument(
        "--unaligned-kind",
        choices=("unaligned", "base"),
        default="unaligned",
        help="base: U is a pretrained base, whose vector holds more than safety (default: unaligned)",
    )
    group.add_argument(
        "--harmful-data", type=Path, metavar="FILE", help="pairs to train the unaligned model and patches on"
    )
    group.add_argument("--pairs", type=Path, metavar="FILE", help="contrast pairs, for a steering vector on top")
    group.add_argument(
        "--task-data", type=Path, metavar="FILE", help="pairs of the fine-tune's own task, whose likelihood must stay"
    )
    group.add_argument(
        "--allow-unrelated", action="store_true", help="go on although the fine-tune does not look like a descendant"
    )


def _prompts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--suite",
        dest="suites",
        action="append",
        default=[],
        metavar="S",
        help="name (alignmend list suites) or file; may be repeated (default: the starter suites that ship)",
    )
    group.add_argument(
        "--report-suite",
        dest="report_suites",
        action="append",
        default=[],
        metavar="S",
        help="name or file that the proof alone asks, whole; may be repeated",
    )
    group.add_argument(
        "--calibration-suite",
        dest="calibration_suites",
        action="append",
        default=[],
        metavar="S",
        help="name or file of prompts that input moments are taken over, and nothing else; may be repeated (default: "
        "prompts that the search leaves, and prompts that ship)",
    )
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with local copies of known suites")
    group.add_argument("--judge", default="refusal-phrases", metavar="J", help="alignmend list judges")
    group.add_argument("--judge-model", metavar="M", help="model of a judge that asks one")
    group.add_argument("--judge-endpoint", metavar="URL", help="server of a judge that asks one")
    group.add_argument(
        "--search-prompts", type=int, default=48, metavar="N", help="of each kind in the search (default: 48)"
    )
    group.add_argument(
        "--search-tokens", type=int, default=48, metavar="N", help="longest answer in the search (default: 48)"
    )
    group.add_argument(
        "--task-tokens",
        type=int,
        metavar="N",
        help="the same where the answer is known (default: by the fine-tune's right answers)",
    )
    group.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="longest answer in the proof (default: 256)"
    )
    add_thinking_options(group)
    group.add_argument("--template", metavar="T", help="prompt template: auto, chat, raw, alpaca, ...")
    group.add_argument("--batch-size", type=int, metavar="N", help="prompts at once (default: found by itself)")
    group.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU where there is one)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")


def _search(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--method",
        dest="methods",
        default="auto",
        metavar="NAME[,NAME...]",
        help="families to try (default: auto, all that what was given allows)",
    )
    group.add_argument("--trials", type=int, default=40, metavar="N", help="candidates to try (default: 40)")
    group.add_argument(
        "--no-screening",
        dest="screening",
        action="store_false",
        help="ask every candidate, also those that first tokens predict to be behind another",
    )
    group.add_argument("--budget", type=float, metavar="MINUTES", help="for everything; the proof's share is kept free")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of splits, samples, masks and training")
    group.add_argument(
        "--max-over-refusal",
        type=float,
        default=0.05,
        metavar="X",
        help="over-refusal above the fine-tune's, at most (default: 0.05)",
    )
    group.add_argument(
        "--min-utility", type=float, default=0.95, metavar="X", help="of the fine-tune's, at least (default: 0.95)"
    )
    group.add_argument(
        "--max-incoherent", type=float, default=0.02, metavar="X", help="of all answers, at most (default: 0.02)"
    )
    group.add_argument("--servable", action="store_true", help="only what plain transformers and vLLM can serve")


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--as-adapter", action="store_true", help="write an adapter on the fine-tune's base")
    group.add_argument(
        "--adapter-rank",
        type=int,
        metavar="N",
        help="largest rank of that adapter, whose loss the proof shows and the search does not (default: exact)",
    )
    group.add_argument(
        "--output-dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the restored checkpoint (default: the fine-tune's own)",
    )
    group.add_argument(
        "--rounding",
        choices=["auto", "nearest", "stochastic"],
        default="auto",
        help="of bfloat16 weights (default: auto, stochastic where nearest loses effect that it keeps)",
    )
    group.add_argument("--keep-private", action="store_true", help="keep trained parts, in DIR-private")
    group.add_argument("--overwrite", action="store_true", help="replace what is in DIR")


def _training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--lora-rank", type=int, metavar="N", help="train adapters (default: all weights)")
    group.add_argument("--learning-rate", type=float, metavar="X", help="default: as in  alignmend train")
    group.add_argument("--epochs", type=float, default=3.0, metavar="X", help="rounds over the pairs (default: 3)")
    group.add_argument("--train-batch-size", type=int, default=8, metavar="N", help="pairs a step (default: 8)")
    group.add_argument("--max-steps", type=int, metavar="N", help="steps at most")
    group.add_argument("--max-length", type=int, default=1024, metavar="N", help="longest pair in tokens")


def request_of(arguments: argparse.Namespace) -> Request:
    """The request; raises `ParameterError` for numbers out of range."""
    from alignmend.restore.request import Limits, Prompts, Request

    return Request(
        finetuned=arguments.finetuned,
        out=arguments.out,
        aligned=arguments.aligned,
        unaligned=arguments.unaligned,
        unaligned_kind=arguments.unaligned_kind,
        harmful_data=arguments.harmful_data,
        pairs=arguments.pairs,
        task_data=arguments.task_data,
        methods=_methods(arguments.methods),
        prompts=Prompts(
            suites=tuple(arguments.suites),
            report_suites=tuple(arguments.report_suites),
            calibration_suites=tuple(arguments.calibration_suites),
            data_dir=arguments.data_dir,
            judge=arguments.judge,
            judge_model=arguments.judge_model,
            judge_endpoint=arguments.judge_endpoint,
            search_prompts=arguments.search_prompts,
            max_new_tokens=arguments.max_new_tokens,
            search_tokens=arguments.search_tokens,
            task_tokens=arguments.task_tokens,
            template=arguments.template,
            batch_size=arguments.batch_size,
            device=arguments.device,
            dtype=arguments.dtype,
            thinking=thinking_of(arguments),
        ),
        limits=Limits(arguments.max_over_refusal, arguments.min_utility, arguments.max_incoherent),
        budget=arguments.budget,
        trials=arguments.trials,
        screening=arguments.screening,
        seed=arguments.seed,
        output_dtype=arguments.output_dtype,
        rounding=arguments.rounding,
        servable=arguments.servable,
        as_adapter=arguments.as_adapter,
        adapter_rank=arguments.adapter_rank,
        keep_private=arguments.keep_private,
        allow_unrelated=arguments.allow_unrelated,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        training=_training_of(arguments),
    )


def _training_of(arguments: argparse.Namespace) -> Training:
    from alignmend.recipes.schema import Training
    from alignmend.training.settings import TrainSettings

    options = {name: f"--{name.replace('_', '-')}" for name in _TRAINED} | {"batch_size": "--train-batch-size"}
    given = {name: vars(arguments)[option[2:].replace("-", "_")] for name, option in options.items()}
    try:
        TrainSettings(objective="descent", **given)
    except ParameterError as error:
        name, _, problem = str(error).partition(" ")
        raise ParameterError(f"{options[name]} {problem}") from None
    return Training(**given, seed=arguments.seed)


def _methods(written: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in written.split(",") if name.strip())
    if not names:
        raise ParameterError("--method names no family: leave it out, or give names such as resta,safe_patching")
    return () if names == ("auto",) else names
