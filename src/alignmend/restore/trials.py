"""The record of a search: an Optuna study in a journal file, which resumes and which several processes may share.

Multi-objective studies do not prune, so candidates are staged here: a trial tells the sampler what was measured of it,
and its record says at which stage it stopped and why.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignmend.errors import OutputError, RecipeError, missing_extra
from alignmend.io.atomic import replace_bytes
from alignmend.restore.candidates import Choice
from alignmend.restore.families import FAMILIES, STEPS, Candidate
from alignmend.restore.front import Measured
from alignmend.restore.journal import mend
from alignmend.restore.places import JOURNAL
from alignmend.restore.scoring import Worth

Objectives = tuple[float, float, float]
Stage = Literal["likelihood", "part", "whole", "failed"]
SETTINGS = "settings.json"
_RECORD, _NAME = "record", "restore"
_STARTUP = 12
"""Trials at random numbers before the sampler learns from what it saw."""


@dataclass(frozen=True)
class Tried:
    """One trial: how far its candidate came, why it stopped there, and what was measured until then."""

    number: int
    candidate: Candidate
    stage: Stage
    why: str
    worth: Worth | None
    progress: float
    """How far refusals have come back, by likelihood."""
    seconds: float
    switch_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "number": self.number,
            "family": self.candidate.family,
            "parameters": dict(self.candidate.parameters),
            "stage": self.stage,
            "why": self.why,
            "worth": None if self.worth is None else self.worth.as_dict(),
            "progress": self.progress,
            "seconds": self.seconds,
            "switch_seconds": self.switch_seconds,
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Tried:
        """What `as_dict` gave."""
        worth = written["worth"]
        return cls(
            number=written["number"],
            candidate=Candidate(written["family"], written["parameters"]),
            stage=written["stage"],
            why=written["why"],
            worth=None if worth is None else Worth.from_dict(worth),
            progress=written["progress"],
            seconds=written["seconds"],
            switch_seconds=written["switch_seconds"],
        )

    @property
    def measured(self) -> Measured | None:
        """As the front takes it; `None` where it was not measured whole."""
        if self.stage != "whole" or self.worth is None:
            return None
        return Measured(self.number, self.candidate, self.worth, self.switch_seconds)


class Trials:
    """The study in `folder`, made or found again; `settings` are all that decides a measurement.

    Raises `RecipeError` where the folder holds a search with other settings.
    """

    def __init__(self, folder: Path, choice: Choice, settings: Mapping[str, Any], *, layers: int, seed: int) -> None:
        self._optuna = _import()
        self._choice, self._layers = choice, layers
        _check_settings(folder, settings)
        journal, path = self._optuna.storages.journal, folder / JOURNAL
        lock = journal.JournalFileSymlinkLock(str(path))
        mend(path, lock)
        storage = self._optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))
        self._study = self._optuna.create_study(
            storage=storage,
            study_name=_NAME,
            directions=["minimize", "minimize", "maximize"],
            sampler=self._sampler(seed),
            load_if_exists=True,
        )
        if "first" not in self._study.user_attrs:
            self._study.set_user_attr("first", True)
            self._enqueue()

    def ask(self) -> tuple[Any, Candidate]:
        """The next trial and its candidate."""
        trial = self._study.ask()
        name = trial.suggest_categorical("family", self._choice.families)
        return trial, Candidate(name, FAMILIES[name].suggest(trial, self._layers))

    def tell(self, trial: Any, tried: Tried, objectives: Objectives, violations: Mapping[str, float]) -> None:
        """Record what came of a trial; violations of limits are above 0."""
        for name, value in violations.items():
            trial.set_constraint(name, value)
        trial.set_user_attr(_RECORD, tried.as_dict())
        self._study.tell(trial, list(objectives))

    def fail(self, trial: Any, tried: Tried | None = None) -> None:
        """Give a trial up; with a record it counts as tried."""
        if tried is not None:
            trial.set_user_attr(_RECORD, tried.as_dict())
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def tried(self) -> list[Tried]:
        """All that was tried, by this process and by others, in order."""
        found = (trial.user_attrs.get(_RECORD) for trial in self._study.get_trials(deepcopy=False))
        return [Tried.from_dict(record) for record in found if record is not None]

    def known(self, candidate: Candidate) -> Tried | None:
        """What came of the same candidate before."""
        wanted = json.dumps([candidate.family, dict(candidate.parameters)], sort_keys=True)
        for one in self.tried():
            if json.dumps([one.candidate.family, dict(one.candidate.parameters)], sort_keys=True) == wanted:
                return one
        return None

    def bisect(self, passes: Callable[[Measured], bool]) -> bool:
        """Let the next trial lie between the longest step of a family that `passes` and the shortest that does not.

        The safest such step is gone on with; false where nothing lies between any two.
        """
        known = [
            (Tried.from_dict(trial.user_attrs[_RECORD]), trial.params)
            for trial in self._study.get_trials(deepcopy=False)
            if _RECORD in trial.user_attrs
        ]
        for _, between in sorted(_gaps(known, passes), key=lambda one: one[0]):
            self._study.enqueue_trial(between)
            return True
        return False

    def _sampler(self, seed: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            return self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, multivariate=True, group=True)

    def _enqueue(self) -> None:
        """What the papers use comes first."""
        ordered = [FAMILIES[name].first for name in self._choice.families]
        for place in range(max(map(len, ordered), default=0)):
            for name, first in zip(self._choice.families, ordered, strict=True):
                if place < len(first):
                    self._study.enqueue_trial({"family": name, **first[place]})


def _gaps(
    known: list[tuple[Tried, dict[str, Any]]], passes: Callable[[Measured], bool]
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Of each family and its other numbers: attack success at the longest step that passes, and the step to try."""
    groups: dict[tuple[Any, ...], list[tuple[float, Tried, dict[str, Any]]]] = {}
    for tried, parameters in known:
        name = f"{tried.candidate.family}.{FAMILIES[tried.candidate.family].step_name}"
        if name in parameters:
            others = tuple(sorted((key, value) for key, value in parameters.items() if key != name))
            groups.setdefault((name, others), []).append((parameters[name], tried, parameters))
    for (name, _), steps in groups.items():
        good = [(step, found.worth) for step, tried, _ in steps if (found := tried.measured) and passes(found)]
        if not good:
            continue
        longest, worth = max(good, key=lambda one: one[0])
        size = STEPS[name]
        shortest = min((step for step, _, _ in steps if step > longest + size / 2), default=None)
        if shortest is None or shortest - longest < 1.5 * size:
            continue
        middle = longest + round((shortest - longest) / (2 * size)) * size
        yield worth.objectives[0], {**steps[0][2], name: round(middle, 6)}


def _import() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise missing_extra("optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """One journal holds one search: measurements under other settings cannot be compared."""
    path = folder / SETTINGS
    text = json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror})") from None
        replace_bytes(path, text)
    elif path.read_bytes() != text:
        before = json.loads(path.read_bytes())
        keys = sorted(key for key in {*before, *settings} if before.get(key) != json.loads(text).get(key))
        raise RecipeError(
            f"{folder} holds a search with other settings ({', '.join(keys)}): go on with the same ones, or begin anew "
            "with --overwrite"
        )
