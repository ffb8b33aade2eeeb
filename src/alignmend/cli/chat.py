"""`alignmend chat`: talk to one or two models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.thinking_options import add_thinking_options, thinking_of
from alignmend.errors import ParameterError, RecipeError

if TYPE_CHECKING:
    from alignmend.restore.chat import Chat, Turn
    from alignmend.restore.chat_speaker import Answer, Speaker

DEFAULT_TOKENS = 512


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "chat",
        _run,
        summary="Talk to one model, or to two side by side",
        detail="The steering vector that belongs to a checkpoint is applied. /help lists what can be changed on the "
        "way; Ctrl-C stops an answer, at the prompt it leaves. Where no terminal is, each line that is read is a "
        "prompt, and only answers are printed.",
    )
    parser.add_argument("model", help="folder or hub id")
    parser.add_argument("--against", metavar="OTHER", help="a second model that is asked the same")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--template", metavar="T", help="prompt template: auto, chat, raw, alpaca, vicuna, ...")
    parser.add_argument(
        "--max-new-tokens", type=int, default=DEFAULT_TOKENS, metavar="N", help=f"longest answer ({DEFAULT_TOKENS})"
    )
    add_thinking_options(parser)
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="X", help="above 0 samples, by --seed (default: greedy)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is sampled (default: 0)")
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU where there is one)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--no-steering",
        dest="steering",
        action="store_false",
        help="leave out the steering vector that belongs to a model, until /steering on",
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    chat = _chat(arguments)
    if sys.stdin.isatty() and sys.stdout.isatty() and not arguments.json:
        from alignmend.cli.chat_terminal import talk

        return talk(chat)
    return _read_lines(chat, as_json=arguments.json)


def _chat(arguments: argparse.Namespace) -> Chat:
    from alignmend.evaluation.sampling import Sampling
    from alignmend.restore.chat import Chat

    if arguments.system is not None and not arguments.system.strip():
        raise ParameterError("--system is empty", advice="leave it out")
    sampling = Sampling(temperature=arguments.temperature, seed=arguments.seed, max_new_tokens=arguments.max_new_tokens)
    folders = [arguments.model] if arguments.against is None else [arguments.model, arguments.against]
    speakers = [_speaker(arguments, folder, name) for folder, name in zip(folders, names(folders), strict=True)]
    return Chat(speakers, sampling, arguments.system)


def _speaker(arguments: argparse.Namespace, folder: str, name: str) -> Speaker:
    from alignmend.restore.chat_speaker import Speaker

    return Speaker.from_folder(
        folder,
        name=name,
        device=arguments.device,
        dtype=arguments.dtype,
        template=arguments.template,
        steering=arguments.steering,
        thinking=thinking_of(arguments),
    )


def names(folders: list[str]) -> list[str]:
    """The folders' own names, or as much of their paths as tells them apart."""
    short = [Path(folder).resolve().name or folder for folder in folders]
    if len(set(short)) == len(short):
        return short
    return (
        folders if len(set(folders)) == len(folders) else [f"{name} ({place})" for place, name in enumerate(short, 1)]
    )


def _read_lines(chat: Chat, *, as_json: bool) -> int:
    """Each line of standard input is a prompt or a command; what is told of commands goes to standard error."""
    from alignmend.restore.chat_commands import is_command, parse, prompt_of

    for text in _lines(sys.stdin.buffer):
        if is_command(text):
            found, argument = parse(text)
            if found.leaves:
                return 0
            print(found.run(chat, argument), file=sys.stderr)
        elif text.strip():
            _show(chat, chat.ask(prompt_of(text)), as_json=as_json)
    return 0


def _lines(file: Iterable[bytes]) -> Iterator[str]:
    """Whatever the machine's own encoding is, as files of prompts are read too."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise RecipeError(
                f"line {number} of standard input is not UTF-8", advice="convert it, for example with  iconv -t UTF-8"
            ) from None


def _show(chat: Chat, turn: Turn, *, as_json: bool) -> None:
    for speaker, answer in zip(chat.speakers, turn.answers, strict=True):
        if as_json:
            print(json.dumps(_as_dict(speaker, turn.prompt, answer)))
        else:
            label = f"{speaker.name}: " if len(chat.speakers) > 1 else ""
            print(f"{label}{answer.text}")
    sys.stdout.flush()
    if any(answer.finish_reason == "interrupted" for answer in turn.answers):
        raise KeyboardInterrupt


def _as_dict(speaker: Speaker, prompt: str, answer: Answer) -> dict[str, object]:
    reasoning = {} if answer.reasoning is None else {"reasoning": answer.reasoning}
    return {
        "model": speaker.name,
        "prompt": prompt,
        "response": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": answer.tokens,
        "steering": speaker.steering,
        **reasoning,
    }
