"""A suite: prompts in a fixed order under one name.

What a prompt of a task holds, whatever file it was read from, by its `scoring`:

- `words`: `answer` is a short text that must occur in the response.
- `number`: `answer` is the final number as text without separators of thousands (`1319`, `-2.5`); the worked
  solution, where there is one, is `extra["solution"]`.
- `choice`: `extra["choices"]` is the list of two or more option texts in their published order (where that would give
  the right one away, by hash); `answer` is the right one's letter, `A` for the first. `text` is the question without
  the options; `lettered(prompt)` adds them. `extra["choice_form"]` is `answer` (the options answer a question) or
  `continuation` (each option goes on where `text` ends, after one space; none in Chinese), which is how HellaSwag,
  XCOPA and XNLI are scored.
- `code`: `extra["test"]` is Python to run after the program; `extra["test_setup"]` (may be missing) runs between
  the two; `answer` is the reference solution. With `extra["entry_point"]` (HumanEval), `text` is the head of that
  function, without white space at its ends, `answer` and a good response go on below it, and `test` defines
  `check(candidate)`, which must be called with the function. Without it (MBPP), `text` is a task that shows its
  tests, a response is a whole program, and `test` is assertions, one a line.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from alignmend.errors import ParameterError, RecipeError
from alignmend.evaluation.records import Prompt, encode_prompt

Kind = Literal["harmful", "borderline", "benign", "task"]
"""Requests to be refused, safe requests that look harmful, plain safe requests, tasks with a known answer."""


@dataclass(frozen=True)
class Origin:
    """What a suite was read from.

    `location` is a file's name, or `organization/name/file` for a file of the hub at commit `revision`; `sha256` is
    the file's. `copy` names the form that it is known in (`published`, `sample`, ...), `None` for a file of the
    user's own. `notes` say what a reader of a report must know: repeated prompts, another hash than the known one.
    """

    location: str
    sha256: str
    revision: str | None = None
    copy: str | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Suite:
    """Prompts with unique ids; `name` is what results call it, `transform` what was put around the prompts."""

    name: str
    prompts: tuple[Prompt, ...]
    kind: Kind | None = None
    licence: str | None = None
    origin: Origin | None = None
    transform: str | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise RecipeError(f"suite {self.name!r} has no prompts")
        repeated = [identifier for identifier, count in Counter(p.id for p in self.prompts).items() if count > 1]
        if repeated:
            raise RecipeError(
                f"suite {self.name!r} uses id {repeated[0]!r} more than once;", advice="make the ids unique"
            )

    @property
    def content_hash(self) -> str:
        """SHA-256 over every field of every prompt, in order: two suites with one hash are the same suite."""
        digest = hashlib.sha256()
        for prompt in self.prompts:
            digest.update(encode_prompt(prompt))
        return digest.hexdigest()

    def limited(self, n: int, seed: int = 0) -> Suite:
        """A sample of `n` prompts in the suite's order, the same for the same seed; the whole suite if it has no more.

        Every category gets its share, rounded so that the shares add up to `n`.
        """
        if n < 1:
            raise ParameterError(
                f"a sample of {n} prompts of suite {self.name!r} was asked for;", advice="ask for 1 or more"
            )
        if n >= len(self.prompts):
            return self
        by_category: dict[str | None, list[int]] = defaultdict(list)
        for place, prompt in enumerate(self.prompts):
            by_category[prompt.category].append(place)
        shares = _shares({category: len(places) for category, places in by_category.items()}, n)
        generator = random.Random(seed)
        kept = [
            place for category, places in by_category.items() for place in generator.sample(places, shares[category])
        ]
        note = f"a sample of {n} of {len(self.prompts)} prompts, by category, seed {seed}"
        origin = None if self.origin is None else replace(self.origin, notes=(*self.origin.notes, note))
        return replace(self, prompts=tuple(self.prompts[place] for place in sorted(kept)), origin=origin)


def lettered(prompt: Prompt) -> str:
    """The text of a `choice` prompt with its options below it, one a line: `A. ...`."""
    choices: Iterable[str] = prompt.extra.get("choices", ())
    return "\n".join([prompt.text, *(f"{chr(65 + place)}. {choice}" for place, choice in enumerate(choices))])


def _shares(sizes: dict[str | None, int], n: int) -> dict[str | None, int]:
    """Whole parts of each group's exact share first, then one more for the largest remainders."""
    total = sum(sizes.values())
    shares = {group: size * n // total for group, size in sizes.items()}
    order = sorted(sizes, key=lambda group: -(sizes[group] * n % total))  # stable: ties in the suite's order
    for group in order[: n - sum(shares.values())]:
        shares[group] += 1
    return shares
