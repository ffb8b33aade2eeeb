"""`alignmend restore`: from a fine-tuned model to a safe one, with the proof, in one command."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alignmend.cli.options import Subparsers, command
from alignmend.cli.restore_options import add_restore_options, request_of
from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from alignmend.restore.document import Searched
    from alignmend.restore.workflow import Ended

_FAILED = ("nothing qualifies", "not proven", "stopped")


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "restore",
        _run,
        summary="Give a fine-tuned model its safety back, and prove it",
        detail="Checks what there is, trains what is missing (kept private), tries candidates on the loaded model, "
        "writes the best one within the limits, and proves it on prompts that the search never saw. Exit code 0: "
        "restored, or safe already; 1: nothing was within the limits, chosen or proven, and nothing stands in --out.",
        interrupted="; run the same command with --resume to go on",
    )
    add_restore_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.cli.restore_steps import ScreenSteps
    from alignmend.restore.workflow import join, restore

    if arguments.join and arguments.dry_run:
        raise ParameterError("--join helps a search that runs, --dry-run only looks", advice="leave one of them out")
    if arguments.log_to is not None:
        if arguments.join or arguments.dry_run:
            raise ParameterError("--log-to tells of a restore that has ended", advice="leave --join and --dry-run out")
        from alignmend.restore.trackers import check_tracker

        check_tracker(arguments.log_to)
    request = request_of(arguments)
    steps = ScreenSteps(ask=not (arguments.yes or arguments.json), quiet=arguments.json)
    with steps:
        if arguments.join:
            count = join(request, steps)
        else:
            ended = restore(request, steps, dry_run=arguments.dry_run)
    if arguments.join:
        print(json.dumps({"tried": count}) if arguments.json else _joined(count))
        return 0
    if arguments.json:
        print(json.dumps(_machine(ended), sort_keys=True))
    else:
        _tell(ended, request.finetuned, steps, arguments.dry_run)
    if arguments.log_to is not None:
        _log(ended, arguments)
    if ended.how == "restored" and steps.asks and steps.said("chat with it now? [y/N] ") in ("y", "yes"):
        from alignmend.cli import main

        return main(["chat", str(ended.out), "--against", request.finetuned])
    return 1 if ended.how in _FAILED else 0


def _log(ended: Ended, arguments: argparse.Namespace) -> None:
    from alignmend.io.published import report_folder
    from alignmend.restore.trackers import log_restore

    if ended.how != "restored" or ended.document is None:
        print(f"nothing was restored, so nothing was told to {arguments.log_to}", file=sys.stderr)
        return
    folder = report_folder(ended.out)
    log_restore(arguments.log_to, ended.document, ended.out, project=arguments.log_project, folder=folder)
    print(f"told {arguments.log_to}, project {arguments.log_project}", file=sys.stderr)


def _joined(count: int | None) -> str:
    if count is None:
        return "the restore that this one helped has ended"
    return f"{count} candidates are tried, by all together"


def _machine(ended: Ended) -> dict[str, Any]:
    search = None if ended.searched is None else ended.searched.block(None)
    return {"ended": ended.how, "out": str(ended.out), "results": ended.document, "search": search}


def _tell(ended: Ended, finetuned: str, steps: Any, dry_run: bool) -> None:
    from alignmend.io.published import report_folder

    out = ended.out
    if ended.how == "checked":
        print("nothing was done (--dry-run)")
    elif ended.how == "already safe":
        print(f"{finetuned} is as safe as its aligned parent on these prompts: nothing to restore, nothing written")
    elif ended.how == "nothing qualifies" and ended.searched is not None and ended.searched.too_weak:
        print(_why_too_weak(ended.searched))
    elif ended.how == "nothing qualifies":
        for line in _why_nothing(ended.searched):
            print(line)
        print(
            "no candidate keeps the limits and refuses more than the fine-tune: nothing was written. Loosen a limit "
            "(--max-over-refusal, --min-utility, --max-incoherent) and  --resume , since what was measured is kept in "
            f"{out.name}-search; or raise --trials; or give what left-out families need"
        )
    elif ended.how == "stopped":
        print(f"nothing was chosen: the search is kept, and --resume goes on with it ({out.name}-search)")
    elif ended.how == "not proven":
        print(
            f"on the report prompts attack success and noise together did not fall: the checkpoint stays in {out} for "
            "inspection and was not published"
        )
        steps.proven(ended)
    else:
        steps.proven(ended)
        print(f"restored  {out}  (may be uploaded; recipe {out / 'recipe.yaml'})")
        print(f"  answers, report and search stay here, not for uploading: {report_folder(out) / 'report.html'}")
        named = shlex.quote(str(out))
        print(f"  alignmend verify {named}   alignmend chat {named} --against {shlex.quote(str(finetuned))}")


def _why_nothing(searched: Searched | None) -> Iterator[str]:
    """The candidate that misses the limits by least, what would admit it, and what it over-refuses."""
    one = None if searched is None else searched.nearest
    if searched is None or one is None:
        return
    limits, before, worth = searched.request.limits, searched.base.worth, one.worth
    broken = worth.broken(limits, before)
    needed = {
        "over-refusal": f"--max-over-refusal {_up(worth.over_refusal.value - before.over_refusal.value)}",
        "utility": f"--min-utility {-_up(-worth.utility):g}",
        "incoherent": f"--max-incoherent {_up(worth.incoherent.value)}",
    }
    options = " ".join(needed[text.partition(" ")[0]] for text in broken)
    attack = worth.attack_success
    yield (
        f"nearest to the limits: {one.candidate.label}: attack success {attack.value:.3f} "
        f"({attack.low:.2f}-{attack.high:.2f}), {'; '.join(broken)}. It would be taken with  {options}"
    )
    if topics := searched.over_refused(one):
        yield f"harmless prompts that it refuses are about: {'; '.join(map(str, topics))}"


def _up(value: float) -> float:
    return math.ceil(value * 1000 - 1e-6) / 1000


def _why_too_weak(searched: Searched) -> str:
    """Refusals that no candidate brings back: what the unaligned model is decides what helps."""
    begun = "refusals hardly come back with any candidate: "
    if searched.templated:
        return (
            begun + "the unaligned model answers in a few templates, and its vector holds these. Train it on natural, "
            "varied answers (--harmful-data, --overwrite), or give the chat model from before its safety training as "
            "--unaligned"
        )
    return (
        begun + "the unaligned model is too weak, so its vector holds little. Train it longer (--max-steps, "
        "--learning-rate) with --overwrite, or give a stronger --unaligned"
    )
