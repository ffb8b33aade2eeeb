"""An expression as a line of text, as one would write it in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from alignmend.algebra.nodes import (
    Ablated,
    AdapterDelta,
    AdapterSource,
    Both,
    CommonRows,
    Conflict,
    DeltaNode,
    Difference,
    Either,
    Elected,
    Fitted,
    Heads,
    Indicator,
    Magnitude,
    Masked,
    MaskNode,
    MomentsSource,
    Not,
    Operand,
    Opposition,
    PerLayer,
    Positive,
    Projected,
    Random,
    Ranked,
    RankedDrop,
    Rule,
    Scaled,
    ScoreNode,
    Selected,
    SelectedScores,
    Selection,
    Share,
    Similar,
    StoredDelta,
    StoredScores,
    Sum,
    Top,
    Weighted,
)

if TYPE_CHECKING:
    from alignmend.algebra.values import Checkpoint, Delta

Labels: TypeAlias = Mapping[Operand, str]
"""The role of each operand; operands without one appear by their location."""


def notation(checkpoint: Checkpoint, labels: Labels) -> str:
    """The expression in operands' labels, such as `finetuned + 0.5 * (aligned - unaligned)`."""
    root = _source(checkpoint.root, labels)
    if checkpoint.change is None:
        return root
    terms = checkpoint.change.terms if isinstance(checkpoint.change, Sum) else (checkpoint.change,)
    return root + "".join(_signed(term, labels) for term in terms)


def delta_notation(delta: Delta, labels: Labels) -> str:
    """As `notation`, of a delta alone."""
    return _delta(delta.node, labels)


def _signed(term: DeltaNode, labels: Labels) -> str:
    if isinstance(term, Scaled) and term.coefficient < 0:
        positive = term.operand if term.coefficient == -1.0 else Scaled(-term.coefficient, term.operand)
        return f" - {_delta(positive, labels)}"
    return f" + {_delta(term, labels)}"


def _source(source: Operand, labels: Labels) -> str:
    if source in labels:
        return labels[source]
    match source:
        case AdapterSource(adapter=adapter):
            location = adapter.location
        case MomentsSource(file=file):
            location = file.location
        case _:
            location = source.folder.location
    return location.rstrip("/").rsplit("/", 1)[-1]


def _delta(node: DeltaNode, labels: Labels) -> str:
    match node:
        case Difference(minuend, subtrahend):
            return f"({_source(minuend, labels)} - {_source(subtrahend, labels)})"
        case AdapterDelta(adapter):
            return f"adapter({_source(adapter, labels)})"
        case StoredDelta(stored):
            return f"delta({_source(stored, labels)})"
        case Scaled(coefficient, Masked(Random(density, seed, ""), operand)) if density and coefficient == 1 / density:
            return f"drop({_delta(operand, labels)}, density={_number(density)}, seed={seed})"
        case Scaled(coefficient, operand):
            return f"{_number(coefficient)} * {_delta(operand, labels)}"
        case PerLayer(coefficients, default, operand):
            table = ", ".join(f"{layer}: {_number(value)}" for layer, value in coefficients)
            return f"per_layer({_delta(operand, labels)}, {{{table}}}, default={_number(default)})"
        case Sum(()):
            return "0"
        case Sum(terms):
            first, *rest = terms
            return f"({_delta(first, labels)}{''.join(_signed(term, labels) for term in rest)})"
        case Selected(selection, operand):
            return f"select({_delta(operand, labels)}, {_selection(selection)})"
        case CommonRows(operand):
            return f"common_rows({_delta(operand, labels)})"
        case Elected(terms):
            return f"elect([{', '.join(_delta(term, labels) for term in terms)}])"
        case Weighted(weighting, operand):
            shrunk = "" if weighting.shrinkage == "none" else f", shrinkage={weighting.shrinkage!r}"
            numbers = f"beta={_number(weighting.beta)}, ridge={_number(weighting.ridge)}{shrunk}"
            return f"weigh({_delta(operand, labels)}, {_source(weighting.moments, labels)}, {numbers})"
        case Projected(projector, rank, basis, operand):
            cut = f", rank={rank}" if projector == "orthogonal" else ""
            sides = f"{_delta(operand, labels)}, {_delta(basis, labels)}"
            return f"project({sides}, projector={projector!r}{cut})"
        case RankedDrop(density, window, seed, rescale, operand):
            chance = f"density={_number(density)}, window={_number(window)}, seed={seed}"
            return f"drop({_delta(operand, labels)}, {chance}{'' if rescale else ', rescale=False'})"
        case Ablated(direction=direction, spared=spared, layer=layer, strength=strength):
            other = "" if spared is None else f", spared={_source(spared, labels)}, strength={_number(strength)}"
            return f"ablate({_source(direction, labels)}, layer={layer}{other})"
        case Indicator(mask):
            return f"indicator({mask_notation(mask, labels)})"
        case Fitted(Share(Indicator(mask)), operand):
            return f"{_delta(operand, labels)} / mean({mask_notation(mask, labels)})"
        case Fitted(rule, operand):
            return f"{_rule(rule, labels)} * {_delta(operand, labels)}"
        case Masked(Top(Magnitude(ranked), density, scope, "nearest"), operand) if ranked == operand:
            return f"trim({_delta(operand, labels)}, density={_number(density)}, scope={scope!r})"
        case Masked(mask, operand, label):
            named = f", label={label!r}" if label else ""
            return f"where({mask_notation(mask, labels)}, {_delta(operand, labels)}{named})"


def _rule(rule: Rule, labels: Labels) -> str:
    sides = f"{_delta(rule.left, labels)}, {_delta(rule.right, labels)}"
    unit = f", unit={rule.unit!r}"
    match rule:
        case Opposition():
            return f"opposition({sides}{unit})"
        case Similar():
            least = f"number={rule.number}" if rule.number is not None else f"limit={_number(rule.limit)}"
            beyond = f", outside={_number(rule.outside)}" if rule.unit == "layer" else ""
            return f"similar({sides}, {least}{', strict=True' if rule.strict else ''}{unit}{beyond})"
        case Share():
            return f"share({sides})"
        case Ranked():
            return f"ranked({sides}, law={rule.law!r}, outside={_number(rule.outside)})"


def _number(value: float) -> str:
    """Short where that is exact: two numbers that differ never look the same."""
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


def _selection(selection: Selection) -> str:
    given = (("names", selection.names), ("layers", selection.layers), ("kinds", selection.kinds))
    parts = [f"{name}={list(values)}" for name, values in given if values]
    return ", ".join([*parts, *(["linear=True"] if selection.linear else [])])


def mask_notation(node: MaskNode, labels: Labels) -> str:
    """A mask in operands' labels."""
    match node:
        case Top(score, density, scope, counting):
            rounded = "" if counting == "nearest" else f", counting={counting!r}"
            return f"top({score_notation(score, labels)}, density={_number(density)}, scope={scope!r}{rounded})"
        case Random(density, seed, stream):
            named = f", stream={stream!r}" if stream else ""
            return f"random(density={_number(density)}, seed={seed}{named})"
        case Both(left, Not(right)):
            return f"({mask_notation(left, labels)} - {mask_notation(right, labels)})"
        case Both(left, right):
            return f"({mask_notation(left, labels)} & {mask_notation(right, labels)})"
        case Either(left, right):
            return f"({mask_notation(left, labels)} | {mask_notation(right, labels)})"
        case Not(operand):
            return f"~{mask_notation(operand, labels)}"
        case Positive(source):
            return f"positive({_source(source, labels)})"
        case Heads(heads):
            table = ", ".join(f"{layer}: {list(chosen)}" for layer, chosen in heads)
            return f"heads({{{table}}})"
        case Conflict(left, right, zeros):
            return f"conflict({_delta(left, labels)}, {_delta(right, labels)}{'' if zeros else ', zeros=False'})"


def score_notation(node: ScoreNode, labels: Labels) -> str:
    """Scores in operands' labels."""
    match node:
        case Magnitude(operand):
            return f"magnitude({_delta(operand, labels)})"
        case StoredScores(source):
            return f"scores({_source(source, labels)})"
        case SelectedScores(selection, operand):
            return f"select({score_notation(operand, labels)}, {_selection(selection)})"
