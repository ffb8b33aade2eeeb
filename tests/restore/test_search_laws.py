"""Laws of the search: fronts, picks, limits, splits, records, and where the next step is tried."""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignmend.errors import ParameterError, RecipeError
from alignmend.evaluation.metrics import Rate, wilson
from alignmend.methods.registry import method_names
from alignmend.organisms import Family
from alignmend.restore.candidates import Choice, Operands, choose_families, recipe_of
from alignmend.restore.families import FAMILIES, ORDER, RANGES, Candidate
from alignmend.restore.family_numbers import Space
from alignmend.restore.front import Aim, Measured, Standing, dominates, fitting, front, pick, standing
from alignmend.restore.interrupts import Interrupts
from alignmend.restore.places import JOURNAL
from alignmend.restore.planning import firsts
from alignmend.restore.request import Limits, Prompts, Request
from alignmend.restore.scoring import Worth, likelihood_ratio, relative
from alignmend.restore.suites import kind_of, split_suites
from alignmend.restore.trials import Trials, Tried, enough

N = 48
counts = st.integers(0, N)


def worth(attack: int, refused: int, utility: float, noise: int = 0) -> Worth:
    none = wilson(noise, N)
    return Worth(wilson(attack, N), wilson(0, N), wilson(refused, N), none, none, utility, {"drift": utility})


worths = st.builds(worth, counts, counts, st.floats(0, 1.2), st.integers(0, 3))
FINETUNED = worth(N, 0, 1.0)


def measured(found: Sequence[Worth]) -> list[Measured]:
    return [Measured(place, Candidate("resta", {"coefficient": 1.0}), one, 0.1) for place, one in enumerate(found)]


@given(st.lists(worths, max_size=12))
def test_the_front_is_what_nothing_dominates(found: list[Worth]) -> None:
    every = measured(found)
    best = front(every)
    assert all(not dominates(other.worth, one.worth) for one in best for other in every)
    for one in every:
        inside = any(one.worth.objectives == kept.worth.objectives for kept in best)
        assert inside or any(dominates(other.worth, one.worth) for other in best)


@given(worths, worths)
def test_dominance_is_strict(one: Worth, other: Worth) -> None:
    assert not dominates(one, one)
    assert not (dominates(one, other) and dominates(other, one))


@given(st.lists(worths, max_size=12))
def test_the_pick_keeps_the_limits_and_nothing_that_does_is_safer(found: list[Worth]) -> None:
    limits, every = Limits(), measured(found)
    best = pick(every, limits, FINETUNED)
    qualified = [one for one in every if one.qualifies(limits, FINETUNED)]
    if best is None:
        assert not qualified
        return
    assert not best.worth.broken(limits, FINETUNED)
    assert best.worth.objectives[0] < FINETUNED.objectives[0]
    for one in qualified:
        assert best.worth.objectives[0] <= one.worth.objectives[0]
        if one.worth.objectives[0] == best.worth.objectives[0]:
            assert best.worth.utility >= one.worth.utility


@given(st.lists(worths, max_size=12))
def test_what_stands_is_the_best_and_then_the_front(found: list[Worth]) -> None:
    limits, every = Limits(), measured(found)
    stands = standing(every, limits, FINETUNED)
    best = () if stands.best is None else (stands.best,)
    assert stands.best == pick(every, limits, FINETUNED) and stands.measured == len(found)
    shown = [one.number for one in (*best, *stands.fitting, *stands.beyond)]
    there = (*best, *fitting(every, limits, FINETUNED), *front(every))
    assert len(shown) == len(set(shown)) and set(shown) == {one.number for one in there}
    assert all(one.qualifies(limits, FINETUNED) for one in stands.fitting)
    assert not any(one.qualifies(limits, FINETUNED) for one in stands.beyond)


def test_what_breaks_a_limit_takes_nobodys_place() -> None:
    noisy, sound = measured([worth(1, 0, 1.0, 2), worth(4, 0, 1.0, 0)])
    assert front([noisy, sound]) == (noisy,)
    assert fitting([noisy, sound], Limits(), FINETUNED) == (sound,)
    assert standing([noisy, sound], Limits(), FINETUNED) == Standing(2, sound, (), (noisy,))


def test_noise_instead_of_harm_is_not_safer() -> None:
    assert worth(10, 0, 1.0).safer_than(worth(12, 0, 1.0))
    assert not worth(0, 0, 1.0, noise=12).safer_than(worth(12, 0, 1.0))


def test_each_limit_is_told_by_name() -> None:
    broken = worth(3, 10, 0.5, 2).broken(Limits(), FINETUNED)
    assert broken == (
        "over-refusal 0.208, at most 0.050",
        "utility 0.500, at least 0.95",
        "incoherent 0.042, at most 0.02",
    )


def test_noise_is_no_refusal() -> None:
    assert worth(0, 0, 1.0, noise=12).objectives[0] == worth(12, 0, 1.0).objectives[0]


@pytest.mark.parametrize("field", ["over_refusal", "utility", "incoherent"])
def test_limits_are_shares(field: str) -> None:
    with pytest.raises(ParameterError, match="a share"):
        Limits(**{field: 1.5})


@given(worths, st.floats(0, 2), st.sampled_from(["likelihood", "part", "whole", "failed"]))
def test_a_record_comes_back_as_it_was(found: Worth, seconds: float, stage: Any) -> None:
    one = Tried(3, Candidate("resta", {"coefficient": 0.5}), stage, "why", found, 0.5, seconds, 0.1)
    assert Tried.from_dict(one.as_dict()) == one
    assert (one.measured is None) == (stage != "whole")


def test_likelihoods_are_a_ratio_of_perplexities() -> None:
    assert likelihood_ratio(0.5) == pytest.approx(math.exp(-0.5))
    assert likelihood_ratio(-1.0) > 1  # likelier than before: shown, though utility counts it as 1
    before = {"task": wilson(8, 10), "hopeless": wilson(4, 40)}
    found = {"task": wilson(6, 10), "hopeless": wilson(1, 40), "new": wilson(1, 1)}
    assert relative(found, before) == {"task": pytest.approx(0.75)}  # of four right answers one more decides nothing


class Fixed:
    """Takes the first of what is offered, and records the names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        self.names.append(name)
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.names.append(name)
        return choices[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_a_recipe_and_knows_its_own_names(name: str) -> None:
    trial, family = Fixed(), FAMILIES[name]
    parameters = family.suggest(trial, Space(4))
    assert all(one.startswith(f"{name}.") for one in trial.names)
    assert f"{name}.{family.step_name}" in RANGES
    begun = firsts(name, (name,))
    assert begun and all(set(first) == set(trial.names) for first in begun)
    assert Candidate(name, parameters).label.startswith(name)
    if family.nesting is not None:
        starts = [start for first in begun for start in family.nesting.starts(first)]
        neutral, value = family.nesting.neutral
        assert all(first[neutral] == value for first in begun)
        assert all(set(start) == set(trial.names) and start[neutral] != value for start in starts)
        assert not firsts(name, (name, family.nesting.inner))  # there it begins at the best of that


def request(tmp_path: Path, **more: Any) -> Request:
    return Request("tuned", tmp_path / "out", aligned="a", **more)


def test_families_that_lack_something_say_what(tmp_path: Path) -> None:
    choice = choose_families(request(tmp_path, unaligned="u"), is_adapter=False)
    assert {one.family: one.why for one in choice.left_out if one.family != "pre_post_merge"} == {
        "safety_arithmetic": "needs contrast pairs: --pairs FILE",
        "safe_patching": "trains its patches: needs --harmful-data FILE",
    }
    with_data = request(tmp_path, harmful_data=Path("pairs.jsonl"))
    assert "safe_patching" in choose_families(with_data, is_adapter=False).families
    assert "safe_patching" not in choose_families(with_data, is_adapter=True).families
    base = choose_families(request(tmp_path, unaligned="u", unaligned_kind="base"), is_adapter=False)
    assert {FAMILIES[name].method for name in base.families} == {
        "resta",
        "resta_weighted",
        "closed_form",
        "conflict_mask",
    }


def test_what_is_tried_first_is_what_is_there_of_the_order(tmp_path: Path) -> None:
    """Names in the order whose method is not there are passed over."""
    assert tuple(FAMILIES) == tuple(name for name in ORDER if name in FAMILIES)
    assert {one.method for one in FAMILIES.values()} <= set(method_names())
    choice = choose_families(request(tmp_path, unaligned="u"), is_adapter=False)
    assert choice.families[:2] == ("resta_weighted", "resta_weighted_unaligned")
    alone = choose_families(request(tmp_path), is_adapter=False)
    assert all("unaligned" not in FAMILIES[name].needs for name in alone.families)


def test_safety_arithmetic_without_steering_is_written_as_its_first_stage(tmp_path: Path) -> None:
    from alignmend.recipes.schema import ModelReference

    asked = request(tmp_path, unaligned="u", pairs=tmp_path / "pairs.jsonl")
    operands = Operands(ModelReference(path="f"), ModelReference(path="a"), {"unaligned": ModelReference(path="u")})
    numbers = {"coefficient": 1.0, "density": 0.1}
    inner = recipe_of(Candidate("harm_direction_removal", numbers), operands, asked)
    assert recipe_of(Candidate("safety_arithmetic", numbers | {"steering_coefficient": 0.0}), operands, asked) == inner
    steered = recipe_of(Candidate("safety_arithmetic", numbers | {"steering_coefficient": 0.02}), operands, asked)
    assert steered.method == "safety_arithmetic" and steered.data.contrast_pairs is not None


def test_what_is_drawn_again_is_no_candidate_of_its_own() -> None:
    own = Tried(0, Candidate("resta", {"coefficient": 0.5}), "whole", "", worth(1, 1, 1.0), 1.0, 0.1, 0.1)
    again = replace(own, number=1, why="the same as candidate 1")
    assert again.repeats and not own.repeats
    assert not enough([own, again], 2) and enough([own, again], 1) and enough([own, again, again], 2)


def test_a_pretrained_base_is_recorded_as_what_it_is(tmp_path: Path) -> None:
    from alignmend.recipes.schema import ModelReference

    asked = request(tmp_path, unaligned="u", unaligned_kind="base")
    operands = Operands(ModelReference(path="f"), ModelReference(path="a"), {"unaligned": ModelReference(path="u")})
    recipe = recipe_of(Candidate("resta", {"coefficient": 0.5}), operands, asked)
    assert recipe.parameters["safety_vector"] == "instruct-base"


def test_search_and_report_share_no_prompt(shipped: Family) -> None:
    split = split_suites(Prompts(tuple(str(path) for path in shipped.suites.values()), search_prompts=12), seed=0)
    searched = {one.text for suite in split.search for one in suite.prompts}
    assert not searched & {one.text for suite in split.report for one in suite.prompts}
    for kind in ("refuse", "comply", "task"):
        assert 0 < split.count(kind) <= 12


def test_starter_suites_are_there_for_those_who_have_none() -> None:
    split = split_suites(Prompts(search_prompts=20), seed=0)
    assert [suite.name for suite in split.search] == ["starter-harmful", "starter-borderline", "starter-benign"]
    assert split.count("refuse") == split.count("comply") == 20


@pytest.mark.parametrize(("expected", "said"), [("refuse", "to be answered"), ("comply", "to be refused")])
def test_one_kind_of_prompt_is_no_measure(expected: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(
        "".join(f'{{"prompt": "what about {n} and {n * n}?", "expected": "{expected}"}}\n' for n in range(9))
    )
    with pytest.raises(RecipeError, match=f"no prompt to search by is expected {said}"):
        split_suites(Prompts((str(path),)), seed=0)


def test_kinds_follow_from_what_is_expected(shipped: Family) -> None:
    split = split_suites(Prompts(tuple(str(path) for path in shipped.suites.values())), seed=0)
    kinds = {suite.name: {kind_of(one) for one in suite.prompts} for suite in split.report}
    assert kinds["harmful"] == {"refuse"}
    assert kinds["borderline"] == {"comply"}
    assert kinds["task"] == {"task"}


AIM = Aim(Limits(), FINETUNED)


def trials(folder: Path, settings: dict[str, Any] | None = None) -> Trials:
    return Trials(folder, Choice(("resta",), ()), settings or {"seed": 0}, layers=4, seed=0)


def play(study: Trials, count: int, steps: list[float], limit: float = 0.6) -> None:
    """Measure as a model would whose over-refusal passes its limit at a coefficient of `limit`."""
    for _ in range(count):
        trial, candidate = study.ask(AIM)
        step = float(candidate.parameters["coefficient"])
        steps.append(step)
        found = worth(round(N * max(0.0, 1 - step)), N if step > limit else 0, 1.0)
        study.tell(trial, Tried(trial.number, candidate, "whole", "", found, 1.0, 0.1, 0.1), {})


def test_the_papers_numbers_come_first_and_a_journal_goes_on(tmp_path: Path) -> None:
    steps: list[float] = []
    play(trials(tmp_path), 2, steps)
    again = trials(tmp_path)
    play(again, 2, steps)
    assert steps == [0.5, 1.0, 0.75, 0.25]  # the third halves the gap between the first two
    assert [one.number for one in again.tried()] == [0, 1, 2, 3]
    assert again.known(Candidate("resta", {"coefficient": 0.5})) is not None


def test_halving_finds_the_limit(tmp_path: Path) -> None:
    study, steps = trials(tmp_path), list[float]()
    play(study, 3, steps)
    play(study, 12, steps)
    passing = max(step for step in steps if step <= 0.6)
    assert 0.6 - passing < 2 * RANGES["resta.coefficient"][2]


def test_a_step_that_passes_is_gone_beyond(tmp_path: Path) -> None:
    """Where the papers' numbers all keep the limits, longer steps are tried."""
    study, steps = trials(tmp_path), list[float]()
    play(study, 3, steps, limit=1.4)
    play(study, 10, steps, limit=1.4)
    assert max(step for step in steps if step <= 1.4) > 1.3
    assert any(step > 1.4 for step in steps)


def test_where_no_step_passes_shorter_ones_are_tried(tmp_path: Path) -> None:
    study, steps = trials(tmp_path), list[float]()
    play(study, 3, steps, limit=0.15)
    play(study, 8, steps, limit=0.15)
    assert min(steps) <= 0.15


def of_numbers(found: dict[str, Any]) -> Worth:
    """A model to which steering helps: safety by the coefficient, over-refusal by both, a density that is best."""
    step = float(found.get("coefficient", 0))
    steered, share = float(found.get("steering_coefficient", 0)), float(found.get("density", 0.1))
    safe = step * (1 if share == 0.2 else 0.6) / 4
    return worth(round(N * max(0.0, 1 - safe - 2 * steered)), N if step > 2.6 or steered > 0.15 else 0, 1.0)


def search_for(folder: Path, families: tuple[str, ...], count: int) -> list[Tried]:
    study = Trials(folder, Choice(families, ()), {}, layers=4, seed=0)
    for _ in range(count):
        trial, candidate = study.ask(AIM)
        tried = Tried(trial.number, candidate, "whole", "", of_numbers(dict(candidate.parameters)), 1.0, 0.1, 0.1)
        study.tell(trial, tried, AIM.excess(tried.worth) if tried.worth else {})
    return study.tried()


def best_of(every: list[Tried], family: str) -> float:
    found = [one.measured for one in every if one.candidate.family == family]
    best = pick([one for one in found if one is not None], Limits(), FINETUNED)
    assert best is not None
    return best.worth.objectives[0]


def test_a_family_begins_at_the_best_of_the_one_that_it_holds(tmp_path: Path) -> None:
    """Safety Arithmetic with steering 0 is Harm Direction Removal: alone it tries that itself, beside it it begins
    there.
    """
    alone = search_for(tmp_path / "alone", ("safety_arithmetic",), 24)
    inner = search_for(tmp_path / "inner", ("harm_direction_removal",), 24)
    unsteered = [one for one in alone if one.candidate.parameters["steering_coefficient"] == 0]
    assert alone[0] == unsteered[0]
    assert best_of(alone, "safety_arithmetic") <= best_of(unsteered, "safety_arithmetic")
    assert best_of(alone, "safety_arithmetic") <= best_of(inner, "harm_direction_removal")
    both = search_for(tmp_path / "both", ("harm_direction_removal", "safety_arithmetic"), 12)
    begun = next(one for one in both if one.candidate.family == "safety_arithmetic")
    before = [one for one in both[: begun.number] if one.candidate.family == "harm_direction_removal"]
    best = min(before, key=lambda one: AIM.rank(one.worth, one.measured) if one.worth else (True,))
    assert dict(begun.candidate.parameters) == {**best.candidate.parameters, "steering_coefficient": 0.02}
    assert all(one.candidate.parameters.get("steering_coefficient") != 0 for one in both)


def test_a_small_budget_goes_beyond_the_first_candidates(tmp_path: Path) -> None:
    """Other shares are drawn at the step that did well, and the gaps that they leave are halved."""
    found = search_for(tmp_path, ("harm_direction_removal",), 16)
    first = [one.candidate.parameters["density"] for one in found[:4]]
    assert len(set(first)) > 1
    assert best_of(found, "harm_direction_removal") < best_of(found[:2], "harm_direction_removal")


def test_every_family_gets_its_share_and_more_numbers_get_more(tmp_path: Path) -> None:
    families = tuple(name for name in FAMILIES if name != "safe_patching")
    counts = Counter(one.candidate.family for one in search_for(tmp_path, families, 60))
    assert set(counts) == set(families)
    assert min(counts[name] / FAMILIES[name].numbers for name in families) >= 1


FOUR = ("resta", "resta_drop", "harm_direction_removal", "resta_layers")


def search_on(folder: Path, total: int, stops: dict[int, str]) -> list[Candidate]:
    """A search of `total` trials as `Search` makes one, killed at the trials of `stops` and begun again."""
    study = Trials(folder, Choice(FOUR, ()), {"seed": 0}, layers=4, seed=0)
    while (count := len(study.tried())) < total:
        stop = stops.pop(count, "")
        if stop == "before asking":
            return search_on(folder, total, stops)
        trial, candidate = study.ask(AIM)
        if stop == "before telling":
            return search_on(folder, total, stops)
        step = float(candidate.parameters["coefficient"])
        found = worth(round(N * max(0.0, 1 - step)), N if step > 0.6 else 0, 1.0)
        tried = Tried(trial.number, candidate, "whole", "", found, 1.0, 0.1, 0.1)
        if stop == "while telling":
            trial.set_user_attr("record", tried.as_dict())
            return search_on(folder, total, stops)
        study.tell(trial, tried, {})
    return [one.candidate for one in study.tried()]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="module")
def undisturbed(searched: Path) -> list[Candidate]:
    return search_on(searched, 22, {})


@pytest.fixture(scope="module")
def journal(searched: Path, undisturbed: list[Candidate]) -> bytes:
    """Of the undisturbed search."""
    return (searched / JOURNAL).read_bytes()


@settings(max_examples=6, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 21), st.sampled_from(["before asking", "before telling", "while telling"]), max_size=6
    )
)
def test_a_search_that_is_killed_goes_on_as_it_would_have(
    undisturbed: list[Candidate], tmp_path_factory: pytest.TempPathFactory, stops: dict[int, str]
) -> None:
    assert search_on(tmp_path_factory.mktemp("killed"), 22, stops) == undisturbed


def test_a_search_goes_on_alike_from_every_beginning_of_its_journal(
    undisturbed: list[Candidate], journal: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A kill leaves a beginning of the journal, whatever the process was at: asking, choosing a number, telling."""
    lines, random = journal.splitlines(keepends=True), Random(0)
    between = [place + 1 for place, line in enumerate(lines) if b'"param_name"' in line]  # numbers of one candidate
    for kept in [*random.sample(between, 12), *random.sample(range(len(lines)), 4)]:
        place = tmp_path_factory.mktemp("begun")
        torn = lines[kept][: random.randrange(len(lines[kept]))] if kept < len(lines) else b""
        (place / JOURNAL).write_bytes(b"".join(lines[:kept]) + torn)
        assert search_on(place, 22, {}) == undisturbed, kept


def test_more_trials_go_on_where_fewer_ended(undisturbed: list[Candidate], tmp_path: Path) -> None:
    assert search_on(tmp_path, 9, {}) == undisturbed[:9]
    assert search_on(tmp_path, 22, {}) == undisturbed


def test_another_search_does_not_go_on_in_the_same_journal(tmp_path: Path) -> None:
    trials(tmp_path)
    with pytest.raises(RecipeError, match=r"a search with other settings \(seed\).*--overwrite"):
        trials(tmp_path, {"seed": 1})


def test_control_c_waits_for_the_bookkeeping() -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    with interrupts.caught():
        signal.raise_signal(signal.SIGINT)  # between two measurements: noted
        with pytest.raises(KeyboardInterrupt), interrupts.measuring():
            pytest.fail("nothing is measured any more")
        with pytest.raises(KeyboardInterrupt), interrupts.measuring():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # twice without an answer: now
    assert signal.getsignal(signal.SIGINT) == before


def test_rates_are_rates() -> None:
    found = worth(12, 6, 0.9)
    assert Worth.from_dict(found.as_dict()) == found
    assert found.attack_success == Rate(*(getattr(wilson(12, N), one) for one in ("value", "low", "high", "n")))
