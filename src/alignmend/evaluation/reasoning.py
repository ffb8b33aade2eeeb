"""Taking apart what a model thought and what it said: only the visible answer is judged.

A tag is a mark where a model would put one: at the start of the answer, of a line or of a sentence. In code, in quotes
and within a sentence it is something that the answer speaks of, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from alignmend.evaluation.harmony import split_harmony
from alignmend.evaluation.reasoning_marks import PHRASES, Mark, Tags, marks_in, without_frame

_CODE = re.compile(r"(?P<fence>```|~~~).*?(?:(?P=fence)|\Z)|(?P<ticks>`{1,2})[^`\n]+(?P=ticks)", re.DOTALL)
_QUOTES = frozenset("\"'`()\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}"
                    "\N{RIGHT SINGLE QUOTATION MARK}\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}"
                    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}「」『』„*")  # fmt: skip
_SENTENCE_ENDS = frozenset(".!?…。！？*)>]}")
_SPOKEN_OF = re.compile(
    r"[,;]|[ \t]+(?:is|are|was|were|and|or|tags?|tokens?|blocks?|marks?|opens?|starts?|begins?|ends?|closes?|means?|"
    r"stands|denotes?|indicates?|tells?|wraps?|shows?|signals?|should|must|may|can|will)\b"
)

Split = tuple[str, str | None]


def split_reasoning(
    response: str, rendered_prompt: str = "", *, separate: str | None = None, tags: Sequence[Tags] = ()
) -> Split:
    """The visible answer and the reasoning blocks, `None` where there are none.

    A block may be opened by the template, at the end of `rendered_prompt` or of one that a server keeps to itself: then
    the response only closes it. A block that was cut off never ends: all of it is reasoning. `separate` is reasoning
    that came beside the response; `tags` are a model's own, in the place of the known ones.
    """
    found = None if tags else split_harmony(response, rendered_prompt)
    visible, thoughts = (found[0], [found[1]]) if found else _apart(response, rendered_prompt, tags)
    kept = [thought.strip() for thought in (separate, *thoughts) if thought and thought.strip()]
    return visible.strip(), "\n\n".join(kept) or None


def opens_thought(rendered_prompt: str, tags: Sequence[Tags] = ()) -> bool:
    """Whether a prompt ends inside a thought, so that the answer begins there."""
    return any(not pair.opening.strip() for pair in tags) or _opened(rendered_prompt, tags) is not None or (
        not tags and (_phrase_opened(rendered_prompt) is not None or _in_analysis(rendered_prompt))
    )  # fmt: skip


def _in_analysis(rendered_prompt: str) -> bool:
    return rendered_prompt.rstrip().endswith("<|channel|>analysis<|message|>")


def _apart(response: str, rendered_prompt: str, tags: Sequence[Tags]) -> tuple[str, list[str | None]]:
    end = None if tags else _end_of_phrase(response, rendered_prompt)
    marks = marks_in(response, tags)
    if end is None:
        end = _end_of_first(response, marks, _opened(rendered_prompt, tags), tags)
    if end is None:
        thought, rest = None, response
    else:
        thought, rest = response[slice(*end[0])], response[end[1] :]
    visible, more = _without_blocks(rest, tags)
    return without_frame(visible, after_thought=end is not None or bool(more)), [thought, *more]


Ends = tuple[tuple[int, int], int]
"""From where to where a thought goes, and where the answer begins."""


def _phrase_opened(rendered_prompt: str) -> re.Pattern[str] | None:
    lines = rendered_prompt.rstrip().rsplit("\n", 1)[-1]
    return next((closing for opening, closing in PHRASES if re.search(rf"(?:{opening.pattern})\Z", lines, re.I)), None)


def _end_of_phrase(response: str, rendered_prompt: str) -> Ends | None:
    """Of a thought that words begin, in the prompt or in the response."""
    closing, start = _phrase_opened(rendered_prompt), 0
    if closing is None:
        begun = response.lstrip("\n\r\t *#")
        for opening, its_closing in PHRASES:
            if found := opening.match(begun):
                closing, start = its_closing, len(response) - len(begun) + found.end()
    if closing is None:
        return None
    found = closing.search(response, start)
    return ((start, found.start()), found.end()) if found else ((start, len(response)), len(response))


def _opened(rendered_prompt: str, tags: Sequence[Tags]) -> str | None:
    """The kind of the tag that a prompt ends with; of an own pair without an opening, its own."""
    tail = rendered_prompt.rstrip()[-200:]
    last = marks_in(tail, tags)[-1:]
    if last and last[0].side == "opening" and last[0].end == len(tail):
        return last[0].kind
    return next((f"own {place}" for place, pair in enumerate(tags) if not pair.opening.strip()), None)


def _end_of_first(text: str, marks: Sequence[Mark], opened: str | None, tags: Sequence[Tags]) -> Ends | None:
    """Of the thought that an answer begins with, whoever opened it; `None` where it begins with none."""
    first = marks[0] if marks else None
    begins = first is not None and first.side == "opening" and not text[: first.start].strip()
    code = _code_in(text)
    if begins and first is not None and (opened is None or opened == first.kind):
        closing = _closing(text, marks[1:], first.kind, code)
        if closing is None and opened is None and _SPOKEN_OF.match(text, first.end):
            return None
        return _ends(text, first.end, closing)
    if opened is not None:
        return _ends(text, 0, _closing(text, marks, opened, code))
    return _of_lone_closing(text, marks, code)


def _ends(text: str, start: int, closing: Mark | None) -> Ends:
    return ((start, closing.start), closing.end) if closing else ((start, len(text)), len(text))


def _closing(text: str, marks: Sequence[Mark], kind: str, code: Sequence[range]) -> Mark | None:
    """What ends a thought that is open: the tag that closes it, else one in a sentence or in code."""
    own = [mark for mark in marks if mark.kind == kind and not any(mark.start in span for span in code)]
    meant = [mark for mark in own if not _spoken_of(text, mark, code)]
    nested = [mark for mark in own if mark.side == "opening" or mark in meant]
    for counted in (nested, meant):
        depth = 1
        for mark in counted:
            depth += 1 if mark.side == "opening" else -1
            if depth == 0:
                return mark
    closings = [mark for mark in meant if mark.side == "closing"]
    return closings[-1] if closings else next((one for one in marks if (one.kind, one.side) == (kind, "closing")), None)


def _of_lone_closing(text: str, marks: Sequence[Mark], code: Sequence[range]) -> Ends | None:
    """A closing tag without an opening one: the template of a server opened it."""
    for place, mark in enumerate(marks):
        if mark.side == "opening":
            if not _spoken_of(text, mark, code):
                return None
            continue
        before = [other for other in marks[:place] if other.side == "opening"]
        if any("\n" not in text[other.end : mark.start] for other in before):
            continue
        if not _spoken_of(text, mark, code) or (not before and _has_own_line(text, mark)):
            return (0, mark.start), mark.end
    return None


def _without_blocks(text: str, tags: Sequence[Tags]) -> tuple[str, list[str]]:
    """What is left of a text, and the thoughts in between."""
    marks, code = marks_in(text, tags), _code_in(text)
    kept, thoughts, done = [], [], 0
    for place, mark in enumerate(marks):
        if mark.start < done or mark.side == "closing" or _spoken_of(text, mark, code):
            continue
        others = [one for one in marks[place + 1 :] if one.kind == mark.kind and not _spoken_of(text, one, code)]
        closing = _closing(text, others, mark.kind, code)
        if closing is None and not _starts_line(text, mark):
            continue
        end = len(text) if closing is None else closing.end
        kept.append(text[done : mark.start])
        thoughts.append(text[mark.end : len(text) if closing is None else closing.start])
        done = end
    return "".join([*kept, text[done:]]), thoughts


def _code_in(text: str) -> list[range]:
    return [range(*found.span()) for found in _CODE.finditer(text)]


def _starts_line(text: str, mark: Mark) -> bool:
    return not text[: mark.start].rpartition("\n")[2].strip()


def _has_own_line(text: str, mark: Mark) -> bool:
    return _starts_line(text, mark) and not text[mark.end :].partition("\n")[0].strip()


def _spoken_of(text: str, mark: Mark, code: Iterable[range]) -> bool:
    """Whether the answer speaks of a tag instead of using it."""
    before, after = text[mark.start - 1 : mark.start], text[mark.end : mark.end + 1]
    if any(mark.start in span for span in code) or (before in _QUOTES and after in _QUOTES and before and after):
        return True
    if _starts_line(text, mark):
        return _SPOKEN_OF.match(text, mark.end) is not None
    if not before.isspace():
        return False
    if text[: mark.start].rstrip()[-1:] in _SENTENCE_ENDS:
        return _SPOKEN_OF.match(text, mark.end) is not None
    following = text[mark.end :].lstrip(" \t")[:1]
    return mark.side == "opening" or not (following == "\n" or following.isupper() or not following)
