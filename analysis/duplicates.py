"""Near-duplicates: the same conversation twice, or almost.

Three measures: equal text, Jaccard similarity of character 5-grams ≥ 0.8, and cosine of the content words' TF-IDF
vectors ≥ 0.95 (the same words in another order).  Candidates come from MinHash bands over the 5-grams and over
the words, so that the time grows with the number of dialogues and not with its square; each one is then checked.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from analysis.features import Features
from analysis.results import Fact, Table, Verdict, View
from dialogue.minhash import band_keys, banding, grams, hashes, packed, sharing
from dialogue.records import Dialogue
from dialogue.text import character_ngrams, jaccard

JACCARD, COSINE = 0.8, 0.95
_WORD_BANDS = (10, 20)
"""Rows and bands for words.  Unrelated dialogues on one topic share many, so that long rows are needed; a pair that
shares 0.9 of its words is then missed once in 5,000 times, and pairs with cosine ≥ 0.95 share about so many."""

MOST = 500_000
"""Most candidates that are checked; beyond, the page says so."""

SHARE_FIX = 0.01
"""Share of dialogues with a near-copy from which to act."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two dialogues that are almost the same, by index, `a` < `b`."""

    a: int
    b: int
    kind: str
    jaccard: float
    cosine: float


def near_duplicates(texts: Sequence[str], bags: Sequence[Sequence[str]]) -> tuple[list[Pair], bool]:
    """Find the dialogues that are almost the same as an earlier one.

    Args:
        texts: The conversations.
        bags: Their content words.

    Returns:
        The pairs, most alike first, and whether some candidates were left unchecked.  Each dialogue is paired with
        one earlier one at most, so that a cluster of m copies gives m - 1 pairs.
    """
    first: dict[str, int] = {}
    pairs: dict[int, Pair] = {}
    for i, text in enumerate(texts):
        j = first.setdefault(packed(text), i)
        if j != i:
            pairs[i] = Pair(j, i, "同じ", 1.0, 1.0)
    kept = sorted(first.values())
    weigh = _Weights(bags)
    sets: dict[int, set[str]] = {}
    checked: set[tuple[int, int]] = set()
    for b, earlier in _candidates([texts[i] for i in kept], [bags[i] for i in kept], kept):
        for a in earlier:
            if b in pairs:
                break
            if (a, b) in checked:
                continue
            if len(checked) >= MOST:
                return _sorted(pairs), True
            checked.add((a, b))
            for i in (a, b):
                if i not in sets:
                    sets[i] = character_ngrams(texts[i])
            # Sets whose sizes differ by more than the bound can not reach it.
            small, large = sorted((len(sets[a]), len(sets[b])))
            similarity = jaccard(sets[a], sets[b]) if small >= JACCARD * large else 0.0
            if similarity >= JACCARD:
                pairs[b] = Pair(a, b, "ほぼ同じ", similarity, weigh.cosine(a, b))
            elif (cosine := weigh.cosine(a, b)) >= COSINE:
                pairs[b] = Pair(a, b, "よく似ている", jaccard(sets[a], sets[b]), cosine)
    return _sorted(pairs), False


def _sorted(pairs: dict[int, Pair]) -> list[Pair]:
    return sorted(pairs.values(), key=lambda p: (-p.jaccard, -p.cosine, p.a, p.b))


def _candidates(
    texts: Sequence[str], bags: Sequence[Sequence[str]], numbers: Sequence[int]
) -> Iterator[tuple[int, Iterator[int]]]:
    """Yield each dialogue with the earlier ones it shares a band with: bands of 5-grams first, then of words."""
    by_grams = ((i, grams(text)) for i, text in zip(numbers, texts, strict=True))
    by_words = ((i, hashes(bag)) for i, bag in zip(numbers, bags, strict=True))
    for hashed, (rows, bands) in ((by_grams, banding(JACCARD)), (by_words, _WORD_BANDS)):
        keyed = [(i, band_keys(own, rows, bands)) for i, own in hashed if len(own)]
        if len(keyed) < 2:
            continue
        table = np.stack([keys for _, keys in keyed])
        for band in range(bands):
            for members in sharing(table[:, band]):
                for count, position in enumerate(members):
                    yield keyed[position][0], (keyed[p][0] for p in itertools.islice(members, count))


class _Weights:
    """TF-IDF vectors of word lists (sublinear counts, smooth idf), made when asked for."""

    def __init__(self, bags: Sequence[Sequence[str]]) -> None:
        self._bags = bags
        counts = collections.Counter(word for bag in bags for word in set(bag))
        self._idf = {word: 1 + math.log((1 + len(bags)) / (1 + count)) for word, count in counts.items()}
        self._made: dict[int, dict[str, float]] = {}

    def vector(self, i: int) -> dict[str, float]:
        """The unit vector of one list."""
        if i not in self._made:
            counts = collections.Counter(self._bags[i])
            raw = {word: (1 + math.log(count)) * self._idf[word] for word, count in counts.items()}
            norm = math.sqrt(sum(value * value for value in raw.values())) or 1.0
            self._made[i] = {word: value / norm for word, value in raw.items()}
        return self._made[i]

    def cosine(self, a: int, b: int) -> float:
        """Cosine of two lists, 0 to 1."""
        first, second = self.vector(a), self.vector(b)
        return round(sum(value * second.get(word, 0.0) for word, value in first.items()), 4)


def duplicates_view(data: Features, bags: Sequence[Sequence[str]], link: Callable[[Dialogue], str]) -> View:
    """Which conversations are near-copies of another, with links, and which openings recur; see `near_duplicates`."""
    texts = ["\n".join(turn.text for turn in d.conversation) for d in data.dialogues]
    pairs, left_off = near_duplicates(texts, bags)
    copies = {pair.b for pair in pairs}
    share = len(copies) / max(1, data.n)
    verdict = Verdict.OK if not copies else Verdict.FIX if share >= SHARE_FIX else Verdict.WATCH
    advice = f"ほかとほとんど同じ会話が{len(copies)}件ある。表の片方を書き直すか、不採用にする。" if copies else ""
    facts = [Fact(f"ほかとほとんど同じ会話は{len(copies)}件。", verdict if data.n > 1 else Verdict.UNKNOWN, advice)]
    if left_off:
        facts.append(Fact(f"似ているかもしれない組が多すぎるので、{MOST:,}組だけを調べた。"))
    shown = pairs[:100]
    ids = [(data.dialogues[p.a], data.dialogues[p.b]) for p in shown]
    openings = _openings(data)
    counts = {kind: sum(p.kind == kind for p in pairs) for kind in ("同じ", "ほぼ同じ", "よく似ている")}
    return View(
        "duplicates",
        "似すぎた会話",
        is_now="、".join(f"{kind} {count}組" for kind, count in counts.items()),
        planned="0組",
        chance=f"ほぼ同じ = 5文字の並びの重なり（Jaccard）{JACCARD}以上、よく似ている = コサイン {COSINE} 以上",
        facts=tuple(facts),
        tables=(
            Table(
                f"似すぎた会話の組（{len(pairs)}組のうち上位）",
                ("会話", "似た相手", "種類", "重なり", "コサイン", "はじまり"),
                tuple(
                    (a.id, b.id, p.kind, f"{p.jaccard:.2f}", f"{p.cosine:.2f}", b.conversation[0].text[:30])
                    for p, (a, b) in zip(shown, ids, strict=True)
                ),
                tuple((i, c, url) for i, row in enumerate(ids) for c, d in enumerate(row) if (url := link(d))),
            ),
            Table("くり返される話しはじめ", ("はじめのことば", "会話"), openings),
        ),
        numbers={"pairs": {"exact": counts["同じ"], "jaccard": counts["ほぼ同じ"], "cosine": counts["よく似ている"]}},
    )


def _openings(data: Features) -> tuple[tuple[str, str], ...]:
    counts: dict[str, int] = {}
    for dialogue in data.dialogues:
        text = dialogue.conversation[0].text
        counts[text] = counts.get(text, 0) + 1
    common = sorted(((count, text) for text, count in counts.items() if count > 1), key=lambda x: (-x[0], x[1]))
    return tuple((text[:60], str(count)) for count, text in common[:15])
