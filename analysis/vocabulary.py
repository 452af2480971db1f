"""Words: splitting Japanese text, how common a word is, and how hard a text reads.

fugashi with unidic-lite splits; wordfreq's packaged list gives Zipf values (log10 of occurrences per
thousand million words); nothing is fetched at run time.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fugashi import Tagger

_WORD = re.compile(r"[一-龥ぁ-んァ-ヴーa-zA-Z々〆]+")
_STOP = frozenset(
    """
    する いる ある なる こと もの それ これ あれ そう 何 私 僕 俺 人 時 今 日 さん ちゃん ため よう ところ うち 方 中
    言う 思う 行く 来る 見る やる できる くれる いい 良い ない さっき まだ もう ちょっと 感じ 気 君 あなた 自分
    """.split()
)


@functools.lru_cache(maxsize=1)
def tagger() -> Tagger:
    """The morphological analyser (unidic-lite)."""
    from fugashi import Tagger as Analyser

    return Analyser()


def content_words(text: str) -> list[str]:
    """Nouns, verbs and adjectives in dictionary form, without the commonest ones."""
    found = []
    for word in tagger()(text):
        feature = word.feature
        if feature.pos1 in ("名詞", "動詞", "形容詞", "形状詞") and feature.pos2 not in ("数詞", "非自立可能"):
            base = feature.orthBase or word.surface
            if base not in _STOP and _WORD.fullmatch(base) and len(base) > (1 if re.fullmatch("[ぁ-ん]+", base) else 0):
                found.append(base)
    return found
