"""Model-wide nodes become programs for the tensors of one target; what does not fit is collected, then told at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alignmend.algebra import programs as program
from alignmend.algebra.ablating import ablated
from alignmend.algebra.domains import check_leaf, ranked_names
from alignmend.algebra.heads import heads_mask
from alignmend.algebra.names import is_buffer, is_input_first, layer_of, natural_key
from alignmend.algebra.nodes import (
    Ablated,
    AdapterDelta,
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
    Not,
    PerLayer,
    Positive,
    Projected,
    Random,
    RankedDrop,
    Scaled,
    ScoreNode,
    Selected,
    SelectedScores,
    Source,
    StoredDelta,
    StoredScores,
    Sum,
    Top,
    Weighted,
)
from alignmend.algebra.problems import Problems
from alignmend.algebra.seeing import seen_by
from alignmend.algebra.selections import check_selections
from alignmend.algebra.simplify import both, differ, either, elect, invert, keep, plus, projected, times
from alignmend.algebra.thresholds import Findings
from alignmend.algebra.tying import lookup, tied_alias
from alignmend.algebra.walks import leaves_of, stored_source
from alignmend.algebra.weighing import check_weighings, weighing_notes, weighted
from alignmend.errors import FileFormatError, MismatchError
from alignmend.io.adapter import (
    AdapterPart,
    BlockPart,
    DoraPart,
    LowRankPart,
    ReplacedPart,
    TokenRowsPart,
    resolve_parts,
)
from alignmend.io.architecture import Architecture
from alignmend.io.delta import DeltaPart
from alignmend.io.seen import Seen
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry


class Resolver:
    """Turns nodes into programs for the tensors of one target, collecting problems instead of stopping at the first."""

    def __init__(self, target: Source, change: DeltaNode | None, findings: Findings | None) -> None:
        self.target = target
        self.node = change
        seen: Mapping[Source, Seen] = {}
        if change is not None:
            self.node, seen = seen_by(target, change)
        self.findings = findings
        self.problems = Problems()
        self.notes: list[str] = [*target.folder.notes, *(note for one in seen.values() for note in one.notes)]
        self._alias = tied_alias(target.folder)
        self._ranked: dict[ScoreNode, frozenset[str]] = {}
        self._unscored: dict[ScoreNode, dict[str, None]] = {}
        """Tensors that a ranking should mask and says nothing of."""
        self._parts: dict[AdapterDelta, Mapping[str, tuple[AdapterPart, ...]]] = {}
        self._copies: dict[Source, Mapping[str, str]] = {}
        """Tied copies in the targets of stored deltas."""
        if self.node is not None:
            check_selections(self.node, target.folder, self.problems)
            for leaf in leaves_of(self.node):
                self.notes.extend(leaf.source.folder.notes)
                check_leaf(leaf, target.folder, self.problems, seen.get(leaf.source))
            check_weighings(self.node, target.folder, self.problems)
            self.notes.extend(weighing_notes(self.node))

    def target_entries(self) -> list[TensorEntry]:
        """The target's tensors in natural order of names."""
        return sorted(self.target.folder.tensors.values(), key=lambda entry: natural_key(entry.name))

    def change(self, name: str) -> program.Program | None:
        """What is added to the target's tensor `name`; a tied copy gets what the weight that it copies gets."""
        entry = self.target.folder.tensors[self.canonical(name)]
        if self.node is None or is_buffer(name) or not _is_float(entry):
            return None
        found = self.delta(self.node, entry, common=False)
        if found is not None and entry.dtype not in ARITHMETIC_DTYPES:
            where = f"{entry.name} is {entry.dtype} in {self.target.folder.location}"
            self.problems.add(f"{where}: convert it to bfloat16, float16 or float32")
            return None
        return found

    def unscored(self) -> list[str]:
        """Notes on tensors that stored scores say nothing of, although they decide over them."""
        found = {stored_source(score): names for score, names in self._unscored.items()}
        return [
            f"{source.folder.location} has no scores of {len(names)} tensors that it decides over, such as "
            f"{next(iter(names))}: none of their weights counts as a top one"
            for source, names in found.items()
            if source is not None
        ]

    def delta(self, node: DeltaNode, entry: TensorEntry, *, common: bool) -> program.Program | None:
        """The program of `node` for the target's tensor `entry`; None where it is provably zero."""
        match node:
            case Difference(minuend, subtrahend):
                return self._difference(minuend, subtrahend, entry, common=common)
            case AdapterDelta():
                return self._adapter(node, entry)
            case StoredDelta(stored, target):
                return self._stored(stored.folder.parts, target, entry, common=common)
            case Scaled(coefficient, operand):
                return times(coefficient, self.delta(operand, entry, common=common))
            case PerLayer(coefficients, default, operand):
                layer = layer_of(entry.name)
                factor = default if layer is None else dict(coefficients).get(layer, default)
                return times(factor, self.delta(operand, entry, common=common))
            case Sum(terms):
                return plus([self.delta(term, entry, common=common) for term in terms])
            case Selected(selection, operand):
                taken = selection.takes(entry.name, len(entry.shape))
                return self.delta(operand, entry, common=common) if taken else None
            case CommonRows(operand):
                return self.delta(operand, entry, common=True)
            case Masked(mask, operand, label):
                found = self.delta(operand, entry, common=common)
                return None if found is None else keep(self.mask(mask, entry, common=common), found, label)
            case Elected(terms):
                return elect([self.delta(term, entry, common=common) for term in terms])
            case Weighted(weighting, operand):
                found = self.delta(operand, entry, common=common)
                return None if found is None else weighted(weighting, found, entry)
            case RankedDrop(density, window, seed, rescale, operand):
                found = self.delta(operand, entry, common=common)
                name, columns = f"ranked\0{self.canonical(entry.name)}", row_length(entry)
                kept = (density, window, seed, name, rescale, columns)
                return None if found is None else program.RankedKeep(found, *kept)
            case Ablated():
                change = None if node.change is None else self.delta(node.change, entry, common=common)
                return ablated(node, entry, change, self.target.folder, self.problems)
            case Indicator(mask):
                truths = self.mask(mask, entry, common=common)
                return None if truths == program.Constant(False) else program.Truth(truths)
            case Projected():
                return self._projected(node, entry, common=common)
            case Fitted(rule, operand):
                found = self.delta(operand, entry, common=common)
                if self.findings is None:
                    return found
                fitted = self.findings.coefficients[rule].get(self.canonical(entry.name))
                return None if fitted is None else times(fitted.value, found)

    def mask(self, node: MaskNode, entry: TensorEntry, *, common: bool) -> program.MaskProgram:
        """The program of a mask for the target's tensor `entry`."""
        match node:
            case Random(density, seed, stream):
                if density in (0.0, 1.0):
                    return program.Constant(density == 1.0)
                name = self.canonical(entry.name)
                return program.RandomKeep(density, seed, f"{stream}\0{name}" if stream else name)
            case Top():
                return self._top(node, entry, common=common)
            case Both(left, right):
                return both(self.mask(left, entry, common=common), self.mask(right, entry, common=common))
            case Either(left, right):
                return either(self.mask(left, entry, common=common), self.mask(right, entry, common=common))
            case Not(operand):
                return invert(self.mask(operand, entry, common=common))
            case Conflict(left, right, zeros):
                sides = (self.delta(side, entry, common=common) for side in (left, right))
                return differ(*sides, zeros=zeros)
            case Positive(source):
                stored = lookup(source.folder, self.target.folder, entry.name)
                read = self._fitted(stored, source, entry, common=False) if stored is not None else None
                return program.Constant(False) if read is None else program.AboveZero(read)
            case Heads():
                return heads_mask(node, entry, self.target.folder, self.problems)

    def score(self, node: ScoreNode, entry: TensorEntry, *, common: bool) -> program.Program | None:
        """The program of scores for the target's tensor `entry`; None where they are zero."""
        match node:
            case Magnitude(operand):
                found = self.delta(operand, entry, common=common)
                return None if found is None else program.Absolute(found)
            case SelectedScores(operand=operand):  # the population says which tensors take part
                return self.score(operand, entry, common=common)
            case StoredScores(source):
                stored = lookup(source.folder, self.target.folder, entry.name)
                read = self._fitted(stored, source, entry, common=common) if stored is not None else None
                return read if read is None or read.entry.size == entry.size else program.Prefix(read.entry.size, read)

    def _top(self, node: Top, entry: TensorEntry, *, common: bool) -> program.MaskProgram:
        name = self.canonical(entry.name)
        if node.score not in self._ranked:
            self._ranked[node.score] = ranked_names(node.score, self.target.folder)
        if name not in self._ranked[node.score]:
            self._unscored.setdefault(node.score, {})[name] = None
            return program.Constant(False)
        score = self.score(node.score, entry, common=common)
        if node.scope == "row":
            return _row_top(node, score, entry)
        if self.findings is None:
            return program.Above(score, 0, 0)
        cuts = self.findings.cuts[node]
        cut = cuts[name if node.scope == "tensor" else None]
        return program.Above(score, cut.bits, cut.tie_stop_in(name, entry.size))

    def canonical(self, name: str) -> str:
        """The name of the weight that the tensor `name` is, or is a tied copy of."""
        return self._alias.get(name, name)

    def _projected(self, node: Projected, entry: TensorEntry, *, common: bool) -> program.Program | None:
        if len(entry.shape) != 2:
            return None
        operand, basis = (self.delta(one, entry, common=common) for one in (node.operand, node.basis))
        transposed = is_input_first(entry.name, self.target.folder.config.get("model_type"))
        if operand is None or basis is None:
            return None
        return projected(program.Projected(operand, basis, node.projector, node.rank, transposed, entry.shape[1]))

    def _difference(
        self, minuend: Source, subtrahend: Source, entry: TensorEntry, *, common: bool
    ) -> program.Program | None:
        left = lookup(minuend.folder, self.target.folder, entry.name)
        right = lookup(subtrahend.folder, self.target.folder, entry.name)
        if left is None or right is None:  # reported once per leaf
            return None
        if _same_bytes(left, right):
            return None
        fitted_left = self._fitted(left, minuend, entry, common=common)
        fitted_right = self._fitted(right, subtrahend, entry, common=common)
        if fitted_left is None or fitted_right is None:
            return None
        difference = program.Subtract(program.Read(left), program.Read(right))
        rows = min(left.size, right.size, entry.size)
        return difference if rows == entry.size == left.size == right.size else program.Prefix(rows, difference)

    def _stored(
        self, parts: Mapping[str, DeltaPart], own: Source, entry: TensorEntry, *, common: bool
    ) -> program.Program | None:
        """What a delta that was saved for `own` has for the target's tensor `entry`."""
        known = lookup(own.folder, self.target.folder, entry.name)
        if known is None:  # reported once per leaf
            return None
        if own not in self._copies:
            self._copies[own] = tied_alias(own.folder)
        part = parts.get(self._copies[own].get(known.name, known.name))
        if part is None or self._fitted(known, own, entry, common=common) is None:
            return None
        found: program.Program = program.Read(part.values)
        if part.indices is not None:
            found = program.Scattered(part.indices, part.values, known.size)
        return found if known.size == entry.size else program.Prefix(min(known.size, entry.size), found)

    def _fitted(self, found: TensorEntry, source: Source, entry: TensorEntry, *, common: bool) -> program.Read | None:
        """`found` as a program if its dtype and shape fit the target's `entry`, or, for common rows, its width does."""
        where = f"{entry.name}: {source.folder.location} has"
        if found.dtype not in ARITHMETIC_DTYPES:
            self.problems.add(f"{where} {found.dtype}: convert it to bfloat16, float16 or float32")
            return None
        if found.shape == entry.shape:
            return program.Read(found)
        same_width = len(found.shape) == len(entry.shape) >= 1 and found.shape[1:] == entry.shape[1:]
        resized = self.target.folder.resized.get(entry.name)
        if same_width and (common or found.shape[0] == resized):
            if resized is None:  # else a note tells of it already
                left_over = abs(entry.shape[0] - found.shape[0])
                what = f"{left_over} rows beyond the common ones are left as in the target"
                self.notes.append(f"{entry.name}: {what} ({source.folder.location})")
            return program.Read(found)
        hint = (
            "; a resized vocabulary: common_rows, taken of the delta itself, changes only the rows that all share"
            if same_width
            else ""
        )
        self.problems.add(f"{where} shape {list(found.shape)}, the target {list(entry.shape)}{hint}")
        return None

    def _adapter(self, node: AdapterDelta, entry: TensorEntry) -> program.Program | None:
        base = self._base(node)
        if node not in self._parts:
            layout = self.target.folder  # whose names the base has here
            self._parts[node] = resolve_parts(
                node.adapter.adapter,
                base.folder.tensors,
                tied=base.folder.tied,
                architecture=Architecture(layout.path, layout.config),
            )
        found = [self._part(part, node, entry) for part in self._parts[node].get(entry.name, ())]
        return plus(found)

    def _base(self, node: AdapterDelta) -> Source:
        """The adapter's base; the target as it is here, resized perhaps, where that is its base."""
        return self.target if node.base is None or node.base == self.target else node.base

    def _part(self, part: AdapterPart, node: AdapterDelta, entry: TensorEntry) -> program.Program | None:
        if node.base is None and isinstance(part, LowRankPart | BlockPart):
            return _low_rank(part, entry)
        if node.base is None:
            raise MismatchError(
                f"the adapter {node.adapter.adapter.location} replaces or rescales {entry.name}, so its delta depends "
                "on its base",
                advice="open it with base=, the checkpoint it was trained on",
            )
        base_entry = lookup(self._base(node).folder, self.target.folder, entry.name)
        if base_entry is None:  # reported once per leaf
            return None
        if base_entry.shape != entry.shape:
            self.problems.add(
                f"{entry.name}: the adapter's base has shape {list(base_entry.shape)}, the target {list(entry.shape)}"
            )
            return None
        match part:
            case LowRankPart() | BlockPart():
                return _low_rank(part, entry)
            case DoraPart():
                low_rank = _matrix(part.a, part.b, part.scale, part.transposed, entry)
                return program.Dora(low_rank, part.magnitude, part.on or base_entry)
            case TokenRowsPart():
                return program.TokenRows(part.trained, part.rows, part.on or base_entry, entry.shape[1])
            case ReplacedPart(saved):
                return program.Subtract(program.Read(saved), program.Read(base_entry))
            case _:
                raise AssertionError(part)


def _row_top(node: Top, score: program.Program | None, entry: TensorEntry) -> program.MaskProgram:
    columns = row_length(entry)
    count = node.count(columns)
    if count in (0, columns):
        return program.Constant(count > 0)
    return program.RowTop(score, count, columns)


def row_length(entry: TensorEntry) -> int:
    """Elements that a ranking by row takes together: the last dimension."""
    return entry.shape[-1] if entry.shape else 1


def _low_rank(part: LowRankPart | BlockPart, entry: TensorEntry) -> program.LowRank | program.Stacked:
    if isinstance(part, LowRankPart):
        return _matrix(part.a, part.b, part.scale, part.transposed, entry)
    return program.Stacked(
        part.a,
        part.b,
        part.scale,
        part.transposed,
        part.experts,
        part.first,
        part.count,
        part.start,
        entry.shape[-1],
    )


def _matrix(a: TensorEntry, b: TensorEntry, scale: float, transposed: bool, entry: TensorEntry) -> program.LowRank:
    rows = entry.shape[0]
    return program.LowRank(a, b, scale, transposed, rows, entry.size // max(rows, 1))


def _is_float(entry: TensorEntry) -> bool:
    return entry.dtype in ARITHMETIC_DTYPES or entry.dtype in ("F64", "F8_E4M3", "F8_E5M2")


def _same_bytes(left: TensorEntry, right: TensorEntry) -> bool:
    if left.runs is not None or right.runs is not None:
        return left.runs == right.runs
    return left.start == right.start and left.stop == right.stop and _file(left.path) == _file(right.path)


def _file(path: Path) -> tuple[int, int]:
    """Asked anew each time: a later file may have the number that an earlier one had."""
    try:
        status = path.stat()
    except OSError as error:
        raise FileFormatError(f"{path} can no longer be read: {error.strerror}") from error
    return status.st_dev, status.st_ino
