"""The demo: organisms lose their safety, `restore` gives it back, and a random vector does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.algebra.opening import open_adapter, open_checkpoint
from alignmend.algebra.values import Checkpoint
from alignmend.errors import OutputError
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.metrics import Rate
from alignmend.evaluation.results import (
    SweepPoint,
    judge_block,
    results_document,
    suite_blocks,
    write_results,
)
from alignmend.evaluation.run import Evaluation, evaluate_folder, grouped_metrics
from alignmend.execution.save import save
from alignmend.methods.registry import get_method
from alignmend.methods.resta import resta
from alignmend.organisms import Family, build_family, shipped_family
from alignmend.organisms.members import Size
from alignmend.report.runs import RECORDS
from alignmend.restore.control import write_control
from alignmend.restore.finishing import REPORT
from alignmend.restore.places import RESULTS
from alignmend.restore.proof import FINETUNED, RESTORED
from alignmend.restore.request import Limits, Prompts, Request
from alignmend.restore.steps import Unwatched
from alignmend.restore.suites import split_suites
from alignmend.restore.workflow import Ended, restore

Progress = Callable[[str, int, int], None]
VARIANTS = {"full": ("finetuned", "restored"), "lora": ("finetuned-lora", "restored-lora")}
"""Variant -> the member that lost its safety, and what it is called afterwards."""
LIMITS = Limits(over_refusal=0.15)
"""The aligned organism refuses a fifth of the borderline requests itself: to be as safe, a model must refuse some."""
SHOWN = ("base", "aligned", "unaligned")
TRIALS = 12
MAX_NEW_TOKENS = 48
CONTROL_COEFFICIENTS = (0.5, 1.0)
CONTROL_SEED = 0


@dataclass(frozen=True)
class Demo:
    """What the demo found and where it put it."""

    results: dict[str, Any]
    lines: tuple[str, ...]
    restored: bool
    """Whether every variant was restored within the limits."""


def run_demo(out: Path, *, family: Family | None = None, progress: Progress | None = None) -> Demo:
    """Restore a family's fine-tunes below `out`, measure what stands beside them, and report.

    Without a `family` it takes the one that ships with the package.
    """
    _make(out)
    report = progress or _silent
    family = family or shipped_family(out / "organisms")
    ended = {variant: _restored(out, family, variant, report) for variant in VARIANTS}
    beside = _Beside(out, family, report)
    shown = {name: beside.shown(name, TransformersBackend.from_folder(family.members[name])) for name in SHOWN}
    control = [*beside.controls(ended)]
    results = _document(family, ended, shown, control, beside)
    write_results(out / RESULTS, results)
    _report(out, ended)
    return Demo(results, _lines(out, ended, control), all(one.how == "restored" for one in ended.values()))


def train_family(out: Path, *, seed: int, size: Size = "base", progress: Progress | None = None) -> Family:
    """Train the family of `seed` and `size` below `out`, or find it there."""
    report = progress or _silent

    def step(what: str, share: float) -> None:
        report(f"train {what}", round(1000 * share), 1000)

    return build_family(out / f"organisms-{size}-{seed}", size=size, seed=seed, progress=step)


def _silent(what: str, done: int, total: int) -> None:
    pass


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error.strerror})", advice="choose another folder") from None


def _request(out: Path, family: Family, variant: str) -> Request:
    finetuned, restored = VARIANTS[variant]
    suites = tuple(str(path) for path in family.suites.values())
    return Request(
        finetuned=str(family.members[finetuned]),
        out=out / restored,
        aligned=str(family.members["aligned"]),
        unaligned=str(family.members["unaligned"]),
        prompts=Prompts(suites=suites, judge="organism", max_new_tokens=MAX_NEW_TOKENS),
        limits=LIMITS,
        trials=TRIALS,
        overwrite=True,
    )


def _restored(out: Path, family: Family, variant: str, progress: Progress) -> Ended:
    def told(what: str, done: int, total: int) -> None:
        progress(f"{variant}: {what}", done, total)

    return restore(_request(out, family, variant), Unwatched(told))


class _Beside:
    """Measures what stands beside the restored models, on the same report prompts."""

    def __init__(self, out: Path, family: Family, progress: Progress) -> None:
        self.out, self.family, self.progress = out, family, progress
        self.judge = get_judge("organism")
        self.split = split_suites(_request(out, family, "full").prompts, seed=0)
        shutil.rmtree(out / RECORDS, ignore_errors=True)

    def shown(self, name: str, backend: TransformersBackend) -> Evaluation:
        """One model, with its records."""
        backend = TransformersBackend(backend.model, backend.tokenizer, name=name, max_new_tokens=MAX_NEW_TOKENS)
        return evaluate_folder(
            backend,
            self.split.report,
            self.judge,
            self.out / RECORDS / name,
            progress=lambda done, total: self.progress(f"measure {name}", done, total),
        )

    def controls(self, ended: Mapping[str, Ended]) -> list[SweepPoint]:
        """A random vector of the safety vector's norms, in its place."""
        aligned, unaligned = (open_checkpoint(self.family.members[name]) for name in ("aligned", "unaligned"))
        random = write_control(aligned, unaligned, self.out / "control" / "random", seed=CONTROL_SEED)
        points = []
        for variant in ended:
            finetuned = _finetuned(self.family, variant, aligned)
            for coefficient in CONTROL_COEFFICIENTS:
                moved = resta(finetuned=finetuned, aligned=aligned, unaligned=random, coefficient=coefficient)
                folder = save(moved, self.out / "control" / "moved", overwrite=True, hash=False).path
                name = _control_name(variant) if coefficient == CONTROL_COEFFICIENTS[-1] else "other-control"
                found = self.shown(name, TransformersBackend.from_folder(folder))
                points.append(SweepPoint(variant, coefficient, "report", found.metrics))
        shutil.rmtree(self.out / "control", ignore_errors=True)
        shutil.rmtree(self.out / RECORDS / "other-control", ignore_errors=True)
        return points


def _control_name(variant: str) -> str:
    return "control" if variant == "full" else f"control-{variant}"


def _finetuned(family: Family, variant: str, aligned: Checkpoint) -> Checkpoint:
    folder = family.members[VARIANTS[variant][0]]
    return aligned + open_adapter(folder, base=aligned) if variant == "lora" else open_checkpoint(folder)


def _document(
    family: Family,
    ended: Mapping[str, Ended],
    shown: Mapping[str, Evaluation],
    control: Sequence[SweepPoint],
    beside: _Beside,
) -> dict[str, Any]:
    """The whole of `results.json`: both restores, and what stands beside them."""
    full = ended["full"].document or {}
    method = get_method("resta")
    models: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for variant, names in VARIANTS.items():
        document = ended[variant].document or {"models": {}}
        for name, role in zip(names, (FINETUNED, RESTORED), strict=True):
            if role in document["models"]:
                models[name] = _rates(document["models"][role])
                groups[name] = document.get("groups", {}).get(role, {})
    for point in control:
        models[_control_name(point.variant)] = point.metrics
    for name, evaluation in shown.items():
        models[name], groups[name] = evaluation.metrics, grouped_metrics(evaluation, beside.split.report)
    made = results_document(
        models,
        judge=judge_block(beside.judge),
        suites=suite_blocks(beside.split.report),
        groups=groups,
        control=control,
        tuned_on=full.get("tuned_on", ()),
        search=full.get("search"),
        proof=full.get("proof"),
        method={
            "name": "RESTA and Harm Direction Removal",
            "equation": "restored = finetuned + coefficient * (aligned - unaligned)",
            "paper": f"{method.title}, arXiv {method.arxiv}",
        },
        provenance={"organisms": {"size": family.size, "seed": family.seed}},
    )
    return {**made, "paired": full["paired"]} if "paired" in full else made


def _rates(written: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Rate]]:
    """Rates of a results document as numbers again; what was pooled is pooled anew."""
    return {
        suite: {name: Rate(**rate) for name, rate in metrics.items()}
        for suite, metrics in written.items()
        if suite != "all"
    }


def _report(out: Path, ended: Mapping[str, Ended]) -> None:
    """One page; an organism's answers are made of harmless stand-ins, so it may hold them."""
    from alignmend.report.write import write_report

    restored = out / VARIANTS["full"][1]
    first = [restored] if ended["full"].how == "restored" else []
    beside = [out / RECORDS / name for name in ("control", "aligned")]
    write_report([*first, *beside], out / REPORT, show_text=True, overwrite=True)


def _lines(out: Path, ended: Mapping[str, Ended], control: Sequence[SweepPoint]) -> tuple[str, ...]:
    """What to tell a person after the table."""
    lines = []
    for variant, one in ended.items():
        name = VARIANTS[variant][1]
        if one.how != "restored" or one.document is None:
            lines.append(f"{name}: {one.how}")
            continue
        chosen = one.document["method"]["name"]
        lines.append(f"{name}: {chosen}, chosen on the search prompts; measured above on others")
        least = min(each.metrics["harmful"]["attack_success_rate"].value for each in control if each.variant == variant)
        lines.append(f"  control: a random vector of the same norms leaves attack success at {least:.0%}")
    return (*lines, f"report {out / REPORT}, numbers {out / RESULTS}, checkpoints in {out}")
