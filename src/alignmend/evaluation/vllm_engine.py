"""A model in vLLM, or an adapter on top of its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError, MismatchError, ParameterError, missing_extra
from alignmend.evaluation.devices import adapted_tokenizer, base_of, load_tokenizer
from alignmend.evaluation.fingerprint import folder_fingerprint
from alignmend.io.adapter_config import read_adapter_config
from alignmend.io.folder import is_adapter_folder

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank of its adapters."""
_NOT_STARTED = (
    "vLLM did not start; what it printed above says why. Where memory is short: VLLM_CPU_KVCACHE_SPACE=1 in the "
    "environment (GiB, on a processor), or fewer other programs on the GPU"
)


@dataclass(frozen=True)
class VllmEngine:
    """What vLLM runs: the model in the folder or hub id `base`, and perhaps an adapter (`vllm`'s `LoRARequest`)."""

    engine: Any
    tokenizer: Any
    base: Path | str
    adapter: Any | None
    model_hash: str

    @property
    def positions(self) -> int:
        """Tokens of a prompt and its answer together, at most."""
        return int(self.engine.llm_engine.model_config.max_model_len)

    def generate(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any]) -> Sequence[Any]:
        """What vLLM makes of token ids, in order."""
        asked = [{"prompt_token_ids": list(tokens)} for tokens in prompts]
        made: Sequence[Any] = self.engine.generate(asked, parameters, use_tqdm=False, lora_request=self.adapter)
        return made


def start_vllm(path: Path | str, **options: Any) -> VllmEngine:
    """Loads the model, or the base of the adapter, at `path`; `options`, such as `dtype`, go to `vllm.LLM`.

    Raises `MissingExtraError`, `FileFormatError`, `MismatchError` (an adapter of too high a rank) and `ParameterError`
    where vLLM does not start.
    """
    folder = Path(path)
    adapting = {"enable_lora": True, "max_lora_rank": _room(folder)} if is_adapter_folder(folder) else {}
    try:
        from vllm import LLM
        from vllm.lora.request import LoRARequest
    except ImportError as error:
        raise missing_extra("vllm", "vllm") from error
    if not adapting:
        return VllmEngine(_started(LLM, path, options), load_tokenizer(path), path, None, folder_fingerprint(path))
    base = base_of(folder)
    tokenizer = adapted_tokenizer(folder, load_tokenizer(base))
    request = LoRARequest(folder.name, 1, str(folder.absolute()))
    engine = _started(LLM, base, {**adapting, **options})
    return VllmEngine(engine, tokenizer, base, request, folder_fingerprint(base, folder))


def _started(engine: Any, path: Path | str, options: dict[str, Any]) -> Any:
    try:
        return engine(model=str(path), **options, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: not a model that vLLM can load: {error}") from error
    except RuntimeError as error:  # of its worker processes, whose own words are on the error stream
        raise ParameterError(f"{path}: {_NOT_STARTED}") from error


def _room(folder: Path) -> int:
    config, _ = read_adapter_config(folder)
    rank = max([config.r or 1, *config.rank_pattern.values()])
    room = next((one for one in RANKS if one >= rank), None)
    if room is None:
        raise MismatchError(
            f"{folder} is an adapter of rank {rank}, and vLLM takes {RANKS[-1]} at most",
            advice=f"write it with --adapter-rank {RANKS[-1]}, or as a full checkpoint",
        )
    return room
