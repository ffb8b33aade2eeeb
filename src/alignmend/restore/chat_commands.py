"""Slash commands of a conversation: what they are called, what they do, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from alignmend.errors import RecipeError
from alignmend.nearest import nearest
from alignmend.restore.chat import Chat

Run = Callable[[Chat, str], str]
"""Does it, given what stands behind the command; returns what to tell."""


@dataclass(frozen=True)
class Command:
    """`argument` is empty where it takes none, in brackets where it may be left out."""

    name: str
    argument: str
    help: str
    run: Run
    leaves: bool = False


def is_command(line: str) -> bool:
    """Whether a line is a command: it begins with one slash."""
    return line.startswith("/") and not line.startswith("//")


def prompt_of(line: str) -> str:
    """What a line says that is no command: of two slashes at its beginning, one is meant."""
    return line[1:] if line.startswith("//") else line


def parse(line: str) -> tuple[Command, str]:
    """The command of a line and what stands behind it; `RecipeError` names the nearest to an unknown one."""
    name, _, rest = line[1:].strip().partition(" ")
    if name not in COMMANDS:
        known = nearest(f"/{name}", [f"/{one}" for one in COMMANDS]) or "; /help lists them"
        raise RecipeError(f"there is no command /{name}{known}")
    command, argument = COMMANDS[name], rest.strip()
    if argument and not command.argument:
        raise RecipeError(f"/{name} stands alone, without {argument!r}")
    if not argument and command.argument and not command.argument.startswith("["):
        raise RecipeError(f"/{name} needs {command.argument}: {command.help}")
    return command, argument


def _help(chat: Chat, argument: str) -> str:
    rows = [(f"/{one.name} {one.argument}".strip(), one.help) for one in COMMANDS.values()]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left:<{width}}  {right}" for left, right in [*rows, ("//TEXT", "say TEXT with one slash")])


def _reset(chat: Chat, argument: str) -> str:
    chat.turns.clear()
    return "the conversation begins anew"


def _undo(chat: Chat, argument: str) -> str:
    return f"taken back: {chat.undo().prompt}"


def _system(chat: Chat, text: str) -> str:
    chat.system = text or None
    return "system prompt set" if text else "no system prompt"


def _steering(chat: Chat, word: str) -> str:
    if word not in ("on", "off"):
        raise RecipeError(f"/steering is on or off, not {word!r}")
    chat.steer(word == "on")
    return f"steering {word}"


def _coefficient(chat: Chat, text: str) -> str:
    chat.set_coefficient(_number("coefficient", text))
    return f"steering on, coefficient {text}"


def _tokens(chat: Chat, text: str) -> str:
    chat.set(max_new_tokens=_whole("tokens", text))
    return f"answers of at most {chat.sampling.max_new_tokens} tokens"


def _temperature(chat: Chat, text: str) -> str:
    chat.set(temperature=_number("temperature", text))
    return "greedy" if chat.sampling.greedy else f"temperature {chat.sampling.temperature:g}"


def _seed(chat: Chat, text: str) -> str:
    chat.set(seed=_whole("seed", text))
    return f"seed {chat.sampling.seed}" + (" (greedy answers do not depend on it)" if chat.sampling.greedy else "")


def _save(chat: Chat, path: str) -> str:
    turns = chat.save(Path(path).expanduser())
    return f"{turns} turn{'' if turns == 1 else 's'} in {path}"


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecipeError(f"/{name} needs a number, not {text!r}") from None


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RecipeError(f"/{name} needs a whole number, not {text!r}") from None


_ALL = (
    Command("help", "", "show this", _help),
    Command("reset", "", "begin the conversation anew", _reset),
    Command("undo", "", "take the last turn back", _undo),
    Command("system", "[TEXT]", "set the system prompt; without TEXT, none", _system),
    Command("steering", "on|off", "apply the steering vector that belongs to the model, or not", _steering),
    Command("coefficient", "X", "strength of that vector", _coefficient),
    Command("tokens", "N", "longest answer", _tokens),
    Command("temperature", "X", "0 takes the likeliest token; above, tokens are drawn", _temperature),
    Command("seed", "N", "of what is drawn", _seed),
    Command("save", "FILE", "write the conversation as JSONL of messages", _save),
    Command("quit", "", "leave (so do Ctrl-D, and Ctrl-C at the prompt)", lambda chat, argument: "", leaves=True),
)
COMMANDS: Mapping[str, Command] = MappingProxyType({one.name: one for one in _ALL})
