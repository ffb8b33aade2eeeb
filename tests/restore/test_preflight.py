"""What is wrong with a restore is known in seconds, before anything is trained, and every problem says what to do."""

from __future__ import annotations

import json
import shutil
import time
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests import checkpoints
from tests.fixtures_organisms import shipped

from alignmend.algebra.names import natural_key
from alignmend.errors import FileFormatError
from alignmend.evaluation.suites import load_suite
from alignmend.io.folder import open_checkpoint_folder
from alignmend.io.manifest import Input, Manifest, Versions, write_manifest
from alignmend.io.private import mark_private
from alignmend.organisms import Family
from alignmend.recipes.schema import Training
from alignmend.restore.parent import find_parent, look_for_parent
from alignmend.restore.preflight import Finding, Preflight, preflight, task_overlap
from alignmend.restore.preflight_findings import from_error
from alignmend.restore.preflight_memory import Need, available_memory, fits, needs_of
from alignmend.restore.preflight_space import Size, Step, at_most, parts_to_make, size_of, steps_of
from alignmend.restore.request import Prompts, Request

__all__ = ["shipped"]

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def asked(shipped: Family, tmp_path: Path) -> Request:
    """All is well with it."""
    data = shipped.directory / "data"
    return Request(
        finetuned=str(shipped.members["finetuned"]),
        aligned=str(shipped.members["aligned"]),
        out=tmp_path / "out",
        harmful_data=data / "harmful_pairs.jsonl",
        pairs=data / "contrast_pairs.jsonl",
        task_data=data / "task.jsonl",
        prompts=Prompts(
            suites=tuple(str(shipped.suites[name]) for name in ("harmful", "borderline", "benign", "task"))
        ),
    )


def row(found: Preflight, check: str) -> Finding:
    rows = [one for one in found.findings if one.check == check]
    assert rows, f"no row {check} among {[one.check for one in found.findings]}"
    return max(rows, key=lambda one: ("ok", "note", "problem").index(one.verdict))


def refused(request: Request, check: str) -> Finding:
    """The one problem of a request."""
    found = preflight(request)
    assert [one.check for one in found.problems] == [check], found.problems
    assert found.problems[0].remedy
    return found.problems[0]


def copied(folder: Path, out: Path, **config: Any) -> Path:
    """A writable copy of a model, with another config."""
    shutil.copytree(folder, out)
    path = out / "config.json"
    if config:
        path.write_text(json.dumps(json.loads(path.read_bytes()) | config))
    return out


def rewritten(folder: Path, out: Path, change: Any) -> Path:
    """A copy whose tensors went through `change`, in one file."""
    copied(folder, out)
    tensors = {name: tensor for path in sorted(out.glob("*.safetensors")) for name, tensor in load_file(path).items()}
    for path in [*out.glob("*.safetensors"), out / "model.safetensors.index.json"]:
        path.unlink()
    save_file({name: change(name, tensor).contiguous() for name, tensor in tensors.items()}, out / "model.safetensors")
    return out


def test_an_organism_is_ready_and_that_is_known_at_once(asked: Request, shipped: Family) -> None:
    preflight(asked)  # loads transformers, which takes longer than all else
    began = time.perf_counter()
    found = preflight(asked)
    assert time.perf_counter() - began < 3
    assert found.problems == ()
    assert found.aligned == asked.aligned
    assert not found.is_adapter
    folder = open_checkpoint_folder(shipped.members["finetuned"])
    assert found.weights_bytes == sum(entry.bytes for entry in folder.tensors.values())
    assert found.parameters == sum(entry.size for entry in folder.tensors.values())
    assert "spread over 4 layers" in row(found, "is it the parent").found
    assert any(one.check == "harmful data" and "240 pairs" in one.found for one in found.findings)
    assert f"{asked.out}-private" in row(found, "private work").found
    assert f"{asked.out}-search" in row(found, "search work").found


def test_an_adapter_is_ready_and_names_its_parent(asked: Request, shipped: Family) -> None:
    found = preflight(
        replace(asked, finetuned=str(shipped.members["finetuned-lora"]), aligned=None, harmful_data=None,
                unaligned=str(shipped.members["unaligned"]))
    )  # fmt: skip
    assert found.problems == ()
    assert found.is_adapter
    assert found.aligned == str(shipped.members["aligned"].resolve())
    assert "adapter_config.json" in row(found, "parent").found
    assert "safety vector: norm" in row(found, "vectors").found


# The parent


def test_the_surest_file_names_the_parent_and_the_others_are_told(shipped: Family, tmp_path: Path) -> None:
    tuned, aligned = copied(shipped.members["finetuned"], tmp_path / "tuned"), shipped.members["aligned"]
    other = copied(aligned, tmp_path / "other")
    (tuned / "config.json").write_text(json.dumps({"_name_or_path": str(other)}))
    found = find_parent(str(tuned))
    assert found is not None
    assert (found.reference, found.found_in) == (str(other.resolve()), "config.json")

    (tuned / "README.md").write_text(f"---\nbase_model: {aligned}\nbase_model_relation: finetune\n---\n# a model\n")
    found = find_parent(str(tuned))
    assert found is not None
    assert (found.reference, found.found_in) == (str(aligned.resolve()), "the model card (README.md)")
    assert found.notes == (f"config.json names {other} instead",)

    told = Manifest(versions=Versions(alignmend="0"), expression="a", inputs={"aligned": Input(location="other")})
    write_manifest(tuned / "alignmend.json", told)
    found = find_parent(str(tuned))
    assert found is not None
    assert (found.reference, found.found_in) == (str(other.resolve()), "alignmend.json (aligned)")  # beside it

    (tuned / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nowhere/at-all/here"}))
    looked = look_for_parent(str(tuned))
    assert looked.parent is not None
    assert looked.parent.found_in == "alignmend.json (aligned)"
    assert "adapter_config.json names nowhere/at-all/here, which cannot be used" in looked.parent.notes[0]


@pytest.mark.parametrize(
    "front",
    ["base_model: [one, two]", "base_model: aligned\nbase_model_relation: merge",
     "base_model: aligned\nbase_model_relation: quantized", "base_model: 3", "base_model: [", "base_model: tuned"],
)  # fmt: skip
def test_a_card_that_names_no_one_parent_says_nothing(shipped: Family, tmp_path: Path, front: str) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tuned")
    copied(shipped.members["aligned"], tmp_path / "aligned")
    (tuned / "README.md").write_text(f"---\n{front}\n---\n")
    assert find_parent(str(tuned)) is None


def test_a_list_of_one_base_is_the_parent(shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tuned")
    aligned = copied(shipped.members["aligned"], tmp_path / "aligned")
    (tuned / "README.md").write_text("---\nbase_model: [aligned]\n---\n")
    found = find_parent(str(tuned))
    assert found is not None
    assert found.reference == str(aligned.resolve())


def test_a_parent_that_is_an_adapter_is_none(shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tuned")
    (tuned / "README.md").write_text(f"---\nbase_model: {shipped.members['finetuned-lora']}\n---\n")
    looked = look_for_parent(str(tuned))
    assert looked.parent is None
    assert "it is an adapter itself" in looked.refused[0]


def test_no_parent_is_a_problem(asked: Request) -> None:
    found = refused(replace(asked, aligned=None), "parent")
    assert "names the model that it was fine-tuned from" in found.found
    assert "--aligned" in found.remedy


def test_another_parent_than_the_adapter_names_is_noted(asked: Request, shipped: Family, tmp_path: Path) -> None:
    other = copied(shipped.members["aligned"], tmp_path / "release-2")
    found = preflight(replace(asked, finetuned=str(shipped.members["finetuned-lora"]), aligned=str(other)))
    assert row(found, "parent").verdict == "note"
    assert "adapter_config.json names ../aligned instead" in row(found, "parent").found


# The models


def test_a_stranger_is_refused_and_may_be_let_through(asked: Request, shipped: Family, tmp_path: Path) -> None:
    def shuffle(name: str, tensor: torch.Tensor) -> torch.Tensor:
        order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(len(name)))
        return tensor.reshape(-1)[order].reshape(tensor.shape)

    stranger = rewritten(shipped.members["aligned"], tmp_path / "stranger", shuffle)
    request = replace(asked, finetuned=str(stranger))
    assert "does not look like a descendant" in refused(request, "is it the parent").found
    assert not preflight(replace(request, allow_unrelated=True)).problems


def test_a_fine_tune_that_changed_nothing_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    same = copied(shipped.members["aligned"], tmp_path / "same")
    assert "no sampled weight differs" in refused(replace(asked, finetuned=str(same)), "is it the parent").found


def test_a_change_of_norms_alone_is_a_change(asked: Request, shipped: Family, tmp_path: Path) -> None:
    def norms(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 1.5 if tensor.dim() == 1 else tensor

    tuned = rewritten(shipped.members["aligned"], tmp_path / "tuned", norms)
    assert not preflight(replace(asked, finetuned=str(tuned))).problems


def test_an_untrained_adapter_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    adapter = copied(shipped.members["finetuned-lora"], tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    factors = load_file(path)
    save_file({name: one * ("lora_B" not in name) for name, one in factors.items()}, path)
    found = refused(replace(asked, finetuned=str(adapter)), "is it the parent")
    assert "changes no sampled weight" in found.found


def test_a_change_in_one_layer_is_told(asked: Request, shipped: Family, tmp_path: Path) -> None:
    def edit(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + 0.1 * tensor.std() if "layers.2.mlp.down_proj" in name else tensor

    edited = rewritten(shipped.members["aligned"], tmp_path / "edited", edit)
    found = preflight(replace(asked, finetuned=str(edited)))
    assert "nine tenths of it in layer 2 of 4" in row(found, "is it the parent").found


def test_another_vocabulary_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    def resize(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor, tensor[:8]]) if len(tensor) == 1024 else tensor

    tuned = rewritten(shipped.members["finetuned"], tmp_path / "resized", resize)
    found = preflight(replace(asked, finetuned=str(tuned)))
    assert "1,032 rows of embeddings, the aligned model 1,024" in row(found, "vocabulary").found
    assert {one.check for one in found.problems} == {"vocabulary", "tensors", "loading"}
    assert all(one.remedy for one in found.problems)


def test_another_architecture_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    shapes = checkpoints.llama_shapes(width=16)
    other = checkpoints.write(tmp_path / "other", checkpoints.normal(0, shapes), model_type="qwen2", hidden_size=16)
    shutil.copy(shipped.members["aligned"] / "tokenizer.json", other)
    found = preflight(replace(asked, finetuned=str(other)))
    assert "model_type qwen2 against llama" in row(found, "architecture").found
    assert "hidden_size 16 against 128" in row(found, "architecture").found
    assert row(found, "architecture").verdict == "problem"


def test_embeddings_tied_on_one_side_are_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tied", tie_word_embeddings=True)
    shards = sorted(tuned.glob("*.safetensors"))
    tensors = {name: tensor for path in shards for name, tensor in load_file(path).items() if name != "lm_head.weight"}
    for path in [*shards, tuned / "model.safetensors.index.json"]:
        path.unlink()
    save_file(tensors, tuned / "model.safetensors")
    found = preflight(replace(asked, finetuned=str(tuned)))
    assert "tied in the fine-tune, not tied in the aligned model" in row(found, "tied embeddings").found
    assert row(found, "tied embeddings").verdict == "problem"


def test_quantized_weights_are_refused_with_the_way_out(asked: Request, shipped: Family, tmp_path: Path) -> None:
    declared = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    tuned = copied(shipped.members["finetuned"], tmp_path / "quantized", **declared)
    found = refused(replace(asked, finetuned=str(tuned)), "fine-tune")
    assert "declares quantized weights" in found.found
    assert found.remedy.startswith("use the full-precision checkpoint")


def test_a_truncated_file_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "cut")
    path = min(tuned.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    found = refused(replace(asked, finetuned=str(tuned)), "fine-tune")
    assert "truncated" in found.found
    assert "download or copy it again" in found.remedy


@pytest.mark.parametrize("role", ["finetuned", "aligned", "unaligned"])
def test_a_model_that_is_nowhere_is_refused(asked: Request, tmp_path: Path, role: str) -> None:
    given: dict[str, Any] = {role: str(tmp_path / "nowhere")}
    found = preflight(replace(asked, **given))
    assert [one.check for one in found.problems] == [{"finetuned": "fine-tune"}.get(role, role)]
    assert "no such folder" in found.problems[0].found


def test_tokens_with_other_ids_are_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tuned")
    document = json.loads((tuned / "tokenizer.json").read_bytes())
    vocabulary = document["model"]["vocab"]
    first, second = sorted(vocabulary, key=natural_key)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tuned / "tokenizer.json").write_text(json.dumps(document))
    assert "other ids to the same tokens" in refused(replace(asked, finetuned=str(tuned)), "tokenizer").found


def test_another_chat_template_is_noted(asked: Request, shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tuned")
    (tuned / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    found = preflight(replace(asked, finetuned=str(tuned)))
    assert row(found, "chat template").verdict == "note"
    assert not found.problems


@pytest.mark.parametrize(
    ("kept", "verdict", "told"),
    [
        ("tokenizer*", "note", "it differs from the aligned model's: the fine-tune's is used"),
        ("chat_template.jinja", "note", "it differs from the aligned model's: the fine-tune's is used"),
        ("tokenizer.json", "ok", "the same in both"),
        ("adapter*", "ok", "the same in both"),
    ],
)
def test_the_template_that_is_told_of_is_the_one_that_is_used(
    kept: str, verdict: str, told: str, asked: Request, shipped: Family
) -> None:
    adapter = copied(shipped.members["finetuned-lora"], asked.out.parent / "adapter")
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    for path in {*adapter.iterdir()} - {*adapter.glob(kept), *adapter.glob("adapter*")}:
        path.unlink()
    found = row(preflight(replace(asked, finetuned=str(adapter))), "chat template")
    assert found.verdict == verdict
    assert told in found.found


def test_a_model_without_a_tokenizer_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tuned")
    for path in tuned.glob("tokenizer*"):
        path.unlink()
    assert "has none" in refused(replace(asked, finetuned=str(tuned)), "tokenizer").found


def test_a_base_that_stands_in_is_told(asked: Request, shipped: Family) -> None:
    found = preflight(replace(asked, unaligned=str(shipped.members["base"]), unaligned_kind="base", harmful_data=None))
    assert not found.problems
    assert "following instructions" in row(found, "unaligned").found


def test_an_unaligned_model_that_is_the_aligned_one_is_refused(asked: Request) -> None:
    found = refused(replace(asked, unaligned=asked.aligned), "unaligned from aligned")
    assert "no sampled weight differs" in found.found


# The data


def test_without_harmful_pairs_and_unaligned_model_it_says_what_to_do(asked: Request) -> None:
    found = row(preflight(replace(asked, harmful_data=None)), "unaligned")
    assert found.verdict == "note" and "what needs none is tried" in found.found
    assert "--harmful-data" in found.remedy
    assert "--unaligned-kind base" in found.remedy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no pairs"),
        ('{"prompt": "a"}\n', "has no response"),
        ('{"prompt": "a", "response": " "}\n', "the response is blank"),
        ('{"prompt": "a", "response"\n', "not valid JSON"),
    ],
)
@pytest.mark.parametrize("role", ["harmful_data", "task_data"])
def test_data_that_hold_nothing_are_refused(asked: Request, tmp_path: Path, role: str, text: str, said: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    given: dict[str, Any] = {role: path}
    assert said in refused(replace(asked, **given), role.replace("_", " ")).found


def test_data_that_are_nowhere_are_refused(asked: Request, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.jsonl"
    found = preflight(replace(asked, harmful_data=nowhere, task_data=nowhere, pairs=nowhere))
    assert [one.check for one in found.problems] == ["harmful data", "contrast pairs", "task data"]
    assert all("cannot be read" in one.found and one.remedy for one in found.problems)


def test_task_data_that_overlap_the_search_are_refused_by_line(asked: Request, shipped: Family, tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    lines = [json.dumps({"prompt": f"number {i}?", "response": f"{i}."}) for i in range(9)]
    prompts = load_suite(shipped.suites["benign"], split="search").prompts
    lines += [json.dumps({"prompt": one.text.upper(), "response": "yes."}) for one in prompts]
    path.write_text("\n".join(lines))
    found = refused(replace(asked, task_data=path), "task data")
    assert "prompts of the search: line " in found.found
    assert int(found.found.rpartition("line ")[2].split(",")[0]) > 9
    assert "remove these lines" in found.remedy
    assert task_overlap(path, [load_suite(shipped.suites["harmful"])]) is None


def test_too_few_task_pairs_are_refused(asked: Request, tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text('{"prompt": "one?", "response": "one."}\n' * 3)
    assert "3 pairs" in refused(replace(asked, task_data=path), "task data").found


def test_suites_that_are_not_there_are_refused(asked: Request, tmp_path: Path) -> None:
    refused(replace(asked, prompts=Prompts(suites=(str(tmp_path / "nowhere.jsonl"),))), "prompts")


# The output


def test_an_output_that_is_taken_is_refused(asked: Request) -> None:
    asked.out.mkdir()
    (asked.out / "mine.txt").write_text("mine")
    assert "exists and is not empty" in refused(asked, "output").found
    assert not preflight(replace(asked, overwrite=True)).problems


def test_an_unfinished_restore_is_refused_or_resumed(asked: Request) -> None:
    work = asked.out.with_name("out-search")
    work.mkdir()
    for name in (".lock", "journal.log"):
        (work / name).touch()
    assert "unfinished restore" in refused(asked, "output").found
    assert not preflight(replace(asked, resume=True)).problems


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_an_output_without_a_name_is_refused(asked: Request, out: str) -> None:
    assert "is no place for an output" in next(
        one.found for one in preflight(replace(asked, out=Path(out))).problems if one.check == "output"
    )


def test_an_output_that_is_an_input_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    tuned = copied(shipped.members["finetuned"], tmp_path / "tuned")
    request = replace(asked, finetuned=str(tuned), overwrite=True)
    assert "lies in the finetuned" in refused(replace(request, out=tuned), "output").found
    assert "lies in the finetuned" in refused(replace(request, out=tuned / "safe"), "output").found
    pairs = tmp_path / "out" / "pairs.jsonl"
    pairs.parent.mkdir()
    assert asked.pairs is not None
    shutil.copy(asked.pairs, pairs)
    assert "the contrast pairs" in refused(replace(asked, pairs=pairs, overwrite=True), "output").found


def test_an_input_in_a_work_folder_is_refused(asked: Request, shipped: Family, tmp_path: Path) -> None:
    kept = copied(shipped.members["unaligned"], tmp_path / "out-private" / "unaligned")
    mark_private(kept.parent, "kept by --keep-private")
    found = refused(replace(asked, unaligned=str(kept)), "output")
    assert "which a restore removes" in found.found


# Disk and memory


def test_a_disk_that_is_too_small_is_known_before(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
    found = refused(asked, "disk")
    assert "1 MB free" in found.found
    assert "--lora-rank 16" in found.remedy
    assert "leave SafePatching out" in found.remedy


def test_disk_by_hand(asked: Request) -> None:
    """100 weights in bfloat16: a part trains in two checkpoints of 12 bytes to a weight, and stays as 4."""
    size = Size(parameters=100, stored=200, rank_one=30)
    steps = {one.name: one for one in steps_of(asked, size, ("unaligned", "safety", "safety_scores"))}
    assert steps["train unaligned"] == Step("train unaligned", 2400, 400)
    assert steps["safety scores"] == Step("safety scores", 400, 400)
    assert steps["output"] == Step("output", 200, 200)
    weighed = replace(size, inputs=70)
    assert steps_of(asked, weighed, ("moments",))[0] == Step("moments", 70, 70)
    assert steps_of(asked, weighed, ("moments",), is_adapter=True)[0] == Step("moments", 470, 70)
    lora = replace(asked, training=Training(lora_rank=2))
    steps = {one.name: one for one in steps_of(lora, size, ("unaligned", "safety_scores"))}
    assert steps["train unaligned"] == Step("train unaligned", 1440, 240)  # 2 x 30 weights
    assert steps["safety scores"] == Step("safety scores", 800, 400)  # merged meanwhile


@hypothesis.given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=6))
def test_the_worst_moment_is_a_peak_on_all_that_was_kept(sizes: list[tuple[int, int]]) -> None:
    steps = [Step("", max(pair), min(pair)) for pair in sizes]
    moments = [sum(one.kept for one in steps[:place]) + step.peak for place, step in enumerate(steps)]
    assert at_most(steps) == max(moments, default=0)


def test_parts_follow_from_what_is_given(asked: Request, shipped: Family) -> None:
    patches = ("safety", "over_safety", "safety_scores", "over_safety_scores")
    assert parts_to_make(asked, is_adapter=False) == ("unaligned", *patches, "moments")
    assert parts_to_make(asked, is_adapter=True) == ("unaligned", "moments")
    given_one = replace(asked, unaligned=str(shipped.members["unaligned"]))
    assert parts_to_make(given_one, is_adapter=False) == (*patches, "moments")
    assert parts_to_make(replace(given_one, harmful_data=None), is_adapter=False) == ("moments",)
    assert parts_to_make(replace(given_one, harmful_data=None, methods=("resta",)), is_adapter=False) == ()
    assert parts_to_make(replace(asked, methods=("resta",)), is_adapter=False) == ("unaligned",)


def test_an_unknown_method_is_refused(asked: Request) -> None:
    assert "no such family" in refused(replace(asked, methods=("restta",)), "methods").found


def test_resuming_counts_what_is_there(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 60 * 10**6, 60 * 10**6))
    asked = replace(asked, methods=("resta", "safe_patching"))
    private = asked.out.with_name("out-private")
    private.mkdir()
    mark_private(private, "of a restore")
    (private / "trained").write_bytes(bytes(20 * 10**6))
    assert [one.check for one in preflight(asked).problems] == ["disk"]
    assert not preflight(replace(asked, resume=True)).problems


CONFIG: Mapping[str, object] = {"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 2}


def test_memory_by_hand(asked: Request) -> None:
    """A billion weights in bfloat16."""
    size, billion = Size(10**9, 2 * 10**9, rank_one=10**6), 10**9
    answering, training, scoring = needs_of(
        asked, size, CONFIG, ("safety", "safety_scores"), 300, has_accelerator=False
    )
    assert answering.least == 4 * billion + billion
    assert training.least == 16 * billion + billion
    assert training.usual - training.least == 8 * 101 * (12 * 10 + 68 * 4 * 2)  # 8 pairs of 101 tokens
    assert scoring.least == 8 * billion + billion
    answering, training = needs_of(asked, size, CONFIG, ("unaligned",), 300, has_accelerator=True)
    assert (answering.least, answering.on_accelerator) == (2 * billion, True)
    assert (training.least, training.on_accelerator) == (16 * billion, True)
    lora = replace(asked, training=Training(lora_rank=16))
    _, training = needs_of(lora, size, CONFIG, ("unaligned",), 300, has_accelerator=False)
    assert training.least == 16 * 16 * 10**6 + 4 * billion + billion


def test_memory_that_a_search_holds_besides_is_told(asked: Request) -> None:
    (found,) = [one for one in preflight(asked).findings if one.check == "memory to switch"]
    assert found.verdict == "ok"
    assert "up to" in found.found and "more" in found.found


def test_too_little_memory_is_known_before(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def small() -> int:
        return 10**9

    monkeypatch.setattr("alignmend.restore.preflight_memory.available_memory", small)
    found = preflight(replace(asked, prompts=replace(asked.prompts, device="cpu")))
    checks = [one.check for one in found.problems]
    assert "memory to search and prove" in checks
    assert "memory to switch" not in [one.check for one in found.findings]
    assert all(one.remedy for one in found.problems)


@pytest.mark.parametrize(("rank", "advised"), [(None, True), (4, False)])
def test_adapters_are_advised_where_they_were_not_asked_for(rank: int | None, advised: bool, asked: Request) -> None:
    need = Need("memory to train", 10**9, 10**9, on_accelerator=False, is_training=True)
    found = fits(need, 1, replace(asked, training=Training(lora_rank=rank)))
    assert ("--lora-rank" in found.remedy) is advised


def test_memory_is_what_the_system_or_its_container_has(tmp_path: Path) -> None:
    information, group = tmp_path / "meminfo", tmp_path / "group"
    information.write_text("MemTotal:  100 kB\nMemAvailable:  40 kB\n")
    assert available_memory(information, group) == 40 * 1024
    group.mkdir()
    for name, text in (("memory.max", "max"), ("memory.current", "9000"), ("memory.stat", "anon 5\nfile 1000\n")):
        (group / name).write_text(text)
    assert available_memory(information, group) == 40 * 1024
    (group / "memory.max").write_text("20000")
    assert available_memory(information, group) == 12_000
    assert (available_memory(tmp_path / "none", tmp_path / "none") or 1) > 0


# Every row


def test_a_missing_library_names_its_extra(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> object:
        return None if name in ("optuna", "peft") else find_spec(name)

    monkeypatch.setattr("alignmend.restore.preflight.find_spec", found)
    row = refused(asked, "libraries")
    assert "missing: optuna, peft (extras search, train)" in row.found
    assert "pip install 'alignmend[restore]'" in row.remedy


def test_a_row_takes_the_parts_of_an_error_and_reads_no_sentence() -> None:
    error = FileFormatError("is one shard of several", advice="supply its folder", where="model.safetensors")
    row = from_error("fine-tune", error, "choose another")
    assert (row.found, row.remedy) == ("model.safetensors: is one shard of several", "supply its folder")
    row = from_error("fine-tune", FileFormatError("a is wrong: check it"), "choose another")
    assert (row.found, row.remedy) == ("a is wrong: check it", "choose another")


def test_sizes_come_from_headers(shipped: Family) -> None:
    folder = open_checkpoint_folder(shipped.members["aligned"])
    size = size_of(folder)
    assert size.stored == 2 * size.parameters  # bfloat16
    # Per layer: queries and outputs 128 x 128, keys and values 64 x 128, three MLP matrices of 384 and 128.
    assert size.rank_one == 4 * (2 * 256 + 2 * 192 + 3 * 512)
