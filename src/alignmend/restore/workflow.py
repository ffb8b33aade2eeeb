"""`alignmend restore`: from a fine-tuned model to a safe one, with the proof."""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alignmend.errors import AlignmendError, FileFormatError, MismatchError, NonFiniteError, RecipeError
from alignmend.evaluation.answer_notes import answer_notes
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import Judge, JudgeOptions, get_judge
from alignmend.evaluation.results import judge_block, read_results, results_document, suite_blocks
from alignmend.execution.in_place import InPlace
from alignmend.execution.moment_checks import few_texts
from alignmend.execution.rounding import Rounding
from alignmend.io.identity import sha256_of
from alignmend.io.moments import open_moments_file
from alignmend.io.published import Publisher
from alignmend.recipes.build import beside, build, open_models
from alignmend.restore.baselines import check_parent, check_sense, check_tried, is_safe
from alignmend.restore.calibrating import Texts, existing, gather, give_up
from alignmend.restore.candidates import CALIBRATION, Choice, Operands, choose_families, recipe_of
from alignmend.restore.document import Searched
from alignmend.restore.families import Candidate
from alignmend.restore.front import Measured, pick
from alignmend.restore.making import make_missing, make_moments, must_train, operands_of, unmade
from alignmend.restore.measuring import Anchor, Baseline, Measuring, Pair, VectorLook, affordable, sound_answers
from alignmend.restore.opening import Opened, load, open_all
from alignmend.restore.places import (
    JOURNAL,
    RESULTS,
    Places,
    check_free,
    check_same,
    clear,
    has_private,
    held,
    is_held,
    publish,
    remove_private,
)
from alignmend.restore.planning import PLAN
from alignmend.restore.preflight import preflight
from alignmend.restore.preflight_memory import available_memory, has_room_in_float32, room_to_hold
from alignmend.restore.proof import FINETUNED, RESTORED, Asked, Proof, Side, groups_of_sides, metrics_of_sides, prove
from alignmend.restore.request import Request
from alignmend.restore.rounding import RoundingEffect, measure_rounding
from alignmend.restore.search import Search
from alignmend.restore.slopes import PatchSlopes
from alignmend.restore.steps import Steps
from alignmend.restore.suites import split_suites
from alignmend.restore.trials import Trials, first_candidate
from alignmend.restore.writing import write_chosen

Ending = Literal["restored", "already safe", "nothing qualifies", "not proven", "checked", "stopped"]


@dataclass(frozen=True)
class Ended:
    """How a restore ended; `document` is `results.json` where there is one."""

    how: Ending
    out: Path
    document: Mapping[str, Any] | None = None
    searched: Searched | None = None
    proof: Proof | None = None


def restore(request: Request, steps: Steps, *, dry_run: bool = False) -> Ended:
    """Preflight, search, choose, write, prove. `request.out` appears whole at the end, or not at all.

    A killed restore goes on with `request.resume`. Raises `RecipeError`, `MismatchError`, `OutputError`,
    `FileFormatError` for what is wrong before and on the way.
    """
    places = Places(request.out)
    if request.resume and places.finished:
        check_same(places, request.finetuned)
        clear(places, keep_private=request.keep_private)
        return Ended("restored", places.out, read_results(places.out / RESULTS))
    found = preflight(request)
    choice = None if found.aligned is None else choose_families(request, is_adapter=found.is_adapter)
    steps.checked(found, choice)
    if found.problems:
        raise RecipeError("; ".join(f"{one.check}: {one.found}: {one.remedy}" for one in found.problems))
    if dry_run:
        return Ended("checked", places.out)
    if choice is None or found.aligned is None:
        raise TypeError("choice is None or found.aligned is None")
    check_free(places, resume=request.resume, overwrite=request.overwrite)
    with held(places, afresh=request.overwrite and not request.resume), _telling_of_private(places):
        ended = _Restore(replace(request, aligned=found.aligned), choice, places, steps).run()
    if ended.how in ("nothing qualifies", "not proven") and not request.keep_private:
        remove_private(places)  # the search stays, for other limits
    elif ended.how in ("restored", "already safe"):
        clear(places, keep_private=request.keep_private)
    return ended


@contextmanager
def _telling_of_private(places: Places) -> Iterator[None]:
    """An error that leaves trained parts behind says where."""
    try:
        yield
    except AlignmendError as error:
        if not has_private(places):
            raise
        left = places.private
        stay = (
            f"trained parts stay in {left} for --resume; alignmend private clean {shlex.quote(str(left))} removes them"
        )
        error.add(f" ({stay})")
        raise


def join(request: Request, steps: Steps) -> int | None:
    """Help a restore that is searching, from another process or machine; returns the trials of all together.

    `None` where that restore ended meanwhile. Raises `RecipeError` where none is searching: its parts must be made
    before others can use them.
    """
    places = Places(request.out)
    if not ((places.work / JOURNAL).is_file() and is_held(places)):
        raise RecipeError(
            f"{places.work} holds no search to join", advice="start one without --join, and join it when it searches"
        )
    found = preflight(replace(request, resume=True))
    if found.problems or found.aligned is None:
        raise RecipeError("; ".join(f"{one.check}: {one.found}: {one.remedy}" for one in found.problems))
    choice = choose_families(request, is_adapter=found.is_adapter)
    try:
        return _Restore(replace(request, aligned=found.aligned), choice, places, steps).help()
    except FileNotFoundError:
        if (places.work / JOURNAL).exists():
            raise
        return None


class _Restore:
    """One restore, after its preflight."""

    def __init__(self, request: Request, choice: Choice, places: Places, steps: Steps) -> None:
        self.request, self.choice, self.places, self.steps = request, choice, places, steps
        self.began = time.monotonic()
        if request.aligned is None:
            raise TypeError("request.aligned is None")
        self.opened: Opened = open_all(request.finetuned, request.aligned, request.unaligned)
        self.split = split_suites(request.prompts, request.seed)
        self.judge: Judge = get_judge(request.prompts.judge, _judge_options(request))
        self.task = _task_pairs(request.task_data)
        self.texts: Texts | None = None

    def help(self) -> int:
        """Search, and nothing else."""
        if self.choice.needs("moments") and (texts := existing(self.places.private)) is not None:
            self._take(texts)
        if missing := unmade(self._given(), self.choice, self.request, self.places.private):
            raise RecipeError(
                f"the other restore still makes {' and '.join(missing)}", advice="join it when it searches"
            )
        measuring = self._measuring()
        base, operands = self._baseline(measuring), self._operands()
        self._settle_rounding(measuring, operands)
        return len(self._search(measuring, base, operands, owns=False).tried)

    def _baseline(self, measuring: Measuring) -> Baseline:
        return measuring.baseline(self.opened.aligned, self.task[::2], self._told("measure the fine-tune"))

    def _given(self) -> Operands:
        return replace(operands_of(self.opened), texts={} if self.texts is None else self.texts.files)

    def _operands(self) -> Operands:
        place, told = self.places.private, self._within_budget
        try:
            operands = make_moments(self._given(), self.choice, self.request, place, told)
            if "moments" in operands.parts:
                for note in few_texts(open_moments_file(operands.parts["moments"].path).record):
                    self.steps.noted(note)
        except (FileFormatError, MismatchError, NonFiniteError) as error:  # inputs that cannot be looked at
            self._without_moments(give_up(place, str(error)))
            operands = self._given()
        return make_missing(operands, self.choice, self.request, place, told)

    def _calibrate(self, measuring: Measuring) -> None:
        """The texts that input moments are taken over, where a family needs moments and there are enough."""
        if not self.choice.needs("moments"):
            return
        aligned, place = self.opened.aligned, self.places.private
        self._take(gather(measuring, aligned, self.request, place, self._within_budget))

    def _take(self, texts: Texts) -> None:
        self.texts = texts
        if texts.why_not:
            self._without_moments(texts)
        else:
            self.steps.noted(f"input moments are taken over {texts.told} texts that neither choose nor prove")
            self.steps.noted(f"other prompts {self.split.told}; none of them is used twice")

    def _without_moments(self, texts: Texts) -> None:
        self.texts = texts
        self.choice = self.choice.without("moments", texts.why_not)
        self.steps.noted(f"nothing is weighed by inputs: {texts.why_not}")

    def _within_budget(self, what: str, done: int, total: int) -> None:
        """Progress of training, which ends with the budget; --resume goes on from its last saved checkpoint."""
        self.steps.progress(what, done, total)
        budget = self.request.budget
        if budget is not None and time.monotonic() - self.began > 60 * budget:
            raise RecipeError(
                f"the budget of {budget:g} minutes is spent before the search, on {what}: --resume with a larger one "
                "goes on; --lora-rank and --max-steps make training shorter"
            )

    def _measuring(self) -> Measuring:
        prompts = self.request.prompts
        loaded = load(self.opened, device=prompts.device, dtype=prompts.dtype)
        place = InPlace(loaded[0], self.opened.finetuned, memory=room_to_hold(available_memory() or 0))
        return Measuring(place, loaded, self.split, self.judge, prompts)

    def run(self) -> Ended:
        measuring = self._measuring()
        base = self._baseline(measuring)  # before hours of training
        self.steps.measured(base, measuring.place.memory, self.request.limits)
        check_sense(base)
        if is_safe(base):
            check_parent(base)
            return Ended("already safe", self.places.out)
        self._calibrate(measuring)
        if must_train(self._given(), self.choice, self.request):
            del measuring  # training needs its room
            gc.collect()
            operands, measuring = self._operands(), self._measuring()
        else:
            operands = self._operands()
        self._settle_rounding(measuring, operands)
        searched = self._search(measuring, base, operands)
        check_tried(searched)
        best = pick(searched.measured, self.request.limits, base.worth)
        chosen = self.steps.choose(searched, best)
        if best is None or chosen is None:
            fails = best is None and not searched.unfinished  # else what was trained and measured is kept, to go on
            return Ended("nothing qualifies" if fails else "stopped", self.places.out, searched=searched)
        searched = replace(searched, rounding=self._rounding_of(measuring, chosen.candidate, operands))
        before, kept, name = self._before(measuring)
        del measuring  # the written checkpoint is loaded beside nothing
        gc.collect()
        told = () if searched.rounding is None else (searched.rounding.told(self._rounding),)
        written = write_chosen(
            chosen, base.worth, operands, self.request, self.places, notes=told, progress=self.steps.progress
        )
        proof = self._proof(written, (before, kept, name))
        return self._finish(searched, chosen, proof)

    def _told(self, what: str) -> Any:
        return lambda done, total: self.steps.progress(what, done, total)

    def _search(self, measuring: Measuring, base: Baseline, operands: Operands, *, owns: bool = True) -> Searched:
        from alignmend.activations.pairs import read_pairs

        began = time.monotonic()
        trials = Trials(
            self.places.work,
            self.choice,
            self._settings(),
            layers=self.opened.layers,
            seed=self.request.seed,
            owns=owns,
        )
        look, slopes = self._look_at_vector(measuring, base, operands), self._slopes(measuring, base, operands)
        for text in (note for found in (look, slopes) if found is not None for note in found.notes):
            self.steps.noted(text)
        pairs = read_pairs(self.request.pairs) if self.request.pairs is not None else ()
        search = Search(measuring, base, trials, operands, self.request, pairs=pairs, deadline=self._deadline())
        search.run(self.steps)
        if changed := measuring.place.differing():  # the proof's first half asks this model
            raise MismatchError(f"after the search {changed[0]} is not the fine-tune's: a file was changed meanwhile")
        took = time.monotonic() - began
        return Searched(
            self.request,
            base,
            self.choice,
            trials.tried(),
            self.split,
            took,
            measuring.place.pass_seconds(),
            vector=look,
            slopes=slopes,
        )

    @property
    def _rounding(self) -> Rounding:
        return "stochastic" if self.request.rounding == "stochastic" else "nearest"

    def _settle_rounding(self, measuring: Measuring, operands: Operands) -> None:
        """Decide how weights are rounded, from the first candidate; the search then has the bytes that are written."""
        request = self.request
        if request.rounding == "auto":
            first = first_candidate(self.choice, self.opened.layers)
            effect = self._rounding_of(measuring, first, operands)
            chosen: Rounding = "nearest" if effect is None else effect.best
            self.request = replace(request, rounding=chosen)
            if effect is not None and chosen != "nearest":
                self.steps.noted(f"{first.label}, {effect.told(chosen)}")
        measuring.place.round_to(request.output_dtype, self._rounding, request.seed)

    def _rounding_of(self, measuring: Measuring, candidate: Candidate, operands: Operands) -> RoundingEffect | None:
        """What rounding loses; `None` where nothing is rounded, or no float32 model can be held to tell."""
        request = self.request
        dtype = request.output_dtype or self.opened.dtype
        if request.as_adapter or dtype not in ("bfloat16", "float16"):
            return None
        wide = self._in_float32(measuring)
        if wide is None:
            return None
        place, backend = wide
        return measure_rounding(
            place,
            backend,
            measuring.first_token_prompts,
            build(recipe_of(candidate, operands, request), Path()).checkpoint,
            dtype=request.output_dtype,
            seed=request.seed,
            roundings=("nearest",) if dtype == "float16" else ("nearest", "stochastic"),
        )

    def _in_float32(self, measuring: Measuring) -> tuple[InPlace, TransformersBackend] | None:
        """The search's model where it computes in float32, else another one where there is room for it."""
        if measuring.in_float32:
            return measuring.place, measuring.backend("rounding")
        if not has_room_in_float32(self.opened.size, self.request.prompts.device):
            return None
        model, tokenizer = load(self.opened, device=self.request.prompts.device, dtype="float32")
        prompts = self.request.prompts
        return InPlace(model, self.opened.finetuned), TransformersBackend(
            model, tokenizer, name="rounding", template=prompts.template, thinking=prompts.thinking
        )

    def _look_at_vector(self, measuring: Measuring, base: Baseline, operands: Operands) -> VectorLook | None:
        """Whether the safety vector holds refusals, where there is one."""
        if "unaligned" not in {**operands.given, **operands.parts}:
            return None
        recipe = recipe_of(Candidate("resta", {"coefficient": 1.0}), operands, self.request)
        unaligned = open_models(recipe, Path())["unaligned"]
        return measuring.look_at_vector(base, unaligned, build(recipe, Path()).checkpoint)

    def _slopes(self, measuring: Measuring, base: Baseline, operands: Operands) -> PatchSlopes | None:
        """How SafePatching's patches move refusals, where they are to be tried."""
        if "safe_patching" not in self.choice.families:
            return None
        moved = []
        for use in ("safety", "over_safety"):
            one = Candidate("safe_patching", {"sets": "none", "density": 1.0, "use": use})
            moved.append(build(recipe_of(one, operands, self.request), Path()).checkpoint)
        return measuring.patch_slopes(base, *moved)

    def _deadline(self) -> float | None:
        """The search ends when what is left of the budget is about what the proof will take."""
        if self.request.budget is None:
            return None
        return self.began + search_seconds(self.request.budget, time.monotonic() - self.began)

    def _settings(self) -> dict[str, Any]:
        """Everything that decides a measurement; two searches that differ in it cannot share a journal."""
        request = self.request
        return {
            "plan": PLAN,
            "models": {role: one.model_dump(exclude_defaults=True) for role, one in self.opened.references.items()},
            "unaligned_kind": request.unaligned_kind,
            "harmful_data": _content(request.harmful_data),
            "pairs": _content(request.pairs),
            "task_data": _content(request.task_data),
            "families": list(self.choice.families),
            "calibration": {kind: sha256_of(path) for kind, path in self._given().texts.items()},
            "prompts": {suite.name: suite.content_hash for suite in self.split.search},
            "judge": judge_block(self.judge),
            "search_tokens": request.prompts.search_tokens,
            "task_tokens": request.prompts.task_tokens,
            "screening": request.screening,
            "output_dtype": request.output_dtype,
            "rounding": request.rounding,
            "template": request.prompts.template,
            "thinking": [request.prompts.thinking.tokens, *request.prompts.thinking.settings()],
            "dtype": request.prompts.dtype,
            "training": request.training.model_dump(),
            "seed": request.seed,
        }

    def _asked(self, what: str) -> Asked:
        return Asked(self.split, self.judge, self.places.work / "records", self._told(what))

    def _before(self, measuring: Measuring) -> tuple[Side, Anchor, str]:
        """The fine-tune on the report prompts, and the texts on which utility is measured there."""
        backend = measuring.backend(FINETUNED, longest=self.request.prompts.max_new_tokens)
        side = self._asked("prove: fine-tuned").side(FINETUNED, backend, ())
        texts = self.task[1::2] if self.task else sound_answers(side.evaluation)
        kept = measuring.anchor(affordable(texts) if len(texts) > 1 else [])
        return replace(side, kept=kept.before), kept, "task data" if self.task else "drift"

    def _proof(self, written: Path, before: tuple[Side, Anchor, str]) -> Proof:
        from alignmend.restore.loading import backend_of

        side, kept, name = before
        prompts = self.request.prompts
        backend = backend_of(
            written,
            name=RESTORED,
            device=prompts.device,
            dtype=prompts.dtype,
            batch_size=prompts.batch_size,
            max_new_tokens=prompts.max_new_tokens,
            template=prompts.template,
            thinking=prompts.thinking,
        )
        asked = self._asked("prove: restored")
        after = asked.side(RESTORED, backend, kept.pairs)
        return prove((side, after), asked, self.request.limits, kept, name)

    def _finish(self, searched: Searched, chosen: Measured, proof: Proof) -> Ended:
        """Put the results beside the checkpoint, and give all of it the output's name."""
        from alignmend.restore.finishing import finish

        document = results_document(
            metrics_of_sides(proof),
            judge=judge_block(self.judge),
            suites=suite_blocks(self.split.report),
            groups=groups_of_sides(proof, self.split.report),
            paired=proof.paired,
            tuned_on=[
                {"suite": suite.name, "use": "search", "sha256": suite.content_hash} for suite in self.split.search
            ]
            + [
                {"suite": f"{CALIBRATION}-{kind}", "use": CALIBRATION, "sha256": sha256_of(path)}
                for kind, path in self._given().texts.items()
            ],
            search=searched.block(chosen),
            proof={"kept": not proof.broken, "broken": list(proof.broken), "safer": proof.safer},
            method={"name": chosen.candidate.label},
            provenance={"seed": self.request.seed, "notes": [*self.split.notes, *_of_answers(proof)]},
        )
        document = _public(document, self.request)
        finish(document, self.places)
        for text in _of_answers(proof):
            self.steps.noted(text)
        if not proof.safer:
            return Ended("not proven", self.places.staged, document, searched, proof)
        publish(self.places, overwrite=self.request.overwrite)
        return Ended("restored", self.places.out, document, searched, proof)


def _public(document: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Results that name no place on this machine, nor the unaligned model."""
    publisher = Publisher(request.out)
    if request.unaligned is not None and "/" in request.unaligned:
        publisher.location(request.unaligned, hidden=True)
    told: dict[str, Any] = publisher.tree(document)
    return told


def _of_answers(proof: Proof) -> list[str]:
    sides = (proof.finetuned.evaluation, proof.restored.evaluation)
    return [note for side in sides for note in answer_notes(side.generations)]


_RESERVED_SHARE = 0.3
"""Of the budget, for writing and for the proof."""


def search_seconds(budget: float, spent: float) -> float:
    """When a search ends that may take `budget` minutes with its proof, `spent` seconds after the beginning."""
    return max(spent, 60 * budget - _RESERVED_SHARE * 60 * budget)


def _content(path: Path | None) -> str | None:
    """A file by what is in it, wherever it is called from."""
    return None if path is None else sha256_of(beside(str(path), Path()))


def _judge_options(request: Request) -> JudgeOptions:
    prompts = request.prompts
    return JudgeOptions(endpoint=prompts.judge_endpoint, model=prompts.judge_model, device=prompts.device)


def _task_pairs(path: Path | None) -> Sequence[Pair]:
    if path is None:
        return ()
    from alignmend.training.pairs import read_pairs

    pairs = read_pairs(beside(str(path), Path()), safe=True).pairs
    single = [(one.context[0].content, one.response) for one in pairs if one.is_single]
    if len(single) < 4:
        raise RecipeError(f"{path}: {len(single)} pairs of one request and one answer; --task-data needs 4 or more")
    return single
