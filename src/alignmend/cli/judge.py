"""`alignmend judge`: verdicts for answers made elsewhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.judge_options import add_judge_options, judge_keywords
from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.plain import plain_console
from alignmend.cli.progress import progress
from alignmend.cli.thinking_options import add_tags_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from alignmend.api.judging import JudgedAnswers
    from alignmend.evaluation.agreement import Agreement

_SHOWN_DIFFERENCES = 10


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "judge",
        _run,
        summary="Give verdicts to answers made elsewhere",
        detail="Keeps every row and column and adds verdict, partial, harmful, empty, score, parsed, evidence, judge "
        "and judge_version; of further judges with their name behind, as in verdict_strongreject.",
        interrupted="; replies already paid for are kept, run it again to go on",
    )
    parser.add_argument(
        "responses", type=Path, metavar="RESPONSES", help="JSONL or .csv with prompt and response, or messages"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, .csv for CSV")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    add_judge_options(parser, endpoint=("--endpoint", "--judge-endpoint"))
    add_tags_option(parser)
    parser.add_argument("--device", metavar="D", help="where judges of this process run, such as cpu or cuda:1")
    parser.add_argument(
        "--labels", metavar="COLUMN", help="column with human labels (such as full_refusal) to hold the judges against"
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.api.judging import judge

    asked = judge_keywords(arguments)
    with progress(quiet=arguments.json) as report:
        found = judge(
            arguments.responses,
            judge=asked["judge"],
            out=arguments.out,
            model=asked["model"],
            endpoint=asked["endpoint"],
            key_variable=asked["key_variable"],
            judge_reasoning_tags=asked["reasoning_tags"],
            judge_cache=asked["cache"],
            reasoning_tags=arguments.reasoning_tags,
            labels=arguments.labels,
            device=arguments.device,
            overwrite=arguments.overwrite,
            progress=report,
        )
    if arguments.json:
        print(json.dumps(found.summary))
    else:
        _show(found, arguments.out)
    return 0


def _show(found: JudgedAnswers, out: Path) -> None:
    from alignmend.api.judging import rates_table

    document = found.summary
    console = plain_console(soft_wrap=True)
    console.print("share of all answers (harmful: of those with an opinion on harm), 95% Wilson interval, in percent")
    console.print(rates_table(document))
    for name, block in document["judges"].items():
        for line in _cost(name, block):
            console.print(line)
    for each in found.agreements:
        _show_agreement(console, each, found.where)
    if thoughts := document.get("thoughts"):
        console.print(_thoughts_line(thoughts))
    console.print(f"{document['n']} answers with verdicts: {out}")


def _thoughts_line(thoughts: dict[str, int]) -> str:
    told = f"{thoughts['taken_out']} answers hold a model's thoughts, which are not judged"
    if not thoughts["without_an_answer"]:
        return told
    return (
        f"{told}; {thoughts['without_an_answer']} of them hold nothing else and count as empty and incoherent: give "
        "the model more room for its thoughts, or name its tags with --reasoning-tags"
    )


def _cost(name: str, block: dict[str, Any]) -> list[str]:
    usage, lines = block["usage"], []
    if block["mean_score"] is not None:
        lines.append(f"{name}: mean score {block['mean_score']:.3f} over {block['scored']} answers")
    if usage and usage["asked"]:
        lines.append(
            f"{name}: {usage['requests']} requests ({usage['prompt_tokens']} + {usage['response_tokens']} tokens), "
            f"{usage['cached']} answers known before, {usage['skipped']} incoherent ones not sent; "
            f"coverage {usage['parsed']} of {usage['asked']}"
        )
    return lines


def _show_agreement(console: Console, each: Agreement, where: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table

    console.print(_agreement_line(each))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(f"{each.first} \\ {each.second}")
    for name in each.table:
        table.add_column(name, justify="right")
    for name, row in each.table.items():
        table.add_row(name, *map(str, row.values()))
    console.print(table)
    if each.differences:
        shown = [where[position].rpartition(", ")[2] for position in each.differences[:_SHOWN_DIFFERENCES]]
        more = len(each.differences) - len(shown)
        rest = f" and {more} more (--json lists all)" if more else ""
        console.print(f"they differ at {', '.join(shown)}{rest}")


def _agreement_line(each: Agreement) -> str:
    from alignmend.report.numbers import percent

    kappa = each.kappa
    said = (
        "kappa not defined (one class only)"
        if kappa.value is None
        else f"kappa {kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})"
    )
    return (
        f"{each.first} and {each.second} on {each.about}: {said}, agreed {percent(each.agreed.value)}, mean recall "
        f"{percent(each.balanced)}, n = {each.n}, {each.left_out} left out"
    )
