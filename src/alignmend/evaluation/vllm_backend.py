"""Generations by vLLM in this process, for large models on GPUs; asked token for token as `transformers` models are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignmend.errors import EndpointError
from alignmend.evaluation.asking import Asking, Rendered, Wishes
from alignmend.evaluation.generation import Report
from alignmend.evaluation.records import FinishReason, Generation, Prompt, text_hash
from alignmend.evaluation.sampling import Sampling
from alignmend.evaluation.thinking import Thinking
from alignmend.evaluation.vllm_engine import VllmEngine, start_vllm
from alignmend.io.hub import optional_file
from alignmend.io.pretrained import GENERATION_CONFIG, pretrained

REPORTED_TOGETHER = 512
"""vLLM makes its own batches; this is how many prompts it is given before answers are written down."""

_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class VllmBackend:
    """A model that vLLM has loaded, or an adapter on its base, and the tokenizer of the same checkpoint.

    Prompts are rendered and tokenized here, so templates, stop strings and records are those of `TransformersBackend`.
    Sampling draws with vLLM's own generator, seeded for each prompt by the seed, its rendered text and its id.
    """

    def __init__(self, engine: VllmEngine, asking: Asking) -> None:
        self._engine, self._asking, self.model_hash = engine, asking, engine.model_hash

    @classmethod
    def from_folder(
        cls,
        path: Path | str,
        *,
        name: str | None = None,
        preset: str = "default",
        template: str | None = None,
        system: str | None = None,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        thinking: Thinking | None = None,
        **engine_options: Any,
    ) -> VllmBackend:
        """Loads a Hugging Face folder, an adapter's folder or a hub id; `engine_options` go to `vllm.LLM`."""
        engine = start_vllm(path, **engine_options)
        asking = Asking(
            name or Path(path).name,
            engine.tokenizer,
            generation_config=_generation_config(engine.base),
            positions=engine.positions,
            wishes=Wishes(preset, template, system, sampling, max_new_tokens, thinking or Thinking()),
        )
        return cls(engine, asking)

    @property
    def name(self) -> str:
        """What records and results call the model."""
        return self._asking.name

    @property
    def template(self) -> str:
        """`chat` for the tokenizer's chat template, `raw` where prompts go in as they are, or another named one."""
        return self._asking.template

    @property
    def settings(self) -> str:
        """How answers are made, as records store it."""
        return f"{self._asking.settings}, vllm"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know of how they were made."""
        return self._asking.notes

    def generate(self, prompts: Sequence[Prompt], *, report: Report | None = None) -> list[Generation]:
        """One generation per prompt, in order; `report` gets each 512 as soon as they are there."""
        rendered = self._asking.rendered(prompts)
        made: list[Generation] = []
        for start in range(0, len(rendered), REPORTED_TOGETHER):
            part = self._answered(rendered[start : start + REPORTED_TOGETHER])
            made += part
            if report is not None:
                report(part)
        return made

    def _answered(self, rendered: Sequence[Rendered]) -> list[Generation]:
        outputs = self._engine.generate([one.tokens for one in rendered], [self._parameters(one) for one in rendered])
        return [self._generation(one, output.outputs[0]) for one, output in zip(rendered, outputs, strict=True)]

    def _parameters(self, rendered: Rendered) -> Any:
        from vllm import SamplingParams

        how, asking = self._asking.sampling, self._asking
        drawn: dict[str, Any] = {"temperature": how.temperature}
        if not how.greedy:
            key = hashlib.sha256(f"{how.seed}\n{text_hash(rendered.key)}".encode()).digest()
            drawn |= {"top_k": how.top_k or 0, "top_p": how.top_p or 1.0, "seed": int.from_bytes(key[:4], "little")}
        return SamplingParams(
            **drawn,
            max_tokens=asking.room(rendered),
            stop=list(asking.stops) or None,
            include_stop_str_in_output=True,
            stop_token_ids=sorted(asking.stop_tokens),
        )

    def _generation(self, rendered: Rendered, completion: Any) -> Generation:
        reason = _FINISH_REASONS.get(completion.finish_reason)
        if reason is None:
            raise EndpointError(
                f"vLLM ended prompt {rendered.prompt.id!r} of suite {rendered.prompt.suite!r} with finish_reason "
                f"{completion.finish_reason!r};",
                advice="run again",
            )
        tokens = list(completion.token_ids)
        if cut := self._asking.cut(rendered.text, tokens, 0):
            tokens, reason = cut.tokens, "stop" if cut.stopped else "length"
        row = self._asking.generation(rendered, tokens, reason, self.model_hash)
        return row.model_copy(update={"sampling": self.settings})


def _generation_config(path: Path | str) -> Any:
    from transformers import GenerationConfig

    return None if optional_file(path, GENERATION_CONFIG) is None else pretrained(GenerationConfig, path)
