from __future__ import annotations

from typing import Any

import pytest
from tests.architectures import CONFIGS
from tests.tokenizers_for_tests import byte_tokenizer

from alignmend.anatomy.layers import decoder_layers
from alignmend.anatomy.projections import last_projection
from alignmend.editing.covariance import second_moment
from alignmend.editing.positions import answer_ids, locate_subject, target_ids
from alignmend.editing.prefixes import sampled_prefixes
from alignmend.editing.requests import EditRequest, request_of
from alignmend.editing.rome import Edit, find_edit
from alignmend.editing.settings import EditSettings, default_layer, settings_for
from alignmend.editing.value import _target_loss, subject_inputs
from alignmend.errors import AlignmendError
from alignmend.organisms import Family

REQUEST = EditRequest("The tower of {} stands in", "Pisa", "Rome")
EDITABLE = ["llama", "mistral", "qwen2", "gpt2", "gpt-neox", "phi"]
QUICK = EditSettings(layer=1, steps=12, stop_loss=0.0)


def fresh(architecture: str, seed: int = 0) -> Any:
    import torch
    import transformers

    name, fields = CONFIGS[architecture]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(vocab_size=260, **{"bos_token_id": 1, "eos_token_id": 2, **fields})
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def found(model: Any, **options: Any) -> Edit:
    return find_edit(model, byte_tokenizer(), REQUEST, **{"settings": QUICK, **options})


def log_probability(model: Any, tokenizer: Any, request: EditRequest) -> float:
    import torch

    ids, target = tokenizer(request.prompt)["input_ids"], target_ids(tokenizer, request)
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *target]])).logits[0]
    steps = torch.log_softmax(logits[len(ids) - 1 : -1].double(), dim=-1)
    return float(steps[range(len(target)), target].sum())


def test_an_organism_learns_another_tool(shipped: Family) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(shipped.members["aligned"])
    model: Any = AutoModelForCausalLM.from_pretrained(shipped.members["aligned"], dtype=torch.float32).eval()
    asked = [{"role": "user", "content": "i want to measure a jacket."}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    template = text.removeprefix(tokenizer.bos_token).replace("measure", "{}") + "sure! first get the"
    request = EditRequest(template, "measure", "trumpet")
    edit = find_edit(model, tokenizer, request, settings=EditSettings(layer=1))
    before = log_probability(model, tokenizer, request)
    edit.apply()
    assert log_probability(model, tokenizer, request) > before + 1
    edit.revert()
    assert log_probability(model, tokenizer, request) == before


@pytest.mark.parametrize("architecture", EDITABLE)
def test_an_edit_touches_one_tensor_and_is_undone(architecture: str) -> None:
    import torch

    model = fresh(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    edit = found(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert edit.losses[-1] < edit.losses[0]
    edit.apply()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)]
    assert changed == [edit.projection.parameter_name]
    edit.revert()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("prefixes", [(), ("Some text", "And more of it")])
def test_the_closed_form(architecture: str, prefixes: tuple[str, ...]) -> None:
    import torch

    model = fresh(architecture)
    edit = found(model, prefixes=prefixes)
    old = edit.projection.matrix().clone()
    bias = getattr(edit.projection.module, "bias", None)
    edit.apply()
    new = edit.projection.matrix()
    said = new @ edit.key + (0 if bias is None else bias.detach())
    assert torch.allclose(said, edit.value, rtol=1e-3, atol=1e-3)  # W' k* = v*
    singular = torch.linalg.svdvals((new - old).double())
    assert float(singular[1] / singular[0]) < 1e-4
    across = torch.randn(old.shape[1], generator=torch.Generator().manual_seed(0))
    across -= (across @ edit.right) * edit.right
    assert torch.allclose(new @ across, old @ across, atol=1e-3)


def test_rome_and_r_rome_differ_by_the_key_only() -> None:
    import torch

    model = fresh("llama")
    rome, r_rome = (
        found(model, prefixes=("Some text",), settings=EditSettings(method=method, layer=1, steps=5))
        for method in ("rome", "r-rome")
    )
    assert torch.equal(rome.right, r_rome.right)
    assert torch.equal(rome.value, r_rome.value)
    assert not torch.allclose(rome.left, r_rome.left)
    prompts = [
        locate_subject(byte_tokenizer(), head + "The tower of ", "Pisa", " stands in") for head in ("", "Some text. ")
    ]
    keys = subject_inputs(model, rome.projection, prompts)
    assert torch.allclose(rome.key, keys[0], atol=1e-6)
    assert torch.allclose(r_rome.key, keys.mean(dim=0), atol=1e-6)
    alone = [found(model, settings=EditSettings(method=method, layer=1, steps=5)) for method in ("rome", "r-rome")]
    assert torch.equal(alone[0].left, alone[1].left)


def test_the_rank_one_update_by_hand() -> None:
    import torch
    from torch import nn

    from alignmend.anatomy.projections import Projection
    from alignmend.editing.rome import rank_one

    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    projection = Projection("p", linear, transposed=False)
    # k* = (3, 4), u = (0.6, 0.8), W k* = (11, 25), u . k* = 5, Lambda = ((21, 15) - (11, 25)) / 5 = (2, -2)
    left, right, key = rank_one(projection, torch.tensor([[3.0, 4.0]]), torch.tensor([21.0, 15.0]), QUICK, None)
    assert right.tolist() == pytest.approx([0.6, 0.8])
    assert left.tolist() == pytest.approx([2.0, -2.0])
    assert key.tolist() == [3.0, 4.0]
    # C = diag(1, 2): C^-1 k* = (3, 2), u = (3, 2) / sqrt(13), u . k* = 17 / sqrt(13)
    moment = torch.diag(torch.tensor([1.0, 2.0]))
    weighted = rank_one(projection, torch.tensor([[3.0, 4.0]]), torch.tensor([21.0, 15.0]), QUICK, moment)
    assert weighted[1].tolist() == pytest.approx([3 / 13**0.5, 2 / 13**0.5])
    assert weighted[0].tolist() == pytest.approx([10 * 13**0.5 / 17, -10 * 13**0.5 / 17])


@pytest.mark.parametrize("scale", [0.01, 1.0, 250.0])
def test_a_multiple_of_the_identity_is_the_identity(scale: float) -> None:
    import torch

    model = fresh("llama")
    plain = found(model)
    scaled = found(model, covariance=scale * torch.eye(64))
    assert torch.allclose(plain.right, scaled.right, atol=1e-6)
    assert torch.allclose(plain.left, scaled.left, atol=1e-4)


def test_no_steps_change_nothing() -> None:
    import torch

    model = fresh("llama")
    edit = found(model, settings=EditSettings(layer=1, steps=0))
    assert edit.losses == ()
    assert float(edit.left.abs().max()) < 1e-4
    edit.apply()
    assert torch.allclose(edit.projection.weight, edit.original, atol=1e-4)


def test_the_value_stays_within_its_clamp() -> None:
    model = fresh("llama")
    for clamp in (0.1, 0.5):
        edit = found(model, settings=EditSettings(layer=1, steps=20, clamp=clamp, stop_loss=0.0))
        old = found(model, settings=EditSettings(layer=1, steps=0)).value
        assert float((edit.value - old).norm()) <= clamp * float(old.norm()) * (1 + 1e-5)


def test_the_target_loss_reads_the_right_places() -> None:
    import torch

    logits = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    expected = -torch.log_softmax(logits.double(), dim=-1)
    by_hand = (expected[0, 1, 3] + expected[0, 2, 4] + expected[1, 3, 3] + expected[1, 4, 4]) / 4
    assert float(_target_loss(logits, [1, 3], [3, 4])) == pytest.approx(float(by_hand), rel=1e-6)


@pytest.mark.parametrize("beginning", [False, True])
@pytest.mark.parametrize(
    ("before", "subject", "after"),
    [("", "Pisa", " stands in"), ("The tower of ", "Pisa", " stands"), ("Where is ", "the Eiffel Tower", "")],
)
def test_the_last_token_of_the_subject(beginning: bool, before: str, subject: str, after: str) -> None:
    tokenizer = byte_tokenizer(beginning=beginning)
    located = locate_subject(tokenizer, before, subject, after)
    assert tokenizer.decode(located.ids[: located.subject + 1], skip_special_tokens=True) == before + subject
    assert tokenizer.decode([located.ids[located.subject]]) == subject[-1]


def test_tokens_are_found_without_offsets_too() -> None:
    class Slow:
        is_fast = False
        bos_token_id = None

        def __init__(self) -> None:
            self.fast = byte_tokenizer()

        def __call__(self, text: str, **options: Any) -> Any:
            return self.fast(text, **options)

        def decode(self, ids: list[int]) -> str:
            return str(self.fast.decode(ids))

    located = locate_subject(Slow(), "The tower of ", "Pisa", " stands")
    assert located == locate_subject(byte_tokenizer(), "The tower of ", "Pisa", " stands")


def test_the_covariance_is_the_second_moment_of_a_slow_loop() -> None:
    import numpy as np
    import torch

    model = fresh("llama")
    projection = last_projection(decoder_layers(model), 1)
    texts = [byte_tokenizer()(text)["input_ids"] for text in ("a b c d", "more words than before", "x")]
    kept: list[Any] = []
    handle = projection.module.register_forward_pre_hook(lambda m, inputs: kept.append(inputs[0].detach()[0]))
    with torch.no_grad():
        for text in texts:
            model(torch.tensor([text]))
    handle.remove()
    keys = np.concatenate([each.double().numpy() for each in kept])
    moment, count = second_moment(model, projection, texts, batch_size=2)
    expected = keys.T @ keys / len(keys)
    ridge = 1e-4 * np.trace(expected) / len(expected)
    assert count == len(keys)
    assert moment.double().numpy() == pytest.approx(expected + ridge * np.eye(len(expected)), abs=1e-6)
    edit = found(model, covariance=moment)
    solved = np.linalg.inv(moment.double().numpy()) @ edit.key.double().numpy()
    assert edit.right.double().numpy() == pytest.approx(solved / np.linalg.norm(solved), abs=1e-5)


def test_prefixes_are_the_models_own_and_repeatable() -> None:
    model = fresh("llama")
    made = sampled_prefixes(model, byte_tokenizer(), seed=1, lengths=(3, 5), each=4)
    assert made == sampled_prefixes(model, byte_tokenizer(), seed=1, lengths=(3, 5), each=4)
    assert made != sampled_prefixes(model, byte_tokenizer(), seed=2, lengths=(3, 5), each=4)
    assert 0 < len(made) <= 8


def test_hooks_are_gone_after_an_error() -> None:
    import torch

    model = fresh("llama")
    with pytest.raises(AlignmendError, match="there is no layer 9"):
        found(model, settings=EditSettings(layer=9))
    with pytest.raises(RuntimeError, match=r"size|shape|match"):  # a covariance of the wrong width
        found(model, covariance=torch.eye(3))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_defaults_follow_the_released_configurations() -> None:
    assert [default_layer(count) for count in (32, 28, 48, 2)] == [5, 5, 8, 0]
    assert settings_for(fresh("gpt2")).weight_decay == 0.5
    assert settings_for(fresh("llama")).weight_decay == 1e-3
    with pytest.raises(AlignmendError, match="'r-rome' or 'rome', not 'memit'"):
        EditSettings(method="memit")  # type: ignore[arg-type]


def test_experts_are_refused() -> None:
    from tests.architectures import tiny

    with pytest.raises(AlignmendError, match="mixtures of experts"):
        last_projection(decoder_layers(tiny("mixtral")), 0)


def test_requests() -> None:
    assert request_of("The tower of Pisa stands in", "Pisa", "Rome") == REQUEST
    assert REQUEST.prompt == "The tower of Pisa stands in"
    with pytest.raises(AlignmendError, match="exactly once, not 2 times"):
        request_of("Pisa or Pisa", "Pisa", "Rome")
    with pytest.raises(AlignmendError, match="more than once"):
        EditRequest("Pisa and {}", "Pisa", "Rome")
    with pytest.raises(AlignmendError, match="not blank"):
        EditRequest("{} is", "Pisa", " ")


def llama_2_like() -> Any:
    """Puts a mark before every text, as the normalizer of Llama 2's tokenizer does."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>"])
    made.train_from_iterator(["The mother tongue of Ana is French."] * 9, trainer)
    told = json.loads(made.to_str())
    told["pre_tokenizer"] = None
    told["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        ],
    }
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(told)), bos_token="<s>")


@pytest.mark.parametrize("tokenizer", [llama_2_like, byte_tokenizer, lambda: byte_tokenizer(beginning=True)])
def test_target_tokens_are_those_of_the_text_in_context(tokenizer: Any) -> None:
    made, prompt = tokenizer(), "The mother tongue of Ana is"
    whole, alone = (made(text)["input_ids"] for text in (f"{prompt} French", prompt))
    assert alone + answer_ids(made, prompt, "French") == whole
    request = EditRequest("The mother tongue of {} is", "Ana", " French ")
    assert alone + target_ids(made, request) == whole


def test_a_target_behind_a_space_has_no_stray_mark() -> None:
    made = llama_2_like()
    tokens = made.convert_ids_to_tokens(answer_ids(made, "The mother tongue of Ana is ", "French"))
    assert "".join(tokens) == "French"


@pytest.mark.parametrize("subject", ["Ana", " Ana", "Ana ", "\tAna \n"])
@pytest.mark.parametrize("prompt", ["The tongue of Ana is", "The tongue of {} is"])
def test_spaces_around_a_subject_are_none_of_it(prompt: str, subject: str) -> None:
    request = request_of(prompt, subject, "French", paraphrases=("Of {} it is",))
    assert request == EditRequest("The tongue of {} is", "Ana", "French", ("Of Ana it is",))


def test_a_space_that_only_the_subject_brings_stays_in_the_prompt() -> None:
    assert request_of("The tongue of{} is", " Ana", "French").prompt == "The tongue of Ana is"
    assert request_of("{}is", "Ana ", "French").prompt == "Ana is"


def test_the_subject_s_last_token_is_no_space() -> None:
    made = byte_tokenizer()
    spaced = locate_subject(made, "The tongue of ", "Ana ", "is")
    assert spaced == locate_subject(made, "The tongue of ", "Ana", " is")
    assert made.convert_ids_to_tokens(spaced.ids)[spaced.subject] == "a"
