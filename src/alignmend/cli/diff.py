"""`alignmend diff`: what differs between two checkpoints, and where an edit was made."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress

if TYPE_CHECKING:
    from alignmend.editing.differences import TensorChange
    from alignmend.editing.locate import EditReport

_SHOWN = 12


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "diff",
        _run,
        summary="Show what differs between two checkpoints, and locate an edit",
        detail="Reads both tensor by tensor. For an edit of few layers it names its area: these layers and their "
        "neighbours, where Safety Arithmetic acts on edited models.",
    )
    parser.add_argument("original", metavar="A", help="the original: a folder or hub id")
    parser.add_argument("edited", metavar="B", help="the changed one")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.editing.locate import locate

    with progress() as report:
        found = locate(
            arguments.original, arguments.edited, progress=lambda done, total: report("compare", done, total)
        )
    print(json.dumps(_document(found)) if arguments.json else _text(found))
    return 0


def _document(found: EditReport) -> dict[str, object]:
    tensors = [asdict(tensor) for tensor in found.tensors if tensor.changed]
    return {
        "kind": found.kind,
        "layers": list(found.layers),
        "area": list(found.area),
        "by_layer": {str(layer): norm for layer, norm in found.by_layer.items()},
        "elsewhere": list(found.elsewhere),
        "dtype_changed": found.dtype_changed,
        "tensors": tensors,
    }


def _text(found: EditReport) -> str:
    from alignmend.editing.locate import KIND_WORDS

    lines = [f"{found.original} and {found.edited}: {KIND_WORDS[found.kind]}"]
    if found.dtype_changed:
        lines.append("dtypes differ: changes below one spacing of the coarser dtype do not count")
    if found.layers:
        lines.append(f"changed layers: {_listed(found.layers)} (of {found.count}, counted from 0)")
    if found.area:
        lines.append(f"area of the edit: layers {_listed(found.area)}")
    changed = [tensor for tensor in found.tensors if tensor.changed]
    largest = sorted(changed, key=lambda one: -one.relative_norm)[:_SHOWN]
    lines += [f"  {_line(tensor)}" for tensor in largest]
    if len(changed) > _SHOWN:
        lines.append(f"  and {len(changed) - _SHOWN} more tensors: --json lists them all")
    return "\n".join(lines)


def _line(tensor: TensorChange) -> str:
    said = f"{tensor.name}: {100 * tensor.relative_norm:.3g} % of its norm, {100 * tensor.share:.3g} % of elements"
    second = tensor.second_singular
    return said if second is None else f"{said}, second singular value {second:.3f} of the first"


def _listed(numbers: tuple[int, ...]) -> str:
    """`3, 5-9`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
