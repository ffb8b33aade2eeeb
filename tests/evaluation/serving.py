"""Real servers on loopback that speak OpenAI's chat completions: one that answers from a script, faults included."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from alignmend.evaluation.endpoint import Endpoint


@dataclass(frozen=True)
class Reply:
    """One scripted answer: `text` as a completion, unless `body` is given as it is."""

    text: str = "ok"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    finish_reason: str | None = "stop"
    usage: Mapping[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 3, "completion_tokens": 2})
    message: Mapping[str, Any] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False

    def encoded(self, model: str) -> bytes:
        if self.body is not None:
            return self.body
        message = {"role": "assistant", "content": self.text, **self.message}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return json.dumps({"model": model, "choices": [choice], "usage": self.usage}).encode()


def error_reply(
    status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """An error in OpenAI's form."""
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Reply(status=status, body=body, headers=headers or {})


DROPPED = Reply(drop=True)
"""The connection is closed without an answer."""

Body = Mapping[str, Any]
Answerer = Callable[[Body], Reply]
Script = Sequence[Reply] | Answerer
"""Replies in order of arrival, the last one for ever; or what a request's body is answered."""


def answer_each(answer: Callable[[str], str]) -> Answerer:
    """A server that says `answer(the last message)`, so that every prompt has its own, whatever the order."""
    return lambda body: Reply(answer(body["messages"][-1]["content"]))


def failing_after(count: int, script: Answerer, fault: Reply) -> Answerer:
    """Answers the first `count` requests by `script`, and `fault` from then on."""
    numbers = iter(range(10**9))
    return lambda body: script(body) if next(numbers) < count else fault


class ScriptedServer:
    """A server on a free port of loopback. `requests` and `keys` are the bodies and Authorization headers it got.

    Its list of models is `models`; `None` is an error of the server.
    """

    def __init__(self, script: Script, models: Sequence[str] | None = ("tiny",)) -> None:
        self.script = script
        self.models = models
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def endpoint(self, **options: Any) -> Endpoint:
        """Patient enough for a test: short pauses, short time-outs."""
        settings = {"model": "tiny", "timeout": 5.0, "retries": 3, **options}
        return Endpoint(self.url, **settings)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Closes the port: from now on connections are refused."""
        self._http.shutdown()
        self._http.server_close()

    def reply_to(self, body: dict[str, Any], key: str | None) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.keys.append(key)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            return self.script(body) if callable(self.script) else self.script[min(number, len(self.script) - 1)]

    def answered(self) -> None:
        with self._lock:
            self.at_once -= 1


@contextmanager
def serving(script: Script, models: Sequence[str] | None = ("tiny",)) -> Iterator[ScriptedServer]:
    """`ScriptedServer` while the body runs."""
    server = ScriptedServer(script, models)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def unused_address() -> str:
    """An address on loopback where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if server.models is None:
                self._send(Reply(status=500, body=b"Internal Server Error"), "")
                return
            models = [{"id": name, "object": "model", "created": time.time_ns()} for name in server.models]
            self._send(Reply(body=json.dumps({"object": "list", "data": models}).encode()), "")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.reply_to(body, self.headers.get("Authorization"))
            time.sleep(reply.delay)
            server.answered()
            self._send(reply, body.get("model", ""))

        def _send(self, reply: Reply, model: str) -> None:
            self.close_connection = self.close_connection or reply.drop
            if reply.drop:
                return
            content = reply.encoded(model)
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

    return Handler


@contextmanager
def transformers_serve(log: Path) -> Iterator[str]:
    """The address of `transformers serve` on a free port, which answers for any model folder it is asked for."""
    address = unused_address()
    port = address.split(":")[-1].removesuffix("/v1")
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", port]
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--dtype", "float32"],
            stdout=file,
            stderr=file,
            env={**os.environ, **settings},
        )
    try:
        _wait_for(f"{address.removesuffix('/v1')}/health", process, log)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
