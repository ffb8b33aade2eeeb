"""`adapter_config.json`: its options, and those that this package would get wrong."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alignmend.errors import FileFormatError, UnsupportedFormatError
from alignmend.io.links import own_file
from alignmend.io.strict_json import JsonObject, read_object, shown

CONFIG_NAME = "adapter_config.json"
_MAX_BYTES = 50_000_000
_SAVE_AGAIN = "fetch the adapter again, or save it anew with PEFT's save_pretrained"

WITHOUT_WEIGHTS = frozenset({
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "PROMPT_TUNING",
    "P_TUNING", "XLORA",
})  # fmt: skip
"""Kinds that act on prompts, caches or routing: no weights to merge."""

CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that also rewrite the base weights, so that the factors are relative to a base nobody
saved."""

_MLX_KEYS = frozenset({"fine_tune_type", "lora_parameters", "lora_layers", "num_layers"})
"""Options in the configuration of an adapter that `mlx_lm.lora` writes."""

REFUSED: Mapping[str, str] = {
    "lora_bias": "the low-rank factors carry a bias of their own",
    "use_qalora": "QALoRA pools the inputs before the factors",
    "use_bdlora": "block-diagonal LoRA stores its factors in another layout",
    "arrow_config": "Arrow routes every token to other adapters",
    "kasa_config": "KaSA truncates the base weight and puts a diagonal between the factors",
    "monteclora_config": "MonteCLoRA samples its factors",
    "alora_invocation_tokens": "an activated LoRA changes only the tokens after its invocation",
    "alora_invocation_string": "an activated LoRA changes only the tokens after its invocation",
    "layer_replication": "the adapter belongs to a model with repeated layers",
    "megatron_config": "Megatron's parallel layers shard the factors",
    "enable_lora": "a merged linear layer stores its factors in another layout",
}
"""Options that change what the saved tensors mean, and why."""

HARMLESS = frozenset({
    "auto_mapping", "corda_config", "eva_config", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config",
    "megatron_core", "merge_weights", "peft_version", "qalora_group_size", "runtime_config", "target_modules",
    "task_type", "velora_config",
})  # fmt: skip
"""Options about training or selection only: what was selected is seen in the saved tensors."""


class AdapterConfig(BaseModel):
    """The options of a LoRA adapter that the arithmetic depends on, with the defaults of PEFT."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    peft_type: str
    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: int | None = Field(default=None, gt=0)
    lora_alpha: float = 8
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    init_lora_weights: bool | str | None = True
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    target_parameters: list[str] | None = None
    ensure_weight_tying: bool = False

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _absent_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _patterns_compile(cls, value: dict[str, Any]) -> dict[str, Any]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return value

    def rank(self, module: str) -> int | None:
        """The rank that the options give to `module`, None where they do not say."""
        return self.rank_pattern.get(_first_match(self.rank_pattern, module) or "", self.r)

    def scale(self, module: str, rank: int) -> float:
        """Factor in front of `B @ A` of `module`: alpha / rank, or alpha / sqrt(rank) with `use_rslora`."""
        alpha = self.alpha_pattern.get(_first_match(self.alpha_pattern, module) or "", self.lora_alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _first_match(patterns: Mapping[str, Any], module: str) -> str | None:
    """The first pattern that fits the whole name, or its end after a dot: PEFT's rule."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)


def merge_command(folder: Path) -> str:
    """The one line that lets PEFT itself turn an adapter into a full checkpoint."""
    return (
        'python -c "import sys; from peft import AutoPeftModelForCausalLM as M; '
        'M.from_pretrained(sys.argv[1]).merge_and_unload().save_pretrained(sys.argv[2])" '
        f"{shlex.quote(str(folder))} MERGED"
    )


def read_adapter_config(folder: Path) -> tuple[AdapterConfig, JsonObject]:
    """`adapter_config.json` of `folder`: the options that matter, and the whole object.

    Raises FileFormatError where the file is missing or malformed, UnsupportedFormatError where an option
    means something that `scale * B @ A` does not express.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise FileFormatError(
            f"{folder} is not an adapter folder: it has no {CONFIG_NAME};",
            advice="give the folder that PEFT's save_pretrained wrote",
        )
    raw = read_object(own_file(folder, path), limit=_MAX_BYTES, advice=_SAVE_AGAIN)
    _check_kind(folder, raw)
    try:
        config = AdapterConfig.model_validate(raw)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise FileFormatError(f"{path} is not what PEFT writes: {details};", advice=_SAVE_AGAIN) from error
    _check_initialisation(folder, config.init_lora_weights)
    for name, value in (config.model_extra or {}).items():
        _check_option(folder, name, value)
    return config, raw


def _check_kind(folder: Path, raw: JsonObject) -> None:
    kind = raw.get("peft_type")
    if kind == "LORA":
        return
    if kind is None and (keys := sorted(_MLX_KEYS & raw.keys())):
        raise UnsupportedFormatError(
            f"{folder} is an adapter of MLX, not of PEFT ({CONFIG_NAME} has {', '.join(keys)})",
            advice=(
                "let MLX merge it and give the merged folder:  mlx_lm.fuse --model BASE --dequantize "
                f"--save-path MERGED --adapter-path {shlex.quote(str(folder))}"
            ),
        )
    if isinstance(kind, str) and kind in WITHOUT_WEIGHTS:
        raise UnsupportedFormatError(
            f"{folder}: peft_type {kind} changes prompts or routing, not weights, so it has no weight delta;",
            advice="fine-tune with LoRA or in full instead",
        )
    raise UnsupportedFormatError(
        f"{folder}: peft_type {shown(kind)} is not LORA, and its delta is not scale * B @ A;",
        advice=f"let PEFT merge it and give the merged folder:  {merge_command(folder)}",
    )


def _check_initialisation(folder: Path, start: bool | str | None) -> None:
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASE):
        raise UnsupportedFormatError(
            f"{folder}: init_lora_weights {start!r} rewrote the base weights before training, so the factors are "
            "no delta to the base on disk;",
            advice=(
                "save the adapter with PEFT's save_pretrained(..., "
                "path_initial_model_for_weight_conversion=...) or give the merged model"
            ),
        )


def _check_option(folder: Path, name: str, value: object) -> None:
    if not value or name in HARMLESS:
        return
    reason = REFUSED.get(name, "this option is not known here and may change what the saved tensors mean")
    raise UnsupportedFormatError(
        f"{folder / CONFIG_NAME}: {shown(name)} = {shown(value)}: {reason};",
        advice=f"if PEFT can merge the adapter, give the merged folder:  {merge_command(folder)}",
    )
