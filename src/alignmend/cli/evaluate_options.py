"""The options of `alignmend evaluate`, by what they are about."""

from __future__ import annotations

import argparse
from pathlib import Path

from alignmend.cli.judge_options import add_judge_options
from alignmend.cli.thinking_options import add_thinking_options


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """The model, the suites, the judges, how answers are made, and what else is measured."""
    parser.add_argument("model", help="folder or hub id; with --endpoint the name that it serves")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for records and results")
    parser.add_argument("--name", help="what results call the model (default: the folder's name)")
    _suites(parser.add_argument_group("suites"))
    add_judge_options(parser)
    _answers(parser.add_argument_group("answers"))
    _served(parser.add_argument_group("served models"))
    _more(parser.add_argument_group("beside answers"))


def _suites(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--suite",
        dest="suites",
        action="append",
        required=True,
        metavar="S",
        help="name (alignmend list suites) or file (JSONL, CSV, ...) with a column prompt; may be repeated",
    )
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with local copies of known suites")
    group.add_argument("--split", help="only the prompts of this split")
    group.add_argument("--limit", type=int, metavar="N", help="a sample of N prompts of each suite")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of samples (default: 0)")
    group.add_argument(
        "--transform",
        dest="transforms",
        action="append",
        default=[],
        metavar="T",
        help="also ask every request in this wrapping (alignmend list transforms); may be repeated",
    )
    group.add_argument(
        "--tuned-on",
        action="append",
        default=[],
        metavar="S",
        help="suite or file that trained, fitted or chose anything of the model: overlaps are told; may be repeated",
    )


def _answers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--preset", default="default", help="settings of a published run: default, resta, sa-hdr, sa-icv"
    )
    group.add_argument("--template", metavar="T", help="prompt template: auto, chat, raw, alpaca, vicuna, ...")
    group.add_argument("--system", metavar="TEXT", help="system prompt")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer (default: the preset's)")
    add_thinking_options(group)
    group.add_argument("--temperature", type=float, metavar="X", help="above 0 samples, by --seed (default: greedy)")
    group.add_argument("--batch-size", type=int, metavar="N", help="prompts at once (default: found by itself)")
    group.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU where there is one)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    group.add_argument("--vector", type=Path, metavar="FILE", help="steering vector to apply")
    group.add_argument("--coefficient", type=float, metavar="C", help="strength of the vector")
    group.add_argument(
        "--no-steering",
        dest="steering",
        action="store_false",
        help="leave out the steering vector that belongs to the model",
    )
    group.add_argument(
        "--run-code",
        action="store_true",
        help="run the code that answers to HumanEval and MBPP hold, in a sandbox (bubblewrap) or not at all",
    )
    group.add_argument(
        "--unsafe-local-code",
        action="store_true",
        help="run that code without a sandbox, as you: it may read, change and send whatever you may",
    )


def _served(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--endpoint", metavar="URL", help="ask an OpenAI-compatible server instead of loading a model")
    group.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable with the server's key (default: OPENAI_API_KEY)",
    )
    group.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests at a time (default: 8)")
    group.add_argument("--vllm", action="store_true", help="load the model with vLLM in this process")


def _more(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--reference", metavar="MODEL", help="measure the drift from this model on prompts to be answered"
    )
    group.add_argument("--lm-eval", metavar="TASKS", help="tasks of lm-evaluation-harness, with commas between them")
    group.add_argument("--lm-eval-folder", type=Path, metavar="DIR", help="folder with tasks of one's own")
