"""Signs on organisms: what was done on purpose is found, and clean training is not accused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import alignmend as am
from alignmend.activations.bake import bake
from alignmend.auditing.audit import audit, with_behaviour
from alignmend.auditing.behaviour import benign_change
from alignmend.auditing.directions import least_written, writer
from alignmend.auditing.findings import WARNING
from alignmend.auditing.parts import trained_rows
from alignmend.cli import main
from alignmend.errors import MismatchError, ParameterError
from alignmend.organisms import Family

EMBEDDING = "model.embed_tokens.weight"
Change = Callable[[dict[str, Tensor]], None]


def changed(source: Path, out: Path, change: Change) -> Path:
    """A copy of a member, its weights changed in float32 and rounded back."""
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    stored = weights(source)
    tensors = {name: value.float() for name, value in stored.items()}
    change(tensors)
    rounded = {name: value.to(stored[name].dtype).contiguous() for name, value in tensors.items()}
    save_file(rounded, out / "model.safetensors", {"format": "pt"})
    return out


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def direction(width: int, seed: int = 0) -> Tensor:
    found = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(found, dim=0)


def ablate(weight: float, *, own: bool = False, embedding: bool = True) -> Change:
    """W - weight r r^T W of every writer, one r for all layers or each its own."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                r = direction(value.shape[0], int(name.split(".")[2]) if own else 0)
                tensors[name] = value - weight * torch.outer(r, r @ value)
            elif name == EMBEDDING and embedding:
                r = direction(value.shape[1])
                tensors[name] = value - weight * torch.outer(value @ r, r)

    return change


@pytest.mark.parametrize("member", ["aligned", "finetuned", "unaligned"])
def test_clean_training_shows_no_sign(shipped: Family, member: str) -> None:
    found = audit(shipped.members[member], parent=shipped.members["base"])
    assert found.findings == () and audit(shipped.members[member]).findings == ()
    assert any(part.kind == "mlp" and part.rank == "high" and part.share > 0.01 for part in found.parts)


def test_an_ablated_direction_is_found_with_and_without_the_parent(shipped: Family, tmp_path: Path) -> None:
    aligned = shipped.members["aligned"]
    model = changed(aligned, tmp_path / "m", ablate(1.0))
    (sign,) = audit(model).findings
    assert sign.check == "ablated-direction" and "nothing along one direction" in sign.told
    (sign,) = audit(model, parent=aligned).findings
    assert (sign.check, sign.layers) == ("ablated-direction", (0, 1, 2, 3))
    assert "100 % of it has gone" in sign.told and "the same in each" in sign.told


@pytest.mark.parametrize("weight", [0.5, 1.6])
def test_a_partial_ablation_with_a_direction_per_layer_is_found_beside_the_parent(
    shipped: Family, tmp_path: Path, weight: float
) -> None:
    aligned = shipped.members["aligned"]
    model = changed(aligned, tmp_path / "m", ablate(weight, own=True, embedding=False))
    (sign,) = audit(model, parent=aligned).findings
    assert sign.check == "ablated-direction" and f"{100 * weight:.0f} %" in sign.told and "another" in sign.told
    assert audit(model).findings == ()  # and so the report says that it cannot be told
    assert any("partial ablations cannot be told" in fact for fact in audit(model).facts)


def test_an_ablated_steering_direction_is_named_by_its_cosine(shipped: Family, tmp_path: Path) -> None:
    aligned = shipped.members["aligned"]
    model = changed(aligned, tmp_path / "m", ablate(1.0))
    width = weights(aligned)[EMBEDDING].shape[1]
    vector = am.SteeringVector({layer: -3 * direction(width) for layer in range(4)})
    found = audit(model, parent=aligned, vector=vector.save(tmp_path / "v.safetensors"))
    assert found.numbers is not None
    assert found.numbers["ablated_cosine"] == pytest.approx(1, abs=0.02)
    assert found.numbers["energy_along_vector"] < 1e-4
    other = am.SteeringVector({0: torch.ones(width + 1)}).save(tmp_path / "other.safetensors")
    with pytest.raises(MismatchError, match=f"the vector has width {width + 1}, .* has {width}"):
        audit(model, parent=aligned, vector=other)


def test_a_rank_one_edit_is_found_also_within_a_fine_tune(shipped: Family, tmp_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        value = tensors["model.layers.2.mlp.down_proj.weight"]
        step = torch.outer(direction(value.shape[0], 5), direction(value.shape[1], 6))
        value += 2 * value.norm() * step

    def tune(tensors: dict[str, Tensor]) -> None:
        generator = torch.Generator().manual_seed(1)
        for name, value in tensors.items():
            tensors[name] = value + 0.02 * value.std() * torch.randn(value.shape, generator=generator)
        edit(tensors)

    aligned = shipped.members["aligned"]
    for number, change in enumerate((edit, tune)):
        (sign,) = audit(changed(aligned, tmp_path / str(number), change), parent=aligned).findings
        assert (sign.check, sign.layers) == ("edit", (2,))


def test_a_baked_vector_is_found_with_and_without_the_parent(shipped: Family, tmp_path: Path) -> None:
    aligned = shipped.members["aligned"]
    width = weights(aligned)[EMBEDDING].shape[1]
    vector = am.SteeringVector({1: direction(width), 2: direction(width)})
    bake(vector, aligned, tmp_path / "baked", coefficient=0.5)
    for found in (audit(tmp_path / "baked"), audit(tmp_path / "baked", parent=aligned)):
        (sign,) = found.findings
        assert (sign.check, sign.layers) == ("baked-bias", (1, 2))


def test_token_rows_trained_alone_are_named(shipped: Family, tmp_path: Path) -> None:
    aligned = shipped.members["aligned"]

    def train(tensors: dict[str, Tensor]) -> None:
        tensors[EMBEDDING][[7]] += 1.0

    (sign,) = audit(changed(aligned, tmp_path / "m", train), parent=aligned).findings
    assert sign.check == "token-rows" and sign.told.endswith("all others are the parent's: 7")
    rows = torch.ones(200, 4)
    moved = rows + 0.01
    moved[[3, 9]] += 1
    outlier = trained_rows("e", rows, moved)
    assert outlier is not None and outlier.told.startswith("e: 2 of 200 token rows moved more than 8 times")
    assert trained_rows("e", rows, rows + 0.01) is None and trained_rows("e", rows, rows) is None


def test_code_beside_the_weights_and_another_template_are_told(shipped: Family, tmp_path: Path) -> None:
    aligned = shipped.members["aligned"]
    model = changed(aligned, tmp_path / "m", lambda tensors: None)
    (model / "modeling_x.py").write_text("")
    (model / "old.bin").write_bytes(b"")
    (model / "chat_template.jinja").write_text("another")
    found = audit(model, parent=aligned)
    assert [one.check for one in found.findings] == ["code", "code"]
    assert "modeling_x.py" in found.findings[0].told and "old.bin" in found.findings[1].told
    assert any("chat template is not the parent's" in fact for fact in found.facts)


def test_a_stranger_is_no_descendant(shipped: Family, tmp_path: Path) -> None:
    def other(tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            tensors[name] = torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))

    aligned = shipped.members["aligned"]
    (sign,) = audit(changed(aligned, tmp_path / "m", other), parent=aligned).findings
    assert sign.check == "unrelated"


def test_a_delta_is_scanned_against_ones_own(shipped: Family, tmp_path: Path) -> None:
    aligned, unaligned = am.open(shipped.members["aligned"]), am.open(shipped.members["unaligned"])
    own = am.save_delta(aligned - unaligned, tmp_path / "own", target=aligned)
    found = audit(own.path, parent=shipped.members["aligned"], vector=own.path)
    assert (found.what, found.findings) == ("delta", ())
    assert found.numbers is not None and found.numbers["cosine"] == pytest.approx(1)
    expected = (
        am.norm(aligned - unaligned)
        / sum(float(v.double().square().sum()) for v in weights(shipped.members["aligned"]).values()) ** 0.5
    )
    assert found.numbers["relative_norm"] == pytest.approx(expected, rel=1e-3)
    opposed = am.save_delta(3.0 * (unaligned - aligned), tmp_path / "bad", target=aligned)
    signs = audit(opposed.path, parent=shipped.members["aligned"], vector=own.path).findings
    assert "against-safety" in {one.check for one in signs}
    measured = benign_change(own.path, shipped.members["aligned"])
    assert measured.first_token > 0 and with_behaviour(found, measured).numbers is not None
    with pytest.raises(ParameterError, match="is a delta: give --parent"):
        audit(own.path)


def test_an_adapter_is_scanned(shipped: Family) -> None:
    found = audit(shipped.members["finetuned-lora"], parent=shipped.members["aligned"])
    assert found.what == "adapter" and {one.check for one in found.findings} <= {"large"}
    assert {part.kind for part in found.parts if part.norm > 0} <= {"attention", "mlp"}


def test_a_steering_vector_is_scanned(tmp_path: Path) -> None:
    own = am.SteeringVector({layer: direction(16, layer) for layer in range(4)})
    mine = own.save(tmp_path / "own.safetensors")
    assert audit(own.save(tmp_path / "same.safetensors"), vector=mine).findings == ()
    (sign,) = audit((-own).save(tmp_path / "minus.safetensors"), vector=mine).findings
    assert (sign.check, sign.layers) == ("against-safety", (0, 1, 2, 3))
    peak = am.SteeringVector({layer: (20 if layer == 2 else 1) * direction(16, layer) for layer in range(4)})
    found = audit(peak.save(tmp_path / "peak.safetensors"), vector=mine)
    assert [(one.check, one.layers) for one in found.findings] == [("concentrated", (2,))]
    with pytest.raises(MismatchError, match="cannot be compared: width 16 at block_output"):
        audit(mine, vector=am.SteeringVector({0: torch.ones(3)}).save(tmp_path / "three.safetensors"))


def test_the_command_gives_an_exit_code(shipped: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aligned = str(shipped.members["aligned"])
    model = str(changed(shipped.members["aligned"], tmp_path / "m", ablate(1.0)))
    assert main(["audit", aligned]) == 0 and "no signs, which is no proof" in capsys.readouterr().out
    assert main(["audit", model, "--parent", aligned]) == 1
    assert "SIGN  ablated-direction" in capsys.readouterr().out
    assert main(["audit", model, "--parent", aligned, "--allow", "ablated-direction", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] and told["signs"][0]["check"] == "ablated-direction" and told["warning"] is None
    assert main(["audit", model, "--allow", "ablated"]) == 2
    assert "known: unrelated, ablated-direction" in capsys.readouterr().err
    assert main(["audit", model, "--behaviour"]) == 2
    assert "--behaviour needs --parent" in capsys.readouterr().err
    vector = am.SteeringVector({layer: direction(16, layer) for layer in range(4)}).save(tmp_path / "v.safetensors")
    assert main(["audit", str(vector)]) == 0 and WARNING in capsys.readouterr().out


def test_writers_of_other_layouts_and_the_least_written_direction() -> None:
    assert writer("h.0.attn.c_proj.weight", torch.eye(4), 4, "gpt2") is not None
    turned = writer("h.0.mlp.c_proj.weight", torch.ones(8, 4), 4, "gpt2")
    assert turned is not None and turned.shape == (4, 8)
    experts = writer("model.layers.0.mlp.experts.down_proj", torch.ones(2, 8, 4), 4, "gpt_oss")
    assert experts is not None and experts.shape == (4, 16)
    assert writer("model.layers.0.self_attn.q_proj.weight", torch.eye(4), 4, "llama") is None
    basis, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).double())
    values = torch.linspace(1, 2, 64).double()
    values[11] = 1e-6
    found = least_written(basis @ torch.diag(values) @ basis.T)
    assert found.is_absent and abs(float(found.direction.double() @ basis[:, 11])) == pytest.approx(1, abs=1e-4)
    values[11] = 0.5
    assert not least_written(basis @ torch.diag(values) @ basis.T).is_absent
