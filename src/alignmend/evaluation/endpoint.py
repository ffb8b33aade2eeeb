"""Chat with a served model: any server that speaks OpenAI's chat completions, local or hosted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from alignmend.errors import EndpointError, ParameterError, RefusedRequestError
from alignmend.evaluation.endpoint_answer import ChatAnswer, named_parameter, read_answer, unanswered
from alignmend.evaluation.endpoint_transport import Transport, base_address

Message = Mapping[str, str]
"""`role` (`system`, `user` or `assistant`) and `content`."""

_FEW_REJECTED = 3
_OTHER_LIMIT = re.compile(
    r"max_completion_tokens.*\b(instead|supported|required)\b"
    r"|\b(unsupported|not supported|use|instead|unrecogni[sz]ed)\b.*max_completion_tokens",
    re.IGNORECASE,
)
"""A server that wants the limit under its other name; not one that calls the limit too large."""
_OPTIONS = {"seed": "--no-seed", "temperature": "--no-temperature"}
_CHANGES_BY_ITSELF = frozenset({"created", "permission"})
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: its base address, the model it is asked for, and how patient the client is.

    `model` may be `None` where the server has exactly one. The key is read from the environment variable
    `key_variable`; servers that need none get none. `timeout` is for one request, in seconds; `retries` is how often a
    request that failed is sent again, after half a second, then twice as long each time, or as the server asks.
    `left_out` are parameters that are not sent, such as `seed`, for servers that do not take them.
    """

    url: str
    model: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    left_out: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        base_address(self.url)
        if self.concurrency < 1:
            raise ParameterError(f"concurrency must be at least 1, not {self.concurrency}")
        if self.timeout <= 0:
            raise ParameterError(f"timeout must be above 0 seconds, not {self.timeout}")
        if self.retries < 0:
            raise ParameterError(f"retries cannot be negative: {self.retries}")

    @property
    def address(self) -> str:
        """The base address without credentials: what errors and records say."""
        return base_address(self.url)


@dataclass(frozen=True)
class ServedModel:
    """The name a server knows a model by, and what its list of models says of it (empty where it is not listed)."""

    name: str
    about: Mapping[str, Any] = field(default_factory=dict)


Report = Callable[[int, ChatAnswer], None]
"""Called with the position of a conversation and its answer as soon as it is there, in any order."""


class ChatClient:
    """Asks one endpoint, several requests at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._served: ServedModel | None = None
        self._limit_name = "max_tokens"

    def served(self) -> ServedModel:
        """The model that answers: the endpoint's `model`, or the only one that the server lists; asked once."""
        return _run(self._find_served())

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        temperature: float | None = 0.0,
        max_tokens: int = 512,
        seed: int | None = 0,
        options: Mapping[str, Any] | None = None,
        report: Report | None = None,
    ) -> list[ChatAnswer]:
        """One answer per conversation, in order; what is `None` is left to the server, `options` go along as they are.

        A prompt that the server rejects (too long, not allowed) or filters is an answer without text; rejected ones
        are reported at the end, and only where fewer were rejected than answered, or two at most. At the first request
        that fails for good, running ones are waited for and reported, no new ones are sent, and `EndpointError` is
        raised.
        """
        settings = {"temperature": temperature, "seed": seed, **(options or {})}
        left_out = self.endpoint.left_out
        body = {name: value for name, value in settings.items() if value is not None and name not in left_out}
        return _run(self._complete(conversations, body, max_tokens, report))

    def _transport(self) -> Transport:
        to = self.endpoint
        return Transport(to.url, to.key_variable, timeout=to.timeout, retries=to.retries)

    async def _complete(
        self, conversations: Sequence[Sequence[Message]], body: Mapping[str, Any], limit: int, report: Report | None
    ) -> list[ChatAnswer]:
        answers: dict[int, ChatAnswer] = {}
        rejected: dict[int, RefusedRequestError] = {}
        waiting = iter(enumerate(conversations))
        model = self.endpoint.model or (await self._find_served()).name
        stopping = False

        async def work() -> None:
            nonlocal stopping
            for position, messages in waiting:
                request = {"model": model, "messages": [dict(message) for message in messages], **body}
                try:
                    answer = await self._ask(transport, request, limit)
                    if isinstance(answer, RefusedRequestError):
                        rejected[position] = answer
                        self._check_rejected(rejected, len(answers), self.endpoint.concurrency)
                    else:
                        answers[position] = answer
                        if report is not None:
                            report(position, answer)
                except Exception as error:
                    stopping = True
                    if isinstance(error, EndpointError) and error.position is None:
                        error.position = position
                    raise
                if stopping:
                    return

        async with self._transport() as transport:
            workers = min(self.endpoint.concurrency, len(conversations))
            outcomes = await asyncio.gather(*(work() for _ in range(workers)), return_exceptions=True)
        for failure in filter(None, outcomes):
            raise failure
        self._check_rejected(rejected, len(answers))
        for position, error in sorted(rejected.items()):
            answers[position] = ChatAnswer("", "rejected", None, None, problem=str(error))
            if report is not None:
                report(position, answers[position])
        return [answers[position] for position in range(len(conversations))]

    def _check_rejected(self, rejected: Mapping[int, RefusedRequestError], answered: int, running: int = 0) -> None:
        """Only while the fault can be the prompts' own: a server that rejects most of them is another matter."""
        if len(rejected) >= max(_FEW_REJECTED, running) and len(rejected) >= answered:
            position, error = min(rejected.items())
            error.position = position
            raise error

    async def _ask(self, transport: Transport, body: Mapping[str, Any], limit: int) -> ChatAnswer | RefusedRequestError:
        """The answer; the refusal where the fault may be the prompt's own."""
        limit_name = self._limit_name
        request = {**body, limit_name: limit}
        try:
            return read_answer(await transport.request("POST", "/chat/completions", request))
        except RefusedRequestError as error:
            if limit_name == "max_tokens" and _OTHER_LIMIT.search(error.words):
                self._limit_name = "max_completion_tokens"
                return await self._ask(transport, body, limit)
            found = unanswered(error, request)
            if found is not None:
                return error if found.finish_reason == "rejected" else found
            if option := _OPTIONS.get(named_parameter(error, request) or ""):
                error.advise(f"leave it out with {option}")
            raise

    async def _find_served(self) -> ServedModel:
        if self._served is None:
            async with self._transport() as transport:
                self._served = await _served_by(transport, self.endpoint.model)
        return self._served


async def _served_by(transport: Transport, wanted: str | None) -> ServedModel:
    """Servers without a list of models are fine where the model is named."""
    listed = (await transport.request("GET", "/models", needed=wanted is None)).get("data")
    entries = [
        entry
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    ]
    about = {entry["id"]: {k: v for k, v in entry.items() if k not in _CHANGES_BY_ITSELF} for entry in entries}
    if wanted is not None:
        return ServedModel(wanted, about.get(wanted, {}))
    if len(about) != 1:
        names = ", ".join(sorted(about)[:10]) or "none"
        raise EndpointError(
            f"endpoint {transport.address} lists {len(about)} models ({names});", advice="say which one to ask"
        )
    return ServedModel(*next(iter(about.items())))


def _run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs `coroutine` to its end, also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
