"""Deltas weighed by input moments: beside float64 arithmetic, by hand, and at the limits where the answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.checkpoints import EMBEDDING, Tensors, computed, llama_shapes, near, normal, same_bits, write
from tests.io.adapter_files import write as write_adapter
from tests.moment_files import write_moments
from torch import Tensor

import alignmend as am
from alignmend.errors import FileFormatError, MismatchError, NonFiniteError, ParameterError
from alignmend.execution.adapter_output import save_adapter

QUERY = "model.layers.{}.self_attn.q_proj.weight"
DOWN = "model.layers.{}.mlp.down_proj.weight"
WIDTHS = {QUERY.format(0): 8, DOWN.format(0): 16, QUERY.format(1): 8, DOWN.format(1): 16}
BASE = normal(0, llama_shapes())


def moments_of(seed: int, count: int, widths: dict[str, int] = WIDTHS) -> dict[str, Tensor]:
    """Rows R of every site; their moment is R^T R."""
    rows = normal(seed, {name: (count, width) for name, width in widths.items()})
    return {name: values / count**0.5 for name, values in rows.items()}


def squared(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (values.double().T @ values.double()).float() for name, values in rows.items()}


def exact(stored: Tensor) -> reference.Array:
    """C in float64, of either way to store it."""
    values = stored.double().numpy()
    return values if len(values) == values.shape[1] else values.T @ values


@dataclass(frozen=True)
class Trial:
    """A fine-tune, its parent, and moments of the fine-tune's inputs, in memory and on disk."""

    folder: Path
    tensors: dict[str, Tensors]
    harmful: dict[str, Tensor]
    harmless: dict[str, Tensor]

    @property
    def finetuned(self) -> am.Checkpoint:
        return am.open(self.folder / "f")

    @property
    def vector(self) -> am.Delta:
        return am.open(self.folder / "a") - self.finetuned

    @property
    def moments(self) -> am.Moments:
        return am.open_moments(self.folder / "moments.safetensors")

    def expected(self, coefficient: float, beta: float, ridge: float) -> reference.Arrays:
        f, a = (reference.numbers(self.tensors[role]) for role in "fa")
        pairs = {name: [exact(kind[name]) for kind in (self.harmful, self.harmless)] for name in WIDTHS}
        return reference.add(
            f, reference.scale(coefficient, reference.weigh(reference.subtract(a, f), pairs, beta, ridge))
        )


def trial(folder: Path, harmful: dict[str, Tensor], harmless: dict[str, Tensor], seed: int = 1) -> Trial:
    tensors = {"f": near(BASE, seed, 0.5), "a": near(BASE, seed + 1, 0.5)}
    for role, values in tensors.items():
        write(folder / role, values)
    write_moments(folder / "moments.safetensors", {"harmful": harmful, "harmless": harmless})
    return Trial(folder, tensors, harmful, harmless)


@pytest.fixture
def full(tmp_path: Path) -> Trial:
    """Moments of full rank."""
    return trial(tmp_path, squared(moments_of(7, 200)), squared(moments_of(8, 200)))


def close(found: Tensors, expected: reference.Arrays, tolerance: float = 2e-5) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), values, rtol=0, atol=tolerance, err_msg=name)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    counts=st.tuples(st.sampled_from([2, 3, 200]), st.sampled_from([2, 3, 200])),
    numbers=st.tuples(
        st.sampled_from([-1.0, 0.5, 1.2]),
        st.sampled_from([0.0, 0.5, 1.0, 3.0, 30.0]),
        st.sampled_from([1e-3, 1e-2, 1.0]),
    ),
)
def test_the_equation_in_float64(
    seed: int,
    counts: tuple[int, int],
    numbers: tuple[float, float, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    coefficient, beta, ridge = numbers
    rows = [moments_of(seed + place, count) for place, count in enumerate(counts)]
    kinds = [one if count < 8 else squared(one) for one, count in zip(rows, counts, strict=True)]
    case = trial(tmp_path_factory.mktemp("weighed"), kinds[0], kinds[1], seed)
    weighed = am.weigh(case.vector, case.moments, beta=beta, ridge=ridge)
    found = computed(case.finetuned + coefficient * weighed, case.folder / "out")
    close(found, case.expected(coefficient, beta, ridge), 5e-5)


def two_by_two(folder: Path, harmful: list[list[float]], *harmless: list[list[float]], ridge: float = 0.0) -> Tensor:
    """What F = 0 becomes with S = [[1, 2], [3, 4]], beta 1."""
    name = QUERY.format(0)
    f, a = (write(folder / role, {name: torch.tensor(values)}) for role, values in
            (("f", [[0.0, 0.0], [0.0, 0.0]]), ("a", [[1.0, 2.0], [3.0, 4.0]])))  # fmt: skip
    kinds = dict(zip(("harmless", "borderline"), ({name: torch.tensor(one)} for one in harmless), strict=False))
    path = write_moments(folder / "m.safetensors", {"harmful": {name: torch.tensor(harmful)}, **kinds})  # type: ignore[dict-item]
    point = am.open(f)
    weighed = am.weigh(am.open(a) - point, am.open_moments(path), beta=1.0, ridge=ridge)
    return computed(point + weighed, folder / "out")[name]


def test_by_hand_only_what_harmful_inputs_hold_is_added(tmp_path: Path) -> None:
    found = two_by_two(tmp_path, [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]])
    assert found.tolist() == [[1.0, 0.0], [3.0, 0.0]]  # M = diag(1, 0)


def test_by_hand_kinds_weigh_alike_and_shared_inputs_are_halved(tmp_path: Path) -> None:
    # C_b = (diag(2, 0) + diag(0, 6)) / 2 = diag(1, 3): M = diag(1/2, 1/4).
    found = two_by_two(tmp_path, [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 6.0]])
    assert found.tolist() == [[0.5, 0.5], [1.5, 1.0]]


def test_by_hand_with_inputs_that_go_together(tmp_path: Path) -> None:
    # C_h = [[2, 1], [1, 2]], C_b = I, ridge 1/2: lambda = 1, C_h + C_b + I = [[4, 1], [1, 4]],
    # its inverse [[4, -1], [-1, 4]] / 15, so M = [[7, 2], [2, 7]] / 15.
    found = two_by_two(tmp_path, [[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]], ridge=0.5)
    torch.testing.assert_close(found, torch.tensor([[11.0, 16.0], [29.0, 34.0]]) / 15)


def test_without_beta_and_ridge_it_is_the_plain_vector_on_linear_weights(full: Trial, tmp_path: Path) -> None:
    linear = am.select(full.vector, linear=True)
    weighed = computed(full.finetuned + 0.7 * am.weigh(linear, full.moments, beta=0.0, ridge=0.0), tmp_path / "w")
    plain = computed(full.finetuned + 0.7 * linear, tmp_path / "p")
    for name, values in plain.items():
        torch.testing.assert_close(weighed[name], values, rtol=0, atol=1e-5)


def test_without_harmful_inputs_the_fine_tune_stays_bit_by_bit(tmp_path: Path) -> None:
    for number, count in enumerate((200, 3)):
        rows, nothing = (
            moments_of(8, count),
            {name: torch.zeros(min(count, width), width) for name, width in WIDTHS.items()},
        )
        case = trial(tmp_path / str(number), nothing, rows if count < 8 else squared(rows))
        chosen = am.select(case.vector, linear=True)
        found = computed(case.finetuned + am.weigh(chosen, case.moments), case.folder / "out")
        assert all(same_bits(found[name], values) for name, values in case.tensors["f"].items())


def test_a_large_beta_moves_no_output_on_harmless_inputs(full: Trial, tmp_path: Path) -> None:
    inputs, before = moments_of(8, 200), full.tensors["f"]  # the harmless ones of the fixture

    def moved(beta: float) -> float:
        found = computed(full.finetuned + am.weigh(full.vector, full.moments, beta=beta), tmp_path / f"b{beta}")
        return max(float(((found[name] - before[name]) @ inputs[name].T).norm()) for name in WIDTHS)

    plain, *shrinking = [moved(beta) for beta in (0.0, 1e2, 1e4, 1e6)]
    assert plain > 1
    assert all(now < before / 20 for before, now in zip([plain, *shrinking], shrinking, strict=False))
    assert shrinking[-1] < 1e-4 * plain


def test_it_is_the_best_trade_of_its_three_terms(full: Trial, tmp_path: Path) -> None:
    """D = S M minimises E|(D - S) x_h|^2 + beta E|D x_b|^2 + lambda |D|^2: every step away from it costs."""
    beta, ridge, name = 2.0, 0.1, DOWN.format(1)
    found = computed(full.finetuned + am.weigh(full.vector, full.moments, beta=beta, ridge=ridge), tmp_path / "out")
    f, a = (full.tensors[role][name].double() for role in "fa")
    harmful, harmless = full.harmful[name].double(), full.harmless[name].double()
    shift = ridge * float(harmful.trace()) / len(harmful)

    def cost(delta: Tensor) -> float:
        apart = delta - (a - f)
        terms = torch.trace(apart @ harmful @ apart.T) + beta * torch.trace(delta @ harmless @ delta.T)
        return float(terms + shift * delta.square().sum())

    best = found[name].double() - f
    for seed in range(5):
        step = normal(seed, {name: tuple(best.shape)})[name].double()
        assert cost(best) < min(cost(best + 0.01 * step), cost(best - 0.01 * step))


def test_rows_and_squares_give_the_same(tmp_path: Path) -> None:
    rows = moments_of(3, 3), moments_of(4, 4)
    found = []
    for number, kinds in enumerate([rows, (squared(rows[0]), rows[1]), (rows[0], squared(rows[1]))]):
        case = trial(tmp_path / str(number), *kinds)
        found.append(computed(case.finetuned + am.weigh(case.vector, case.moments), case.folder / "out"))
    for other in found[1:]:
        for name, values in found[0].items():
            torch.testing.assert_close(other[name], values, rtol=0, atol=5e-4)


def test_the_unit_of_the_inputs_does_not_matter(full: Trial, tmp_path: Path) -> None:
    harmful, harmless = (
        {name: 4.0 * values for name, values in kind.items()} for kind in (full.harmful, full.harmless)
    )
    other = trial(tmp_path / "other", harmful, harmless)
    one, two = (
        computed(case.finetuned + am.weigh(case.vector, case.moments), case.folder / "out") for case in (full, other)
    )
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=1e-6, atol=1e-6)


def test_a_weight_stored_the_other_way_round_gets_the_same(full: Trial, tmp_path: Path) -> None:
    name = DOWN.format(0)
    for role in "fa":
        write(tmp_path / f"{role}-t", {**full.tensors[role], name: full.tensors[role][name].T.contiguous()})
    kinds = {"harmful": full.harmful, "harmless": full.harmless}
    path = write_moments(tmp_path / "t.safetensors", kinds, transposed=[name])  # type: ignore[arg-type]
    point = am.open(tmp_path / "f-t")
    weighed = am.weigh(am.open(tmp_path / "a-t") - point, am.open_moments(path), beta=3.0)
    found = computed(point + weighed, tmp_path / "out-t")
    expected = computed(full.finetuned + am.weigh(full.vector, full.moments, beta=3.0), tmp_path / "out")
    torch.testing.assert_close(found[name].T, expected[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[DOWN.format(1)], expected[DOWN.format(1)], rtol=0, atol=0)


def test_weights_that_share_an_input_share_a_matrix_and_it_is_solved_once(tmp_path: Path) -> None:
    one, two = QUERY.format(0), QUERY.format(1)
    tensors = {name: BASE[name] for name in (one, two)}
    f, a = am.open(write(tmp_path / "f", tensors)), am.open(write(tmp_path / "a", near(tensors, 1)))
    kinds = {"harmful": {one: moments_of(1, 200)[one]}, "harmless": {one: moments_of(2, 200)[one]}}
    stored = {kind: squared(rows) for kind, rows in kinds.items()}
    path = write_moments(tmp_path / "m.safetensors", stored, {one: one, two: one})  # type: ignore[arg-type]
    plan = am.explain(f + am.weigh(a - f, am.open_moments(path)))
    assert "solve the weighing of 1 inputs 8 wide" in plan.passes[0]
    assert plan.bytes_read == 2 * 4 * 2 * 64 + 2 * 4 * 64, "two weights of two models, two moments of one input"


def test_threads_change_no_byte_and_the_plan_bounds_what_is_read(full: Trial, tmp_path: Path) -> None:
    checkpoint = full.finetuned + 1.2 * am.weigh(full.vector, full.moments, beta=3.0)
    one, four = (computed(checkpoint, tmp_path / str(threads), threads=threads) for threads in (1, 4))
    assert all(same_bits(one[name], values) for name, values in four.items())
    plan = am.explain(checkpoint)
    stored = sum(2 * 4 * width * width for width in WIDTHS.values())
    assert plan.bytes_read == 2 * sum(4 * values.numel() for values in BASE.values()) + stored
    assert len(plan.passes) == 2 and "4 inputs 8 to 16 wide" in plan.passes[0]
    assert "weigh((a - f), moments.safetensors, beta=3, ridge=0.001)" in plan.expression


def test_a_piece_of_a_large_weight_is_as_the_whole(tmp_path: Path) -> None:
    """Several pieces and several blocks of one weight, whose last rows fill none."""
    name, shape = QUERY.format(0), (2_100, 1_000)
    f = normal(0, {name: shape}, torch.bfloat16)
    points = [am.open(write(tmp_path / role, values)) for role, values in (("f", f), ("a", near(f, 1)))]
    harmful, harmless = (normal(seed, {name: (400, 1_000)}) for seed in (2, 3))
    path = write_moments(tmp_path / "m.safetensors", {"harmful": harmful, "harmless": harmless})
    point, weighed = points[0], am.weigh(points[1] - points[0], am.open_moments(path))
    found = computed(point + weighed, tmp_path / "out", dtype="float32")[name]
    delta = near(f, 1)[name].double() - f[name].double()
    rows = [kind[name].double() for kind in (harmful, harmless)]
    system = rows[0].T @ rows[0] + rows[1].T @ rows[1] + 1e-3 * float(rows[0].square().sum()) / 1_000 * torch.eye(1_000)
    expected = f[name].double() + torch.linalg.solve(system, rows[0].T @ (rows[0] @ delta.T)).T
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def lora(folder: Path, rank: int = 2) -> Path:
    folder.mkdir()
    tensors: dict[str, Tensor] = {}
    for seed, name in enumerate(WIDTHS):
        shape, module = BASE[name].shape, f"base_model.model.{name.removesuffix('.weight')}"
        drawn = normal(seed, {"A": (rank, shape[1]), "B": (shape[0], rank)})
        tensors |= {f"{module}.lora_{which}.weight": values for which, values in drawn.items()}
    return write_adapter(folder, tensors, r=rank, lora_alpha=6)


def test_the_adapter_is_the_dense_result_and_only_its_a_changes(full: Trial, tmp_path: Path) -> None:
    base = am.open(full.folder / "a")
    patch = am.open_adapter(lora(tmp_path / "patch"))
    restored = (base + patch) - 1.2 * am.weigh(patch, full.moments, beta=3.0)
    save_adapter(restored, tmp_path / "adapter")
    dense = computed(restored, tmp_path / "dense")
    again = computed(base + am.open_adapter(tmp_path / "adapter"), tmp_path / "again")
    for name, values in dense.items():
        torch.testing.assert_close(again[name], values, rtol=0, atol=3e-5)
    delta = {name: (base_b @ base_a) * 3.0 for name, (base_a, base_b) in _factors(tmp_path / "patch").items()}
    pairs = {name: [full.harmful[name].double().numpy(), full.harmless[name].double().numpy()] for name in WIDTHS}
    weighed = reference.weigh({name: values.double().numpy() for name, values in delta.items()}, pairs, 3.0, 1e-3)
    for name in WIDTHS:
        expected = full.tensors["a"][name].double().numpy() + delta[name].double().numpy() - 1.2 * weighed[name]
        np.testing.assert_allclose(dense[name].double().numpy(), expected, atol=5e-5)
    only = am.weigh(patch, full.moments)
    save_adapter(base + only, tmp_path / "only")
    for name, (a, b) in _factors(tmp_path / "only").items():
        old_a, old_b = _factors(tmp_path / "patch")[name]
        assert torch.equal(b, 3.0 * old_b), "the scale is in B"
        assert a.shape == old_a.shape and not torch.equal(a, old_a)


def _factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    from tests.checkpoints import load

    tensors, found = load(folder), {}
    for key in tensors:
        if ".lora_A." in key:
            name = key.removeprefix("base_model.model.").replace(".lora_A", "")
            found[name] = tensors[key], tensors[key.replace("lora_A", "lora_B")]
    return found


def test_experts_and_whatever_has_no_moments_keep_the_plain_vector_and_it_is_told(tmp_path: Path) -> None:
    shapes = llama_shapes(experts=2)
    base, experts = normal(0, shapes), [name for name in shapes if "experts" in name]
    f, a = am.open(write(tmp_path / "f", base)), am.open(write(tmp_path / "a", near(base, 1)))
    widths = {QUERY.format(layer): 8 for layer in (0, 1)}
    kinds = {"harmful": squared(moments_of(1, 99, widths)), "harmless": squared(moments_of(2, 99, widths))}
    path = write_moments(tmp_path / "m.safetensors", kinds, left_out=experts)  # type: ignore[arg-type]
    checkpoint = f + am.weigh(a - f, am.open_moments(path))
    plain, weighed = computed(f + (a - f), tmp_path / "plain"), computed(checkpoint, tmp_path / "out")
    assert all(same_bits(plain[name], weighed[name]) == (name not in widths) for name in plain)
    assert any("2 matrices inside layers have no moments (experts" in note for note in am.explain(checkpoint).notes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"drop": QUERY.format(1)}, r"has no moments of model.layers.1.self_attn.q_proj.weight"),
        ({"wide": QUERY.format(1)}, r"q_proj.weight is \[8, 8\] in .*, where .* has moments of 16 inputs"),
        ({"extra": QUERY.format(2)}, r"has moments of model.layers.2.self_attn.q_proj.weight, which is not in"),
    ],
)
def test_moments_of_another_model_are_refused(
    full: Trial, tmp_path: Path, change: dict[str, str], problem: str
) -> None:
    kinds = {"harmful": dict(full.harmful), "harmless": dict(full.harmless)}
    for values in kinds.values():
        if "drop" in change:
            del values[change["drop"]]
        else:
            values[next(iter(change.values()))] = torch.eye(16)
    path = write_moments(tmp_path / "other.safetensors", kinds)  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match=problem):
        am.explain(full.finetuned + am.weigh(full.vector, am.open_moments(path)))


def test_what_cannot_be_weighed_is_refused(full: Trial, tmp_path: Path) -> None:
    path = write_moments(tmp_path / "harmful.safetensors", {"harmful": full.harmful})
    with pytest.raises(ParameterError, match="moments of harmful texts alone: weighing needs harmful"):
        am.weigh(full.vector, am.open_moments(path))
    for name, value in (("beta", -1.0), ("ridge", float("nan")), ("beta", float("inf"))):
        with pytest.raises(ParameterError, match=f"{name} is a finite number from 0"):
            am.weigh(full.vector, full.moments, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="shrinkage is one of none, oas, not 'some'"):
        am.weigh(full.vector, full.moments, shrinkage="some")  # type: ignore[arg-type]
    with pytest.raises(FileFormatError, match="holds no input moments"):
        am.open_moments(full.folder / "f" / "model.safetensors")


@pytest.mark.parametrize("count", [3, 200])
def test_moments_that_are_no_numbers_or_cannot_be_solved_leave_nothing(tmp_path: Path, count: int) -> None:
    rows = moments_of(1, count) if count < 8 else squared(moments_of(1, count))
    flat = {name: torch.ones_like(values) for name, values in rows.items()}
    case = trial(tmp_path, flat, flat)
    with pytest.raises(ParameterError, match="cannot be solved at ridge 0: take a larger ridge"):
        computed(case.finetuned + am.weigh(case.vector, case.moments, ridge=0.0), tmp_path / "out")
    broken = {name: values.clone().index_fill_(0, torch.tensor([0]), float("nan")) for name, values in rows.items()}
    path = write_moments(tmp_path / "nan.safetensors", {"harmful": broken, "harmless": rows})
    with pytest.raises(NonFiniteError, match="holds NaN or infinity: make the moments anew"):
        computed(case.finetuned + am.weigh(case.vector, am.open_moments(path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shrinkage_follows_the_rule_and_leaves_many_texts_alone() -> None:
    from alignmend.execution.input_matrices import shrunk

    moment = squared(moments_of(1, 20))[QUERY.format(0)]
    values, n = moment.double().numpy(), len(moment)
    trace, squares = np.trace(values), float((values * values).sum())
    for positions in (1, 20, 10**9):
        rho = ((1 - 2 / n) * squares + trace**2) / ((positions + 1 - 2 / n) * (squares - trace**2 / n))
        rho = min(1.0, rho)
        expected = (1 - rho) * values + rho * trace / n * np.eye(n)
        np.testing.assert_allclose(shrunk(moment, positions).double().numpy(), expected, atol=1e-6)
    torch.testing.assert_close(shrunk(moment, 10**9), moment, rtol=0, atol=1e-6)
    torch.testing.assert_close(shrunk(moment, 1), torch.eye(n) * moment.trace() / n)


def test_few_texts_and_none_that_are_borderline_are_warned_of(full: Trial, tmp_path: Path) -> None:
    kinds = {"harmful": full.harmful, "harmless": full.harmless}
    path = write_moments(tmp_path / "few.safetensors", kinds, texts=16)  # type: ignore[arg-type]
    saved = am.save(full.finetuned + am.weigh(full.vector, am.open_moments(path)), tmp_path / "out")
    told = "\n".join(saved.warnings)
    assert "moments over 16 harmful texts are noisy: 240 or more" in told
    assert "moments over 16 harmless texts are noisy: 32 or more" in told
    assert "no moments of borderline texts" in told
    assert "were taken in another model" in told
    enough = {**kinds, "borderline": full.harmless}
    path = write_moments(tmp_path / "many.safetensors", enough, texts=240)  # type: ignore[arg-type]
    assert not any("noisy" in note or "borderline" in note for note in am.explain(
        full.finetuned + am.weigh(full.vector, am.open_moments(path))).notes)  # fmt: skip


def test_the_embedding_is_left_to_the_caller(full: Trial, tmp_path: Path) -> None:
    """Outside of linear layers a weighed vector is the vector: `select(linear=True)` leaves it out."""
    both = computed(full.finetuned + am.weigh(full.vector, full.moments), tmp_path / "both")
    linear = computed(full.finetuned + am.weigh(am.select(full.vector, linear=True), full.moments), tmp_path / "linear")
    assert same_bits(linear[EMBEDDING], full.tensors["f"][EMBEDDING])
    torch.testing.assert_close(both[EMBEDDING], full.tensors["a"][EMBEDDING], rtol=0, atol=1e-6)
