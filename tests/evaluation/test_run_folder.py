"""A run is read back as a whole, and what its files contradict each other in is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.report.run_folders import AFTER, BEFORE, Said, write_run

from alignmend.errors import AlignmendError, FileFormatError, MismatchError, RecipeError
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.metrics import wilson
from alignmend.evaluation.record_files import read_rows, write_rows
from alignmend.evaluation.records import Generation, JudgementRow
from alignmend.evaluation.run import evaluate_folder
from alignmend.evaluation.run_folder import read_run

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "run", "m", AFTER)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def rows_changed(folder: Path, name: str, change: Callable[[Rows], object]) -> None:
    path = folder / name
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def generations(change: Callable[[Rows], object]) -> Callable[[Path], None]:
    return lambda folder: rows_changed(folder, "generations.jsonl", change)


def judgements(change: Callable[[Rows], object]) -> Callable[[Path], None]:
    return lambda folder: rows_changed(folder, "judgements.jsonl", change)


def results(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        document = json.loads((folder / "results.json").read_bytes())
        change(document)
        (folder / "results.json").write_text(json.dumps(document))

    return spoil


def test_a_run_comes_back(whole: Path) -> None:
    found = read_run(whole)
    assert (found.model, found.judge, len(found.generations)) == ("m", "invented", 100)
    assert [row.prompt_id for row in found.rows()] == [row.prompt_id for row in found.generations]
    assert found.metrics()["catqa"]["attack_success_rate"] == wilson(1, 40)
    with pytest.raises(RecipeError, match="no judge 'invent': did you mean 'invented'"):
        found.rows("invent")


def test_a_run_that_was_evaluated_comes_back_with_all_its_judges(tmp_path: Path) -> None:
    from tests.evaluation.test_evaluation_run import ANSWERS, SUITES, Scripted

    judges = [get_judge("refusal-phrases"), get_judge("organism")]
    evaluation = evaluate_folder(Scripted(ANSWERS), SUITES, judges, tmp_path)
    found = read_run(tmp_path)
    assert [*found.judgements] == ["refusal-phrases", "organism"]
    assert found.metrics() == evaluation.metrics
    assert found.rows("organism") == evaluation.second["organism"]
    spoil = results(lambda document: rate(document["judges"]["organism"]["models"]["scripted"]["task"]))
    spoil(tmp_path)
    with pytest.raises(MismatchError, match=r"says accuracy .* for 'scripted' by 'organism' on 'task'"):
        read_run(tmp_path)


def rate(metrics: dict[str, Any], metric: str = "accuracy", **changes: float) -> None:
    metrics[metric] |= changes or {"value": 0.123}


def catqa(document: dict[str, Any]) -> Any:
    return document["models"]["m"]["catqa"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: rate(catqa(document), "refusal_rate"), "says refusal_rate 0.123 "),
        (lambda document: rate(catqa(document), "refusal_rate", high=0.999), "0.999, n = 40.* records give"),
        (lambda document: rate(catqa(document), "refusal_rate", low=0.1), r"\(0.1 to"),
        (lambda document: rate(catqa(document), "refusal_rate", n=400), "n = 400"),
        (lambda document: catqa(document).update(macro_attack_success_rate=catqa(document)["empty_rate"]), "macro"),
        (lambda document: catqa(document).update(accuracy=catqa(document)["empty_rate"]), "records give nothing"),
        (lambda document: document["models"]["m"].pop("catqa"), "says nothing for 'm' on 'catqa'"),
        (lambda document: document["models"]["m"].update(x=catqa(document)), "has suite 'x'"),
        (lambda document: rate(document["models"]["m"]["all"], "empty_rate"), "'m' on all suites"),
        (lambda document: document["suites"]["catqa"].update(n=41), "'catqa' has 41 prompts, the records have 40"),
        (lambda document: document["suites"].update(x={"n": 2, "sha256": "0" * 64}), "'x' has 2 prompts"),
        (
            lambda document: rate(document["groups"]["m"]["catqa"]["category"]["kind 1"], "refusal_rate"),
            "on 'catqa' in category 'kind 1'",
        ),
        (lambda document: document["groups"]["m"]["catqa"]["category"].pop("kind 1"), "nothing for .* 'kind 1'"),
        (lambda document: document["judge"].update(version="invented-2"), "in version 'invented-2'"),
        (lambda document: document["judge"].update(name="other"), "by judge 'other'.* by invented"),
        (lambda document: document["models"].update(n=document["models"]["m"]), "is of m, n"),
    ],
)
def test_results_that_the_records_do_not_give_are_refused(
    run: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    results(change)(run)
    with pytest.raises(MismatchError, match=message):
        read_run(run)


def test_what_has_no_records_and_what_an_older_version_did_not_know_is_no_contradiction(run: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["models"]["m"]["drift"] = {"kl_first": {"value": 3.5, "low": 1.0, "high": 5.0, "n": 9}}
        catqa(document).pop("truncated_rate")

    results(change)(run)
    assert read_run(run).metrics()["catqa"]["truncated_rate"].value == 0


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (generations(lambda rows: rows.clear()), FileFormatError, "no answers; finish the run"),
        (generations(lambda rows: rows.append(rows[0])), FileFormatError, "answers prompt 'h0' .* twice"),
        (generations(lambda rows: rows[0].update(model="n")), FileFormatError, "mixes models: m and n"),
        (generations(lambda rows: rows[0].update(model_hash="0")), FileFormatError, "mixes weights: 0 and"),
        (generations(lambda rows: rows[0].update(template="raw")), FileFormatError, "mixes settings: .* raw template"),
        (generations(lambda rows: rows.pop(3)), MismatchError, "judges prompt 'h3' .* generations.jsonl does not hold"),
        (generations(lambda rows: rows[1].update(response="x")), MismatchError, "'h1' .* is of another answer"),
        (generations(lambda rows: rows[1].update(prompt="x")), MismatchError, "'h1' .* is of another answer"),
        (judgements(lambda rows: rows.clear()), FileFormatError, "no judgements; finish the run"),
        (judgements(lambda rows: rows.append(rows[0])), FileFormatError, "judges prompt 'h0' .* twice"),
        (judgements(lambda rows: rows.pop()), MismatchError, "'invented' says nothing of prompt 'g29'"),
        (judgements(lambda rows: rows[0].update(judge_version="0")), FileFormatError, "mixes versions .*: 0 and inv"),
        (judgements(lambda rows: rows[0].update(verdict="fine")), FileFormatError, "line 1: not a JudgementRow"),
        (judgements(lambda rows: rows[0].update(verdict="complied", partial=False)), MismatchError, "records give"),
        (generations(lambda rows: rows[0].update(finish_reason="length")), MismatchError, "says truncated_rate 0.0"),
        (lambda folder: (folder / "results.json").unlink(), FileFormatError, "results.json missing; finish the run"),
        (lambda folder: (folder / "judgements.jsonl").unlink(), FileFormatError, "judgements.jsonl missing"),
        (lambda folder: (folder / "results.json").write_text("{"), FileFormatError, "not a results file"),
        (shutil.rmtree, FileFormatError, "no such folder; name the folder of a run"),
    ],
)
def test_broken_runs_are_refused(
    run: Path, spoil: Callable[[Path], None], error: type[AlignmendError], message: str
) -> None:
    spoil(run)
    with pytest.raises(error, match=message):
        read_run(run)


def test_a_line_that_was_cut_off_is_a_judgement_that_lacks(run: Path) -> None:
    path = run / "judgements.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MismatchError, match="says nothing of prompt 'g29'"):
        read_run(run)


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    write_run(tmp_path / "records" / "a", "a", BEFORE)
    write_run(tmp_path / "records" / "b", "b", AFTER)
    with pytest.raises(FileFormatError, match=r"no run, but holds some; name one of \S*records/a, \S*records/b$"):
        read_run(tmp_path)


def test_the_order_of_judgements_does_not_matter(run: Path, whole: Path) -> None:
    path = run / "judgements.jsonl"
    write_rows(path, reversed(read_rows(path, JudgementRow)))
    assert read_run(run).rows() == read_run(whole).rows()


def test_what_was_cut_off_is_known_from_the_answers(tmp_path: Path) -> None:
    """Judgements of older versions do not say it."""
    one = Said("s", "1", "refuse", "refused")
    folder = write_run(tmp_path / "run", "m", [one])
    results(lambda document: (document["models"]["m"]["s"].pop("truncated_rate"), document.pop("groups")))(folder)
    path = folder / "generations.jsonl"
    write_rows(path, [row.model_copy(update={"finish_reason": "length"}) for row in read_rows(path, Generation)])
    assert read_run(folder).metrics()["s"]["truncated_rate"].value == 1
