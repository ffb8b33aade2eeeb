"""The subject and the target of a question with an answer, where a file names neither.

The longest run of content words that question and answer share is the subject; where they share none, it is the last
content word of the question. The target is the answer's first sentence, cut after `LONGEST_TARGET` words.
"""

from __future__ import annotations

import re

from alignmend.editing.requests import SubjectRule
from alignmend.errors import ParameterError

LONGEST_TARGET = 40
_FUNCTION_WORDS = """
a about according also an and any are as at be been between by can could did differ different difference
do does during explain describe for from give had has have how i if in into is it its kind kinds list
main many may me might more most much must name of on one or our over should some such tell than that the
their them there these they this those through to type types under use used uses using was way ways we
were what when where whether which while who whom whose why will with would you your
"""
_NO_SUBJECT = frozenset(_FUNCTION_WORDS.split())
_WORD = re.compile(r"[\w'’-]+")


def subject_of(question: str, answer: str) -> tuple[str, SubjectRule]:
    """The span of `question` that an edit takes as its subject, as it stands there, and the rule that found it."""
    said = " ".join(word.lower() for word in _WORD.findall(answer))
    shared = [span for span in _spans(question) if re.search(rf"(?<!\w){re.escape(_plain(span))}(?!\w)", said)]
    if shared:
        return max(shared, key=lambda span: (len(span.split()), len(span))), "shared words"
    single = [span for span in _spans(question) if len(_WORD.findall(span)) == 1]
    if not single:
        raise ParameterError(f"no word of {question!r} could be a subject", advice="add a column subject")
    return single[-1], "last word"


def target_of(answer: str) -> str:
    """The first sentence of `answer`, at most `LONGEST_TARGET` words of it."""
    sentence = re.split(r"(?<=[.!?])\s+", answer.strip(), maxsplit=1)[0]
    words = sentence.split()
    return sentence if len(words) <= LONGEST_TARGET else " ".join(words[:LONGEST_TARGET])


def _spans(question: str) -> list[str]:
    """Runs of content words with nothing but spaces between them, that occur once; in the order of their ends."""
    words = list(_WORD.finditer(question))
    spans = []
    for last in range(len(words)):
        for first in range(last, -1, -1):
            gap = question[words[first].end() : words[first + 1].start()] if first < last else ""
            if words[first].group().lower() in _NO_SUBJECT or gap.strip():
                break
            span = question[words[first].start() : words[last].end()]
            if question.count(span) == 1:
                spans.append(span)
    return spans


def _plain(span: str) -> str:
    return " ".join(word.lower() for word in _WORD.findall(span))
