"""Near-duplicates: the same conversation twice, or almost.

Three measures: equal text, Jaccard similarity of character 5-grams ≥ 0.8, and cosine ≥ 0.95.  Pairs are
proposed by cosine in embedding space (all pairs, block by block) and then checked: the cosine that counts is
that of the whole TF-IDF vectors, since in the few dimensions of the map any two dialogues about one topic are close.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from analysis.embedding import Floats
from analysis.features import Features
from analysis.results import Fact, Table, Verdict, View
from dialogue.records import Dialogue
from dialogue.text import character_ngrams, jaccard

JACCARD, COSINE = 0.8, 0.95
_PROPOSE = 0.8
_BLOCK = 2_000
_MOST = 20_000
"""Most pairs that are checked; beyond, the page says so."""

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


def near_duplicates(
    texts: Sequence[str], vectors: Floats, bags: Sequence[Sequence[str]] | None = None
) -> tuple[list[Pair], bool]:
    """Find the pairs that are almost the same.

    Args:
        texts: The conversations.
        vectors: (n, d) unit vectors that propose pairs.
        bags: Words whose TF-IDF cosine decides; None: the vectors' own cosine does.

    Returns:
        The pairs, most alike first, and whether some were left unchecked.  Of several equal texts each
        later one is paired with the first.
    """
    packed = [re.sub(r"\s+", "", text) for text in texts]
    first: dict[str, int] = {}
    pairs = []
    for i, text in enumerate(packed):
        j = first.setdefault(text, i)
        if j != i:
            pairs.append(Pair(j, i, "同じ", 1.0, 1.0))
    kept = np.array(sorted(first.values()), dtype=np.int64)
    proposed, left_off = _proposed(vectors[kept].astype(np.float32))
    weigh = None if bags is None else _Weights(bags)
    grams: dict[int, set[str]] = {}
    for x, y, close in proposed:
        a, b = int(kept[x]), int(kept[y])
        for i in (a, b):
            if i not in grams:
                grams[i] = character_ngrams(texts[i])
        similarity = jaccard(grams[a], grams[b])
        cosine = close if weigh is None else weigh.cosine(a, b)
        if similarity >= JACCARD:
            pairs.append(Pair(a, b, "ほぼ同じ", similarity, cosine))
        elif cosine >= COSINE:
            pairs.append(Pair(a, b, "よく似ている", similarity, cosine))
    return sorted(pairs, key=lambda p: (-p.jaccard, -p.cosine, p.a, p.b)), left_off


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


def _proposed(vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> tuple[list[tuple[int, int, float]], bool]:
    """All pairs with cosine at or above the bound, the most alike `_MOST` if there are more."""
    rows, columns, values = [], [], []
    count, bound = 0, _PROPOSE
    for start in range(0, len(vectors), _BLOCK):
        similar = vectors[start : start + _BLOCK] @ vectors[start:].T
        i, j = np.nonzero(similar >= bound)
        upper = j > i
        i, j = i[upper], j[upper]
        rows.append(i + start)
        columns.append(j + start)
        values.append(similar[i, j])
        count += len(i)
        if count > 4 * _MOST:  # keep memory flat when very many are alike
            merged = np.concatenate(values)
            order = np.argsort(-merged, kind="stable")[:_MOST]
            rows = [np.concatenate(rows)[order]]
            columns = [np.concatenate(columns)[order]]
            values = [merged[order]]
            count, bound = _MOST, max(bound, float(values[0][-1]))
    if not values:
        return [], False
    merged = np.concatenate(values)
    order = np.argsort(-merged, kind="stable")[:_MOST]
    found = zip(np.concatenate(rows)[order], np.concatenate(columns)[order], merged[order], strict=True)
    return [(int(a), int(b), round(float(v), 4)) for a, b, v in found], bound > _PROPOSE or len(merged) > _MOST


def duplicates_view(
    data: Features, vectors: Floats, bags: Sequence[Sequence[str]] | None, link: Callable[[Dialogue], str]
) -> View:
    """Which conversations are near-copies of another, with links, and which openings recur; see `near_duplicates`."""
    texts = ["\n".join(turn.text for turn in d.conversation) for d in data.dialogues]
    pairs, left_off = near_duplicates(texts, vectors, bags)
    copies = {pair.b for pair in pairs}
    share = len(copies) / max(1, data.n)
    verdict = Verdict.OK if not copies else Verdict.FIX if share >= SHARE_FIX else Verdict.WATCH
    advice = f"ほかとほとんど同じ会話が{len(copies)}件ある。表の片方を書き直すか、不採用にする。" if copies else ""
    facts = [Fact(f"ほかとほとんど同じ会話は{len(copies)}件。", verdict if data.n > 1 else Verdict.UNKNOWN, advice)]
    if left_off:
        facts.append(Fact(f"似た組が多すぎるので、近いほうから{_MOST:,}組だけを調べた。"))
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
