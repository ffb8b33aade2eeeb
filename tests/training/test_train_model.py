"""Harm models and patches, from model and pairs to the folder on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.command import COMMAND
from tests.training.making import contents
from transformers import AutoModelForCausalLM

import alignmend
from alignmend.errors import FileFormatError, MismatchError, NoMemoryError, NonFiniteError, OutputError, ParameterError
from alignmend.io.manifest import Manifest, read_manifest
from alignmend.io.verify import verify
from alignmend.organisms import Family
from alignmend.training.run import Trained, train_model
from alignmend.training.settings import TrainSettings
from alignmend.training.working import held, working_folder

FEW_STEPS = 5
"""Enough steps to see an effect."""


def trained(model: Path, pairs: Path, out: Path, **options: Any) -> Trained:
    own = {name: options.pop(name) for name in ("resume", "overwrite", "progress") if name in options}
    result = train_model(model, pairs, out, TrainSettings(**{"objective": "descent"} | options), **own)
    assert result is not None
    return result


def results(manifest: Manifest) -> Any:
    return manifest.parameters["results"]


def test_descent_makes_the_answers_likely_and_the_folder_is_a_private_checkpoint(
    shipped: Family, harmful: Path, tmp_path: Path
) -> None:
    aligned, before = shipped.members["aligned"], contents(shipped.members["aligned"])
    seen: list[tuple[str, int, int]] = []
    made = trained(aligned, harmful, tmp_path / "harm", learning_rate=5e-4, progress=lambda *told: seen.append(told))
    measured = results(made.manifest)
    assert measured["after"]["loss"] < 0.5 * measured["before"]["loss"]
    assert measured["after"]["perplexity"] == pytest.approx(2.718281828 ** measured["after"]["loss"])
    assert contents(aligned) == before
    assert seen == [("descent", step, 15) for step in range(1, 16)]
    assert made.manifest.private and read_manifest(made.path) == made.manifest
    verify(made.path)
    assert "Do not publish" in (made.path / "README.md").read_text()
    losses = [json.loads(line) for line in (made.path / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in losses] == list(range(1, 16))
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert [path.name for path in tmp_path.iterdir()] == ["harm"], "nothing is left beside the output"
    assert not list(made.path.glob("training_args*"))
    harm = alignmend.open(made.path) - alignmend.open(aligned)
    alignmend.save(alignmend.open(aligned) - 0.5 * harm, tmp_path / "less")
    AutoModelForCausalLM.from_pretrained(made.path)


@pytest.mark.parametrize("rank", [None, 4])
def test_ascent_makes_them_unlikely_up_to_its_bound(
    shipped: Family, harmful: Path, tmp_path: Path, rank: int | None
) -> None:
    rate = 5e-4 if rank is None else 5e-3
    options = {"objective": "ascent", "lora_rank": rank, "learning_rate": rate, "max_steps": 60}
    made = trained(shipped.members["aligned"], harmful, tmp_path / "patch", stop_loss=3.0, **options)
    measured = results(made.manifest)
    losses = [json.loads(line)["loss"] for line in (made.path / "losses.jsonl").read_text().splitlines()]
    assert measured["stopped_at_bound"] and measured["steps"] == len(losses) - 1 < 59
    assert losses[-1] >= 3.0 > max(losses[:-1])
    assert measured["before"]["loss"] < 1.0
    assert 2.0 < measured["after"]["loss"] < 5.0, "near the bound, not far beyond"


def test_an_ascent_without_enough_steps_says_so_and_one_above_its_bound_does_not_begin(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    made = trained(tiny, pairs, tmp_path / "short", objective="ascent", max_steps=1)
    assert "below its bound of 10 nats" in made.manifest.notes[0]
    assert not results(made.manifest)["stopped_at_bound"]
    with pytest.raises(ParameterError, match=r"the loss is 5\.5\d nats .* ends at 2: raise stop_loss"):
        trained(tiny, pairs, tmp_path / "above", objective="ascent", stop_loss=2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["short"]


def test_an_adapter_is_a_delta_and_leaves_its_base_alone(shipped: Family, harmful: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    aligned = shipped.members["aligned"]
    made = trained(aligned, harmful, tmp_path / "harm", lora_rank=4, learning_rate=5e-3, max_steps=FEW_STEPS)
    assert not (made.path / "config.json").exists() and (made.path / "tokenizer.json").exists()
    base = AutoModelForCausalLM.from_pretrained(aligned, dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapted = PeftModel.from_pretrained(base, made.path)
    with adapted.disable_adapter():
        assert all(
            torch.equal(tensor, before[name])
            for name, tensor in adapted.get_base_model().state_dict().items()
            if name in before
        )
    merged = alignmend.save(
        alignmend.open(aligned) + alignmend.open_adapter(made.path), tmp_path / "merged", dtype="float32"
    )
    ours = AutoModelForCausalLM.from_pretrained(merged.path)
    tokens = torch.arange(3, 23).unsqueeze(0)
    with torch.no_grad(), adapted.disable_adapter():
        original = adapted(tokens).logits
    with torch.no_grad():
        assert torch.allclose(ours(tokens).logits, adapted(tokens).logits, atol=1e-4)
        assert not torch.allclose(original, adapted(tokens).logits, atol=1e-2)
    verify(made.path)


def test_the_same_seed_gives_the_same_bytes_and_random_states_stay(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, again, other = (
        trained(tiny, pairs, tmp_path / name / "out", learning_rate=1e-2, max_steps=FEW_STEPS, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert contents(first.path) == contents(again.path)
    assert contents(first.path)["model.safetensors"] != contents(other.path)["model.safetensors"]


def test_a_split_step_and_an_undivided_one_agree(shipped: Family, harmful: Path, tmp_path: Path) -> None:
    options = {"learning_rate": 1e-3, "max_steps": 2}
    whole = trained(shipped.members["aligned"], harmful, tmp_path / "whole", batch_size=8, **options)
    split = trained(
        shipped.members["aligned"], harmful, tmp_path / "split", batch_size=2, gradient_accumulation=4, **options
    )
    one, other = (load_file(path / "model.safetensors") for path in (whole.path, split.path))
    base = AutoModelForCausalLM.from_pretrained(shipped.members["aligned"], dtype=torch.float32).state_dict()
    step = sum((one[name] - base[name]).square().sum() for name in one)
    apart = sum((one[name] - other[name]).square().sum() for name in one)
    assert apart < 1e-4 * step


@pytest.mark.parametrize("rank", [None, 4])
def test_less_memory_gives_the_same_weights(shipped: Family, harmful: Path, tmp_path: Path, rank: int | None) -> None:
    options = {"learning_rate": 1e-3, "max_steps": 2, "lora_rank": rank}
    file = "model.safetensors" if rank is None else "adapter_model.safetensors"
    plain, saving = (
        load_file(
            trained(
                shipped.members["aligned"], harmful, tmp_path / f"{one}", gradient_checkpointing=one, **options
            ).path
            / file
        )
        for one in (False, True)
    )
    assert all(torch.allclose(plain[name], saving[name], atol=1e-6) for name in plain)


def test_weights_can_be_written_in_16_bits(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    made = trained(tiny, pairs, tmp_path / "half", max_steps=1, dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(made.path / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((made.path / "config.json").read_text())["dtype"] == "bfloat16"
    assert "rounded to bfloat16" in made.manifest.notes[0]
    verify(made.path)


def test_a_killed_run_resumes_to_the_same_bytes(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """Dropout, an epoch that does not divide, two batches a step: all of it must be continued in its place."""
    options = ["--learning-rate", "1e-2", "--max-steps", "120", "--batch-size", "3", "--gradient-accumulation", "2"]
    out = tmp_path / "killed" / "out"
    command = ["train", "--model", str(tiny), "--data", str(pairs), "--objective", "descent", "--full", *options]
    process = subprocess.Popen([*COMMAND, *command, "--out", str(out)], stderr=subprocess.PIPE)
    try:
        work = working_folder(out)
        while process.poll() is None and work.last_checkpoint() is None:
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    reached = work.last_checkpoint()
    assert reached is not None and not out.exists(), "the kill met no run in its midst"
    assert json.loads((work.path / "alignmend-private.json").read_text())["private"] is True
    cut_off = work.checkpoints / "checkpoint-119"
    cut_off.mkdir()
    same = {"learning_rate": 1e-2, "max_steps": 120, "batch_size": 3, "gradient_accumulation": 2}
    with pytest.raises(OutputError, match=r"unfinished run .* has another model, other pairs or other options"):
        trained(tiny, pairs, out, **same | {"seed": 1}, resume=True)
    assert reached.exists()
    seen: list[int] = []
    resumed = trained(tiny, pairs, out, **same, resume=True, progress=lambda what, done, total: seen.append(done))
    assert seen[0] > 1, "it began anew"
    undisturbed = trained(tiny, pairs, tmp_path / "whole" / "out", **same)
    assert contents(resumed.path) == contents(undisturbed.path)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    written = (out / "alignmend.json").stat().st_mtime_ns
    work.checkpoints.mkdir(parents=True)  # as a kill right after the output had its name would leave it
    assert trained(tiny, pairs, out, **same, resume=True).manifest == resumed.manifest
    assert (out / "alignmend.json").stat().st_mtime_ns == written, "a finished run is left as it is"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_one_run_holds_the_working_folder(tmp_path: Path) -> None:
    work = working_folder(tmp_path / "out")
    with held(work, key="a", resume=False):
        with pytest.raises(OutputError, match="another run is training in"), held(work, key="a", resume=True):
            raise AssertionError
        (work.checkpoints / "checkpoint-3").mkdir(parents=True)
        (work.checkpoints / "checkpoint-3" / "trainer_state.json").write_text("{}")
    with pytest.raises(OutputError, match="another model, other pairs"), held(work, key="b", resume=True):
        raise AssertionError
    with held(work, key="a", resume=True):
        assert work.last_checkpoint() == work.checkpoints / "checkpoint-3"
    with held(work, key="a", resume=False):
        assert work.last_checkpoint() is None
    assert not list(tmp_path.iterdir()), "nothing that could be continued is kept"


def test_places_that_are_taken_are_refused_before_training(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OutputError, match="exists and is not empty"):
        trained(tiny, pairs, tmp_path / "taken")
    model = shutil.copytree(tiny, tmp_path / "model")
    for out in (model, tmp_path):
        with pytest.raises(OutputError, match="holds the model or the pairs"):
            trained(model, pairs, out, overwrite=True)
    trained(tiny, pairs, tmp_path / "taken", max_steps=1, overwrite=True)
    assert not (tmp_path / "taken" / "file").exists()


def test_models_that_cannot_be_trained(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="LoRA cannot be put on no_such_layer"):
        trained(tiny, pairs, tmp_path / "out", lora_rank=2, lora_targets=("no_such_layer",))
    broken = shutil.copytree(tiny, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    save_file(
        {name: tensor * float("nan") for name, tensor in tensors.items()},
        broken / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(NonFiniteError, match="the loss is nan before any step: is the model broken"):
        trained(broken, pairs, tmp_path / "out")
    (broken / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(FileFormatError, match="not a model that transformers can load"):
        trained(broken, pairs, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


def test_a_loss_that_is_no_number_ends_the_run_and_the_last_finite_checkpoint_stays(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteError, match=r"at step 2 the loss is nan .*the last checkpoint before is .*-1\)"):
        trained(tiny, pairs, tmp_path / "out", learning_rate=1e30, max_steps=10)
    work = working_folder(tmp_path / "out")
    kept = work.last_checkpoint()
    assert kept == work.checkpoints / "checkpoint-1" and [*tmp_path.iterdir()] == [work.path]
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(kept / "model.safetensors").values())


def test_too_little_memory_is_one_clear_error(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """An adapter of a size that no machine has room for."""
    with pytest.raises(NoMemoryError, match=r"out of memory training .*--batch-size.*now 8\), shorter pairs"):
        trained(tiny, pairs, tmp_path / "out", lora_rank=10**12)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_two_processes_train_as_one_does(shipped: Family, harmful: Path, tmp_path: Path) -> None:
    """What `accelerate launch` starts: each process runs the command, one of them writes."""
    launch = [*COMMAND[:1], "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    arguments = ["--objective", "descent", "--full", "--batch-size", "4", "--max-steps", "6", "--learning-rate", "3e-4"]
    data = ["--model", str(shipped.members["aligned"]), "--data", str(harmful), "--out", str(tmp_path / "two")]
    ended = subprocess.run(
        [*launch, *COMMAND, "train", *data, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("descent from base") == 1
    one = trained(shipped.members["aligned"], harmful, tmp_path / "one", batch_size=8, max_steps=6, learning_rate=3e-4)
    two = read_manifest(tmp_path / "two")
    for moment in ("before", "after"):
        assert results(two)[moment]["loss"] == pytest.approx(results(one.manifest)[moment]["loss"], rel=1e-3)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "losses.jsonl").open()] for name in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
