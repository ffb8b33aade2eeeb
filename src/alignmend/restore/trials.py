"""The record of a search: an Optuna study in a journal file, which resumes and which several processes may share.

Multi-objective studies do not prune, so candidates are staged here: a trial tells the sampler what was measured of it,
and its record says at which stage it stopped and why.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignmend.errors import OutputError, RecipeError, missing_extra
from alignmend.io.atomic import replace_bytes
from alignmend.restore.candidates import Choice
from alignmend.restore.families import FAMILIES, Candidate
from alignmend.restore.family_numbers import Space
from alignmend.restore.front import Aim, Measured
from alignmend.restore.journal import mend
from alignmend.restore.places import JOURNAL
from alignmend.restore.planning import FAMILY, Placed, firsts, planned
from alignmend.restore.scoring import Worth
from alignmend.restore.screening import Prediction, Seen

Stage = Literal["likelihood", "part", "whole", "failed"]
SETTINGS = "settings.json"
SAME = "the same as candidate"
_RECORD, _OWNER, _NAME = "record", "owner", "restore"
_STARTUP = 3
"""Trials before the sampler learns: fewer than the first candidates of any two families."""


@dataclass(frozen=True)
class Tried:
    """One trial: how far its candidate came, why it stopped there, and what was measured until then."""

    number: int
    candidate: Candidate
    stage: Stage
    why: str
    worth: Worth | None
    progress: float
    """How far refusing has come back at the first tokens."""
    seconds: float
    switch_seconds: float
    predicted: Prediction | None = None
    """By the first stage."""
    outcomes: str = ""
    """What became of each search prompt, as `alignmend.restore.outcomes` writes it; empty where none was asked."""
    advice: str = ""
    """The end of `why` that says what to do, of one that failed."""

    @property
    def problem(self) -> str:
        """`why` without its advice."""
        return self.why.removesuffix(self.advice).rstrip(":; ") if self.advice else self.why

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
            "predicted": None if self.predicted is None else self.predicted.as_dict(),
            "seconds": self.seconds,
            "switch_seconds": self.switch_seconds,
            "outcomes": self.outcomes,
            **({"advice": self.advice} if self.advice else {}),
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Tried:
        """What `as_dict` gave."""
        worth, predicted = written["worth"], written["predicted"]
        return cls(
            number=written["number"],
            candidate=Candidate(written["family"], written["parameters"]),
            stage=written["stage"],
            why=written["why"],
            worth=None if worth is None else Worth.from_dict(worth),
            progress=written["progress"],
            seconds=written["seconds"],
            switch_seconds=written["switch_seconds"],
            predicted=None if predicted is None else Prediction(**predicted),
            outcomes=written["outcomes"],
            advice=written.get("advice", ""),
        )

    @property
    def repeats(self) -> bool:
        """Whether it was drawn before: it cost nothing, and is no candidate of its own."""
        return self.why.startswith(SAME)

    @property
    def measured(self) -> Measured | None:
        """As the front takes it; `None` where it was not measured whole."""
        if self.stage != "whole" or self.worth is None:
            return None
        return Measured(self.number, self.candidate, self.worth, self.switch_seconds)

    @property
    def seen(self) -> Seen | None:
        """What was predicted beside what was measured; `None` where it was not measured whole."""
        if self.measured is None or self.worth is None or self.predicted is None:
            return None
        predicted, (attack, refusal, _) = self.predicted, self.worth.objectives
        return Seen((predicted.attack_success, predicted.over_refusal), (attack, refusal))


def enough(tried: Sequence[Tried], wanted: int) -> bool:
    """Whether so many candidates were tried; those that were drawn again do not count, unless they are as many."""
    own = sum(not one.repeats for one in tried)
    return own >= wanted or len(tried) - own >= wanted


class Trials:
    """The study in `folder`, made or found again; `settings` are all that decides a measurement.

    What comes next depends on the seed and on what was tried, not on the process that asks: a search that was killed
    goes on as it would have gone on. For that the process that owns it (`owns`, all but those that join) takes over
    trials that nobody measures any more. Raises `RecipeError` where the folder holds a search with other settings.
    """

    def __init__(
        self, folder: Path, choice: Choice, settings: Mapping[str, Any], *, layers: int, seed: int, owns: bool = True
    ) -> None:
        self._optuna = _import()
        self._choice, self._seed = choice, seed
        self._space = Space(layers, frozenset(choice.families))
        _check_settings(folder, settings)
        journal, path = self._optuna.storages.journal, folder / JOURNAL
        lock = journal.JournalFileSymlinkLock(str(path))
        mend(path, lock)
        storage = self._optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))
        self._study = self._optuna.create_study(
            storage=storage,
            study_name=_NAME,
            directions=["minimize", "minimize", "maximize"],
            load_if_exists=True,
        )
        self._left: list[int] = self._left_behind() if owns else []

    def ask(self, aim: Aim) -> tuple[Any, Candidate]:
        """The next trial and its candidate; one that was left in the middle comes before others."""
        from alignmend.restore.sampler import keyed_sampler

        self._study.sampler = keyed_sampler(f"{self._seed} {len(self.tried())}", startup=_STARTUP)
        trial = self._optuna.trial.Trial(self._study, self._left.pop(0)) if self._left else self._planned(aim)
        trial.set_user_attr(_OWNER, _this_process())
        name = trial.suggest_categorical(FAMILY, self._choice.families)
        return trial, Candidate(name, FAMILIES[name].suggest(trial, self._space))

    def _planned(self, aim: Aim) -> Any:
        """By the plan, which stands in the journal before its trial begins: a process that ends between is followed."""
        every = self._study.get_trials(deepcopy=False)
        if not any(one.state == self._optuna.trial.TrialState.WAITING for one in every):
            placed = [Placed(one.params, _record_of(one)) for one in every]
            self._study.enqueue_trial(dict(planned(placed, self._choice.families, aim)))
        return self._study.ask()

    def _left_behind(self) -> list[int]:
        """Trials in the middle of which a process ended. What was measured before its end is told now."""
        running = self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,))
        left = [one for one in running if not _is_alive(one.user_attrs.get(_OWNER))]
        for one in left:
            if _RECORD in one.user_attrs:
                self._finish(one.number, Tried.from_dict(one.user_attrs[_RECORD]))
        return [one._trial_id for one in left if _RECORD not in one.user_attrs]

    def tell(self, trial: Any, tried: Tried, violations: Mapping[str, float]) -> None:
        """Record what came of a trial; violations of limits are above 0. Without rates it failed."""
        for name, value in violations.items():
            trial.set_constraint(name, value)
        trial.set_user_attr(_RECORD, tried.as_dict())
        self._finish(trial.number, tried)

    def _finish(self, number: int, tried: Tried) -> None:
        if tried.worth is None:
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, list(tried.worth.objectives))

    def put_back(self, trial: Any) -> None:
        """A trial that was not measured is the next one to be measured."""
        self._left.insert(0, trial._trial_id)

    def tried(self) -> list[Tried]:
        """All that was tried, by this process and by others, in order."""
        found = (_record_of(trial) for trial in self._study.get_trials(deepcopy=False))
        return [one for one in found if one is not None]

    def known(self, candidate: Candidate) -> Tried | None:
        """What came of the same candidate before."""
        wanted = json.dumps([candidate.family, dict(candidate.parameters)], sort_keys=True)
        for one in self.tried():
            if json.dumps([one.candidate.family, dict(one.candidate.parameters)], sort_keys=True) == wanted:
                return one
        return None


def _record_of(trial: Any) -> Tried | None:
    record = trial.user_attrs.get(_RECORD)
    return None if record is None else Tried.from_dict(record)


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _is_alive(owner: str | None) -> bool:
    """Whether the process that owns a trial may still measure it; of another machine nothing is known."""
    if owner is None:
        return False
    host, _, process = owner.rpartition(" ")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(process) != os.getpid()


def first_candidate(choice: Choice, layers: int) -> Candidate:
    """The first that a search tries."""
    name, given = next((name, found[0]) for name in choice.families if (found := firsts(name, choice.families)))
    trial = _import().trial.FixedTrial(dict(given))
    return Candidate(name, FAMILIES[name].suggest(trial, Space(layers, frozenset(choice.families))))


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
            f"{folder} holds a search with other settings ({', '.join(keys)})",
            advice="go on with the same ones, or begin anew with --overwrite",
        )
