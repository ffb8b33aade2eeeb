"""Tiny random models of every family that `apply` handles: dense, experts, state spaces, images and text."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.tokenizers_for_tests import byte_tokenizer

VOCABULARY = 264
IMAGE_TOKEN = 263
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEADS = {**COMMON, "head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8, "n_shared_experts": 1,
}  # fmt: skip
SPACES = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
DELTAS = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON),
    "llama-tied": ("LlamaConfig", {**COMMON, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", COMMON),
    "qwen2": ("Qwen2Config", {**COMMON, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", HEADS),
    "qwen3-moe": ("Qwen3MoeConfig", {**HEADS, **EXPERTS}),
    "gemma2": ("Gemma2Config", HEADS),
    "gemma3-text": ("Gemma3TextConfig", HEADS),
    "phi3": ("Phi3Config", COMMON),
    "gpt-oss": ("GptOssConfig", {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "mixtral": ("MixtralConfig", {**COMMON, "num_local_experts": 4}),
    "deepseek-v3": ("DeepseekV3Config", {**COMMON, **LATENT}),
    "falcon-h1": ("FalconH1Config", {**HEADS, **SPACES, "mamba_d_ssm": 32}),
    "mamba2": (
        "Mamba2Config",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8,
         "head_dim": 8, "n_groups": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "olmo2": ("Olmo2Config", COMMON),
    "smollm3": ("SmolLM3Config", COMMON),
    "granite-moe-hybrid": (
        "GraniteMoeHybridConfig",
        {**COMMON, **SPACES, "mamba_n_heads": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"]},
    ),
    "qwen3-next": ("Qwen3NextConfig", {**HEADS, **EXPERTS, **DELTAS}),
    "llama4-text": ("Llama4TextConfig", {**HEADS, "num_local_experts": 4, "intermediate_size_mlp": 64}),
    "olmoe": ("OlmoeConfig", {**COMMON, "num_experts": 4, "num_experts_per_tok": 2}),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 1,
         "eos_token_id": 2},
    ),
    "gpt-neox": ("GPTNeoXConfig", {name: COMMON[name] for name in COMMON if name != "num_key_value_heads"}),
}  # fmt: skip
_TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
           "patch_size": 14, "spatial_merge_size": 2}  # fmt: skip
_SECTIONS = {"mrope_section": [1, 1, 2], "rope_type": "default"}
IMAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "gemma3": ("Gemma3", {**HEADS, "model_type": "gemma3_text"}, _TOWER, {"mm_tokens_per_image": 4}),
    "qwen2.5-vl": (
        "Qwen2_5_VL", {**COMMON, "rope_scaling": {**_SECTIONS, "type": "mrope"}},
        {**_VISION, "fullatt_block_indexes": [1]}, {},
    ),
    "qwen2-vl": (
        "Qwen2VL", {**COMMON, "rope_scaling": {**_SECTIONS, "type": "mrope"}},
        {"depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 4, "patch_size": 14,
         "spatial_merge_size": 2}, {},
    ),
    "llava": ("Llava", {**COMMON, "model_type": "llama"}, {**_TOWER, "model_type": "clip_vision_model"}, {}),
    "mllama": (
        "Mllama",
        {**COMMON, "num_hidden_layers": 3, "cross_attention_layers": [1], "rope_scaling": {"rope_type": "default"},
         "model_type": "mllama_text_model"},
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
         "attention_heads": 4, "image_size": 28, "patch_size": 14, "max_num_tiles": 4, "vision_output_dim": 64,
         "intermediate_layers_indices": [0]}, {},
    ),
    "mistral3": (
        "Mistral3", {**HEADS, "model_type": "mistral"}, {**_TOWER, "model_type": "pixtral", "head_dim": 8}, {}
    ),
    "qwen3-vl": (
        "Qwen3VL", {**HEADS, "rope_scaling": _SECTIONS}, {**_VISION, "deepstack_visual_indexes": [0]}, {}
    ),
    "llama4": (
        "Llama4", {**HEADS, "num_local_experts": 4, "intermediate_size_mlp": 64},
        {**_TOWER, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}, {},
    ),
}  # fmt: skip
FAMILIES = (*TEXT, *IMAGES)
REGROUPED = (
    "qwen3-moe", "mixtral", "deepseek-v3", "granite-moe-hybrid", "qwen3-next", "olmoe", "gpt-neox", "gemma3",
    "qwen2.5-vl", "qwen2-vl", "llava", "mllama", "mistral3",
)  # fmt: skip
"""Those that `transformers` saves under other names, or in other groups, than its models have them."""


def build(family: str, seed: int = 0) -> Any:
    """A random model of a family, in float32, every parameter away from zero and one."""
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(seed)
    with contextlib.redirect_stderr(io.StringIO()):
        if family in TEXT:
            name, fields = TEXT[family]
            model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**fields))
        else:
            name, text, vision, more = IMAGES[family]
            config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, **more)
            for key in ("image_token_index", "image_token_id"):
                if hasattr(config, key):
                    setattr(config, key, IMAGE_TOKEN)
            model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in parameter_name and "lm_head" not in parameter_name:
                parameter.mul_(10)  # else an answer only repeats the last token
    moved(model, seed + 1, 0.5)
    return model.float().eval()


def moved(model: Any, seed: int, size: float) -> Any:
    """The model itself, every parameter moved by noise of `size` times its own spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = parameter.float().std(unbiased=False).clamp(min=1e-2)
            parameter.add_((size * spread * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype))
    return model


def save(model: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """As `transformers` saves it, without a word."""
    with contextlib.redirect_stderr(io.StringIO()):
        model.to(dtype).save_pretrained(folder)
    return folder


def save_own_names(model: Any, folder: Path) -> Path:
    """Under the names and in the groups that the model has itself, which `transformers` loads too."""
    folder.mkdir(parents=True)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """What a folder's one weight file holds."""
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors


def state(folder: Path, kind: Any) -> Mapping[str, torch.Tensor]:
    """What `transformers` loads of a folder, in the stored dtype."""
    with contextlib.redirect_stderr(io.StringIO()):
        found: Mapping[str, torch.Tensor] = kind.from_pretrained(folder, dtype="auto").state_dict()
        return found


def with_tokenizer(folder: Path) -> Path:
    """The folder, with a tokenizer of a token a byte."""
    byte_tokenizer().save_pretrained(folder)
    return folder
