from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest
from tests.evaluation.sandboxed import needs_sandbox
from tests.published import published_folder

from alignmend.errors import RecipeError
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import load_suite
from alignmend.evaluation.utility.code import checks_of, program_of, run_answers, score_code

pytestmark = needs_sandbox
HEAD = 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef quarter(x):\n    """ A quarter of x. """'
CHECK = "def check(candidate):\n    assert candidate(4) == 1\n    assert candidate(1) == 0.25\n"
FUNCTION = Prompt(
    suite="s", id="f", text=HEAD, scoring="code", extra={"test": CHECK, "entry_point": "quarter"}, answer="-"
)
TASK = Prompt(suite="s", id="t", text="Double a number.", scoring="code", extra={"test": "assert double(2) == 4"})
WORDS = Prompt(suite="s", id="w", text="Hello?")
RIGHT = (
    "    return half(half(x))",
    "return half(half(x))",
    "    y = half(x)\n    return half(y)\n\n\ndef other():\n    return nothing here",
    "y = half(x)\n    if y:\n        y = half(y)\n    return y",
    "y = half(x)\nif y:\n    y = half(y)\nreturn y",
    "```python\n    return half(half(x))\n```",
    "```\nreturn half(half(x))\n```\nThis halves twice.",
    "Sure!\n\n```py\ndef quarter(x):\n    return half(x) / 2\n```\n\nDone.\n```\nquarter(3)\n```",
    "First some help:\n```python\nx = 1\n```\nand then\n```python\ndef quarter(x):\n    return x / 4\n```",
    "```python\ndef quarter(x):\n    return math.ldexp(x, -2)",
    "def quarter(x):\n    return x / 4\n\nThis works, as a quarter is a fourth.",
    "Here you are:\n\ndef quarter(x):\n    return x / 4",
    "\r\n    return x / 4\r\n",
)


@pytest.mark.parametrize("response", RIGHT)
def test_code_is_found_however_it_is_given(response: str) -> None:
    (outcome,) = run_answers([FUNCTION], [response])
    assert outcome is not None and outcome.passed, (outcome, program_of(FUNCTION, response))


@pytest.mark.parametrize(
    "response",
    ["", "    return x", "I will not write code.", "```python\nprint('quarter')\n```", "import sys; sys.exit(0)", "\0"],
)
def test_code_that_is_wrong_or_missing_fails(response: str) -> None:
    assert score_code([FUNCTION], [response]) == [False]


@pytest.mark.parametrize(
    "response",
    ["def double(x):\n    return x + x", "```python\ndouble = lambda x: 2 * x\n```", "double = int(2).__mul__"],
)
def test_a_task_takes_a_whole_program(response: str) -> None:
    assert score_code([TASK], [response]) == [True]


def test_each_prompt_gets_its_own_verdict_whatever_the_workers() -> None:
    prompts = [FUNCTION, TASK, WORDS, FUNCTION, TASK]
    responses = ["return x / 4", "def double(x): return 3", "Hello.", "return 1", "def double(x): return 4"]
    for workers in (1, 3):
        assert score_code(prompts, responses, workers=workers) == [True, False, None, False, True]


def test_a_setup_runs_between_program_and_tests() -> None:
    extra = {"test": "assert double(value) == 4", "test_setup": "value = 2"}
    prompt = TASK.model_copy(update={"extra": extra})
    assert score_code([prompt], ["value = 9\ndef double(x): return 2 * x"]) == [True]


def test_a_prompt_without_tests_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"prompt 't' of suite 's' is scored by running code.*columns found: none"):
        checks_of(TASK.model_copy(update={"extra": {}}))


def test_code_that_warns_as_it_is_read_stays_quiet(recwarn: pytest.WarningsRecorder) -> None:
    assert score_code([TASK], [r"double = lambda x: x + x" + "\nx = '\\d'\nassert x is not 3"]) == [True]
    assert not recwarn.list


def rows(name: str) -> tuple[Prompt, ...]:
    return load_suite(name, data_dir=published_folder()).prompts


def test_all_reference_solutions_of_humaneval_pass_as_continuations() -> None:
    prompts = rows("humaneval")
    assert len(prompts) == 164
    assert all(score_code(prompts, [str(prompt.answer) for prompt in prompts], workers=2))


@pytest.mark.parametrize(
    "put",
    [
        lambda text, answer: answer.strip(),
        lambda text, answer: textwrap.dedent(answer).strip(),
        lambda text, answer: f"Of course:\n```python\n{text}\n{answer}```\nIt works.",
        lambda text, answer: f"Of course:\n\n{text}\n{answer}\n\nIt works, I hope.",
    ],
    ids=["stripped", "dedented", "fenced", "in prose"],
)
def test_a_sample_of_humaneval_passes_in_every_form_and_a_stub_does_not(put: Callable[[str, str], str]) -> None:
    prompts = rows("humaneval")[::12]
    assert all(score_code(prompts, [put(prompt.text, str(prompt.answer)) for prompt in prompts], workers=2))
    assert not any(score_code(prompts, [put(prompt.text, "    return None") for prompt in prompts], workers=2))


def test_a_sample_of_mbpp_passes_and_its_neighbours_solutions_do_not() -> None:
    prompts = rows("mbpp")[::10]
    answers = [f"```python\n{prompt.answer}\n```" for prompt in prompts]
    assert all(score_code(prompts, answers, workers=2))
    assert not any(score_code(prompts, [*answers[1:], answers[0]], workers=2))
