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
    """One short unit word: as written, dictionary form, parts of speech, origin (和, 漢, 外 …)."""

    surface: str
    base: str
    lemma: str
    pos1: str
    pos2: str
    goshu: str


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
            lemma = (f.lemma or node.surface).split("-")[0]
            word = Word(node.surface, f.orthBase or node.surface, lemma, f.pos1, f.pos2 or "", f.goshu or "")
            _known[key] = word
        words.append(word)
    return words


def is_content(word: Word) -> bool:
    """Whether a word says what a dialogue is about: noun, verb or adjective, and not one of the commonest."""
    if word.pos1 not in _CONTENT or word.pos2 in _NOT_CONTENT or word.base in _STOP:
        return False
    return bool(_WORD.fullmatch(word.base)) and (len(word.base) > 1 or not "ぁ" <= word.base <= "ん")


def content_words(words: Sequence[Word]) -> list[str]:
    """Dictionary forms of the content words."""
    return [word.base for word in words if is_content(word)]


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
        candidate = word.pos1 == "名詞" and word.pos2 == "普通名詞" and word.base not in SPEAKERS
        if candidate and _SPECIAL.fullmatch(word.base) and _zipf_of(word) < below:
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
    sentences, last = 0, len(words) - 1
    for i, word in enumerate(words):
        sentences += word.surface in _ENDS or i == last
    counts = collections.Counter(word.goshu for word in words)
    verbs = sum(word.pos1 == "動詞" and word.pos2 != "非自立可能" for word in words)
    particles = sum(word.pos1 == "助詞" for word in words)
    share = 100 / len(words)
    return (
        11.724
        - 0.056 * len(words) / sentences
        - 0.126 * share * counts["漢"]
        - 0.042 * share * counts["和"]
        - 0.145 * share * verbs
        - 0.044 * share * particles
    )
