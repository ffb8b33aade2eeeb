"""The channels of gpt-oss (harmony): analysis is thought, all else is said; also where special tokens were removed."""

from __future__ import annotations

import re

_HEAD = r"(?:<\|start\|>(?P<role>[^<]*))?(?:<\|channel\|>(?P<channel>[^<]*))?(?:<\|constrain\|>[^<]*)?"
_END = r"<\|(?:end|return|call)\|>|<\|start\|>assistant|<\|channel\|>[a-z]+[^<]*<\||\Z"
_MESSAGE = re.compile(rf"{_HEAD}<\|message\|>(?P<text>.*?)(?={_END})", re.DOTALL)
_BEGINS = re.compile(r"\s*(?:<\|start\|>assistant|<\|channel\|>\s*(?:analysis|commentary|final))")
_UNFINISHED_HEAD = re.compile(r"<\|channel\|>(?P<channel>[^<]*)\Z")

_NAMES = "analysis|commentary|final"
_BARE = re.compile(rf"\s*(?:assistant)?(?=analysis\S.*assistant(?:{_NAMES})|analysis[\"'A-Z]|final[\"'A-Z])", re.DOTALL)
_TURN = re.compile(rf"assistant(?={_NAMES})")

Split = tuple[str, str | None]


def split_harmony(response: str, rendered_prompt: str = "") -> Split | None:
    """What was said and what was thought, `None` where `response` is not in channels.

    `rendered_prompt` may have begun the message, up to a channel's name.
    """
    begun = rendered_prompt[start:] if (start := rendered_prompt.rfind("<|start|>assistant")) >= 0 else ""
    whole = ("" if re.search(r"<\|(?:end|return|call)\|>", begun) else begun) + response
    if _BEGINS.match(whole):
        parts = [(found["channel"] or "", found["text"]) for found in _MESSAGE.finditer(whole)]
        if parts or _UNFINISHED_HEAD.search(whole):
            return _joined(parts)
    if bare := _BARE.match(response):
        turns = _TURN.split(response[bare.end() :])
        named = [re.match(rf"({_NAMES})(.*)", turn, re.DOTALL) for turn in turns]
        return _joined([(found[1], found[2]) for found in named if found])
    return None


def _joined(parts: list[tuple[str, str]]) -> Split:
    thought = [text.strip() for channel, text in parts if channel.strip().startswith("analysis")]
    said = [text.strip() for channel, text in parts if not channel.strip().startswith("analysis")]
    return "\n\n".join(filter(None, said)), "\n\n".join(filter(None, thought)) or None
