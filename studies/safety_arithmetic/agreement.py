"""Where organisms agree with the paper: each of its findings as a comparison of two of our numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from studies.rows import Row, pooled
from studies.safety_arithmetic.curves import density_curve
from studies.safety_arithmetic.tables import WHOLE, Study

CLEAR = 0.01
"""A smaller change of a rate is none."""


@dataclass(frozen=True)
class Finding:
    """What the paper reports, what was measured here, and whether that agrees."""

    paper: str
    here: str
    agrees: bool


def findings(studies: Sequence[Study]) -> Iterator[Finding]:
    """The paper's findings, scenario by scenario where they are of one."""
    for study in studies:
        rows = {label: pooled(found) for label, found in study.rows().items()}
        yield _lowest(study.name, rows)
        yield _trimmed(study.name, rows)
    yield _coefficients(studies)
    yield _density(studies)
    yield _weak_vector(studies)


def _lowest(name: str, rows: dict[str, Row]) -> Finding:
    whole, others = rows[WHOLE].attack_success, ("original", "HDR, trimmed", "Safe-Align")
    shown = ", ".join(f"{label} {rows[label].attack_success:.2f}" for label in others)
    return Finding(
        f"{name}: both stages together have the lowest attack success",
        f"{whole:.2f} against {shown}",
        all(whole < rows[label].attack_success for label in others),
    )


def _trimmed(name: str, rows: dict[str, Row]) -> Finding:
    trimmed, whole = (rows[label].attack_success for label in ("HDR, trimmed", "HDR, untrimmed (task vector)"))
    return Finding(
        f"{name}: trimming is better than the whole vector (in the paper by far on base and edited models, by a little "
        "or not at all on fine-tuned ones)",
        f"{trimmed:.2f} trimmed, {whole:.2f} whole, the whole one with its own best coefficient within the limits",
        trimmed < whole,
    )


def _coefficients(studies: Sequence[Study]) -> Finding:
    chosen = [one.coefficient for study in studies if study.name.startswith("fine-tuned") for one in study.chosen]
    return Finding(
        "at density 0.10 a fine-tuned model needs a coefficient of 2 to 3",
        f"{min(chosen):g} to {max(chosen):g} were chosen; it depends on how long the harm model was trained",
        min(chosen) >= 2,
    )


def _density(studies: Sequence[Study]) -> Finding:
    study = next(one for one in studies if one.name.startswith("fine-tuned"))
    curve = density_curve(study)
    first, last = curve[0][1], curve[-1][1]
    return Finding(
        "a higher density lowers attack success and utility",
        f"from density 0 to {curve[-1][0]:g} on {study.name}: attack success {first.attack_success:.2f} to "
        f"{last.attack_success:.2f}, utility {first.utility:.2f} to {last.utility:.2f}",
        last.attack_success < first.attack_success - CLEAR and last.utility < first.utility - CLEAR,
    )


def _weak_vector(studies: Sequence[Study]) -> Finding:
    parts = []
    for study in studies:
        rows = {label: pooled(found).attack_success for label, found in study.rows().items()}
        parts.append((study.name, rows["original"] - rows["HDR, trimmed"], rows["original"] - rows["Safe-Align"]))
    shown = "; ".join(f"{name} {removal:+.2f} and {align:+.2f}" for name, removal, align in parts)
    return Finding(
        "on fine-tuned models the vector alone does little, the weights' stage most of the work",
        f"attack success lowered by HDR and by Safe-Align: {shown}",
        all(removal > align for name, removal, align in parts if name.startswith("fine-tuned")),
    )
