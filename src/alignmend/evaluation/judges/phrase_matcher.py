"""Finding many phrases in a text in one pass over its tokens, in time linear in the text.

A token is a word, a Han character, kana or Hangul syllable, or the end of a sentence. A phrase may use words that the
list names once for many (`{cannot}`), `*` for up to three tokens of the same sentence, and `~` for the rest of a word
at its end or its beginning (`help~`, `~less`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

from alignmend.errors import RecipeError

END = "."
"""The token of every sentence's end."""
GAP = 3
_MOST_SPELLINGS = 5000
_PIECE = re.compile(r"(\{\w+\}|\*|~\w+|\w+~)")
_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(
    rf"(?P<end>[.!?;\u3002\uff01\uff1f\uff1b\u0964\u0965\u2026]+|\n\s*\n)"
    rf"|[{_SPACELESS}]"
    rf"|[^\W{_SPACELESS}\u0900-\u097f]+(?:'[^\W{_SPACELESS}]+)*"
    rf"|[\u0900-\u0963\u0966-\u097f]+"
)
_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "＇": "'", "`": "'", "\u200c": "", "\u200d": ""})
_ACCENT = re.compile("[\u0300-\u036f\u0640\u064b-\u065f\u0670]")
_BARE = str.maketrans({"\u0131": "i", "\u0142": "l", "\u00df": "ss", "\u0649": "\u064a"})
_CONTRACTIONS = {
    "can't": ("cannot",),
    "cant": ("cannot",),
    "won't": ("will", "not"),
    "shan't": ("will", "not"),
    "ain't": ("is", "not"),
    "i'm": ("i", "am"),
    "let's": ("let", "us"),
}
_SUFFIXES = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_IS = frozenset({"it", "that", "there", "here", "what", "this", "he", "she", "who"})


def tokens_of(text: str, *, fold_accents: bool = False) -> list[str]:
    """`text` as lower-case tokens: contractions written out, `END` for every run of sentence ends.

    With `fold_accents`, letters with and without accents (and Arabic with and without vowel signs) are alike.
    """
    folded = unicodedata.normalize("NFC", text.translate(_STRAIGHT)).lower()
    if fold_accents and not folded.isascii():
        bare = _ACCENT.sub("", unicodedata.normalize("NFD", folded).translate(_BARE))
        folded = unicodedata.normalize("NFC", bare)
    found: list[str] = []
    for match in _TOKEN.finditer(folded):
        token = match.group()
        if match.lastgroup:
            if found and found[-1] != END:
                found.append(END)
        elif "'" in token or token == "cant":
            found.extend(_written_out(token))
        else:
            found.append(token)
    return found


def _written_out(token: str) -> Sequence[str]:
    if token in _CONTRACTIONS:
        return _CONTRACTIONS[token]
    for suffix, word in _SUFFIXES.items():
        if token.endswith(suffix) and len(token) > len(suffix):
            return (token[: -len(suffix)], word)
    stem, _, rest = token.partition("'")
    if rest == "s":
        return (stem, "is") if stem in _IS else (stem,)
    return (stem, rest)


@dataclass
class _Node:
    """A place in the tree of all phrases. `beginnings` and `ends` of words go on for any word that has them."""

    following: dict[str, _Node] = field(default_factory=dict)
    beginnings: dict[str, _Node] = field(default_factory=dict)
    ends: dict[str, _Node] = field(default_factory=dict)
    gap: _Node | None = None
    names: list[str] = field(default_factory=list)

    def add(self, token: str) -> _Node:
        """The place after `token`."""
        if token.endswith("~"):
            return self.beginnings.setdefault(token[:-1], _Node())
        if token.startswith("~"):
            return self.ends.setdefault(token[1:], _Node())
        return self.following.setdefault(token, _Node())

    def after(self, token: str) -> list[_Node]:
        """The places that `token` leads to."""
        found = [self.following[token]] if token in self.following else []
        if self.beginnings:
            found += [self.beginnings[part] for n in range(1, len(token) + 1) if (part := token[:n]) in self.beginnings]
        if self.ends:
            found += [self.ends[part] for n in range(len(token)) if (part := token[n:]) in self.ends]
        return found


@dataclass(frozen=True)
class Found:
    """A phrase of group `name` in a text, by the number of its first token and the one after its last."""

    name: str
    start: int
    stop: int


class PhraseMatcher:
    """All phrases of several groups as one tree."""

    def __init__(
        self, groups: Mapping[str, Sequence[str]], words: Mapping[str, Sequence[str]], *, fold_accents: bool = False
    ) -> None:
        self._root = _Node()
        for name, phrases in groups.items():
            for phrase in phrases:
                for spelling in spellings(phrase, words, fold_accents=fold_accents):
                    self._add(name, spelling)

    def _add(self, name: str, spelling: Sequence[str]) -> None:
        if "*" in (spelling[0], spelling[-1]):
            raise RecipeError(f"a phrase must begin and end with a word, not {' '.join(spelling)!r}")
        node = self._root
        for token in spelling:
            if token == "*":
                node.gap = node.gap or _Node()
                node = node.gap
            else:
                node = node.add(token)
        node.names.append(name)

    def find(self, tokens: Sequence[str]) -> Iterator[Found]:
        """Every phrase in `tokens`, by where it starts."""
        first, root = self._root.following, self._root
        whole_words = not (root.beginnings or root.ends)
        for start, token in enumerate(tokens):
            if token in first or not whole_words:
                yield from self._from(tokens, start)

    def _from(self, tokens: Sequence[str], start: int) -> Iterator[Found]:
        waiting = [(node, start + 1) for node in self._root.after(tokens[start])]
        while waiting:
            node, position = waiting.pop()
            for name in node.names:
                yield Found(name, start, position)
            if position < len(tokens):
                waiting.extend((after, position + 1) for after in node.after(tokens[position]))
            if node.gap is not None:
                waiting.extend(_over_gap(node.gap, tokens, position))


def _over_gap(node: _Node, tokens: Sequence[str], position: int) -> Iterator[tuple[_Node, int]]:
    for skipped in range(GAP + 1):
        here = position + skipped
        if here >= len(tokens) or tokens[here] == END:
            return
        for after in node.after(tokens[here]):
            yield after, here + 1


def spellings(
    phrase: str, words: Mapping[str, Sequence[str]], *, fold_accents: bool = False
) -> Iterator[tuple[str, ...]]:
    """The phrase as tokens, once for each choice of its `{word}`s; `RecipeError` for an unknown word."""
    parts: list[Sequence[Sequence[str]]] = []
    for piece in _PIECE.split(phrase):
        if piece == "*":
            parts.append([("*",)])
        elif piece.startswith("{"):
            if piece[1:-1] not in words:
                raise RecipeError(f"phrase {phrase!r} uses {piece}, but the list's words are {sorted(words)}")
            chosen = words[piece[1:-1]]
            parts.append([each for word in chosen for each in spellings(word, words, fold_accents=fold_accents)])
        elif "~" in piece and (part := tokens_of(piece, fold_accents=fold_accents)):
            parts.append([(f"~{part[0]}" if piece.startswith("~") else f"{part[0]}~",)])
        elif tokens := tuple(tokens_of(piece, fold_accents=fold_accents)):
            parts.append([tokens])
    if not parts:
        raise RecipeError(f"phrase {phrase!r} has no words")
    if (count := prod(map(len, parts))) > _MOST_SPELLINGS:
        raise RecipeError(
            f"phrase {phrase!r} stands for {count:,} phrases, above {_MOST_SPELLINGS:,};", advice="use fewer words"
        )
    for choice in product(*parts):
        yield tuple(token for part in choice for token in part)
