"""Words: splitting Japanese text, how common a word is, and how hard a text reads.

fugashi with unidic-lite splits; wordfreq's packaged list gives Zipf values (log10 of occurrences per
thousand million words).  Nothing is fetched at run time.
"""

from __future__ import annotations

import collections
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dialogue.records import SPEAKERS

if TYPE_CHECKING:
    from fugashi import Tagger

_WORD = re.compile(r"[一-龥ぁ-んァ-ヴーa-zA-Z々〆]+")
_SPECIAL = re.compile(r"(?!.*[一二三四五六七八九十百千万])[一-龥ァ-ヴーa-zA-Z々〆]{2,}")
_CONTENT = ("名詞", "動詞", "形容詞", "形状詞")
_NOT_CONTENT = ("数詞", "非自立可能", "助動詞語幹")
_ENDS = ("。", "？", "！", "．")
_STOP = frozenset(
    """
    する いる ある なる こと もの それ これ あれ そう 何 私 僕 俺 人 時 今 日 さん ちゃん ため よう ところ うち 方
    中 言う 思う 行く 来る 見る やる できる くれる いい 良い ない さっき まだ もう ちょっと 感じ 気 君 あなた
    自分 ありがとう
    """.split()
)


class Word(NamedTuple):
    """One short unit word: as written, dictionary form, parts of speech, origin (和, 漢, 外 …).

    `content`: it says what a dialogue is about (`is_content`); `special`: it may be a specialist term.
    Both hang on the other fields alone and stand here because a report asks for them hundreds of
    thousands of times, about a few thousand different words.
    """

    surface: str
    base: str
    lemma: str
    pos1: str
    pos2: str
    goshu: str
    content: bool
    special: bool


@functools.lru_cache(maxsize=1)
def tagger() -> Tagger:
    """The morphological analyser (unidic-lite)."""
    from fugashi import Tagger as Analyser

    return Analyser()


_known: dict[tuple[str, str], Word] = {}


def split(text: str) -> list[Word]:
    """Split a text into words."""
    words = []
    for node in tagger()(text):
        key = (node.surface, node.feature_raw)
        word = _known.get(key)
        if word is None:
            f = node.feature
            lemma, base, pos2 = (f.lemma or node.surface).split("-")[0], f.orthBase or node.surface, f.pos2 or ""
            word = Word(
                node.surface,
                base,
                lemma,
                f.pos1,
                pos2,
                f.goshu or "",
                content=is_content(base, f.pos1, pos2),
                special=is_special(base, f.pos1, pos2),
            )
            _known[key] = word
        words.append(word)
    return words


def is_content(base: str, pos1: str, pos2: str) -> bool:
    """Whether a word says what a dialogue is about: noun, verb or adjective, and not one of the commonest."""
    if pos1 not in _CONTENT or pos2 in _NOT_CONTENT or base in _STOP:
        return False
    return bool(_WORD.fullmatch(base)) and (len(base) > 1 or not "ぁ" <= base <= "ん")


def is_special(base: str, pos1: str, pos2: str) -> bool:
    """Whether a word may be a specialist term: a common noun in kanji, katakana or Latin letters, no number."""
    return pos1 == "名詞" and pos2 == "普通名詞" and base not in SPEAKERS and bool(_SPECIAL.fullmatch(base))


def content_words(words: Sequence[Word]) -> list[str]:
    """Dictionary forms of the content words."""
    return [word.base for word in words if word.content]


@functools.lru_cache(maxsize=1)
def _frequencies() -> Mapping[str, float]:
    from wordfreq import get_frequency_dict

    return dict(get_frequency_dict("ja", wordlist="best"))


def zipf(*forms: str) -> float:
    """Zipf value of the commonest of several spellings; 0 if none is in the list."""
    table = _frequencies()
    share = max(table.get(form.lower(), 0.0) for form in forms)
    return math.log10(share) + 9 if share > 0 else 0.0


def rare_words(words: Sequence[Word], below: float = 3.0) -> list[str]:
    """Special terms of a text: common nouns in kanji, katakana or Latin letters with a Zipf value under `below`.

    Proper names, numbers and hiragana words (onomatopoeia, dialect) are no specialist knowledge.  The
    analyser splits into short units (自転 + 車), so a noun is rare only if it is so together with its neighbours.
    """
    found = []
    for i, word in enumerate(words):
        if word.special and _zipf_of(word) < below:
            before = words[i - 1].surface if i else ""
            after = words[i + 1].surface if i + 1 < len(words) else ""
            compounds = (before + word.surface, word.surface + after, before + word.surface + after)
            if zipf(*compounds) < below:
                found.append(word.base)
    return found


@functools.lru_cache(maxsize=200_000)
def _zipf_of(word: Word) -> float:
    return zipf(word.surface, word.base, word.lemma)


def readability(words: Sequence[Word]) -> float | None:
    """Readability of Japanese: about 6 for the easiest text, about 1 for technical prose; None without words.

    11.724 − 0.056·(words per sentence) − 0.126·(% kango) − 0.042·(% wago) − 0.145·(% verbs)
    − 0.044·(% particles); Lee & Hasebe (2020), "Readability measurement of Japanese texts based on
    levelled corpora".
    """
    if not words:
        return None
    sentences = sum([word.surface in _ENDS for word in words]) + (words[-1].surface not in _ENDS)
    counts = collections.Counter([word.goshu for word in words])
    kinds = collections.Counter([word.pos1 for word in words])
    verbs = kinds["動詞"] - sum([word.pos1 == "動詞" and word.pos2 == "非自立可能" for word in words])
    particles = kinds["助詞"]
    share = 100 / len(words)
    return (
        11.724
        - 0.056 * len(words) / sentences
        - 0.126 * share * counts["漢"]
        - 0.042 * share * counts["和"]
        - 0.145 * share * verbs
        - 0.044 * share * particles
    )
