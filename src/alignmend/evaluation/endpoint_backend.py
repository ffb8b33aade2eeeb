"""Generations by a served model, over any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from alignmend.errors import EndpointError, RecipeError, RefusedRequestError
from alignmend.evaluation.asking import Wishes
from alignmend.evaluation.endpoint import ChatClient, Endpoint, ServedModel
from alignmend.evaluation.endpoint_answer import ChatAnswer
from alignmend.evaluation.generation import Report
from alignmend.evaluation.reasoning import split_reasoning
from alignmend.evaluation.records import Generation, Prompt, text_hash
from alignmend.evaluation.sampling import Sampling
from alignmend.evaluation.templates import AUTO, CHAT, messages
from alignmend.evaluation.thinking import Thinking


class EndpointBackend:
    """A model behind `endpoint`, asked with its server's chat template.

    `name` is what records call it (default: the last part of the served name). A preset that leaves decoding to the
    model leaves it to the server. `thinking` sends its switch and variables as `chat_template_kwargs`; its room for
    a thought is added to the token limit. `model_hash` in the records is of what the server says it serves: weights
    that change under the same name go unseen. Token counts are the server's, `None` where it gives none.
    """

    template = CHAT

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str | None = None,
        preset: str = "default",
        system: str | None = None,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        thinking: Thinking | None = None,
    ) -> None:
        wishes = Wishes(preset, None, system, sampling, max_new_tokens, thinking or Thinking())
        self._thinking = wishes.thinking
        if wishes.chosen.template not in (AUTO, CHAT):
            raise RecipeError(
                f"preset {preset!r} asks with template {wishes.chosen.template!r}, but an endpoint is asked with its "
                "server's chat template",
                advice="load the model in this process, or choose another preset",
            )
        self._client = ChatClient(endpoint)
        self._system = system
        self._servers_choice = wishes.leaves_sampling_to_the_model or "temperature" in endpoint.left_out
        self.sampling = wishes.sampling_for(None)
        self.settings = wishes.settings(self.sampling)
        if self._servers_choice:
            own = replace(self.sampling, temperature=0.0)
            self.settings = wishes.settings(own).replace("greedy", "the server's own sampling", 1)
        elif "seed" in endpoint.left_out:
            self.settings = self.settings.replace(f"seed={self.sampling.seed}", "no seed", 1)
        self.served = self._client.served()
        self.model_hash = _served_hash(self.served)
        self._name = name or PurePosixPath(self.served.name).name
        self.notes = (f"{self._name!r} is {self.served.name!r} at {endpoint.address}, which says so itself",)

    @property
    def name(self) -> str:
        """What records and results call the model."""
        return self._name

    def generate(self, prompts: Sequence[Prompt], *, report: Report | None = None) -> list[Generation]:
        """One generation per prompt, in order; `report` gets each as soon as it is there.

        What the server's filter withholds, and single prompts that it rejects, are generations without a response.
        `EndpointError` where the server goes away or refuses most prompts, the first of which is named; what was
        answered before was reported.
        """
        conversations = [messages(prompt.text, self._system) for prompt in prompts]
        made: dict[int, Generation] = {}

        def keep(position: int, answer: ChatAnswer) -> None:
            made[position] = self._generation(prompts[position], conversations[position], answer)
            if report is not None:
                report([made[position]])

        how = self.sampling
        try:
            self._client.complete(
                conversations,
                temperature=None if self._servers_choice else how.temperature,
                max_tokens=how.max_new_tokens + (self._thinking.tokens or 0),
                seed=how.seed,
                options={
                    "top_k": how.top_k,
                    "top_p": how.top_p,
                    "chat_template_kwargs": self._thinking.kwargs_for_server() or None,
                },
                report=keep,
            )
        except RefusedRequestError as error:
            if error.position is None:
                raise
            prompt = prompts[error.position]
            raise error.at(f"prompt {prompt.id!r} of suite {prompt.suite!r}", EndpointError) from error
        return [made[position] for position in range(len(prompts))]

    def _generation(self, prompt: Prompt, asked: list[dict[str, str]], answer: ChatAnswer) -> Generation:
        tags = self._thinking.tags
        response, reasoning = split_reasoning(answer.text, separate=answer.reasoning, tags=tags)
        return Generation(
            suite=prompt.suite,
            prompt_id=prompt.id,
            prompt=prompt.text,
            prompt_hash=text_hash(prompt.text),
            model=self.name,
            model_hash=self.model_hash,
            template=self.template,
            rendered_hash=text_hash(json.dumps(asked)),
            sampling=self.settings,
            response=response,
            reasoning=reasoning,
            finish_reason=answer.finish_reason,
            problem=answer.problem,
            prompt_tokens=answer.prompt_tokens,
            response_tokens=answer.response_tokens,
        )


def _served_hash(served: ServedModel) -> str:
    return text_hash(json.dumps({"name": served.name, "about": dict(served.about)}, sort_keys=True, default=str))
