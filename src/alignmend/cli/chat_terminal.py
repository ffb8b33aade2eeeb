"""A conversation on a terminal: prompts with a history, answers as they are made, two models in two columns."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from alignmend.cli.plain import plain_console
from alignmend.errors import AlignmendError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from alignmend.restore.chat import Chat
    from alignmend.restore.chat_speaker import Answer

WIDE = 100
"""From so many columns on two answers stand side by side."""
_COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def talk(chat: Chat) -> int:
    """Ask for prompts until the user leaves, by a command, Ctrl-D or Ctrl-C at the prompt."""
    _introduce(chat)
    _prepare_editing()
    try:
        while _go_on(chat, _typed()):
            pass
    except (EOFError, KeyboardInterrupt):
        print()
    return 0


def _typed() -> str:
    """The next line, an empty one where its bytes are no text."""
    try:
        line = input("> ")
        line.encode("utf-8")  # lone surrogates stand for bytes that were let through
    except UnicodeError:
        print("that was not UTF-8: set the terminal to it")
        return ""
    return line


def _go_on(chat: Chat, line: str) -> bool:
    """Answer one line; whether there may be another."""
    from alignmend.restore.chat_commands import is_command, parse, prompt_of

    try:
        if is_command(line):
            found, argument = parse(line)
            if found.leaves:
                return False
            print(printable(found.run(chat, argument)))
        elif line.strip():
            _ask(chat, prompt_of(line))
    except AlignmendError as error:
        print(printable(str(error)))
    return True


def _ask(chat: Chat, prompt: str) -> None:
    console = plain_console()
    if len(chat.speakers) == 2 and console.width >= WIDE:
        _in_columns(chat, prompt, console)
    else:
        _in_blocks(chat, prompt)


def _in_blocks(chat: Chat, prompt: str) -> None:
    """Each answer as it comes, below its model's name where there are two."""
    several, begun = len(chat.speakers) > 1, -1

    def hear(place: int, piece: str) -> None:
        nonlocal begun
        if several and place != begun:
            print(f"{chr(10) if begun >= 0 else ''}{_bold(chat.speakers[place].name)}")
        begun = place
        print(printable(piece), end="", flush=True)

    try:
        turn = chat.ask(prompt, hear)
    finally:
        print()
    for speaker, answer in zip(chat.speakers, turn.answers, strict=True):
        if remark := _remark(answer):
            print(_dim(f"[{f'{speaker.name}: ' if several else ''}{remark}]"))


def _in_columns(chat: Chat, prompt: str, console: Console) -> None:
    """Both answers as they come, side by side: the left one is made first."""
    from rich.live import Live

    texts = ["" for _ in chat.speakers]
    remarks = ["" for _ in chat.speakers]
    with Live(_columns(chat, texts, remarks), console=console, transient=True, refresh_per_second=12) as shown:

        def hear(place: int, piece: str) -> None:
            texts[place] += printable(piece)
            shown.update(_columns(chat, texts, remarks))

        turn = chat.ask(prompt, hear)
    console.print(_columns(chat, texts, [_remark(answer) for answer in turn.answers]))


def _columns(chat: Chat, texts: list[str], remarks: list[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, expand=True, padding=(0, 1), pad_edge=False)
    for speaker in chat.speakers:
        table.add_column(Text(speaker.name), ratio=1, overflow="fold")
    cells: list[Any] = []
    for text, remark in zip(texts, remarks, strict=True):
        cells.append(Text(text) + Text(f"\n[{remark}]" if remark else "", style="dim"))
    table.add_row(*cells)
    return table


def _remark(answer: Answer) -> str:
    """What must be said of an answer that is not whole, or empty."""
    if answer.finish_reason == "interrupted":
        return "stopped"
    if answer.finish_reason == "length" and answer.reasoning and not answer.text:
        return f"a thought without an answer after {answer.tokens} tokens; --max-thinking-tokens N allows more, \
--thinking off may spare it"
    if answer.finish_reason == "length":
        return f"cut off after {answer.tokens} tokens; /tokens N allows more, where the model has room"
    if answer.reasoning and not answer.text:
        return "a thought without an answer"
    return "" if answer.text else "an empty answer"


def _introduce(chat: Chat) -> None:
    for speaker in chat.speakers:
        print(f"{_bold(printable(speaker.name))} ({speaker.template} template{_steering(speaker)})")
        for note in speaker.notes:
            print(f"note: {printable(note)}")
    print("/help lists commands. Ctrl-C stops an answer, Ctrl-D leaves.")


def _steering(speaker: Any) -> str:
    from alignmend.activations.attached import describe

    if speaker.vector is None:
        return ""
    return f"; steering {'on' if speaker.steering else 'off'}: {describe(speaker.vector, speaker.how)}"


def _prepare_editing() -> None:
    """A history of this conversation and the names of commands at Tab, where the system has readline."""
    try:
        import readline
    except ImportError:
        return
    from alignmend.restore.chat_commands import COMMANDS

    def complete(text: str, number: int) -> str | None:
        found = [f"/{name} " for name in COMMANDS if text.startswith("/") and f"/{name}".startswith(text)]
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")


def printable(text: str) -> str:
    """Without characters that would command the terminal; line breaks and tabs stay."""
    return _COMMANDING.sub("\ufffd", text)


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() else text
