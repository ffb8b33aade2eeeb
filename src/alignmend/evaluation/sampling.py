"""How the next token is chosen: greedily, or drawn so that neither batches nor their order change what is drawn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignmend.errors import ParameterError

if TYPE_CHECKING:
    import torch

DEFAULT_MAX_NEW_TOKENS = 512
_OWN_TOP_K = 50  # what `transformers` takes where a configuration samples and says nothing


@dataclass(frozen=True)
class Sampling:
    """Greedy at temperature 0; else drawn among the `top_k` most likely tokens that make up `top_p` of the mass.

    Each prompt has its own random numbers, keyed by `seed`, its rendered text, its suite and its id: one prompt under
    several ids is drawn several times.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ParameterError(f"temperature must be 0 (greedy) or above, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ParameterError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ParameterError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.max_new_tokens < 1:
            raise ParameterError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")

    @property
    def greedy(self) -> bool:
        """Whether nothing is random."""
        return self.temperature == 0

    def __str__(self) -> str:
        """As records store it."""
        if self.greedy:
            return f"greedy, max_new_tokens={self.max_new_tokens}"
        cuts = [f"{name}={cut}" for name in ("top_k", "top_p") if (cut := getattr(self, name)) is not None]
        chosen = [f"temperature={self.temperature}", *cuts, f"seed={self.seed}"]
        return ", ".join([*chosen, f"max_new_tokens={self.max_new_tokens}"])


def own_sampling(config: Any, *, seed: int = 0, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS) -> Sampling:
    """What `generate` of `transformers` would do by this generation configuration of a model."""
    if not getattr(config, "do_sample", None):
        return Sampling(seed=seed, max_new_tokens=max_new_tokens)
    temperature, top_k, top_p = (getattr(config, name, None) for name in ("temperature", "top_k", "top_p"))
    return Sampling(
        temperature=1.0 if temperature is None else float(temperature),
        top_k=_OWN_TOP_K if top_k is None else (top_k or None),
        top_p=None if top_p in (None, 1) else float(top_p),
        seed=seed,
        max_new_tokens=max_new_tokens,
    )


class Sampler:
    """Draws the tokens of the prompts with these keys; row r, step t uses the t-th number of prompt r.

    `numbers` is how many tokens a row may get, the sampling's own limit where left out.
    """

    def __init__(self, sampling: Sampling, keys: Sequence[str], *, numbers: int | None = None) -> None:
        self._sampling = sampling
        self._numbers = [_numbers(sampling, key, numbers or sampling.max_new_tokens) for key in keys]

    def choose(self, logits: torch.Tensor, rows: Sequence[int], step: int) -> torch.Tensor:
        """The token ids (one a row) by inverting the distribution function, most likely tokens first.

        `logits` are (rows, vocabulary); `rows` says which prompts they belong to.
        """
        import torch

        how = self._sampling
        sorted_logits, tokens = (logits.float() / how.temperature).sort(dim=-1, descending=True, stable=True)
        mass = sorted_logits[:, : how.top_k].softmax(dim=-1)
        if how.top_p is not None:
            mass = torch.where(mass.cumsum(dim=-1) - mass < how.top_p, mass, 0.0)
        reached = mass.cumsum(dim=-1)
        drawn = torch.tensor([[self._numbers[row][step]] for row in rows], device=logits.device, dtype=reached.dtype)
        place = (reached <= drawn * reached[:, -1:]).sum(dim=-1, keepdim=True)
        last = (mass > 0).sum(dim=-1, keepdim=True) - 1
        return tokens.gather(1, torch.minimum(place, last))[:, 0]


def _numbers(sampling: Sampling, text: str, count: int) -> Any:
    """Uniform in [0, 1), from the counter-based Philox generator; more of them begin with the same."""
    import numpy

    key = hashlib.sha256(f"{sampling.seed}\n{text}".encode("utf-8", "replace")).digest()[:16]
    generator = numpy.random.Generator(numpy.random.Philox(key=int.from_bytes(key, "little")))
    return generator.random(count).tolist()
