"""The HTTP client below the official one: an error that a server hides in a success becomes the error that it is.

So the official client's own retries hold for it too. Imported where a server is asked, since it needs `openai`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from alignmend.errors import EndpointError
from alignmend.evaluation.endpoint_transport import STREAM_ONLY, json_of

CONNECT_TIMEOUT = 10.0
_BAD_GATEWAY = 502


class WholeAnswers(httpx2.AsyncClient):
    """`seconds` is for one request from its first byte to its last."""

    def __init__(self, seconds: float, *, trust_env: bool) -> None:
        super().__init__(
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT_TIMEOUT, seconds)),
            limits=httpx2.Limits(max_connections=None),
            trust_env=trust_env,
        )
        self._seconds = seconds

    async def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
        """The server's answer, read to its end."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = await super().send(request, **how)
                content = await answer.aread()
        except TimeoutError:
            raise httpx2.ReadTimeout("no whole answer in time", request=request) from None
        if not answer.is_success:
            return answer
        if "text/event-stream" in answer.headers.get("content-type", "") or content.lstrip().startswith(b"data:"):
            address = str(request.url).removesuffix("/chat/completions")
            raise EndpointError(f"endpoint {address} cannot be used: {STREAM_ONLY}")
        status, fault = hidden_fault(json_of(content), chat=request.method == "POST")
        if not fault:
            return answer
        headers = {name: value for name, value in answer.headers.items() if name.startswith(("retry-", "x-should-"))}
        return httpx2.Response(
            status, headers=headers, content=content, request=request, extensions={"inside_success": fault}
        )


def hidden_fault(content: Any, *, chat: bool) -> tuple[int, str]:
    """The status that a body of a success should have had, and what is wrong with it; no words where nothing is."""
    if not isinstance(content, dict):
        return _BAD_GATEWAY, "not a JSON object"
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if chat and isinstance(first, dict) and isinstance(first.get("message"), dict) and not first.get("error"):
        return 200, ""
    error = content.get("error") or (first.get("error") if isinstance(first, dict) else None)
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        told = isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600
        return int(code) if told and code else _BAD_GATEWAY, "an error in an answer with status 200"
    return (_BAD_GATEWAY, "an answer without a choice") if chat else (200, "")
