"""Whole jobs in Python: their names, results and views; what they do is tested where it is done."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from tests.report.run_folders import AFTER, BEFORE, write_run

import alignmend as am
from alignmend.api.shown import as_html
from alignmend.errors import OutputError, ParameterError, RecipeError

JOBS = ("restore", "evaluate", "judge", "compare", "gate", "report", "train")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_typed_keywords_and_a_docstring(name: str) -> None:
    job = getattr(am, name)
    assert inspect.isfunction(job)
    assert inspect.getdoc(job)
    parameters = inspect.signature(job).parameters.values()
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters)
    positional = [one for one in parameters if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert len(positional) <= 2


@pytest.mark.parametrize(
    "imports",
    [
        "import alignmend.restore",
        "import alignmend.restore.request, alignmend.report.gate",
        "import alignmend.restore.request as request",
        "from alignmend.restore import request; from alignmend.report import gate",
        "import importlib; importlib.import_module('alignmend.restore.request')",
        "import alignmend as am; am.restore; import alignmend.restore.request; alignmend.restore.request.Request",
        "from alignmend import restore, report; import alignmend.report.gate; alignmend.report.gate.check",
    ],
)
def test_a_subpackage_never_hides_a_job(imports: str) -> None:
    program = (
        f"{imports}; import types, alignmend as am; from alignmend import restore, report; "
        "print([isinstance(one, types.FunctionType) for one in (am.restore, am.report, restore, report)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([True] * 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("runs")
    return write_run(place / "a", "tuned", BEFORE), write_run(place / "b", "restored", AFTER)


def test_compare_tells_what_changed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = am.compare(*runs, out=tmp_path / "pairs.jsonl")
    assert repr(found).startswith("ComparisonResult(tuned to restored, ")
    assert (tmp_path / "pairs.jsonl").read_text().count("\n") == len(found.comparison.pairs)
    assert "attack success" in found._repr_html_()
    with pytest.raises(OutputError, match="exists"):
        am.compare(*runs, out=tmp_path / "pairs.jsonl")
    with pytest.raises(ParameterError, match="no prompt of both runs has accuracy"):
        am.compare(*runs, suites="catqa", metrics="accuracy")


def test_gate_is_true_where_all_limits_are_kept(runs: tuple[Path, Path]) -> None:
    kept, broken = am.gate(runs[1], max_asr=1.0, max_incoherence=1.0), am.gate(runs[0], max_asr=0.0, max_incoherence=1)
    assert kept and repr(kept) == "GateResult(passed)"
    assert not broken and broken.failed
    assert "FAIL tuned" in broken._repr_html_()
    with pytest.raises(RecipeError, match="needs at least one limit"):
        am.gate(runs[0])


def test_report_shows_its_page_in_a_frame(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = am.report(runs, tmp_path / "report.html")
    assert repr(found).startswith(f"ReportResult({tmp_path / 'report.html'}, tuned, restored, ")
    shown = found._repr_html_()
    assert shown.count("<iframe srcdoc=") == 1
    assert "&lt;svg" in shown


def test_judge_keeps_rows_and_adds_verdicts(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"prompt": "hi", "response": "I cannot help with that.", "own": 1}\n')
    seen: list[tuple[str, int, int]] = []
    found = am.judge(answers, progress=lambda *told: seen.append(told))
    assert found.rows[0]["verdict"] == "refused" and found.rows[0]["own"] == 1
    assert seen[-1] == ("refusal-phrases", 1, 1)
    assert repr(found) == "JudgedAnswers(1 answers, judge refusal-phrases)"
    assert "refused" in found._repr_html_()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl"]
    am.judge(answers, out=tmp_path / "judged.jsonl")
    assert '"verdict": "refused"' in (tmp_path / "judged.jsonl").read_text()


def test_train_wants_to_know_what_is_trained() -> None:
    with pytest.raises(ParameterError, match="lora_rank=16"):
        am.train("m", "pairs.jsonl", out="o", objective="descent")
    with pytest.raises(ParameterError, match="batch_size is 0"):
        am.train("m", "pairs.jsonl", out="o", objective="descent", full=True, batch_size=0)


def test_html_escapes_what_files_hold() -> None:
    assert "&lt;script&gt;" in as_html(["<script>"])
    assert as_html([]) == ""
