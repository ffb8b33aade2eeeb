"""The plan is told from headers alone, and it is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.checkpoints import EMBEDDING, HEAD, llama_shapes, near, normal, write
from tests.io.adapter_files import write as write_adapter

import alignmend as am
from alignmend.errors import MismatchError, ParameterError
from alignmend.io.shards import human_bytes

BASE = normal(0, llama_shapes(), torch.bfloat16)
SIZES = {name: 2 * tensor.numel() for name, tensor in BASE.items()}
ALL = sum(SIZES.values())


@pytest.fixture
def trio(tmp_path: Path) -> list[am.Checkpoint]:
    return [am.open(write(tmp_path / role, near(BASE, seed))) for seed, role in enumerate("fau")]


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("size", ["5GB", "1KB", 700])
def test_what_is_written_is_what_was_planned(
    dtype: str | None, size: str | int, trio: list[am.Checkpoint], tmp_path: Path
) -> None:
    f, a, u = trio
    plan = am.explain(f + 0.5 * (a - u), dtype=dtype, max_shard_size=size)
    am.save(f + 0.5 * (a - u), tmp_path / "out", dtype=dtype, max_shard_size=size)
    assert plan.bytes_written == written(tmp_path / "out")
    assert [shard.file for shard in plan.shards] == sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    assert (plan.tensors, plan.changed, plan.elements) == (len(BASE), len(BASE), ALL // 2)


def test_bytes_are_counted_from_headers(trio: list[am.Checkpoint]) -> None:
    f, a, u = trio
    assert am.explain(f).bytes_read == ALL
    assert am.explain(f + 0.5 * (a - u)).bytes_read == 3 * ALL
    assert am.explain(f + am.drop(f - a, density=0.5) + (a - u)).bytes_read == 3 * ALL, "what is shared is read once"
    assert am.explain(f + am.select(a - u, names=EMBEDDING)).bytes_read == ALL + 2 * SIZES[EMBEDDING]
    trimmed = am.explain(f + am.trim(a - u, density=0.1))
    assert trimmed.bytes_read == 2 * ALL + 3 * ALL
    assert len(trimmed.passes) == 2
    nested = am.explain(f + am.trim(am.trim(a - u, density=0.5), density=0.1, scope="tensor"))
    assert (nested.bytes_read, len(nested.passes)) == (2 * ALL + 2 * ALL + 3 * ALL, 3)


def test_the_plan_says_what_is_copied_and_how(trio: list[am.Checkpoint], tmp_path: Path) -> None:
    f, a, u = trio
    text = str(am.explain(f + am.trim(am.select(a - u, kinds="norm"), density=0.25, scope="tensor")))
    assert "3 change, 6 are copied unchanged" in text
    assert "rank the weights by score" in text
    assert "keep exactly 0.25 of each tensor" in text
    assert "pass 2    compute and write, block by block" in text
    wide = am.open(write(tmp_path / "wide", {name: tensor.float() for name, tensor in BASE.items()}))
    assert any("other dtypes than the target (F32)" in note for note in am.explain(f + (wide - a)).notes)


def test_what_is_seen_of_the_file_system_is_what_is_planned(trio: list[am.Checkpoint], tmp_path: Path) -> None:
    """Every positioned read of a save, counted where it enters the system, against the plan."""
    program = """
import os, sys
real, total = os.preadv, 0
def counted(descriptor, buffers, position):
    global total
    count = real(descriptor, buffers, position)
    total += count
    return count
os.preadv = counted
import alignmend as am
f, a, u = (am.open(path) for path in sys.argv[1:4])
expression = f + am.drop(f - a, density=0.5) + 0.5 * (a - u)
plan = am.explain(expression)
am.save(expression, sys.argv[4], threads=2)
print(plan.bytes_read, total)
"""
    arguments = [str(tmp_path / role) for role in (*"fau", "out")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    planned, seen = done.stdout.split()
    assert planned == seen


def test_explaining_loads_no_torch(trio: list[am.Checkpoint], tmp_path: Path) -> None:
    program = """
import sys
import alignmend as am
f, a, u = (am.open(path) for path in sys.argv[1:])
print(am.explain(f + am.trim(am.drop(f - a, density=0.5), density=0.5) + 0.5 * (a - u)))
assert not {"torch", "transformers", "numpy"} & set(sys.modules)
"""
    arguments = [str(tmp_path / role) for role in "fau"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


MEASURE = """
import sys
from pathlib import Path
import alignmend as am
f, a, u = (am.open(path) for path in sys.argv[1:4])
expression = {
    "resta": lambda: f + am.drop(f - a, density=0.7) + 0.5 * (a - u),
    "trim": lambda: f + am.trim(a - u, density=0.1),
    "adapter": lambda: f + am.open_adapter(sys.argv[5]),
}[sys.argv[6]]()
plan = am.explain(expression, threads=2)
am.save(expression, sys.argv[4], threads=2)
(line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(plan.peak_bytes, 1024 * int(line.split()[1]))  # unlike ru_maxrss, not inherited from the parent
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of 50 MB, one tensor much the largest, and an adapter of high rank on it."""
    folder = tmp_path_factory.mktemp("large")
    base = {
        "model.layers.0.self_attn.q_proj.weight": torch.randn(4096, 4096),
        "model.layers.1.w": torch.randn(4_000_000),
    }
    for seed, role in enumerate("fau"):
        generator = torch.Generator().manual_seed(seed)
        moved = {n: (t + 0.01 * torch.randn(t.shape, generator=generator)).bfloat16() for n, t in base.items()}
        write(folder / role, moved)
    (folder / "adapter").mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_A.weight": torch.randn(128, 4096), f"{module}.lora_B.weight": torch.randn(4096, 128)}
    write_adapter(folder / "adapter", factors, r=128, lora_alpha=128)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process its peak")
@pytest.mark.parametrize("kind", ["resta", "trim", "adapter"])
def test_the_memory_bound_holds(kind: str, large: Path, tmp_path: Path) -> None:
    arguments = [*(str(large / role) for role in "fau"), str(tmp_path / "out"), str(large / "adapter"), kind]
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bound, seen = map(int, done.stdout.split())
    assert seen <= bound


def test_options_are_checked_when_planning(trio: list[am.Checkpoint]) -> None:
    f, a, u = trio
    with pytest.raises(ParameterError, match="the output dtype is one of"):
        am.explain(f + (a - u), dtype="int8")
    with pytest.raises(ParameterError, match="a size looks like 5GB, 500MB or 2GiB, not 'big'"):
        am.explain(f + (a - u), max_shard_size="big")
    with pytest.raises(ParameterError, match="threads is a number from 1 to 256, not 0"):
        am.explain(f + (a - u), threads=0)


def test_a_misfit_inside_a_ranking_is_found_when_planning(trio: list[am.Checkpoint], tmp_path: Path) -> None:
    f, a, _ = trio
    lacking = am.open(write(tmp_path / "x", {name: t for name, t in BASE.items() if name != HEAD}))
    with pytest.raises(MismatchError, match=r"lm_head\.weight is in \S+ but not in \S+x"):
        am.explain(f + am.where(am.top(am.magnitude(a - lacking), density=0.5), f - a))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (999_499, "999 KB"),
        (5e9, "5 GB"),
        (1.5e12, "1.5 TB"),
        (8e14, "800 TB"),
    ],
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert human_bytes(int(count)) == text
