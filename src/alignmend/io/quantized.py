"""Quantized weights, told by facts: what the config declares, integers in place of weights, what lies beside them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from alignmend.errors import UnsupportedFormatError
from alignmend.io.strict_json import shown
from alignmend.io.tensors import TensorEntry

_CONFIG_KEYS = ("quantization_config", "quantization", "compression_config", "quantize_config", "quant_config")
"""What tools call the part of `config.json` that says how weights are packed."""

_FULL = "use the full-precision checkpoint that it was made from, or dequantize it to bfloat16 first"
_BY_TRANSFORMERS = "transformers: load it, model.dequantize(), then save_pretrained, where its quantizer allows it"
_BY_MLX = "mlx_lm.convert --hf-path MODEL --mlx-path OUT --dequantize"

_TOOLS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (tool, re.compile(pattern))
    for tool, pattern in (
        ("bitsandbytes", r"\.(absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..+|SCB|weight_format)$"),
        ("HQQ or SINQ", r"\.W_q$"),
        ("quanto", r"\.(weight|bias)\.(_data|_scale|_shift)$|\._data\._data$"),
        ("torchao", r"(_weight_|weight:|weight\._?)qdata$|_weight_zero_point$|\.tensor_impl\."),
        ("AQLM", r"\.codebooks$"),
        ("VPTQ", r"\.centroids(\.weight)?$"),
        ("ExLlama", r"\.(q_weight|q_scale|q_scale_max|q_groups|q_invperm|q_perm|trellis|suh|svh)$"),
        ("QuIP#", r"\.(Qidxs|Qidxs_\d|SU|SV)$"),
        ("GPTQ or AWQ", r"\.(qweight|qzeros|g_idx)$"),
        ("compressed-tensors (llm-compressor)", r"\.weight_(packed|zero_point|global_scale|shape|g_idx)$"),
        ("ModelOpt or compressed-tensors", r"\.(weight_scale_2|weight_scale|input_scale)$"),
        ("fine-grained float8", r"\.?weight_scale_inv$"),
        ("MXFP4", r"_(proj|weight)_(blocks|scales)$"),
        ("EETQ", r"\.weight_scales$"),
        ("HIGGS", r"\.tables2$"),
    )
)
"""Tool -> names of tensors that it alone writes."""

_NEVER_PLAIN = re.compile(
    r"\.(qweight|qzeros|g_idx|absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..+|SCB|weight_format"
    r"|weight_scale|weight_scale_2|weight_scale_inv|weight_packed|weight_zero_point|weight_global_scale|input_scale"
    r"|W_q|Qidxs|q_weight|trellis|codebooks|weight\._(data|scale|shift)|_weight_(qdata|scale|zero_point)"
    r"|weight:(qdata|scale|zero_point))$"
)
"""Names that no layer in full precision has, whatever their dtype."""

_INTEGERS = frozenset({"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"})
_WEIGHT = re.compile(r"(^|[._])weights?$|_(proj|blocks|scales)$")
_COMPANION = re.compile(r"scale|zero|absmax|codebook|centroid|shift|biases|qmap|(^|_)(su|sv|suh|svh)$", re.IGNORECASE)
"""What numbers are multiplied with, or looked up in, after unpacking."""
_PLACES = re.compile(
    r"(position_ids|token_type_ids|(position|coords)_(index|table)|_idx|_ids|num_batches_tracked|eid)$"
)
"""Integers that say where something is."""
_MASKS = re.compile(r"(^|\.)(masked_bias|attn\.bias|attention\.bias|bias|mask|causal_mask)$")
_PACKED_SHARE = 0.1
"""Share of a checkpoint's bytes in packed integers that is more than any table of places has."""


def refuse_quantized_config(config: Mapping[str, object], where: Path) -> None:
    """Refuse a `config.json` that declares quantized weights, at its top or for a part of the model."""
    for part in _parts(config):
        for key in _CONFIG_KEYS:
            declared = part.get(key)
            if declared and isinstance(declared, Mapping | str):
                method = _method(key, declared)
                raise UnsupportedFormatError(
                    f"{where} declares quantized weights ({key}, method {shown(method)})", advice=_way(str(method))
                )


def _parts(config: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """The config and the configs inside it, one of which may be that of the text model."""
    yield config
    for key, value in config.items():
        if isinstance(value, Mapping) and key not in _CONFIG_KEYS:
            yield from _parts(value)


def _method(key: str, declared: Mapping[str, object] | str) -> object:
    if isinstance(declared, str):
        return declared
    usual = "mlx" if key == "quantization" else "unknown"
    return declared.get("quant_method", declared.get("quant_algo", usual))


def refuse_quantized_tensors(entries: Iterable[TensorEntry], metadata: Mapping[str, str] | None = None) -> None:
    """Refuse tensors that are quantized by their dtype, their names or what lies beside them, as headers tell.

    `metadata` is that of a safetensors file: it may name the tool.
    """
    modules: dict[str, list[TensorEntry]] = defaultdict(list)
    for entry in entries:
        modules[_module(entry.name)].append(entry)
    tool = _tool(modules.values(), metadata or {})
    packed = list(_packed(modules.values(), tool))
    total = sum(entry.bytes for module in modules.values() for entry in module)
    if packed and sum(entry.bytes for entry in packed) > _PACKED_SHARE * total:
        _refuse(packed[0], f"is {packed[0].dtype}, and no weight lies beside it, so it is packed and quantized", tool)


def _packed(modules: Iterable[list[TensorEntry]], tool: str) -> Iterator[TensorEntry]:
    """Integers with no float matrix of as many numbers beside them; what is plainly quantized is refused on the way."""
    for module in modules:
        largest = max((one.size for one in module if len(one.shape) > 1 and one.dtype not in _INTEGERS), default=0)
        for entry in module:
            _refuse_plainly_quantized(entry, module, tool)
            if _may_be_packed(entry) and len(entry.shape) > 1 and entry.size > largest:
                yield entry


def _refuse_plainly_quantized(entry: TensorEntry, module: list[TensorEntry], tool: str) -> None:
    if entry.dtype.startswith("F8"):
        _refuse(entry, f"is float8 ({entry.dtype}), which is quantized", tool)
    if _NEVER_PLAIN.search(entry.name):
        _refuse(entry, "belongs to a quantized layer", tool)
    if entry.dtype in _INTEGERS and _WEIGHT.search(entry.name):
        _refuse(entry, f"is a weight of dtype {entry.dtype}, so it is quantized", tool)
    beside = [_leaf(one.name) for one in module if one is not entry and _COMPANION.search(_leaf(one.name))]
    if _may_be_packed(entry) and beside:
        told = ", ".join(beside[:3])
        _refuse(entry, f"is {entry.dtype} and has {told} beside it, so it is quantized", tool)


def _may_be_packed(entry: TensorEntry) -> bool:
    is_place = _PLACES.search(entry.name) or _MASKS.search(entry.name)
    return entry.dtype in _INTEGERS and bool(entry.shape) and not is_place


def _module(name: str) -> str:
    """The module that a tensor belongs to: `a.q_proj` of `a.q_proj.weight` and of `a.q_proj.weight._data`."""
    return re.sub(r"(\.(weight|bias))?[.:][^.:]+$", "", name)


def _leaf(name: str) -> str:
    return re.split(r"[.:]", name)[-1]


def _tool(modules: Iterable[list[TensorEntry]], metadata: Mapping[str, str]) -> str:
    """Which tool packed the weights, as far as the files tell; empty where they do not."""
    found = list(modules)
    if metadata.get("format") == "mlx" or any(_is_mlx(module) for module in found):
        return "MLX"
    names = [entry.name for module in found for entry in module]
    return next((tool for tool, pattern in _TOOLS if any(map(pattern.search, names))), "")


def _is_mlx(module: list[TensorEntry]) -> bool:
    """A weight of uint32 with its scales."""
    leaves = {_leaf(entry.name): entry.dtype for entry in module}
    return leaves.get("weight") == "U32" and "scales" in leaves


def _refuse(entry: TensorEntry, problem: str, tool: str) -> NoReturn:
    by = f", as {tool} writes it" if tool else ""
    raise UnsupportedFormatError(f"{entry.path}: tensor {shown(entry.name)} {problem}{by}", advice=_way(tool))


def _way(tool: str) -> str:
    return f"{_FULL} ({_BY_MLX if tool.lower() == 'mlx' else _BY_TRANSFORMERS})"
