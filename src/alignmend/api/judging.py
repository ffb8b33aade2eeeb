"""`judge`: verdicts for answers made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.api.judges import Names, TagPairs, make_judges, tags_of
from alignmend.api.progress import Progress, Report, reporting
from alignmend.api.shown import Shown

if TYPE_CHECKING:
    from rich.table import Table

    from alignmend.evaluation.agreement import Agreement
    from alignmend.evaluation.judges import Answer, Judge
    from alignmend.evaluation.records import Judgement


@dataclass(frozen=True, repr=False)
class JudgedAnswers(Shown):
    """Answers with verdicts: `rows` are those of the file with the judges' columns added."""

    rows: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    """Rates of each judge, how far judges agree, and what was asked of their models."""
    agreements: tuple[Agreement, ...]
    where: tuple[str, ...]
    """Each row's place in the file."""
    out: Path | None

    def _facts(self) -> Iterable[str]:
        yield f"{len(self.rows):,} answers"
        yield f"judge {', '.join(self.summary['judges'])}"
        if self.out is not None:
            yield str(self.out)

    def _parts(self) -> Iterable[Any]:
        yield "share of all answers (harmful: of those with an opinion on harm), 95% Wilson interval, in percent"
        yield rates_table(self.summary)


def judge(
    responses: str | Path,
    *,
    judge: Names = "refusal-phrases",
    out: str | Path | None = None,
    model: str | Mapping[str, str] | None = None,
    endpoint: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    judge_reasoning_tags: TagPairs = (),
    judge_cache: str | Path | None = None,
    reasoning_tags: TagPairs = (),
    labels: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> JudgedAnswers:
    """Judge the answers in a JSONL or CSV file; with `out` also write them there, with the verdicts added.

    `model` and `endpoint` are of judges that ask a model; replies are kept in `judge_cache`, else beside `out`.
    `labels` is a column with human labels to hold the judges against.
    """
    from alignmend.evaluation.agreement import judge_agreements, label_agreements, label_classes
    from alignmend.evaluation.judge_files import check_judges, check_output, judged_rows, read_responses, write_rows
    from alignmend.evaluation.judge_summary import summary, thoughts_of

    source, target = Path(responses), None if out is None else Path(out)
    if target is not None:
        check_output(target, source, overwrite=overwrite)
    read = read_responses(source, tags_of(reasoning_tags))
    classes = label_classes(read.column(labels), name=labels) if labels else None
    beside = None if target is None else target.with_name(f"{target.name}.judge-cache")
    judges = make_judges(
        judge,
        model=model,
        endpoint=endpoint,
        key_variable=key_variable,
        reasoning_tags=judge_reasoning_tags,
        cache=judge_cache or beside,
        device=device,
    )
    check_judges(judges)
    with reporting(progress) as report:
        judged = [(one, _judge_all(one, read.answers, report)) for one in judges]
    said = {one.name: judgements for one, judgements in judged}
    agreements = judge_agreements(said)
    if classes is not None and labels is not None:
        agreements = label_agreements(classes, said, name=labels) + agreements
    document = summary(judged, agreements, thoughts_of(read))
    rows = judged_rows(read, judged)
    if target is not None:
        write_rows(target, rows)
    return JudgedAnswers(tuple(rows), document, tuple(agreements), read.where, target)


def _judge_all(judge: Judge, answers: Sequence[Answer], report: Report) -> list[Judgement]:
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        report(judge.name, done, len(answers))

    known = [answer.withheld for answer in answers]
    asked = [answer for answer, judgement in zip(answers, known, strict=True) if judgement is None]
    add(len(answers) - len(asked))
    said = iter(judge.judge_all(asked, report=add))
    return [judgement or next(said) for judgement in known]


def rates_table(document: Mapping[str, Any]) -> Table:
    """The rates of each judge side by side."""
    from rich import box
    from rich.table import Table

    from alignmend.report.numbers import interval, percent

    names = list(dict.fromkeys(name for block in document["judges"].values() for name in block["rates"]))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for judge in document["judges"]:
        table.add_column(judge, justify="right")
    for name in names:
        rates = [block["rates"].get(name) for block in document["judges"].values()]
        cells = [f"{percent(rate['value'])}  {interval(rate)}" if rate else "n/a" for rate in rates]
        table.add_row(name, *cells)
    return table
