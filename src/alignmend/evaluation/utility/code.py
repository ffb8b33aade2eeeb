"""Code that a model wrote, scored by running its tests: HumanEval (Chen et al. 2021, arXiv:2107.03374) and MBPP (Austin
et al. 2021, arXiv:2108.07732).

A prompt's `extra` holds `test` (Python statements), perhaps `test_setup`, run before them, and for HumanEval
`entry_point`, the function that `test`'s `check` is called with. Nothing runs unless asked, and only in a
sandbox unless `unsafe` is said: see `sandbox.py`.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from alignmend.errors import RecipeError
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.utility.sandbox import DEFAULT_MEMORY, DEFAULT_TIMEOUT, Limits, Outcome, run_program

_FENCE = re.compile(r"^[ \t]*```[ \t]*(?:[\w+.#-]*)[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_STOP = re.compile(r"\n(?=(?:class|def|if|print|assert|from|import)\b|[#@])")
"""Where a continuation of a function's body ends; the published stop sequences and a few more."""
_PROGRAM_BEGINS = re.compile(r"^(?:import|from|def|class|async def|@)\b|^@", re.MULTILINE)


def score_code(
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = DEFAULT_MEMORY,
    workers: int = 1,
    unsafe: bool = False,
) -> list[bool | None]:
    """Whether each response passes its prompt's tests; `None` where the prompt's `scoring` is not `code`.

    `timeout`: CPU seconds a response, `memory`: bytes, `workers`: programs at a time. Runs untrusted code, in
    a sandbox or not at all (`SandboxError`), unless `unsafe`.
    """
    outcomes = run_answers(prompts, responses, timeout=timeout, memory=memory, workers=workers, unsafe=unsafe)
    return [None if outcome is None else outcome.passed for outcome in outcomes]


def run_answers(
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = DEFAULT_MEMORY,
    workers: int = 1,
    unsafe: bool = False,
) -> list[Outcome | None]:
    """As `score_code`, with the reason why a response failed."""
    limits = Limits(timeout, memory)
    pairs = list(zip(prompts, responses, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model's code may warn as it is parsed
        jobs = [(program_of(*pair), checks_of(pair[0])) if pair[0].scoring == "code" else None for pair in pairs]

    def run(job: tuple[str, str] | None) -> Outcome | None:
        return None if job is None else run_program(*job, limits, unsafe=unsafe)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return list(pool.map(run, jobs))


def checks_of(prompt: Prompt) -> str:
    """The statements that raise where an answer to `prompt` is wrong."""
    test, entry = prompt.extra.get("test"), _entry(prompt)
    if not isinstance(test, str) or not test.strip():
        raise RecipeError(
            f"prompt {prompt.id!r} of suite {prompt.suite!r} is scored by running code, which needs a column 'test' "
            f"with Python statements; columns found: {', '.join(sorted(prompt.extra)) or 'none'}"
        )
    return "\n".join([str(prompt.extra.get("test_setup") or ""), test, f"check({entry})" if entry else "", ""])


def program_of(prompt: Prompt, response: str) -> str:
    """The program that `response` amounts to.

    A fenced block wins: the first that defines the entry point or, without one, any function; else the first. Then a
    program in plain text, with the prose around it cut off. Where the prompt is the head of a function, a response
    that does not define it continues it, as a base model does, and the prompt's imports and helpers always come first.
    """
    entry = _entry(prompt)
    code = _code_in(response, entry)
    if entry is None:
        return f"{_parsing_part(code)}\n"
    if _defines(code, entry):
        return f"{_whole(prompt.text)}\n\n{_parsing_part(code)}\n"
    return f"{_continued(prompt.text, code)}\n"


def _entry(prompt: Prompt) -> str | None:
    entry = prompt.extra.get("entry_point")
    return entry if isinstance(entry, str) and entry.isidentifier() else None


def _code_in(response: str, entry: str | None) -> str:
    text = response.replace("\r\n", "\n")
    blocks = [match[1] for match in _FENCE.finditer(text)]
    if not blocks:
        return text
    return next((block for block in blocks if _defines(block, entry)), blocks[0])


def _defines(code: str, entry: str | None) -> bool:
    name = r"\w+" if entry is None else re.escape(entry)
    return re.search(rf"^\s*(?:async\s+)?def\s+{name}\s*\(", code, re.MULTILINE) is not None


def _whole(head: str) -> str:
    """The prompt's code made complete, so that what the response leaves out (imports, helpers) is there."""
    return head if _parses(head) else f"{head.rstrip()}\n    pass"


def _parsing_part(code: str) -> str:
    """`code` without prose before its first statement and after its last; as it is where nothing of it parses."""
    if _parses(code):
        return code
    begin = _PROGRAM_BEGINS.search(code)
    lines = code[begin.start() if begin else 0 :].split("\n")
    parts = ("\n".join(lines[:count]) for count in range(len(lines), 0, -1))
    return next((part for part in parts if _parses(part)), code)


def _continued(head: str, body: str) -> str:
    """The first of these that compiles: the continuation as it is; where indents were lost, with them put back."""
    return next((program for program in _continuations(head, body) if _parses(program)), f"{head}\n{body}")


def _continuations(head: str, body: str) -> Iterator[str]:
    whole = body.strip("\n")
    part = _STOP.split(whole, maxsplit=1)[0]
    texts = [part, whole] if whole[:1].isspace() else [textwrap.indent(whole, "    "), f"    {part}", f"    {whole}"]
    yield from (f"{head}\n{text}" for text in texts)


def _parses(code: str) -> bool:
    try:
        compile(code, "<response>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
