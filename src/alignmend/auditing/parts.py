"""What single tensors tell: rows of embeddings that were trained alone, biases that steer, tensors that stand out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Literal

from alignmend.algebra.names import Kind, kind_of, natural_key
from alignmend.auditing.findings import Finding, PartChange
from alignmend.editing.differences import TensorChange
from alignmend.editing.locate import LOW_RANK, RANK_ONE

if TYPE_CHECKING:
    import torch

_WRITER_BIAS = re.compile(r"\.(?:o_proj|out_proj|down_proj|c_proj|dense_4h_to_h|fc_out|fc2|w2|dense)\.bias$")
_FEW_ROWS, _STANDS_OUT, _LISTED = 0.02, 8.0, 12
_EDITED = 8.0
"""How many times farther than the same matrix of other layers one must have moved to look edited by itself."""


def trained_rows(name: str, before: torch.Tensor, after: torch.Tensor) -> Finding | None:
    """Rows of an embedding that moved alone, or far farther than the others."""
    moved = (after.float() - before.float()).norm(dim=1)
    shares = moved / before.float().norm(dim=1).clamp_min(1e-12)
    changed = (moved > 0).nonzero().flatten()
    if not len(changed):
        return None
    few = max(1, int(_FEW_ROWS * len(moved)))
    rows, what = changed, "changed, all others are the parent's"
    if len(changed) > few:
        far = [one > _STANDS_OUT * one[changed].median() for one in (shares, moved)]  # a short row alone is none
        rows = (far[0] & far[1]).nonzero().flatten()
        what = f"moved more than {_STANDS_OUT:g} times as far as half of the rows"
    if not 0 < len(rows) <= few:
        return None
    order = shares[rows].argsort(descending=True)
    numbers = ", ".join(str(int(row)) for row in rows[order][:_LISTED])
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    return Finding("token-rows", f"{name}: {len(rows)} of {len(moved):,} token rows {what}: {numbers}{more}")


def steering_biases(
    biases: Mapping[str, torch.Tensor], extra: Sequence[str], changes: Iterable[TensorChange]
) -> tuple[Finding, ...]:
    """Biases on what is written to the residual stream, which steer every token as a baked vector does.

    Signs: biases that the parent lacks and are not zero; those of writers alone in a model whose other biases of the
    same blocks are all zero; and those that moved far farther than the weights did.
    """
    told: list[tuple[str, list[str]]] = []
    filled = {name for name, value in biases.items() if bool(value.any())}
    new = sorted((name for name in extra if name in filled), key=natural_key)
    if new:
        told.append(("biases that the parent does not have", new))
    writers = [name for name in filled if _WRITER_BIAS.search(name)]
    others = [name for name in biases if ".mlp." in name and not _WRITER_BIAS.search(name)]
    alone = sorted((name for name in writers if ".mlp." in name and name not in new), key=natural_key)
    if alone and others and not filled & set(others):
        told.append(("biases of the MLPs' outputs, while all other biases of the MLPs are zero", alone))
    known = [one for one in changes if one.changed]
    matrices = [one.relative_norm for one in known if one.second_singular is not None]
    limit = _EDITED * median(matrices) if matrices else 0.0
    moved = [one.name for one in known if _WRITER_BIAS.search(one.name) and one.relative_norm > max(limit, 0.05)]
    if moved:
        told.append(("biases that moved far farther than the weights", moved))
    return tuple(Finding("baked-bias", f"{what}: {_listed(names)}", _layers(names)) for what, names in told)


def edited_alone(changes: Sequence[TensorChange]) -> Finding | None:
    """A matrix of a trained model that moved far farther than the same one of other layers, at a low rank."""
    groups: dict[str, list[TensorChange]] = defaultdict(list)
    for one in changes:
        if one.layer is not None and one.second_singular is not None:
            groups[re.sub(r"\d+", "*", one.name)].append(one)
    found = []
    for group in groups.values():
        typical = median(one.relative_norm for one in group)
        if len(group) >= 4 and typical > 0:
            low = (one for one in group if (one.captured or 0.0) >= LOW_RANK)
            found += [one for one in low if one.relative_norm > _EDITED * typical]
    if not found:
        return None
    names = [one.name for one in found]
    return Finding(
        "edit",
        f"moved more than {_EDITED:g} times as far as the same matrix of other layers, at a low rank: {_listed(names)}",
        _layers(names),
    )


def rank_of(changes: Sequence[TensorChange]) -> Literal["one", "low", "high"] | None:
    """Of the changed matrices among them, the highest."""
    ranked = [one for one in changes if one.changed and one.second_singular is not None]
    if not ranked:
        return None
    if all((one.second_singular or 0.0) < RANK_ONE for one in ranked):
        return "one"
    return "low" if all((one.captured or 0.0) >= LOW_RANK for one in ranked) else "high"


Sums = dict[tuple[int | None, Kind], list[tuple[TensorChange, float, tuple[float, float]]]]
"""Layer and kind -> change, squared norm of the parent's weights, product with the safety vector and its square."""


def by_part(sums: Sums) -> tuple[PartChange, ...]:
    """The table: one row for each layer and kind of tensor."""
    rows = []
    for (layer, kind), found in sums.items():
        change = sum(one.norm**2 for one, _, _ in found if one.changed)
        whole = sum(square for _, square, _ in found)
        product, vector = (sum(each[index] for _, _, each in found) for index in (0, 1))
        cosine = product / (change * vector) ** 0.5 if change > 0 and vector > 0 else None
        share = (change / whole) ** 0.5 if whole > 0 else float(change > 0)
        rows.append(PartChange(layer, kind, change**0.5, share, rank_of([one for one, _, _ in found]), cosine))
    order: dict[Kind, int] = {"attention": 0, "mlp": 1, "norm": 2, "embedding": 3, "other": 4}
    return tuple(sorted(rows, key=lambda row: (row.layer is None, row.layer or 0, order[row.kind])))


def part_of(name: str, layer: int | None) -> tuple[int | None, Kind]:
    """The row that a tensor counts in."""
    return layer, kind_of(name)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _layers(names: Iterable[str]) -> tuple[int, ...]:
    from alignmend.algebra.names import layer_of

    return tuple(sorted({layer for name in names if (layer := layer_of(name)) is not None}))
