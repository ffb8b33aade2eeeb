"""Which columns of attention's output projections belong to which heads."""

from __future__ import annotations

import re
from collections.abc import Mapping

from alignmend.algebra.names import is_input_first, layer_of
from alignmend.algebra.nodes import Heads
from alignmend.algebra.problems import Problems
from alignmend.algebra.programs import Between, Constant, MaskProgram
from alignmend.io.folder import CheckpointFolder
from alignmend.io.tensors import TensorEntry

_OUTPUT = re.compile(r"\.(?:self_attn|self_attention|attention|attn)\.(?:o_proj|out_proj|dense|c_proj|wo)\.weight$")
_COUNTS = ("num_attention_heads", "n_head", "n_heads")


def heads_mask(node: Heads, entry: TensorEntry, target: CheckpointFolder, problems: Problems) -> MaskProgram:
    """True on the heads' columns of an output projection, [out, heads * width]; false on all else."""
    layer = layer_of(entry.name)
    chosen = dict(node.heads).get(-1 if layer is None else layer, ())
    if not chosen or not _OUTPUT.search(entry.name) or len(entry.shape) != 2:
        return Constant(False)
    by_row = is_input_first(entry.name, target.config.get("model_type"))
    inputs, count = entry.shape[0 if by_row else 1], head_count(target.config)
    if count is None or inputs % count:
        problems.add(f"the config of {target.location} does not say how many heads {entry.name} has {inputs} inputs of")
        return Constant(False)
    width = inputs // count
    if beyond := [head for head in chosen if not 0 <= head < count]:
        problems.add(f"there is no head {beyond[0]} in layer {layer}: {target.location} has heads 0 to {count - 1}")
    return Between(tuple((width * head, width * head + width) for head in chosen), entry.shape[1], by_row)


def head_count(config: Mapping[str, object]) -> int | None:
    """How many query heads a config speaks of, that of its text model where it has several."""
    inner = config.get("text_config")
    places = (inner, config) if isinstance(inner, Mapping) else (config,)
    said = (place.get(key) for place in places for key in _COUNTS)
    return next((count for count in said if isinstance(count, int) and count > 0), None)


def unknown_layers(node: Heads, target: CheckpointFolder) -> list[int]:
    """Layers with heads to mask in which the target has no output projection of attention."""
    known = {layer_of(name) for name in target.tensors if _OUTPUT.search(name)}
    return [layer for layer, heads in node.heads if heads and layer not in known]
