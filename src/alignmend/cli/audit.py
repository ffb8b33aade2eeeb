"""`alignmend audit`: what was done to a stranger's model, and whether a vector from a stranger is fit to be added."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress
from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from alignmend.auditing.findings import Audit, PartChange

_SHOWN = 24


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "audit",
        _run,
        summary="Look into a stranger's model or vector for signs of what was done to it",
        detail="From headers and weights: an ablated refusal direction, an edit, a baked bias, token rows trained "
        "alone, code beside the weights. An adapter, a stored delta or a steering vector is scanned before it is added "
        "to a model: length, rank, where it lies, how like one's own. Exit code 0: no signs, 1: signs, 2: could not "
        "be checked. No signs are no proof that a model is harmless.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder, hub id, adapter, stored delta or steering vector")
    parser.add_argument("--parent", metavar="P", help="the model that it stems from, or that it is to be added to")
    parser.add_argument("--vector", metavar="V", help="a safety vector that is trusted, to compare with: any such form")
    parser.add_argument(
        "--behaviour", action="store_true", help="load both and measure what changes on benign prompts (needs --parent)"
    )
    parser.add_argument("--prompts", metavar="S", help="with --behaviour: suite or file (default: a dozen that ship)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with local copies of known suites")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="prompts of --prompts to use (default: 64)")
    parser.add_argument("--coefficient", type=float, metavar="C", help="with --behaviour: factor of the vector")
    parser.add_argument("--device", help="with --behaviour: such as cpu or cuda:0")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="CHECK", help="a sign that may be there; may be repeated"
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    _check_options(arguments)
    from alignmend.auditing.audit import audit, with_behaviour
    from alignmend.auditing.findings import CHECKS

    for name in arguments.allow:
        if name not in CHECKS:
            from alignmend.nearest import nearest

            raise ParameterError(f"--allow: no check {name!r}{nearest(name, CHECKS)}; known: {', '.join(CHECKS)}")
    with progress(quiet=arguments.json) as report:
        found = audit(
            arguments.model,
            parent=arguments.parent,
            vector=arguments.vector,
            progress=lambda done, total: report("read", done, total),
        )
    if arguments.behaviour:
        from alignmend.auditing.behaviour import benign_change

        measured = benign_change(
            arguments.model,
            arguments.parent,
            prompts=_prompts(arguments),
            coefficient=arguments.coefficient,
            device=arguments.device,
        )
        found = with_behaviour(found, measured)
    signs = found.against(arguments.allow)
    if arguments.json:
        print(json.dumps(found.as_dict() | {"passed": not signs, "allowed": arguments.allow}))
    else:
        print("\n".join(_lines(found, arguments.allow)))
    return 1 if signs else 0


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.behaviour and arguments.parent is None:
        raise ParameterError("--behaviour needs --parent P: what is the change measured from?")
    for name in ("prompts", "coefficient", "device"):
        if getattr(arguments, name) is not None and not arguments.behaviour:
            raise ParameterError(f"--{name} is for --behaviour: give both or neither")
    if arguments.limit < 1:
        raise ParameterError(f"--limit must be at least 1, not {arguments.limit}")


def _prompts(arguments: argparse.Namespace) -> list[str] | None:
    if arguments.prompts is None:
        return None
    from alignmend.evaluation.suites.loading import load_suite

    suite = load_suite(arguments.prompts, data_dir=arguments.data_dir, limit=arguments.limit)
    return [prompt.text for prompt in suite.prompts]


def _lines(found: Audit, allowed: list[str]) -> list[str]:
    from alignmend.auditing.findings import WARNING

    beside = f", beside {found.parent}" if found.parent else ""
    lines = [f"{found.subject}: {found.what}{beside}", *(f"  {fact}" for fact in found.facts)]
    lines += _table(found)
    lines += [f"  {name.replace('_', ' ')}  {value:.4g}" for name, value in sorted((found.numbers or {}).items())]
    for one in found.findings:
        word = "allowed" if one.check in allowed else "SIGN"
        layers = f" (layers {', '.join(map(str, one.layers))})" if one.layers else ""
        lines.append(f"{word}  {one.check}: {one.told}{layers}")
    lines.append(f"{len(found.against(allowed))} signs" if found.findings else "no signs, which is no proof")
    return [*lines, "", WARNING] if found.is_vector else lines


def _table(found: Audit) -> list[str]:
    rows = sorted((row for row in found.parts if row.norm > 0), key=lambda row: -row.share)
    if not rows:
        return []
    with_cosine = any(row.cosine is not None for row in rows)
    lines = [f"  layer  part       of its norm  rank{'  cosine' if with_cosine else ''}"]
    lines += [_row(row, with_cosine) for row in rows[:_SHOWN]]
    return [*lines, f"  and {len(rows) - _SHOWN} more: --json lists them all"] if len(rows) > _SHOWN else lines


def _row(row: PartChange, with_cosine: bool) -> str:
    layer = "-" if row.layer is None else str(row.layer)
    cosine = "" if not with_cosine else "       -" if row.cosine is None else f"  {row.cosine:6.3f}"
    return f"  {layer:>5}  {row.kind:<9}  {100 * row.share:>9.3g} %  {row.rank or '-':<4}{cosine}"
