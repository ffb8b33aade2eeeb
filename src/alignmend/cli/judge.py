"""`alignmend judge`: verdicts for answers made elsewhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.judge_options import add_judge_options, make_judges
from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.plain import plain_console
from alignmend.cli.progress import Report, progress
from alignmend.cli.thinking_options import add_tags_option, tags_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from alignmend.evaluation.agreement import Agreement
    from alignmend.evaluation.judges import Answer, Judge
    from alignmend.evaluation.records import Judgement

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
    from alignmend.evaluation.agreement import judge_agreements, label_agreements, label_classes
    from alignmend.evaluation.judge_files import check_judges, check_output, judged_rows, read_responses, write_rows
    from alignmend.evaluation.judge_summary import summary, thoughts_of

    check_output(arguments.out, arguments.responses, overwrite=arguments.overwrite)
    responses = read_responses(arguments.responses, tags_of(arguments.reasoning_tags))
    labels = label_classes(responses.column(arguments.labels), name=arguments.labels) if arguments.labels else None
    judges = make_judges(arguments, default_cache=_default_cache(arguments.out), device=arguments.device)
    check_judges(judges)
    with progress(quiet=arguments.json) as report:
        judged = [(judge, _judge_all(judge, responses.answers, report)) for judge in judges]
    said = {judge.name: judgements for judge, judgements in judged}
    agreements = judge_agreements(said)
    if labels is not None:
        agreements = label_agreements(labels, said, name=arguments.labels) + agreements
    document = summary(judged, agreements, thoughts_of(responses))
    write_rows(arguments.out, judged_rows(responses, judged))
    if arguments.json:
        print(json.dumps(document))
    else:
        _show(document, agreements, responses.where, arguments.out)
    return 0


def _default_cache(out: Path) -> Path:
    return out.with_name(f"{out.name}.judge-cache")


def _judge_all(judge: Judge, answers: Sequence[Answer], report: Report) -> list[Judgement]:
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        report(judge.name, done, len(answers))

    return judge.judge_all(answers, report=add)


def _show(document: dict[str, Any], agreements: Sequence[Agreement], where: Sequence[str], out: Path) -> None:
    console = plain_console(soft_wrap=True)
    console.print("share of all answers (harmful: of those with an opinion on harm), 95% Wilson interval, in percent")
    console.print(_rates(document))
    for name, block in document["judges"].items():
        for line in _cost(name, block):
            console.print(line)
    for each in agreements:
        _show_agreement(console, each, where)
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


def _rates(document: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    from alignmend.report.numbers import interval, percent

    names = list(dict.fromkeys(name for block in document["judges"].values() for name in block["rates"]))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for judge in document["judges"]:
        table.add_column(judge, justify="right")
    for name in names:
        rates = [block["rates"].get(name) for block in document["judges"].values()]
        cells = [f"{percent(rate['value'])}  {interval(rate)}" if rate else "n/a" for rate in rates]
        table.add_row(name, *cells)
    return table


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
