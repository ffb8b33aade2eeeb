"""How models mark their thoughts: pairs of tags, phrases at the start of an answer, frames around what follows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from alignmend.errors import ParameterError

_WORDS = r"(?:ant)?(?:think|thinking|thoughts?|reasoning|scratchpad|inner_monologue)"
_NAME = rf"(?:[a-z0-9]+[:_])?{_WORDS}(?:_(?:fast|faster|process|content))?"
_ATTRIBUTES = r"(?:\s+[\w:-]+\s*=\s*[^<>]*?)?\s*"
_PIPE = "[|\N{FULLWIDTH VERTICAL LINE}]"

_OPENINGS = (
    rf"<(?P<angle>{_NAME}){_ATTRIBUTES}>",
    r"\[(?P<bracket>think)\]",
    r"◁(?P<triangle>think(?:ing)?)▷",
    rf"<{_PIPE}(?:begin|start)(?:_of)?_(?P<of>{_WORDS}){_PIPE}>",
    rf"<{_PIPE}(?P<first>{_WORDS})_(?:begin|start){_PIPE}>",
    rf"<{_PIPE}(?P<bare>{_WORDS}){_PIPE}>",
    r"<\|channel>(?P<channel>)(?:thought|analysis)\b",
    r"<(?P<unused>unused94)>(?:thought\b)?",
)
_CLOSINGS = (
    rf"</(?P<angle_end>{_NAME})\s*>",
    r"\[/(?P<bracket_end>think)\]",
    r"◁/(?P<triangle_end>think(?:ing)?)▷",
    rf"<{_PIPE}end(?:_of)?_(?P<of_end>{_WORDS}){_PIPE}>",
    rf"<{_PIPE}(?P<first_end>{_WORDS})_end{_PIPE}>",
    rf"<{_PIPE}/(?P<bare_end>{_WORDS}){_PIPE}>",
    r"(?P<channel_end>)<channel\|>",
    r"<(?P<unused_end>unused95)>",
    r"(?P<final_end>)\[BEGIN FINAL RESPONSE\]",
)
_MARK = re.compile("|".join((*_OPENINGS, *_CLOSINGS)), re.IGNORECASE)
_PLAIN_NAME = {"unused94": "", "unused95": ""}

_HERE_IS = "here(?:'s|\N{RIGHT SINGLE QUOTATION MARK}s| is) my"
PHRASES = (
    (re.compile(rf"{_HERE_IS} (?:thought|thinking|reasoning) process:", re.I),
     re.compile(rf"^[ \t]*{_HERE_IS} (?:final )?(?:response|answer):", re.I | re.M)),
    (re.compile(r"here are my reasoning steps:", re.I), re.compile(r"\[BEGIN FINAL RESPONSE\]", re.I)),
)  # fmt: skip
"""What an answer (Granite), or the template's opening of one (Apriel), begins with, and what ends the thought."""

_FRAME_WORDS = "answer|response|output|final_answer|solution|conclusion"
_FRAMES = (
    (rf"<({_FRAME_WORDS})>", r"</{}\s*>"),
    (rf"<{_PIPE}(?:begin|start)(?:_of)?_(solution|response|answer|text){_PIPE}>",
     rf"<{_PIPE}end(?:_of)?_{{}}{_PIPE}>"),
    (r"()\[BEGIN FINAL RESPONSE\]", r"\[END FINAL RESPONSE\]"),
)  # fmt: skip
_END_OF_FINAL = re.compile(r"\s*\[END FINAL RESPONSE\]\s*(?:<\|end\|>\s*)?\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Tags:
    """What a model puts around its thoughts, as it writes it; an empty `opening` where every answer begins inside."""

    opening: str
    closing: str

    def __post_init__(self) -> None:
        if not self.closing.strip():
            raise ParameterError("reasoning tags need a closing one that is not blank, such as '</plan>'")
        if self.opening.strip() == self.closing.strip():
            raise ParameterError(f"the opening and the closing reasoning tag are the same: {self.opening!r}")

    def __str__(self) -> str:
        """As records store it."""
        return f"{self.opening.strip()}...{self.closing.strip()}"


@dataclass(frozen=True)
class Mark:
    """A tag in a text, from `start` to `end`; an opening and a closing one of the same `kind` belong together."""

    start: int
    end: int
    kind: str
    side: Literal["opening", "closing"]


def marks_in(text: str, tags: Sequence[Tags] = ()) -> list[Mark]:
    """Every tag in `text`, in order: the known ones, or in their place `tags` where given."""
    return list(_own_marks(text, tags) if tags else _known_marks(text))


def _known_marks(text: str) -> Iterator[Mark]:
    for found in _MARK.finditer(text):
        group, name = next((group, name) for group, name in found.groupdict().items() if name is not None)
        family = group.removesuffix("_end")
        kind = f"{family} {_PLAIN_NAME.get(name.lower(), name.lower())}"
        yield Mark(found.start(), found.end(), kind, "closing" if group.endswith("_end") else "opening")


def _own_marks(text: str, tags: Sequence[Tags]) -> Iterator[Mark]:
    groups: list[tuple[str, str, Literal["opening", "closing"]]] = []
    for place, pair in enumerate(tags):
        groups.append((pair.closing.strip(), str(place), "closing"))
        if pair.opening.strip():
            groups.append((pair.opening.strip(), str(place), "opening"))
    groups.sort(key=lambda one: -len(one[0]))
    pattern = re.compile("|".join(f"({re.escape(literal)})" for literal, _, _ in groups), re.IGNORECASE)
    for found in pattern.finditer(text):
        _, kind, side = groups[(found.lastindex or 1) - 1]
        yield Mark(found.start(), found.end(), f"own {kind}", side)


def without_frame(text: str, *, after_thought: bool) -> str:
    """What stands in tags around the whole answer (`<answer>`); those of angles count after a thought only."""
    text = text.strip()
    for opening, closing in _FRAMES[0 if after_thought else 1 :]:
        if found := re.match(opening, text, re.IGNORECASE):
            rest = text[found.end() :]
            return re.sub(closing.format(re.escape(found[1])), "", rest, count=1, flags=re.IGNORECASE).strip()
    return _END_OF_FINAL.sub("", text).strip() if after_thought else text
