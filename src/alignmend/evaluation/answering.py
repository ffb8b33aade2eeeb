"""Every prompt answered, in memory or into a folder: written where a response is asked for, by likelihood where an
option is to be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from alignmend.errors import FileFormatError, OutputError
from alignmend.evaluation.generation import Backend, Report, TransformersBackend
from alignmend.evaluation.record_files import RecordFile
from alignmend.evaluation.records import Generation, Prompt, RowKey, text_hash
from alignmend.evaluation.suites import Suite, lettered

Progress = Callable[[int, int], None]


def answer(backend: Backend, prompts: Sequence[Prompt], *, report: Report | None = None) -> list[Generation]:
    """One generation per prompt, in order. Prompts with `scoring` `choice` are written by what has no likelihoods."""
    chosen = [prompt for prompt in prompts if _is_chosen(prompt, backend)]
    written = [prompt for prompt in prompts if not _is_chosen(prompt, backend)]
    made = [*backend.generate(written, report=report)] if written else []
    if chosen and isinstance(backend, TransformersBackend):
        from alignmend.evaluation.utility.choices import answer_choices

        made += answer_choices(backend, chosen, report=report)
    found = {(row.suite, row.prompt_id): row for row in made}
    return [found[prompt.suite, prompt.id] for prompt in prompts]


def askable(suites: Sequence[Suite], backend: Backend) -> list[Suite]:
    """`suites` as `backend` can be asked them: options stand in the prompt where there are no likelihoods."""
    if isinstance(backend, TransformersBackend):
        return list(suites)
    return [replace(suite, prompts=tuple(map(_with_options, suite.prompts))) for suite in suites]


def _with_options(prompt: Prompt) -> Prompt:
    return prompt.model_copy(update={"text": lettered(prompt)}) if prompt.scoring == "choice" else prompt


def _is_chosen(prompt: Prompt, backend: Backend) -> bool:
    return prompt.scoring == "choice" and isinstance(backend, TransformersBackend)


def answer_into(
    folder: Path, backend: Backend, prompts: Sequence[Prompt], progress: Progress | None
) -> list[Generation]:
    """`answer` into `folder`/generations.jsonl, as answers come; what an earlier run left there is kept.

    Raises `FileFormatError` where that was another run: other prompts, another model, other settings.
    """
    keys: list[RowKey] = [(backend.name, prompt.suite, prompt.id) for prompt in prompts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})") from error
    with RecordFile(folder / "generations.jsonl", Generation) as file:
        _check_same_settings(list(file.done.values()), file.path)
        _check_done(file, dict(zip(keys, prompts, strict=True)))
        missing = [prompt for key, prompt in zip(keys, prompts, strict=True) if key not in file.done]
        counter = Counter(len(prompts), progress, len(prompts) - len(missing))
        known = _one_of_each(file.done.values())

        def keep(batch: Sequence[Generation]) -> None:
            _check_same_settings([*known, *batch], file.path)
            file.append(batch)
            known[:] = _one_of_each([*known, *batch])
            counter.add(batch)

        if missing:
            answer(backend, missing, report=keep)
        return file.finish(keys)


class Counter:
    """Adds up batches for a progress callback."""

    def __init__(self, total: int, progress: Progress | None, done: int = 0) -> None:
        self._total, self._progress, self._done = total, progress, done

    def add(self, batch: Sequence[Generation]) -> None:
        """Count a batch that is done."""
        self._done += len(batch)
        if self._progress is not None:
            self._progress(self._done, self._total)


def _check_done(file: RecordFile[Generation], wanted: Mapping[RowKey, Prompt]) -> None:
    """Rows of an earlier run must be of this run: same model name, prompts with the same text."""
    for key, row in file.done.items():
        if key not in wanted or text_hash(wanted[key].text) != row.prompt_hash:
            raise FileFormatError(
                f"{file.path}: holds prompt {row.prompt_id!r} of suite {row.suite!r} for {row.model!r}, which is not "
                "part of this run;",
                advice="use another folder or delete the file",
            )


def _one_of_each(rows: Iterable[Generation]) -> list[Generation]:
    """One written and one chosen response stand for all that were checked."""
    return list({row.scores is None: row for row in rows}.values())


def _check_same_settings(rows: Sequence[Generation], path: Path) -> None:
    """One model throughout, and one way of asking wherever a response is written."""
    written = {f"{row.template} template, {row.sampling}" for row in rows if row.scores is None}
    weights = {f"weights {row.model_hash[:12]}" for row in rows}
    for settings in (written, weights):
        if len(settings) > 1:
            mixed = " and ".join(sorted(settings))
            raise FileFormatError(f"{path}: mixes runs ({mixed});", advice="use another folder or delete the file")
