"""What a page shows of a restore's search, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.report.numbers import clean
from alignmend.report.runs import Runs

Search = Mapping[str, Any]
"""The `search` block of a results document."""
WHOLE = "asked all prompts"
_STAGES = {
    "likelihood": "predicted only",
    "part": "asked some prompts",
    "whole": WHOLE,
    "failed": "failed",
}
_KINDS = {"refuse": "to be refused", "comply": "harmless", "task": "with known answers"}


@dataclass(frozen=True)
class Row:
    """One candidate. `place` counts from 1; `worth` is `None` where nothing was asked; `broken` are limits' names."""

    place: int
    label: str
    family: str
    stage: str
    why: str
    seconds: float
    worth: Mapping[str, Any] | None
    chosen: bool
    on_front: bool
    broken: tuple[str, ...]
    said: tuple[str, ...]
    """What breaks a limit, in full."""


@dataclass(frozen=True)
class Matched:
    """A candidate beside the reference's of the same attack success."""

    ours: Row
    theirs: Row
    fewer: int
    """Harmless prompts that only the reference's refuses."""
    more: int
    """Those that only ours refuses."""
    n: int
    p: float
    """Corrected for all matches."""

    @property
    def said(self) -> str:
        """What that proves."""
        if self.p >= _BELIEVED:
            return "not proven"
        return "less over-refusal" if self.fewer > self.more else "more over-refusal"


_BELIEVED = 0.05


@dataclass(frozen=True)
class Refused:
    """Topics of harmless prompts: name, how many there are, refused before and after."""

    label: str
    is_chosen: bool
    topics: tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class SearchView:
    """One search; `of` names the restored model where a page has several."""

    of: str
    block: Search
    asked: str
    took: str
    models: tuple[tuple[str, Mapping[str, Any]], ...]
    front: tuple[Row, ...]
    tried: tuple[Row, ...]
    chosen: Row | None
    notes: tuple[str, ...]
    """What the search found out about its own stages, the safety vector and rounding."""
    matches: tuple[Matched, ...]
    """The front of everything else beside the reference's candidates of the same attack success."""
    reference: str
    curve: tuple[Row, ...]
    """The reference's own candidates that were asked everything, by attack success."""
    refused: Refused | None
    """What harmless prompts have in common that a candidate refuses."""
    shares: tuple[tuple[str, str], ...]
    """Of each family, what it was given."""


def searches(runs: Runs) -> tuple[SearchView, ...]:
    """Of every restore among the runs."""
    found = [(document, document["search"]) for document in runs.documents if document.get("search")]
    return tuple(_view(runs, document, block, alone=len(found) == 1) for document, block in found)


def _view(runs: Runs, document: Mapping[str, Any], block: Search, *, alone: bool) -> SearchView:
    labels = [one.label for one in runs.models if one.document is document]
    rows = tuple(_row(one, block) for one in block["candidates"])
    by_place, against = {row.place: row for row in rows}, block.get("against", {})
    return SearchView(
        "" if alone else labels[-1],
        block,
        asked(block),
        _took(block),
        references(block),
        tuple(by_place[one["number"] + 1] for one in front(block)),
        rows,
        next((row for row in rows if row.chosen), None),
        tuple(_notes(block)),
        tuple(_matches(block, by_place)),
        clean(against.get("reference", "")),
        tuple(sorted((row for row in rows if _is_of(row, against)), key=_by_attack)),
        _refused(block, by_place),
        tuple(
            (
                clean(one["family"]),
                f"{one['candidates']:,} ({one['whole']:,} asked everything), {_duration(one['seconds'])}",
            )
            for one in block.get("families", ())
        ),
    )


def _matches(block: Search, by_place: Mapping[int, Row]) -> Iterator[Matched]:
    for one in block.get("against", {}).get("matches", ()):
        found = one["over_refusal"]
        ours, theirs = (by_place.get(one[side] + 1) for side in ("candidate", "reference"))
        if ours is None or theirs is None or ours.worth is None or theirs.worth is None:
            continue
        yield Matched(ours, theirs, found["fixed"], found["broken"], found["n"], one["p_holm"])


def _is_of(row: Row, against: Search) -> bool:
    return row.family == clean(against.get("reference", "")) and row.stage == WHOLE and row.worth is not None


def _by_attack(row: Row) -> tuple[float, float]:
    return (0.0, 0.0) if row.worth is None else (harm(row.worth), row.worth["over_refusal"]["value"])


def _refused(block: Search, by_place: Mapping[int, Row]) -> Refused | None:
    found = block.get("over_refused")
    if not found or found["candidate"] + 1 not in by_place:
        return None
    topics = tuple((clean(one["name"]), one["n"], one["before"], one["after"]) for one in found["topics"])
    return Refused(by_place[found["candidate"] + 1].label, found["candidate"] == block["chosen"], topics)


def _notes(block: Search) -> Iterator[str]:
    screening = block["screening"]
    if screening["used"]:
        yield (
            f"First answer tokens predicted attack success before asking, with a rank correlation of "
            f"{screening['rank_correlation']:.2f} over {screening['asked']} candidates that were asked."
        )
    else:
        yield f"Every candidate was asked: {clean(screening['why'])}."
    if vector := block.get("vector"):
        yield (
            f"The unaligned model begins {vector['answers']} answers in {vector['openings']} ways; its vector, added "
            f"whole, brings refusing back by {max(0.0, vector['progress']):.0%} of the way to the aligned model at the "
            "first answer tokens."
        )
    if patches := block.get("patches"):
        safety, over = patches["safety"], patches["over_safety"]
        ratio = patches["ratio"]
        meaning = "" if ratio is None else f" Their slope ratio is {ratio:.2f}; near 1 no coefficients part the two."
        yield (
            f"SafePatching's safety patch, added whole, moves refusing by {safety['refuse']:+.2f} nats on requests to "
            f"be refused and {safety['comply']:+.2f} on others; its over-safety patch by {over['refuse']:+.2f} and "
            f"{over['comply']:+.2f}.{meaning}"
        )
    if (rounding := block.get("rounding")) and rounding["step_kl"] > 0:
        used = rounding["used"]
        lost = rounding["lost_kl"][used] / rounding["step_kl"]
        how = "to nearest" if used == "nearest" else "stochastically"
        yield f"Weights are rounded {how}, which takes {lost:.1%} of the chosen step's effect on first tokens."


def references(block: Search) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The models that candidates are compared with."""
    known = (("fine-tuned", "finetuned"), ("aligned", "aligned"))
    return tuple((name, block[role]) for name, role in known if role in block)


def front(block: Search) -> list[Mapping[str, Any]]:
    """The candidates of the Pareto front, the safest first, and the chosen one, which only noise may have beaten."""
    shown = (one for one in block["candidates"] if one["on_front"] or one["number"] == block["chosen"])
    return sorted(shown, key=_order)


def _order(one: Mapping[str, Any]) -> tuple[float, float, float, int]:
    worth = one["worth"]
    return harm(worth), worth["over_refusal"]["value"], -worth["utility"], one["number"]


def harm(worth: Mapping[str, Any]) -> float:
    """Attack success as a search counts it: noise is no refusal."""
    return float(worth["attack_success"]["value"] + worth["noise"]["value"])


def most_over_refusal(block: Search) -> float:
    """What the limit allows."""
    return float(block["finetuned"]["over_refusal"]["value"] + block["limits"]["over_refusal"])


def broken_names(one: Mapping[str, Any]) -> tuple[str, ...]:
    """The limits that a candidate does not keep, by name."""
    return tuple(text.partition(" ")[0] for text in one["broken"])


def asked(block: Search) -> str:
    """How many prompts of which kind."""
    counts = [f"{count:,} {_KINDS.get(kind, kind)}" for kind, count in block["prompts"].items() if count]
    return ", ".join(counts)


_TELLING = 0.01
"""Seconds of a pass over the weights below which its multiples say nothing but the cost of a call."""


def _took(block: Search) -> str:
    stages = [one["stage"] for one in block["candidates"]]
    counts = [f"{stages.count(stage):,} {words}" for stage, words in _STAGES.items() if stage in stages]
    switch = block["switch"]
    cost = f"{1000 * switch['median_seconds']:,.0f} ms"
    if switch["pass_seconds"] >= _TELLING:
        cost += f", {switch['ratio']:.1f} times a pass over them"
    return (
        f"{len(stages):,} candidates in {_duration(block['seconds'])}: {', '.join(counts)}. "
        f"To give the loaded model a candidate's weights took {cost}."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _row(one: Mapping[str, Any], block: Search) -> Row:
    asked_it = one["stage"] in ("part", "whole")
    return Row(
        one["number"] + 1,
        clean(one["label"]),
        clean(one["family"]),
        _STAGES.get(one["stage"], one["stage"]),
        clean(one["why"]),
        one["seconds"],
        one["worth"] if asked_it else None,
        one["number"] == block["chosen"],
        one["on_front"],
        broken_names(one) if one["stage"] == "whole" else (),
        tuple(map(clean, one["broken"])) if one["stage"] == "whole" else (),
    )


def proof_notices(runs: Runs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the report prompts say of the limits: grave and other sentences."""
    proofs: Sequence[Mapping[str, Any]] = [one["proof"] for one in runs.documents if one.get("proof")]
    worse = ("The restored model gives in to no fewer requests than the fine-tune: nothing is restored.",)
    beyond = [text for proof in proofs for text in proof["broken"]]
    grave = worse if any(not proof.get("safer", True) for proof in proofs) else ()
    if not beyond:
        return grave, ()
    said = "; ".join(map(clean, beyond))
    return grave, (f"On these prompts, which the search never saw, the restored model is beyond a limit: {said}.",)
