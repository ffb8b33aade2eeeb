"""Requests to one OpenAI-compatible server through the official client, and errors that name the address.

The client retries, waits as the server asks, and keeps the time limits. A key is read from the environment when a
request is made, goes into one header, and is in no error or record.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from alignmend.errors import EndpointError, RecipeError, RefusedRequestError, missing_extra

_ONCE = frozenset({408, 409, 429})
"""Statuses below 500 that the client tries again: they say nothing of the request itself."""
_SHOWN_CHARACTERS = 300
_LIKE_A_KEY = re.compile(r"\b(sk|hf|gsk|xai)[-_][\w*.-]{6,}")
_STREAMS = re.compile(r"\bstream(?:ing|s)?\b", re.IGNORECASE)
STREAM_ONLY = (
    "it answers in streams only, which are not read here: switch streaming off at the server, or put a proxy before it "
    "that collects whole answers"
)


def base_address(url: str) -> str:
    """The base of the API that `url` means: without credentials, query and final slash, with `/v1` if no path is said.

    `https://name:secret@host:8000/?x` becomes `https://host:8000/v1`. `RecipeError` if it is no address.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        shown = url.rpartition("@")[2]
        raise RecipeError(f"endpoint {shown!r} is not an address;", advice="write for example http://localhost:8000/v1")
    shown_host = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/") or "/v1"
    return f"{parts.scheme}://{shown_host}{f':{port}' if port else ''}{path}"


class Transport:
    """Requests to `address`. Use as an async context manager."""

    def __init__(self, address: str, key_variable: str, *, timeout: float, retries: int) -> None:
        self.address = base_address(address)
        self._key = _key(key_variable)
        self._key_variable = key_variable
        self._timeout, self._retries = timeout, retries

    async def __aenter__(self) -> Self:
        try:
            import openai

            from alignmend.evaluation.endpoint_client import WholeAnswers
        except ImportError as error:
            raise missing_extra("openai", "endpoint") from error
        local = urlsplit(self.address).hostname in ("localhost", "127.0.0.1", "::1")
        self._openai = openai
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.address,
            max_retries=self._retries,
            timeout=self._timeout,
            http_client=WholeAnswers(self._timeout, trust_env=not local),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, needed: bool = True
    ) -> dict[str, Any]:
        """The JSON object that the server answers; `EndpointError` once the retries are used up, or at a 4xx at once.

        Tried again: connection errors, time-outs, 408, 409, 429, 5xx, and bodies of a success that are no answer. Of
        what is not `needed`, any answer of the server will do: an empty object stands for one that is of no use.
        """
        options: Any = {"max_retries": self._retries if needed else min(1, self._retries)}
        if not self._key:
            options["headers"] = {"Authorization": self._openai.Omit()}
        try:
            if method == "GET":
                text = await self._client.get(path, cast_to=str, options=options)
            else:
                text = await self._client.post(path, cast_to=str, body=dict(body or {}), options=options)
        except self._openai.APIStatusError as error:
            if not needed:
                return {}
            raise self._status_error(error) from None
        except self._openai.APITimeoutError as error:
            raise self._no_answer(error, f"no answer within {self._timeout:g} seconds") from None
        except self._openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self._no_answer(error, self._clean(str(cause)) or type(cause).__name__) from None
        content: dict[str, Any] = json.loads(text)
        return content

    def _no_answer(self, error: Any, fault: str) -> EndpointError:
        attempts = int(error.request.headers.get("x-stainless-retry-count", self._retries)) + 1
        return EndpointError(
            f"endpoint {self.address} gave no usable answer in {attempts} attempts, at last: {fault};",
            advice="check the address and that the server runs, then run again",
        )

    def _status_error(self, error: Any) -> EndpointError:
        """`RefusedRequestError` where asking the same again is of no use."""
        status, text = error.status_code, error.response.text
        content = json_of(text)
        words, code = _words_of(content, text)
        words = self._clean(words)
        said = f"status {status} ({words})" if words else f"status {status}"
        if status in _ONCE or status >= 500:
            inside = error.response.extensions.get("inside_success")
            return self._no_answer(error, f"{inside}: {words!r}" if inside else said)
        advice = f"; the key is read from the environment variable {self._key_variable}" if status in (401, 403) else ""
        if status in (400, 405, 422) and _STREAMS.search(words):
            advice += f"; {STREAM_ONLY}"
        message = f"endpoint {self.address} refused the request with {said}{advice}"
        return RefusedRequestError(message, status=status, words=words, code=code, body=content)

    def _clean(self, words: str) -> str:
        """One short line without anything that is or looks like a key."""
        if self._key:
            words = words.replace(self._key, "[key]")
        line = " ".join(_LIKE_A_KEY.sub("[key]", words).split())
        return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + " ..."


def _key(variable: str) -> str:
    """The key, empty where there is none; checked here, as the error of a library would show it."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RecipeError(
            f"the environment variable {variable} holds characters that no key has", advice="set it again"
        )
    return key


def json_of(text: str | bytes) -> Any:
    """What `text` holds as JSON, `None` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _words_of(content: Any, text: str) -> tuple[str, str]:
    """Message and code of an error body, in the several forms that servers use."""
    error = content.get("error", content) if isinstance(content, dict) else content
    if isinstance(error, dict):
        words = next((error[name] for name in ("message", "detail", "msg") if error.get(name)), error)
        return words if isinstance(words, str) else json.dumps(words, ensure_ascii=False), str(error.get("code") or "")
    return (error if isinstance(error, str) else text), ""
