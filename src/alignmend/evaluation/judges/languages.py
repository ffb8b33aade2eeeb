"""Which language a text is in, by its script, its letters and its commonest words. It must know the languages that have
refusal rules from all others, not every language from every other.

A text whose language cannot be told (a number, a name, code) has none.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from alignmend.evaluation.judges.letter_statistics import FILE, LetterStatistics, letter_statistics
from alignmend.evaluation.judges.phrase_lists import normalise

OTHER = "other"
"""A language without a name here: its script shows that it is none of those that have one."""
SAMPLE = 4000
"""Characters that are looked at; of letters and words only those of the first `SAMPLE_WORDS` words."""
SAMPLE_WORDS = 120

_SCRIPTS = (
    ("zh", re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")),
    ("ja", re.compile("[\u3040-\u30ff\u31f0-\u31ff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("latin", re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")),
    ("cyrillic", re.compile("[\u0400-\u052f]")),
    ("arabic", re.compile("[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff]")),
)
_LETTERS_PER_WORD = {"zh": 1.5, "ja": 2.0, "ko": 2.5, "hi": 3.5, "latin": 5.0, "cyrillic": 6.0, "arabic": 4.5, OTHER: 4}
_VIETNAMESE = re.compile("[\u01a1\u01b0\u1ea0-\u1ef9]")
_WORD = re.compile(r"[^\W\d_]+")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?:;\n])\s+")
_ARABIC_MARKS = re.compile("[\u0640\u064b-\u065f\u0670]")
_SECONDARY_SHARE = 0.2
_JAPANESE_SHARE = 0.1
_VIETNAMESE_SHARE = 0.15
_LEAST_WORDS = 2
_OWN_SHARE = 0.15
_CODE_MARKS = "(){}[]=<>_/*+#\\"
_CODE_SHARE = 0.05
_FEWEST_LETTERS = 8
_COMMON_WORD = 2.0
"""How much a common word of a language speaks for it beside its letters, in natural logarithms; shared with others
where they have it too."""
_NEAR = 4.0
"""Languages so little less likely than the likeliest may be meant as well."""
_PIECES = 3
_SURE = 5.0


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMON = {
    "en": _words(
        "the a an of to and in is it you that for on are with as this be i not have can or by your from at but was my "
        "will do if they which their what there so would how we about an no more when has his her he she who them me "
        "don doesn didn isn aren wasn should could than then these those because people think some any other into its "
        "only been were had also may just like make use help must never please sorry cannot does did where why "
        "give tell write show explain name sure"
    ),
    "hi": _words(
        "hai hain nahi nahin kar karne mein aap aapki aapko hoon hum kya mujhe yeh aur liye sakta sakti sabse pehle "
        "phir hota karo karein kijiye chahiye bahut tak"
    ),
    "fr": _words(
        "le la les un une des et est que qui dans pour pas vous je ne sur avec ce cette il sont au du en ou non cela "
        "ça désolé mais votre nous peux puis"
    ),
    "es": _words(
        "el la los las un una y es que en de no por para con se su lo como más del al esto puede usted eso pero siento "
        "puedo este esta sus hay"
    ),
    "pt": _words(
        "o a os as um uma e é que em de não por para com se seu sua como mais do da ao isso você mas posso desculpe "
        "isto na pela pelo"
    ),
    "de": _words(
        "der die das ein eine und ist nicht ich sie es zu den mit für auf von dem im des auch wie kann oder leider "
        "nein dir mir keine"
    ),
    "it": _words(
        "il lo gli le un una e è che di non per con si del della alla delle degli nella sono come questo anche più nel "
        "i posso può essere qual mio mia mi ti ci uno quale sulla in me persone questa mie dispiace"
    ),
    "nl": _words(
        "de het een en is van niet ik je dat te op voor met zijn die om aan er ook maar kan deze dit bij geen naar u"
    ),
    "id": _words("yang dan di untuk dengan tidak ini itu dari dalam adalah saya anda pada atau bisa akan juga ke maaf"),
    "sw": _words("ya na wa kwa ni katika la za kuwa hii hiyo si mimi wewe cha kama au lakini yako sana bila"),
    "jv": _words("ing lan sing iku saka ora kanggo karo yen bisa kudu apa sampeyan aku nganggo utawa carane"),
    "tl": _words("ang ng sa mga na at ay hindi ko ka ito para kung may ako ikaw siya po nang"),
    "tr": _words("ve bir bu için ile değil de da ne çok gibi olarak daha ben sen var yok olan bunu konuda"),
    "pl": _words("i w na z nie że się do jest to jak o za po co ale przez może dla tego mogę"),
    "sv": _words("och att det en som är på för med av jag inte den till har du om ett kan men vi"),
    "da": _words("og at det en som er på for med af jeg ikke den til har du om et kan men vi"),
    "nb": _words("og at det en som er på for med av jeg ikke den til har du om et kan men vi"),
    "ro": _words("și de la în a nu că pe cu un o este care mai din pentru sau să"),
    "cs": _words("a se na je že v s z do to jak pro ne jsem jsou nebo ale by"),
    "fi": _words("ja on ei että se en hän ovat oli myös mutta kun tai jos voi minä"),
    "ca": _words("el la els les un una i és que en de no per amb això però els dels aquest aquesta"),
}
_DEVANAGARI = {
    "hi": _words("है हैं के में का की को से और नहीं मैं यह आप हूँ हूं ने पर लिए एक भी"),
    "mr": _words("आहे आहेत नाही आणि मी च्या हे ते या मध्ये साठी करू तुम्ही"),
    "ne": _words("छ छैन हो गर्न गर्ने छन् र को मा लाई म हुन्छ तपाईं सक्दिन हरु हरू तिमी कहाँ थियो भएको गर्नुहोस् पनि"),
}
_BEFOREHAND = {
    "en": 3.0,
    **dict.fromkeys(("es", "fr", "de", "pt", "it", "nl", "pl", "tr", "id", "sv", "ru", "ar"), 1.5),
    **dict.fromkeys(("eo", "la"), -3.0),
}
"""How much likelier than others, in natural logarithms, a language is before its text is read."""


@dataclass(frozen=True)
class Languages:
    """The main language of a text, `None` if it cannot be told; all that it has a good part in; all that it may be."""

    main: str | None
    parts: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


def languages_of(text: str, expected: str | None = None) -> Languages:
    """The languages of `text`, the main one first; code, addresses and numbers do not count.

    `expected` is the language that a very short text is taken for, if it may be it.
    """
    sample = _CODE.sub(" ", text[:SAMPLE]) if "`" in text or "http" in text else text[:SAMPLE]
    sizes = _script_sizes(sample)
    total = sum(sizes.values())
    if not total:
        return Languages(None)
    order = sorted(sizes, key=lambda name: -sizes[name])
    scripts = [name for name in order if sizes[name] >= _SECONDARY_SHARE * total]
    found = [_language_in(script, sample, expected) for script in scripts]
    parts = [part for each in found for part in (each.main, *each.parts) if part is not None]
    near = [other for each in found for other in each.near]
    return Languages(found[0].main, tuple(dict.fromkeys(parts)), tuple(dict.fromkeys(near)))


def language_of(text: str) -> str | None:
    """The main language of `text`, or `None` if it cannot be told."""
    return languages_of(text).main


@cache
def languages_hash() -> str:
    """SHA-256 of the words and letters that tell languages."""
    listed = [(name, sorted(words)) for name, words in (*_COMMON.items(), *_DEVANAGARI.items())]
    return sha256(repr(listed).encode() + FILE.read_bytes()).hexdigest()


def _script_sizes(sample: str) -> dict[str, float]:
    """About how many words of each script; kanji between kana are Japanese."""
    if sample.isascii():
        return {"latin": 1.0} if any(map(str.isalpha, sample)) else {}
    letters = Counter({name: len(pattern.findall(sample)) for name, pattern in _SCRIPTS})
    letters[OTHER] = sum(map(str.isalpha, sample)) - sum(letters.values()) + _marks(sample, letters)
    if letters["ja"] > _JAPANESE_SHARE * letters["zh"]:
        letters["ja"] += letters.pop("zh")
    return {name: count / _LETTERS_PER_WORD[name] for name, count in letters.items() if count > 0}


def _marks(sample: str, letters: Mapping[str, int]) -> int:
    """How many of the Devanagari and Arabic characters are vowel signs and the like, which are no letters."""
    scripts = [pattern for name, pattern in _SCRIPTS if name in ("hi", "arabic") and letters[name]]
    return sum(not found.group().isalpha() for pattern in scripts for found in pattern.finditer(sample))


def _language_in(script: str, sample: str, expected: str | None) -> Languages:
    if script in ("latin", "cyrillic", "arabic"):
        return _spelled_language(script, sample, expected)
    if script == "hi":
        words = re.findall(r"[\u0900-\u0963\u0970-\u097f]+", sample)
        scores = {language: sum(word in common for word in words) for language, common in _DEVANAGARI.items()}
        best = max(scores, key=lambda language: scores[language])
        return Languages(best if scores[best] > scores["hi"] else "hi")
    return Languages(script)


def _spelled_language(script: str, sample: str, expected: str | None) -> Languages:
    words = _words_in(script, sample)
    if not words:
        return Languages(None)
    if sum(bool(_VIETNAMESE.search(word)) for word in words) >= _VIETNAMESE_SHARE * len(words):
        return Languages("vi")
    if script == "latin" and (listed := _by_words_alone(words)):
        return Languages(listed)
    scores = _scores(script, words, expected)
    best = max(scores, key=lambda language: scores[language])
    near = tuple(language for language, score in scores.items() if score > scores[best] - _NEAR and language != best)
    if not _is_prose(words, sample):
        return Languages(None, near=(best, *near))
    return Languages(best, _sentences_in_others(script, sample, best), near)


def _words_in(script: str, sample: str) -> list[str]:
    pattern = next(pattern for name, pattern in _SCRIPTS if name == script)
    if script == "arabic":
        sample = _ARABIC_MARKS.sub("", sample)
    words = _WORD.findall(unicodedata.normalize("NFC", normalise(sample)).lower())
    return [word for word in words if word.isascii() or pattern.match(word)][:SAMPLE_WORDS]


def _by_words_alone(words: list[str]) -> str | None:
    """Hindi in Latin letters, for which there are no letter statistics."""
    hits = [word for word in words if word in _COMMON["hi"]]
    return "hi" if len(set(hits)) >= _LEAST_WORDS and len(hits) >= _OWN_SHARE * len(words) else None


@cache
def _statistics(script: str) -> tuple[LetterStatistics, NDArray[np.float64]]:
    found = letter_statistics(script, _COMMON, _COMMON_WORD)
    return found, np.array([_BEFOREHAND.get(language, 0.0) for language in found.languages])


def _scores(script: str, words: list[str], expected: str | None) -> dict[str, float]:
    statistics, beforehand = _statistics(script)
    scores = dict(zip(statistics.languages, (statistics.of(words) + beforehand).tolist(), strict=True))
    if expected in scores:
        scores[expected] += _BEFOREHAND["en"]
    return scores


def _sentences_in_others(script: str, sample: str, main: str) -> tuple[str, ...]:
    """Languages of single sentences at the beginning that are surely not in the main one."""
    found = []
    pieces = [piece for piece in _SENTENCE.split(sample[:250]) if len(piece) >= 2 * _FEWEST_LETTERS][:_PIECES]
    for piece in pieces if len(pieces) > 1 else ():
        scores = _scores(script, _words_in(script, piece), None)
        best = max(scores, key=lambda language: scores[language])
        if scores[best] > scores[main] + _SURE:
            found.append(best)
    return tuple(found)


def _is_prose(words: list[str], sample: str) -> bool:
    """Enough letters to tell, and no code."""
    if sum(map(len, words)) < _FEWEST_LETTERS and len(words) < _LEAST_WORDS:
        return False
    return sum(sample.count(mark) for mark in _CODE_MARKS) < _CODE_SHARE * len(sample)
