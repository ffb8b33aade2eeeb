"""Moments of a model's inputs: what they are, of which tokens, however they are computed, and as they lie on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.training.making import write_pairs
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import alignmend as am
from alignmend.errors import FileFormatError, MismatchError, OutputError, ParameterError
from alignmend.io.moments import open_moments_file
from alignmend.io.private import mark_private
from alignmend.training.encoding import encode, encode_prompts
from alignmend.training.moment_settings import MomentSettings
from alignmend.training.moments import Observed, write_moments
from alignmend.training.pairs import read_pairs

HARMFUL = [(f"How do I break {n}?", "No, I will not." * (1 + n % 3)) for n in range(7)]
HARMLESS = [(f"What is {n}?", f"It is {n}.") for n in range(5)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("texts")
    rows = {"harmful": HARMFUL, "harmless": HARMLESS}
    return {kind: write_pairs(place / f"{kind}.jsonl", found) for kind, found in rows.items()}


def observed(model: Path, texts: dict[str, Path], out: Path, **options: Any) -> Observed:
    own = ("adapter", "base", "aligned", "use_own_answers", "resume", "overwrite", "progress")
    given: dict[str, Any] = {**texts, **{name: options.pop(name) for name in own if name in options}}
    return write_moments(model, out, settings=MomentSettings(**options), **given)


def squares(made: Observed | Path) -> dict[str, Tensor]:
    """C in float64, of either way to store it."""
    tensors = load_file(made if isinstance(made, Path) else made.path)
    wide = {name: values.double() for name, values in tensors.items()}
    return {name: values if len(values) == values.shape[1] else values.T @ values for name, values in wide.items()}


def by_hand(model: Path, texts: Path, *, every: bool, answer: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    """One text after the other in float64: what enters each Conv1D, and the mean of x x^T."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    seen: dict[str, list[Tensor]] = {}

    def keep(module: Any, given: tuple[Tensor, ...]) -> None:
        seen.setdefault(names[module], []).append(given[0][0, first:])

    names = {module: f"{name}.weight" for name, module in network.named_modules() if type(module).__name__ == "Conv1D"}
    for module in names:
        module.register_forward_pre_hook(keep)
    for row in encode(AutoTokenizer.from_pretrained(model), read_pairs(texts)).rows:
        first = 0 if every else row.answer_start - 1
        tokens = row.tokens if every else row.tokens[: row.answer_start + answer]
        with torch.no_grad():
            network(torch.tensor([tokens]))
    found = {name: torch.cat(parts).numpy() for name, parts in seen.items()}
    return {name: values.T @ values / len(values) for name, values in found.items()}


def test_they_are_the_mean_of_x_x_of_the_last_prompt_token_and_four_more(
    tiny: Path, texts: dict[str, Path], tmp_path: Path
) -> None:
    made = observed(tiny, texts, tmp_path / "m.safetensors")
    found = squares(made)
    assert made.record.kinds["harmful"].texts == 7 and made.record.kinds["harmful"].positions == 7 * 5
    for kind, path in texts.items():
        for name, expected in by_hand(tiny, path, every=False).items():
            np.testing.assert_allclose(found[f"{kind}/{name}"].numpy(), expected, atol=1e-5, err_msg=f"{kind} {name}")


def test_all_positions_are_every_token_and_the_end(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    made = observed(tiny, {"harmless": texts["harmless"]}, tmp_path / "m.safetensors", positions="all")
    for name, expected in by_hand(tiny, texts["harmless"], every=True).items():
        np.testing.assert_allclose(squares(made)[f"harmless/{name}"].numpy(), expected, atol=1e-5, err_msg=name)


def test_batches_and_groups_of_layers_change_nothing(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    """Rows of several lengths are padded in batches: what is padded is never counted."""
    first = squares(observed(tiny, texts, tmp_path / "1.safetensors", batch_size=1, positions="all"))
    for number, options in enumerate(
        ({"batch_size": 3}, {"batch_size": 64}, {"layers_at_once": 1, "batch_size": 2}), 2
    ):
        other = squares(observed(tiny, texts, tmp_path / f"{number}.safetensors", positions="all", **options))
        for name, values in first.items():
            torch.testing.assert_close(other[name], values, rtol=0, atol=2e-6)


def test_two_halves_add_up_to_the_whole(tiny: Path, tmp_path: Path) -> None:
    whole = {
        "harmful": write_pairs(tmp_path / "w.jsonl", HARMFUL),
        "harmless": write_pairs(tmp_path / "h.jsonl", HARMLESS),
    }
    one = {"harmful": write_pairs(tmp_path / "a.jsonl", HARMFUL[:3]), "harmless": whole["harmless"]}
    two = {"harmful": write_pairs(tmp_path / "b.jsonl", HARMFUL[3:])}
    for number, positions in enumerate(("last", "all")):
        made = [observed(tiny, texts, tmp_path / f"{number}-{place}.safetensors", positions=positions).path
                for place, texts in enumerate((whole, one, two))]  # fmt: skip
        record = am.merge_moments(made[1:], tmp_path / f"{number}-m.safetensors")
        assert record == open_moments_file(made[0]).record
        found, expected = squares(tmp_path / f"{number}-m.safetensors"), squares(made[0])
        for name, values in expected.items():
            torch.testing.assert_close(found[name], values, rtol=0, atol=2e-6)


def test_moments_taken_otherwise_are_not_put_together(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    one = observed(tiny, texts, tmp_path / "1.safetensors")
    two = observed(tiny, texts, tmp_path / "2.safetensors", positions="all")
    with pytest.raises(MismatchError, match="differ in positions: moments are merged of one model, taken alike"):
        am.merge_moments([one.path, two.path], tmp_path / "m.safetensors")
    with pytest.raises(ParameterError, match="give at least two files"):
        am.merge_moments([one.path], tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_weights_that_read_one_input_share_its_matrix(tmp_path: Path, texts: dict[str, Path]) -> None:
    from tests.tokenizers_for_tests import byte_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=259, eos_token_id=2, **sizes)).save_pretrained(tmp_path / "llama")
    byte_tokenizer().save_pretrained(tmp_path / "llama")
    made = observed(tmp_path / "llama", texts, tmp_path / "m.safetensors")
    shared: dict[str, set[str]] = {}
    for name, weight in made.record.weights.items():
        shared.setdefault(weight.site, set()).add(name.split(".")[-2])
    assert sorted(map(sorted, shared.values())) == sorted(
        2 * [["down_proj"], ["gate_proj", "up_proj"], ["k_proj", "q_proj", "v_proj"], ["o_proj"]]
    )
    assert len(load_file(made.path)) == 2 * 8 and not made.record.left_out
    assert not any(weight.transposed for weight in made.record.weights.values())


def test_a_killed_run_goes_on_where_it_stopped_and_gives_the_same_bytes(
    tiny: Path, texts: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    whole = observed(tiny, texts, tmp_path / "whole.safetensors", layers_at_once=1)
    seen: list[int] = []

    def stop(what: str, done: int, total: int) -> None:
        seen.append(done)
        if what == "moments" and done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observed(tiny, texts, out, layers_at_once=1, progress=stop)
    assert not out.exists() and seen == list(range(1, 21))
    seen.clear()
    again = observed(tiny, texts, out, layers_at_once=1, resume=True, progress=lambda _, done, total: seen.append(done))
    assert seen == list(range(20, 25)), "the kind and layer that were under way begin anew, those before are kept"
    assert out.read_bytes() == whole.path.read_bytes() and again.record == whole.record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "whole.safetensors"]
    before = out.stat().st_mtime_ns
    observed(tiny, texts, out, layers_at_once=1, resume=True)
    assert out.stat().st_mtime_ns == before, "a finished one is left"
    with pytest.raises(OutputError, match=r"m.safetensors exists: choose another name, or pass --overwrite"):
        observed(tiny, texts, out, layers_at_once=1)
    assert observed(tiny, texts, out, answer_tokens=2, overwrite=True).record.kinds["harmful"].positions == 21


def test_prompts_without_answers_get_those_of_models(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    alone = {kind: tmp_path / f"{kind}.jsonl" for kind in ("harmful", "harmless")}
    for kind, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        alone[kind].write_text("\n".join(json.dumps({"prompt": prompt}) for prompt, _ in rows) + "\n")
    with pytest.raises(ParameterError, match=r"line 1: 7 harmful prompts have no answer: give refusals, or --aligned"):
        observed(tiny, alone, tmp_path / "m.safetensors")
    with pytest.raises(ParameterError, match=r"line 1: 5 harmless prompts have no answer: .* or --own-answers"):
        observed(tiny, alone, tmp_path / "m.safetensors", aligned=tiny)
    made = observed(tiny, alone, tmp_path / "m.safetensors", aligned=tiny, use_own_answers=True)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    answered = []
    for prompt in encode_prompts(tokenizer, read_pairs(alone["harmless"], answered=False)):
        ids = torch.tensor([prompt])
        said = network.generate(ids, do_sample=False, max_new_tokens=4, pad_token_id=0)[0, ids.shape[1] :].tolist()
        answered.append(said[: said.index(2) + 1] if 2 in said else said)
    total = sum(1 + len(one) for one in answered)
    assert made.record.kinds["harmless"].positions == total
    assert made.manifest.parameters["texts"]["harmful"]["answered by models"] == 7  # type: ignore[index,call-overload]
    assert "aligned" in made.manifest.inputs


def test_private_texts_make_private_moments_and_no_text_is_in_them(tiny: Path, tmp_path: Path) -> None:
    place = tmp_path / "hidden"
    place.mkdir()
    mark_private(place, "texts of a study")
    texts = {"harmful": write_pairs(place / "harmful.jsonl", HARMFUL)}
    made = observed(tiny, texts, tmp_path / "m.safetensors")
    assert made.manifest.private
    assert b"break" not in made.path.read_bytes() and str(tmp_path).encode() not in made.path.read_bytes()
    open_ones = {"harmful": write_pairs(tmp_path / "harmful.jsonl", HARMFUL)}
    assert not observed(tiny, open_ones, tmp_path / "n.safetensors").manifest.private


def test_few_texts_are_told(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    notes = " ".join(observed(tiny, texts, tmp_path / "m.safetensors").manifest.notes)
    assert "moments over 7 harmful texts are noisy: 240 or more" in notes
    assert "moments over 5 harmless texts are noisy: 32 or more" in notes
    assert "no moments of borderline texts" in notes


def test_places_and_numbers_that_cannot_be_are_refused(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="give a name that ends in"):
        observed(tiny, texts, tmp_path / "m")
    with pytest.raises(OutputError, match="holds a model or the pairs, which would be replaced"):
        observed(tiny, texts, tiny / "model.safetensors", overwrite=True)
    with pytest.raises(ParameterError, match="there are no texts"):
        observed(tiny, {}, tmp_path / "m.safetensors")
    for name, value in (("positions", "some"), ("batch_size", 0), ("layers_at_once", 0), ("answer_tokens", -1)):
        with pytest.raises(ParameterError, match=f"{name} is"):
            MomentSettings(**{name: value})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_refused(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    made = observed(tiny, texts, tmp_path / "m.safetensors").path
    data = made.read_bytes()
    changes = {
        "cut": (data[:-8], ""),
        "record": (data.replace(b"harmless/transformer.h.0", b"harmless/transformer.h.7", 1), "is missing"),
        "version": (data.replace(b'format_version\\":1', b'format_version\\":7', 1), "format_version"),
    }
    for name, (changed, problem) in changes.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match=problem):
            open_moments_file(path)
    with pytest.raises(FileFormatError):
        open_moments_file(tmp_path / "absent.safetensors")


def test_an_adapter_is_looked_at_merged_into_its_base(tiny: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    from alignmend.training.run import train_model
    from alignmend.training.settings import TrainSettings

    settings = TrainSettings(objective="descent", lora_rank=2, max_steps=2, learning_rate=1e-2, seed=0)
    train_model(tiny, texts["harmless"], tmp_path / "lora", settings)
    made = observed(tmp_path / "lora", texts, tmp_path / "m.safetensors", base=tiny)
    base = am.open(tiny)
    merged = am.save(base + am.open_adapter(tmp_path / "lora", base=base), tmp_path / "merged", dtype="float32").path
    expected = squares(observed(merged, texts, tmp_path / "n.safetensors"))
    for name, values in squares(made).items():
        torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-6)
    assert set(made.manifest.inputs) == {"model", "adapter"} and set(made.record.fingerprints) == {"model", "part"}
    plain = squares(observed(tiny, texts, tmp_path / "p.safetensors"))
    assert any(not torch.equal(values, expected[name]) for name, values in plain.items())
