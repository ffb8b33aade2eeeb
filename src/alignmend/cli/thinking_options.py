"""Options for models that think aloud before they answer, shared by commands."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from alignmend.evaluation.thinking import Thinking


def add_thinking_options(group: argparse._ActionsContainer) -> None:
    """`--thinking`, `--chat-template-kwargs`, `--max-thinking-tokens`, `--reasoning-tags`."""
    group.add_argument(
        "--thinking", choices=("on", "off"), help="of models whose chat template has a switch (default: the template's)"
    )
    group.add_argument(
        "--chat-template-kwargs",
        metavar="JSON",
        help='variables for the chat template, such as \'{"reasoning_effort": "low"}\'',
    )
    group.add_argument(
        "--max-thinking-tokens",
        type=int,
        metavar="N",
        help="room for a thought, beside that for the answer (default: 2048 where the template tells of thoughts)",
    )
    add_tags_option(group)


def add_tags_option(group: argparse._ActionsContainer) -> None:
    """`--reasoning-tags` alone, where answers are there already."""
    group.add_argument(
        "--reasoning-tags",
        nargs=2,
        action="append",
        default=[],
        metavar=("OPEN", "CLOSE"),
        help="what the model puts around thoughts, where it is none of the usual tags; OPEN may be empty; may be "
        "repeated",
    )


def thinking_keywords(arguments: argparse.Namespace) -> dict[str, Any]:
    """What these options say, by the keywords of whole jobs; `ParameterError` where they cannot be meant."""
    return {
        "thinking": None if arguments.thinking is None else arguments.thinking == "on",
        "chat_template_kwargs": _variables(arguments.chat_template_kwargs),
        "max_thinking_tokens": arguments.max_thinking_tokens,
        "reasoning_tags": arguments.reasoning_tags,
    }


def thinking_of(arguments: argparse.Namespace) -> Thinking:
    """The same as one value."""
    from alignmend.api.judges import tags_of
    from alignmend.evaluation.thinking import Thinking

    said = thinking_keywords(arguments)
    return Thinking(
        said["thinking"], said["chat_template_kwargs"], said["max_thinking_tokens"], tags_of(said["reasoning_tags"])
    )


def _variables(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ParameterError(
            f"--chat-template-kwargs is not JSON ({error})", advice="write it as in '{\"enable_thinking\": false}'"
        ) from None
    if not isinstance(found, dict):
        raise ParameterError(
            f"--chat-template-kwargs is a JSON object, as in '{{\"enable_thinking\": false}}', not {text[:80]}"
        )
    return found
