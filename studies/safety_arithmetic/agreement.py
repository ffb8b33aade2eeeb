"""Where organisms agree with the paper: each of its findings as a comparison of two of our numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignmend.evaluation.statistics import Rate
from studies.rows import HARMFUL, Row, Verdict, cell, is_below, least, pooled
from studies.safety_arithmetic.curves import density_curve
from studies.safety_arithmetic.measuring import Change
from studies.safety_arithmetic.tables import ATTACK, WHOLE, Study

CLEAR = 0.01
"""A smaller change of a rate is none."""
UNTRIMMED = "HDR, untrimmed (task vector)"


@dataclass(frozen=True)
class Finding:
    """What the paper reports, what was measured here, and whether that agrees."""

    paper: str
    here: str
    verdict: Verdict


def findings(studies: Sequence[Study]) -> Iterator[Finding]:
    """The paper's findings, scenario by scenario where they are of one."""
    by_study = [{label: pooled(found) for label, found in study.rows().items()} for study in studies]
    yield over_safety({study.name: rows for study, rows in zip(studies, by_study, strict=True)})
    for study, rows in zip(studies, by_study, strict=True):
        yield _lowest(study.name, rows)
        yield trimmed_finding(study.name, pooled(study.rows(own_best=True)["HDR, trimmed"]), rows[UNTRIMMED])
        if study.name.startswith("edited"):
            yield from _eroded(study)
    yield _coefficients(studies)
    yield _density(studies)
    yield _weak_vector(studies)


def over_safety(rows: Mapping[str, Mapping[str, Row]]) -> Finding:
    """The headline's second half, by scenario; the least of them decides."""
    pairs = {
        name: tuple(found[label].rate("borderline", "over_refusal_rate") for label in (WHOLE, "original"))
        for name, found in rows.items()
    }
    shown = (f"{name} {cell(before)} -> {cell(after)}" for name, (after, before) in pairs.items())
    return Finding(
        'it "reduces over-safety" (the headline: refusals on XSTest are fewer on four of six models, 17.8 -> 8.7 % on '
        "Llama-2, as many on the edited one)",
        f"over-refusal {'; '.join(shown)}",
        least(is_below(after, before) for after, before in pairs.values()),
    )


def _lowest(name: str, rows: Mapping[str, Row]) -> Finding:
    whole, others = _attack(rows[WHOLE]), ("original", "HDR, trimmed", "Safe-Align")
    shown = ", ".join(f"{label} {_attack(rows[label]).value:.2f}" for label in others)
    return Finding(
        f"{name}: both stages together have the lowest attack success",
        f"{whole.value:.2f} against {shown}",
        least(is_below(whole, _attack(rows[label])) for label in others),
    )


def _attack(row: Row) -> Rate:
    return row.together(HARMFUL, ATTACK)


def trimmed_finding(name: str, trimmed: Row, whole: Row) -> Finding:
    """Better is a clearly lower attack success that is not bought with over-refusal."""
    shown = (
        f"attack success {row.attack_success:.2f} and over-refusal {row.over_refusal:.2f} {label}"
        for label, row in (("trimmed", trimmed), ("whole", whole))
    )
    bought = trimmed.over_refusal > whole.over_refusal + CLEAR
    alike = abs(trimmed.attack_success - whole.attack_success) <= CLEAR
    return Finding(
        f"{name}: trimming is better than the whole vector (in the paper by far on base and edited models, by a little "
        "or not at all on fine-tuned ones)",
        f"{', '.join(shown)}, each with its own best coefficient within the limits",
        "no" if bought or alike else is_below(_attack(trimmed), _attack(whole)),
    )


def _eroded(study: Study) -> Iterator[Finding]:
    """Without seed 0, on which the edit was chosen."""
    others = [one for one in study.scenarios if one.seed != 0]
    if not others:
        return
    aligned = pooled([one.reference.row(Change(), "report") for one in others])
    edited = pooled([one.row(Change(), "report") for one in others])
    before, after = (_attack(row) for row in (aligned, edited))
    yield Finding(
        "an unintended edit makes a model less safe",
        f"attack success {cell(before)} before, {cell(after)} after it, without seed 0, on which this edit was "
        "[chosen because it does](../editing.md): it can happen; how often is not shown",
        is_below(before, after),
    )


def _coefficients(studies: Sequence[Study]) -> Finding:
    chosen = [one.coefficient for study in studies if study.name.startswith("fine-tuned") for one in study.chosen]
    return Finding(
        "at density 0.10 a fine-tuned model needs a coefficient of 2 to 3",
        f"{min(chosen):g} to {max(chosen):g} were chosen; it depends on how long the harm model was trained",
        "yes" if min(chosen) >= 2 else "no",
    )


def _density(studies: Sequence[Study]) -> Finding:
    study = next(one for one in studies if one.name.startswith("fine-tuned"))
    curve = density_curve(study)
    first, last = curve[0][1], curve[-1][1]
    useful, after = (row.together(("benign", "task"), "accuracy") for row in (first, last))
    return Finding(
        "a higher density lowers attack success and utility",
        f"from density 0 to {curve[-1][0]:g} on {study.name}: attack success {first.attack_success:.2f} to "
        f"{last.attack_success:.2f}, utility {first.utility:.2f} to {last.utility:.2f}",
        least((is_below(_attack(last), _attack(first)), is_below(after, useful))),
    )


def _weak_vector(studies: Sequence[Study]) -> Finding:
    parts, verdicts = [], []
    for study in studies:
        original, removal, align = (
            _attack(pooled(study.rows()[label])) for label in ("original", "HDR, trimmed", "Safe-Align")
        )
        parts.append(f"{study.name} {original.value - removal.value:+.2f} and {original.value - align.value:+.2f}")
        if study.name.startswith("fine-tuned"):
            verdicts.append(is_below(removal, align))
    return Finding(
        "on fine-tuned models the vector alone does little, the weights' stage most of the work",
        f"attack success lowered by HDR and by Safe-Align: {'; '.join(parts)}",
        least(verdicts),
    )
