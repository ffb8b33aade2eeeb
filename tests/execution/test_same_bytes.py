"""Threads, shards, order and resumption never change a byte."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoints import load, near, normal, same_bits, write

import alignmend as am
from alignmend.algebra.structure import resolve
from alignmend.algebra.thresholds import Findings
from alignmend.execution.blocks import BLOCK, Evaluator
from alignmend.execution.files import Files
from alignmend.execution.pieces import Piece, compute, cut

SHAPES = {"model.layers.0.w": (2_100, 2_100), "model.layers.1.w": (301, 257), "model.layers.10.b": (65_537,), "v": (5,)}
"""The first has several pieces, the next ones several blocks."""
BASE = normal(0, SHAPES, torch.bfloat16)
MODELS = {"f": near(BASE, 1), "a": near(BASE, 2), "u": near(BASE, 3)}
Make = Callable[[am.Checkpoint, am.Checkpoint, am.Checkpoint], am.Checkpoint]

EXPRESSIONS: dict[str, Make] = {
    "resta": lambda f, a, u: f + 0.5 * (a - u),
    "dropped": lambda f, a, u: a + am.drop(f - a, density=0.7, seed=3) + 0.5 * (a - u),
    "trimmed": lambda f, a, u: f + am.trim(a - u, density=0.1),
    "masked": lambda f, a, u: (
        f
        + am.where(
            am.top(am.magnitude(a - u), density=0.3, scope="tensor") - am.random_mask(density=0.5, seed=1), a - f
        )
    ),
}
numbers = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytes")


def opened(
    folder: Path, shards: int = 1, backwards: bool = False
) -> tuple[am.Checkpoint, am.Checkpoint, am.Checkpoint]:
    order = sorted(SHAPES, reverse=backwards)
    paths = [folder / f"{role}-{shards}-{backwards}" for role in "fau"]
    for role, path in zip("fau", paths, strict=True):
        if not path.exists():
            write(path, MODELS[role], shards=shards, order=order)
    f, a, u = (am.open(path) for path in paths)
    return f, a, u


def digest(checkpoint: am.Checkpoint, folder: Path, threads: int) -> str:
    out = folder / f"out{next(numbers)}"
    am.save(checkpoint, out, threads=threads, rounding="stochastic", hash=False)
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_threads_shards_and_order_change_no_byte(name: str, folder: Path) -> None:
    make = EXPRESSIONS[name]
    layouts = [(1, False, 1), (1, False, 2), (1, False, 5), (3, True, 2), (4, False, 1)]
    digests = {
        digest(make(*opened(folder, shards, backwards)), folder, threads) for shards, backwards, threads in layouts
    }
    assert len(digests) == 1


def test_files_of_the_safetensors_library_give_the_same_bytes(folder: Path) -> None:
    checkpoints = []
    for role in "fau":
        path = folder / f"library-{role}"
        path.mkdir()
        save_file(MODELS[role], path / "model.safetensors")
        checkpoints.append(am.open(path))
    make = EXPRESSIONS["resta"]
    assert digest(make(*checkpoints), folder, 2) == digest(make(*opened(folder)), folder, 2)


def test_output_shards_hold_the_same_tensors(folder: Path) -> None:
    f, a, u = opened(folder)
    one, many = folder / "one", folder / "many"
    for out, size in ((one, "5GB"), (many, "300KB")):
        am.save(EXPRESSIONS["dropped"](f, a, u), out, max_shard_size=size)
    left, right = load(one), load(many)
    assert len(list(many.glob("*.safetensors"))) == 2
    assert left.keys() == right.keys()
    assert all(same_bits(left[name], right[name]) for name in left)
    reopened = am.open(many)
    assert set(reopened.root.folder.tensors) == set(SHAPES)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_piece_is_a_picklable_value_and_its_blocks_are_independent(name: str, folder: Path) -> None:
    structure = resolve(EXPRESSIONS[name](*opened(folder)), _found(name, folder))
    plan = next(plan for plan in structure.tensors if plan.name == "model.layers.1.w")
    (span,) = cut(plan.entry, plan.change)
    whole = _computed(
        pickle.loads(pickle.dumps(Piece(plan.entry, plan.change, *span, "BF16", "nearest", 0, False, "n")))
    )
    parts = [
        _computed(Piece(plan.entry, plan.change, start, min(start + BLOCK, span[1]), "BF16", "nearest", 0, False, "n"))
        for start in range(0, span[1], BLOCK)
    ]
    assert whole == b"".join(parts)


def _found(name: str, folder: Path) -> Findings:
    saved = am.save(EXPRESSIONS[name](*opened(folder)), folder / f"found-{name}", hash=False)
    return Findings(saved.thresholds, saved.coefficients)


def _computed(piece: Piece) -> bytes:
    size = {"BF16": 2, "F32": 4}[piece.dtype]
    found = bytearray((piece.stop - piece.start) * size)

    def sink(start: int, data: memoryview) -> None:
        at = (start - piece.start) * size
        found[at : at + len(data)] = data

    with Files() as files:
        compute(piece, Evaluator(files), sink)
    return bytes(found)


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_run_that_was_interrupted_resumes_to_the_same_bytes(kept: int, folder: Path, tmp_path: Path) -> None:
    f, a, u = opened(folder)
    expression = EXPRESSIONS["dropped"](f, a, u)
    seen = 0

    def interrupt(what: str, done: int, total: int) -> None:
        nonlocal seen
        seen += what == "write"
        if seen > kept:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        am.save(expression, out, threads=1, progress=interrupt)
    assert not out.exists()
    resumed: list[tuple[int, int]] = []
    saved = am.save(expression, out, resume=True, progress=lambda what, done, total: resumed.append((done, total)))
    plain = am.save(expression, tmp_path / "plain")
    names = [path.name for path in sorted(out.iterdir())]
    assert names == [path.name for path in sorted((tmp_path / "plain").iterdir())]
    for name in names:
        if name != "README.md":
            assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    assert saved.steps == plain.steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plain"]


def test_another_coefficient_is_another_run(folder: Path, tmp_path: Path) -> None:
    """However close: a finished output is only taken for the run that made it."""
    f, a, u = opened(folder)
    am.save(f + 0.12345678 * (a - u), tmp_path / "out")
    with pytest.raises(am.AlignmendError, match="exists and is not empty"):
        am.save(f + 0.12345679 * (a - u), tmp_path / "out", resume=True)


def test_another_dtype_of_the_same_size_is_another_run(folder: Path, tmp_path: Path) -> None:
    f, a, u = opened(folder)
    am.save(f + 0.5 * (a - u), tmp_path / "out", dtype="bfloat16")
    with pytest.raises(am.AlignmendError, match="exists and is not empty"):
        am.save(f + 0.5 * (a - u), tmp_path / "out", dtype="float16", resume=True)


def test_resuming_a_finished_run_leaves_it(folder: Path, tmp_path: Path) -> None:
    f, a, u = opened(folder)
    first = am.save(f + 0.5 * (a - u), tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    second = am.save(f + 0.5 * (a - u), tmp_path / "out", resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert second.manifest == first.manifest
