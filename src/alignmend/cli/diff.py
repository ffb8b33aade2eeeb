"""`alignmend diff`: what differs between two checkpoints, and where an edit was made."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress

if TYPE_CHECKING:
    from alignmend.editing.differences import TensorChange
    from alignmend.editing.locate import EditReport
    from alignmend.execution.delta_output import SavedDelta

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
    parser.add_argument("--save", metavar="DIR", help="write B - A to DIR, a delta that recipes take in place of B")
    parser.add_argument(
        "--form",
        choices=("dense", "sparse"),
        default="dense",
        help="whole tensors, or only the weights that differ and where they stand (default: dense)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the delta: float32 is exact (default), bfloat16 half as large",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.editing.locate import locate

    with progress() as report:
        found = locate(
            arguments.original, arguments.edited, progress=lambda done, total: report("compare", done, total)
        )
        saved = _save(arguments, report) if arguments.save is not None else None
    if arguments.json:
        extra = {} if saved is None else {"saved": {"path": str(saved.path), "bytes": saved.bytes}}
        print(json.dumps(_document(found) | extra))
    else:
        print("\n".join([_text(found), *([] if saved is None else [_told(saved)])]))
    return 0


def _save(arguments: argparse.Namespace, report: Callable[[str, int, int], None]) -> SavedDelta:
    import alignmend as am

    original = am.open(arguments.original)
    return am.save_delta(
        am.open(arguments.edited) - original,
        arguments.save,
        target=original,
        form=arguments.form,
        dtype=arguments.dtype,
        overwrite=arguments.overwrite,
        progress=report,
    )


def _told(saved: SavedDelta) -> str:
    private = ", private as what it was made of" if saved.manifest.private else ""
    return f"{saved.path}: B - A, {saved.bytes:,} bytes{private}"


def _document(found: EditReport) -> dict[str, object]:
    tensors = [asdict(tensor) for tensor in found.tensors if tensor.changed]
    return {
        "kind": found.kind,
        "layers": list(found.layers),
        "area": list(found.area),
        "by_layer": {str(layer): norm for layer, norm in found.by_layer.items()},
        "elsewhere": list(found.elsewhere),
        "dtype_changed": found.dtype_changed,
        "notes": list(found.notes),
        "tensors": tensors,
    }


def _text(found: EditReport) -> str:
    from alignmend.editing.locate import KIND_WORDS

    lines = [f"{found.original} and {found.edited}: {KIND_WORDS[found.kind]}"]
    lines += found.notes
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
