"""What a tensor's name says: its layer, its kind, and whether arithmetic should touch it at all."""

from __future__ import annotations

import fnmatch
import re
from typing import Literal, get_args

Kind = Literal["attention", "mlp", "norm", "embedding", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)(?:\.|$)")
_TOWER = re.compile(r"(?:^|[._*?\]])(?:vision|visual|audio|image|speech|resampler|projector|connector)(?:[._*?\[]|$)")
"""In a name, or in a shell-style pattern."""
_BUFFER = re.compile(
    r"(?:^|\.)(?:inv_freq|original_inv_freq|position_ids|masked_bias|rotary_pos_emb|num_batches_tracked)$"
    r"|(?:^|\.)h\.\d+\.attn\.bias$"  # GPT-2's causal mask
)
_EMBEDDING = re.compile(r"embed|wte|wpe|lm_head|output_projection")
_NORM = re.compile(r"norm|(?:^|\.)ln_|layernorm")
_ATTENTION = re.compile(r"attn|attention|q_proj|k_proj|v_proj|o_proj|query_key_value|rotary")
_MLP = re.compile(
    r"mlp|feed_forward|ffn|expert|(?:^|\.)fc[12]\.|dense_h_to_4h|dense_4h_to_h|gate_proj|block_sparse_moe"
)


def layer_of(name: str, patterns: tuple[str, ...] = ()) -> int | None:
    """The zero-based decoder layer that `name` lies in, or None outside.

    Towers for images or sound are outside, but for a tower that one of `patterns` speaks of.
    """
    found = _LAYER.search(name)
    if found is None:
        return None
    in_tower = _TOWER.search(name[: found.start()]) is not None
    meant = in_tower and any(_TOWER.search(pattern) and matches(name, (pattern,)) for pattern in patterns)
    return None if in_tower and not meant else int(found.group(1))


def kind_of(name: str) -> Kind:
    """The part of a transformer that `name` belongs to; input and output embeddings are both `embedding`."""
    lowered = name.lower()
    for pattern, kind in _KIND_RULES:
        if pattern.search(lowered):
            return kind
    return "other"


_KIND_RULES: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (_NORM, "norm"),
    (_EMBEDDING, "embedding"),
    (_ATTENTION, "attention"),
    (_MLP, "mlp"),
)


def is_buffer(name: str) -> bool:
    """Whether `name` is a known non-trained buffer, which may be missing and is copied from the target."""
    return _BUFFER.search(name) is not None


def is_input_first(name: str, model_type: object) -> bool:
    """Whether the weight `name` of a linear layer is stored [in, out], as those of GPT-2 are."""
    return model_type in _INPUT_FIRST and _CONV1D.search(name) is not None


_INPUT_FIRST = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
_CONV1D = re.compile(r"(?:^|\.)h\.\d+\.(?:attn|crossattention|mlp)\.(?:c_attn|c_fc|c_proj|q_attn)\.weight$")


def writes_to_stream(name: str) -> bool:
    """Whether the tensor `name`, weight or bias, is of an output projection of attention or of an MLP."""
    return _WRITER.search(name) is not None


_WRITER = re.compile(
    r"\.(?:self_attn|self_attention|attention|attn)\.(?:o_proj|out_proj|dense|c_proj|wo)\.(?:weight|bias)$"
    r"|\.(?:down_proj|fc_out|dense_4h_to_h|fc2|w2|mlp\.c_proj)(?:\.(?:weight|bias))?$"
)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether `name` fits one of the shell-style `patterns` (`*` also crosses dots)."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that puts layer 2 before layer 10; different names have different keys."""
    parts = re.split(r"([0-9]+)", name)
    numbered = tuple((0, int(part), "") if index % 2 else (1, 0, part) for index, part in enumerate(parts) if part)
    return numbered, name


def input_embedding(names: tuple[str, ...]) -> str | None:
    """The input embedding's name among `names`, if exactly one is recognised."""
    endings = (
        "embed_tokens.weight",
        "wte.weight",
        "word_embeddings.weight",
        "embed_in.weight",
        "tok_embeddings.weight",
    )
    found = [name for name in names if name.endswith(endings)]
    return found[0] if len(found) == 1 else None


def output_embedding(names: tuple[str, ...]) -> str | None:
    """The output embedding's name among `names`, if exactly one is recognised."""
    found = [name for name in names if name.endswith(("lm_head.weight", "embed_out.weight"))]
    return found[0] if len(found) == 1 else None
