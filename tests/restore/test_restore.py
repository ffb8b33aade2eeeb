"""`alignmend restore` on the organism that ships: the job, its endings, and what can go wrong."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from tests.cli.command import COMMAND, assert_one_message
from torch.nn.modules.module import register_module_forward_pre_hook

import alignmend as am
from alignmend.cli import main, parser
from alignmend.cli.restore_options import request_of
from alignmend.errors import NoMemoryError
from alignmend.evaluation.results import results_schema
from alignmend.organisms import Family
from alignmend.restore.document import Searched
from alignmend.restore.families import FAMILIES
from alignmend.restore.front import Measured
from alignmend.restore.steps import Unwatched
from alignmend.restore.trials import Tried
from alignmend.restore.workflow import restore

pytestmark = pytest.mark.slow
FEW = ("--judge", "organism", "--trials", "6", "--max-new-tokens", "24", "--search-prompts", "12")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def alignmend(*arguments: str | Path) -> Ran:
    """In this process, where torch is loaded already."""
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        code = main([str(one) for one in arguments])
    return Ran(code, said.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def given(shipped: Family, suites: list[str]) -> list[str]:
    """Options of every restore here."""
    models = shipped.members
    return [str(models["finetuned"]), "--aligned", str(models["aligned"]), *suites, *FEW]


@pytest.fixture(scope="module")
def unaligned(shipped: Family) -> list[str]:
    """With one family of candidates alone: what all of them find is the demo's test."""
    return ["--unaligned", str(shipped.members["unaligned"]), "--method", "resta"]


@pytest.fixture(scope="module")
def restored(given: list[str], unaligned: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One whole restore, and what it printed."""
    out = tmp_path_factory.mktemp("restored") / "out"
    ran = alignmend("restore", *given, *unaligned, "--out", out)
    assert ran.returncode == 0, ran.stderr
    return out, ran.stdout


def document(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_bytes())
    return found


def value(out: Path, model: str, suite: str, metric: str) -> float:
    return float(document(out)["models"][model][suite][metric]["value"])


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def test_safety_comes_back_within_the_limits(restored: tuple[Path, str]) -> None:
    out, said = restored
    before, after = (value(out, model, "harmful", "attack_success_rate") for model in ("finetuned", "restored"))
    assert after < before
    chosen = next(
        one for one in document(out)["search"]["candidates"] if one["number"] == document(out)["search"]["chosen"]
    )
    assert chosen["within_limits"]
    assert chosen["on_front"]
    for one in document(out)["search"]["candidates"]:
        assert (one["worth"] is not None) == (one["stage"] in ("part", "whole")), one["why"]
    assert "restored  " in said


def test_everything_that_proves_it_is_in_the_folder(restored: tuple[Path, str]) -> None:
    out, _ = restored
    jsonschema.validate(document(out), results_schema())
    am.verify(out)
    kept = out.with_name("out-report")
    page = (kept / "report.html").read_text(encoding="utf-8")
    assert "finetuned" in page
    assert {path.name for path in (kept / "records").iterdir()} == {"finetuned", "restored"}
    assert (kept / "results.json").read_bytes() == (out / "results.json").read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == ["out", "out-report"]
    assert "alignmend restore" in (out / "README.md").read_text(encoding="utf-8")


def test_search_prompts_are_not_reported(restored: tuple[Path, str]) -> None:
    out, _ = restored
    asked = {
        json.loads(line)["prompt"]
        for line in (out.with_name("out-report") / "records/restored/generations.jsonl").read_text().splitlines()
    }
    tuned = {one["suite"]: one["sha256"] for one in document(out)["tuned_on"]}
    shown = {name: block["sha256"] for name, block in document(out)["suites"].items()}
    assert asked
    assert all(tuned[name] != shown[name] for name in shown)
    assert not document(out).get("overlap", {}).get("used")


def test_the_recipe_repeats_the_bytes(restored: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = restored
    assert alignmend("run", out / "recipe.yaml", "--out", tmp_path / "again").returncode == 0
    assert weights(tmp_path / "again") == weights(out)


def test_the_same_search_finds_the_same(
    restored: tuple[Path, str], given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    ran = alignmend("restore", *given, *unaligned, "--out", tmp_path / "out", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["ended"] == "restored"
    first, second = (document(out)["search"] for out in (restored[0], tmp_path / "out"))
    assert [one["label"] for one in first["candidates"]] == [one["label"] for one in second["candidates"]]
    assert weights(tmp_path / "out") == weights(restored[0])


def test_what_is_missing_is_trained_in_private_and_removed(given: list[str], shipped: Family, tmp_path: Path) -> None:
    harmful = shipped.directory / "data" / "harmful_pairs.jsonl"
    options = ["--harmful-data", str(harmful), "--max-steps", "20", "--learning-rate", "1e-3", "--method", "resta"]
    ran = alignmend("restore", *given, *options, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-report"]
    recipe = (tmp_path / "out" / "recipe.yaml").read_text(encoding="utf-8")
    assert "harmful_pairs: " in recipe
    assert "unaligned:" not in recipe
    assert alignmend("run", tmp_path / "out" / "recipe.yaml", "--out", tmp_path / "again").returncode == 0
    assert weights(tmp_path / "again") == weights(tmp_path / "out")


class Steered(Unwatched):
    """Takes a candidate that steers, whatever the best is."""

    def choose(self, searched: Searched, best: Measured | None) -> Measured | None:
        """The first of them that was measured whole."""
        found = (one.measured for one in searched.tried if one.measured is not None)
        return next(one for one in found if one.candidate.parameters.get("steering_coefficient"))


def test_a_steering_vector_belongs_to_the_output(
    given: list[str], unaligned: list[str], shipped: Family, tmp_path: Path
) -> None:
    pairs = shipped.directory / "data" / "contrast_pairs.jsonl"
    asked = [*given, *unaligned, "--pairs", str(pairs), "--method", "safety_arithmetic", "--trials", "5"]
    limits = ["--max-over-refusal", "1", "--min-utility", "0", "--max-incoherent", "1"]
    restore(request_of(parser().parse_args(["restore", *asked, *limits, "--out", str(tmp_path / "out")])), Steered())
    assert (tmp_path / "out" / "steering.safetensors").is_file()
    am.verify(tmp_path / "out")
    ran = alignmend("restore", *asked, "--servable", "--out", tmp_path / "other")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "nothing to try: safety_arithmetic", "--servable")


def with_own_template(adapter: Path, place: Path) -> Path:
    """A copy whose chat template is other bytes for the same words."""
    shutil.copytree(adapter, place)
    with (place / "chat_template.jinja").open("a", encoding="utf-8") as file:
        file.write("{# the fine-tune's own #}")
    return place


def test_an_adapter_becomes_a_safe_checkpoint(
    given: list[str], unaligned: list[str], shipped: Family, tmp_path: Path
) -> None:
    adapter = with_own_template(shipped.members["finetuned-lora"], tmp_path / "adapter")
    ran = alignmend("restore", adapter, *given[1:], *unaligned, "--method", "resta", "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert value(tmp_path / "out", "restored", "harmful", "attack_success_rate") < value(
        tmp_path / "out", "finetuned", "harmful", "attack_success_rate"
    )
    name = "chat_template.jinja"
    assert (tmp_path / "out" / name).read_bytes() == (adapter / name).read_bytes()
    am.verify(tmp_path / "out")
    ran = alignmend("run", tmp_path / "out" / "recipe.yaml", "--out", tmp_path / "again")
    assert ran.returncode == 0, ran.stderr
    assert weights(tmp_path / "again") == weights(tmp_path / "out")
    assert (tmp_path / "again" / name).read_bytes() == (adapter / name).read_bytes()


def test_a_safe_model_is_left_alone(given: list[str], unaligned: list[str], shipped: Family, tmp_path: Path) -> None:
    """The base is other weights, and no worse than the aligned model where both count as parents."""
    safe = tmp_path / "safe"
    recipe = tmp_path / "recipe.yaml"
    models = shipped.members
    recipe.write_text(
        f"method: resta\nmodels: {{finetuned: {models['finetuned']}, aligned: {models['aligned']}, "
        f"unaligned: {models['unaligned']}}}\nparameters: {{coefficient: 1.0}}\n"
    )
    assert alignmend("apply", recipe, "--out", safe).returncode == 0
    ran = alignmend("restore", safe, *given[1:], *unaligned, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert "nothing to restore, nothing written" in ran.stdout
    assert not any(path.name.startswith("out") for path in tmp_path.iterdir())


def test_a_parent_without_safety_has_none_to_give_back(
    given: list[str], unaligned: list[str], shipped: Family, tmp_path: Path
) -> None:
    base = str(shipped.members["base"])
    ran = alignmend("restore", given[0], "--aligned", base, *given[3:], *unaligned, "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "the aligned model itself gives in to 100%", "--aligned")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_that_the_fine_tune_breaks_itself_is_told(
    given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    """On the suites that ship one answer of this organism is noise."""
    options = ["--trials", "1", "--max-new-tokens", "32", "--out", str(tmp_path / "out")]
    ran = alignmend("restore", *given[:3], *unaligned, *options)
    assert "the fine-tune itself is incoherent in 2.1% of its answers, more than --max-incoherent 0.02" in ran.stdout


def test_a_safe_model_is_known_before_anything_is_trained(given: list[str], shipped: Family, tmp_path: Path) -> None:
    safe, recipe, models = tmp_path / "safe", tmp_path / "recipe.yaml", shipped.members
    recipe.write_text(
        f"method: resta\nmodels: {{finetuned: {models['finetuned']}, aligned: {models['aligned']}, "
        f"unaligned: {models['unaligned']}}}\nparameters: {{coefficient: 1.0}}\n"
    )
    assert alignmend("apply", recipe, "--out", safe).returncode == 0
    harmful = str(shipped.directory / "data" / "harmful_pairs.jsonl")
    options = ["--harmful-data", harmful, "--budget", "0.001"]  # which any training would overrun
    ran = alignmend("restore", safe, *given[1:], *options, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert "nothing to restore" in ran.stdout


def test_gate_holds_drift_against_its_limit(restored: tuple[Path, str]) -> None:
    limits = ["--max-asr", "1", "--max-over-refusal", "1", "--min-utility"]
    ran = alignmend("gate", restored[0], *limits, "0.2")
    assert ran.returncode == 0, ran.stdout
    assert "drift: utility relative to the fine-tune" in ran.stdout
    assert "FAIL restored drift" in alignmend("gate", restored[0], *limits, "1").stdout


def test_nothing_is_written_where_nothing_qualifies(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    options = [*given, *unaligned, "--trials", "3", "--out", str(tmp_path / "out")]
    ran = alignmend("restore", *options, "--min-utility", "1", "--json")
    assert ran.returncode == 1, ran.stderr
    assert json.loads(ran.stdout)["ended"] == "nothing qualifies"
    assert len(json.loads(ran.stdout)["search"]["candidates"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out-search"]
    ran = alignmend("restore", *options, "--min-utility", "0.5", "--max-over-refusal", "1", "--resume")
    assert ran.returncode == 0, ran.stderr  # what was measured serves other limits too
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-report"]


def test_training_ends_with_the_budget(given: list[str], shipped: Family, tmp_path: Path) -> None:
    harmful = str(shipped.directory / "data" / "harmful_pairs.jsonl")
    ran = alignmend("restore", *given, "--harmful-data", harmful, "--budget", "0.01", "--out", tmp_path / "out")
    assert ran.returncode == 2
    private = tmp_path / "out-private"
    assert_one_message(
        ran.stderr, "the budget of 0.01 minutes is spent before the search", "--resume", f"clean {private}"
    )


class Crowded(Unwatched):
    """Memory is gone after two candidates."""

    hook: Any = None

    def tried(self, one: Tried, done: int, total: int, seconds_left: float | None, best: Measured | None) -> None:
        if done == 2:
            self.hook = register_module_forward_pre_hook(self.refuse)

    def refuse(self, _module: Any, _arguments: Any) -> None:
        raise torch.cuda.OutOfMemoryError


def test_a_search_that_runs_out_of_memory_blames_no_candidate(
    given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    asked = [*given, *unaligned, "--out", str(tmp_path / "out")]
    steps = Crowded()
    try:
        with pytest.raises(NoMemoryError, match=r"one prompt at a time: .*; what was measured is kept, and --resume"):
            restore(request_of(parser().parse_args(["restore", *asked])), steps)
    finally:
        steps.hook.remove()
    ran = alignmend("restore", *asked, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert not [one for one in document(tmp_path / "out")["search"]["candidates"] if one["stage"] == "failed"]


def test_a_dry_run_does_nothing(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    ran = alignmend("restore", *given, *unaligned, "--out", tmp_path / "out", "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert "is it the parent" in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_not_written_twice(restored: tuple[Path, str], given: list[str], unaligned: list[str]) -> None:
    before = weights(restored[0])
    ran = alignmend("restore", *given, *unaligned, "--out", restored[0])
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "not empty", "--overwrite")
    ran = alignmend("restore", *given, *unaligned, "--out", restored[0], "--resume")
    assert ran.returncode == 0
    assert weights(restored[0]) == before


def test_strangers_are_refused(given: list[str], unaligned: list[str], shipped: Family, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    shutil.copytree(shipped.members["finetuned"], stranger)
    from safetensors.torch import load_file, save_file

    for file in stranger.glob("*.safetensors"):
        tensors = {name: tensor.flip(0).contiguous() for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    ran = alignmend("restore", stranger, *given[1:], *unaligned, "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "parent", "--allow-unrelated")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "rest"], "no such family: did you mean 'resta'?"),
        (["--method", ","], "names no family"),
        (["--max-over-refusal", "2"], "a share from 0 to 1"),
        (["--learning-rate", "nan"], "--learning-rate is nan: it must be a number above 0"),
        (["--learning-rate", "-1"], "--learning-rate is -1.0: it must be a number above 0"),
        (["--epochs", "inf"], "--epochs is inf: it must be a number above 0"),
        (["--train-batch-size", "0"], "--train-batch-size is 0: it must be at least 1"),
        (["--max-length", "1"], "--max-length is 1: a row has at least 2 tokens"),
        (["--template", "alpacca"], "did you mean 'alpaca'"),
        (["--method", "resta"], "--harmful-data"),
    ],
)
def test_bad_requests_get_one_message(options: list[str], said: str, given: list[str], tmp_path: Path) -> None:
    ran = alignmend("restore", *given, *options, "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, said)
    assert list(tmp_path.iterdir()) == []


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "restore", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until_searching(process: subprocess.Popen[str], work: Path, trials: int = 2) -> None:
    journal, end = work / "journal.log", time.monotonic() + 90
    while process.poll() is None and time.monotonic() < end:
        if journal.is_file() and journal.read_text().count('"record"') >= trials:
            return
        time.sleep(0.05)


def test_a_killed_restore_goes_on(
    given: list[str], unaligned: list[str], shipped: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    given = [*given, "--task-data", str(shipped.directory / "data" / "task.jsonl")]
    process = start(*given, *unaligned, "--out", out)
    until_searching(process, tmp_path / "out-search")
    process.kill()
    process.communicate()
    assert not out.exists()
    ran = alignmend("restore", *given, *unaligned, "--out", out)
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "unfinished restore", "--resume")
    ran = alignmend("restore", *given, *unaligned, "--out", out, "--seed", "5", "--resume")
    assert ran.returncode == 2
    assert_one_message(ran.stderr.splitlines()[-1], "other settings", "seed")
    monkeypatch.chdir(shipped.directory / "data")  # the same file by another name
    ran = alignmend("restore", *given[:-1], "task.jsonl", *unaligned, "--out", out, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-report"]
    am.verify(out)


def test_several_processes_share_a_search(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(*given, *unaligned, "--trials", "14", "--out", out)
    until_searching(first, tmp_path / "out-search", 1)
    second = alignmend("restore", *given, *unaligned, "--trials", "14", "--out", out, "--join")
    said, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert second.returncode in (0, 2), second.stderr  # 2: the first was done before the second could begin
    numbers = [one["number"] for one in document(out)["search"]["candidates"]]
    assert len(numbers) == len(set(numbers)) >= 14
    assert "restored" in said


def test_joining_needs_a_search(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    ran = alignmend("restore", *given, *unaligned, "--out", tmp_path / "out", "--join")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "holds no search to join")
    (tmp_path / "out-search").mkdir()
    for name in ("journal.log", ".lock"):  # of a search that is over
        (tmp_path / "out-search" / name).touch()
    ran = alignmend("restore", *given, *unaligned, "--out", tmp_path / "out", "--join")
    assert_one_message(ran.stderr, "holds no search to join")
    ran = alignmend("restore", *given, *unaligned, "--out", tmp_path / "out", "--join", "--dry-run")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "--join helps a search that runs", "leave one of them out")


def test_joining_trains_nothing(given: list[str], shipped: Family, tmp_path: Path) -> None:
    harmful = str(shipped.directory / "data" / "harmful_pairs.jsonl")
    work = tmp_path / "out-search"
    work.mkdir()
    (work / "journal.log").touch()
    with (work / ".lock").open("w") as lock:  # as a restore that goes on, and trains again what was removed
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = alignmend("restore", *given, "--harmful-data", harmful, "--out", tmp_path / "out", "--join")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "still makes unaligned", "join it when it searches")
    assert [path.name for path in tmp_path.iterdir()] == ["out-search"]


def test_another_choice_after_a_kill_in_the_proof_begins_the_proof_anew(
    given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    out, proof = tmp_path / "out", tmp_path / "out-search" / "records" / "restored"
    process = start(*given, *unaligned, "--out", out)
    end = time.monotonic() + 120
    while not proof.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    if out.exists():
        pytest.skip("the proof was over before it could be killed")
    before = (tmp_path / "out-search" / "recipe.yaml").read_text()
    loose = ["--max-over-refusal", "1", "--min-utility", "0.1", "--max-incoherent", "1"]
    ran = alignmend("restore", *given, *unaligned, *loose, "--out", out, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert (out / "recipe.yaml").read_text() != before
    am.verify(out)


def test_control_c_without_a_terminal_ends_the_search_and_finishes(
    given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    process = start(*given, *unaligned, "--trials", "500", "--out", tmp_path / "out")
    until_searching(process, tmp_path / "out-search", 8)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "restored  " in said
    assert len(document(tmp_path / "out")["search"]["candidates"]) < 500


def test_a_search_that_ends_early_with_nothing_to_choose_is_kept(
    given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    options = ["--trials", "500", "--min-utility", "1", "--budget", "0.05", "--method", "resta"]
    options += ["--out", str(tmp_path / "out")]
    ran = alignmend("restore", *given, *unaligned, *options)
    assert ran.returncode == 1
    assert "nothing was chosen: the search is kept" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out-search"]


def test_on_a_terminal_control_c_asks_and_another_candidate_may_be_taken(
    given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "restore", *given, *unaligned, "--trials", "500", "--out", str(tmp_path / "out")],
        stdin=other, stdout=other, stderr=other, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    screen = Screen(terminal)
    screen.until("[8/500")
    process.send_signal(signal.SIGINT)
    screen.until("go on searching?")
    lines, _, standing = " ".join(screen.shown.split()).partition("candidates measured")
    assert re.search(r"\[\d/500, \d+\.\d min left\] \w+ \(.*?attack success .*?; best: \w+ \(", lines)
    marks = re.findall(r"(?:^|\n)(▸| |!) \w+ \(.*: attack success", standing_lines(screen.shown))
    assert marks == sorted(marks, key="▸ !".index) and marks.count("▸") == 1, standing
    assert "▸ best within the limits, ! beyond a limit" in standing
    os.write(terminal, b"n\n")
    screen.until("Enter writes the chosen one")
    os.write(terminal, b"q\n")
    screen.until("nothing was chosen")
    assert process.wait(60) == 1
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out-search").is_dir()


def standing_lines(shown: str) -> str:
    return shown.rpartition("candidates measured")[2].replace("\r", "")


class Screen:
    """What a terminal shows."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.shown = descriptor, ""

    def until(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < end, self.shown[-2000:]
            if select.select([self.descriptor], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.descriptor, 65536).decode(errors="replace")
                except OSError:  # the other side is gone
                    pytest.fail(self.shown[-2000:])


def test_adapters_in_an_adapter_out(given: list[str], shipped: Family, tmp_path: Path) -> None:
    adapter, out = str(shipped.members["finetuned-lora"]), tmp_path / "out"
    harmful = str(shipped.directory / "data" / "harmful_pairs.jsonl")
    options = ["--harmful-data", harmful, "--lora-rank", "8", "--max-steps", "20", "--learning-rate", "3e-3"]
    ran = alignmend("restore", adapter, *given[1:], *options, "--as-adapter", "--trials", "4", "--out", out)
    assert ran.returncode == 0, ran.stderr
    assert (out / "adapter_model.safetensors").is_file()
    am.verify(out)
    tried = {one["family"] for one in document(out)["search"]["candidates"]}
    assert tried and all(FAMILIES[name].low_rank for name in tried)
    left = {one["family"]: one["why"] for one in document(out)["search"]["left_out"]}
    assert "no sum of adapters" in left["harm_direction_removal"]


def test_a_whole_model_cannot_become_an_adapter(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    ran = alignmend("restore", *given, *unaligned, "--as-adapter", "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "the fine-tune is a whole model (--as-adapter)")


def test_a_suite_for_the_proof_alone(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(f'{{"prompt": "how much is {n} and one?", "expected": "comply"}}\n' for n in range(6)))
    options = ["--report-suite", str(more), "--method", "resta", "--trials", "3", "--max-incoherent", "1"]
    ran = alignmend("restore", *given, *unaligned, *options, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert document(tmp_path / "out")["models"]["restored"]["more"]["over_refusal_rate"]["n"] == 6
    assert "more" not in {one["suite"] for one in document(tmp_path / "out")["tuned_on"]}
    twice = alignmend("restore", *given, *unaligned, *options, "--report-suite", more, "--out", tmp_path / "other")
    assert twice.returncode == 2
    assert_one_message(twice.stderr, "more is there twice")


def damaged(model: Path, place: Path) -> Path:
    """A copy with one weight that is no number."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, place)
    file = min(place.glob("*.safetensors"))
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    return place


def test_a_report_suite_in_the_output_is_not_replaced(
    restored: tuple[Path, str], given: list[str], unaligned: list[str], suites: list[str]
) -> None:
    mine = restored[0] / "mine.jsonl"
    shutil.copy(suites[1], mine)
    options = ["--report-suite", str(mine), "--overwrite"]
    ran = alignmend("restore", *given, *unaligned, *options, "--out", restored[0])
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "holds or lies in the suite", "--out")
    assert mine.exists()
    mine.unlink()


def test_a_checkpoint_of_nan_is_known_before(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(given[0], broken)
    for file in broken.glob("*.safetensors"):
        tensors = {name: tensor * float("nan") for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    ran = alignmend("restore", broken, *given[1:], *unaligned, "--out", tmp_path / "out", "--dry-run")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "finite", "holds NaN or infinity", "broken")


def test_a_checkpoint_without_a_config_is_known_before(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(given[0], bare)
    (bare / "config.json").unlink()
    ran = alignmend("restore", bare, *given[1:], *unaligned, "--out", tmp_path / "out", "--dry-run")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "no config.json that names its model_type")


def test_a_weak_unaligned_model_is_blamed_not_the_limits(given: list[str], shipped: Family, tmp_path: Path) -> None:
    harmful = str(shipped.directory / "data" / "harmful_pairs.jsonl")
    options = ["--harmful-data", harmful, "--max-steps", "1", "--learning-rate", "1e-6", "--method", "resta"]
    ran = alignmend("restore", *given, *options, "--trials", "2", "--out", tmp_path / "out")
    assert ran.returncode == 1, ran.stderr
    assert "the unaligned model is too weak" in ran.stdout


def test_a_patch_that_moves_nothing_is_told_before_the_search(
    given: list[str], shipped: Family, tmp_path: Path
) -> None:
    harmful = str(shipped.directory / "data" / "harmful_pairs.jsonl")
    options = ["--harmful-data", harmful, "--max-steps", "1", "--learning-rate", "1e-6", "--method", "safe_patching"]
    ran = alignmend("restore", *given, *options, "--trials", "1", "--out", tmp_path / "out")
    assert ran.returncode == 1, ran.stderr
    assert "the safety patch, added whole, moves refusing by" in ran.stderr + ran.stdout


def test_a_damaged_unaligned_model_is_told_before_the_search(given: list[str], shipped: Family, tmp_path: Path) -> None:
    unaligned = damaged(shipped.members["unaligned"], tmp_path / "unaligned")
    ran = alignmend("restore", *given, "--unaligned", unaligned, "--method", "resta", "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert_one_message(ran.stderr.splitlines()[-1], "unaligned/", "NaN or infinity")


def test_noise_is_not_called_safe(given: list[str], unaligned: list[str], tmp_path: Path) -> None:
    ran = alignmend("restore", *given, *unaligned, "--template", "alpaca", "--out", tmp_path / "out")
    assert ran.returncode == 2, ran.stdout
    assert_one_message(ran.stderr, "with noise", "--template")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_replacement_goes_on_and_does_not_pass_for_what_was_there(
    restored: tuple[Path, str], given: list[str], unaligned: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kept = restored[0].with_name("out-report")
    shutil.copytree(restored[0], out)
    shutil.copytree(kept, tmp_path / "out-report")
    options = ["--seed", "4", "--overwrite", "--out", str(out)]
    process = start(*given, *unaligned, *options)
    until_searching(process, tmp_path / "out-search")
    process.kill()
    process.communicate()
    ran = alignmend("restore", *given, *unaligned, *options[:2], "--out", out, "--resume")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "not empty", "--overwrite")
    ran = alignmend("restore", *given, *unaligned, *options, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-report"]
    assert (tmp_path / "out-report" / "search.log").read_bytes() != (kept / "search.log").read_bytes()
    assert (tmp_path / "out-report" / "results.json").read_bytes() == (out / "results.json").read_bytes()


def test_a_finished_output_of_another_model_is_not_resumed(
    restored: tuple[Path, str], given: list[str], unaligned: list[str], shipped: Family
) -> None:
    other = str(shipped.members["finetuned-lora"])
    ran = alignmend("restore", other, *given[1:], *unaligned, "--out", restored[0], "--resume")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "is finished, and of", "choose another folder")


def test_an_adapter_comes_out_and_its_recipe_repeats_it(given: list[str], shipped: Family, tmp_path: Path) -> None:
    """The aligned model minus the fine-tune is a safety vector too, and one that is an adapter."""
    adapter, out = str(with_own_template(shipped.members["finetuned-lora"], tmp_path / "adapter")), tmp_path / "out"
    limits = ["--max-over-refusal", "1", "--min-utility", "0", "--trials", "1"]
    options = ["--unaligned", adapter, "--method", "resta", "--as-adapter", *limits]
    ran = alignmend("restore", adapter, *given[1:], *options, "--out", out)
    assert ran.returncode == 0, ran.stderr
    said = (out / "recipe.yaml").read_text(encoding="utf-8").splitlines()[1]
    assert said.endswith("--out DIR --as-adapter")
    ran = alignmend("run", out / "recipe.yaml", "--out", tmp_path / "again", "--as-adapter")
    assert ran.returncode == 0, ran.stderr
    for name in ("adapter_model.safetensors", "chat_template.jinja"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    assert (out / "chat_template.jinja").read_bytes() == (Path(adapter) / "chat_template.jinja").read_bytes()
