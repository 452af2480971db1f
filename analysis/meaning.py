"""The fifth of the memo's views: where the dialogues lie in meaning, as a t-SNE map to look at.

Nothing is ever tested on the map: tests run in embedding space.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.embedding import Floats, group, lay_out, typical_words, unit_square
from analysis.features import KIND_WORDS, KINDS, Features, text_of
from analysis.figures import Area, Coloring, MapChart
from analysis.results import Fact, Test, Verdict, View
from analysis.settings import ReportSettings
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING, Dialogue

NO_GENRE = "ジャンルなし"


def meaning_view(data: Features, vectors: Floats, settings: ReportSettings, tests: tuple[Test, ...] = ()) -> View:
    """Lay the dialogues out, name the areas, and offer five ways to colour them."""
    if data.n < 2:
        fact = Fact("会話が2件に満たないので、地図はまだ描けない。", Verdict.UNKNOWN)
        return View("meaning", "意味の地図", is_now=f"{data.n}件", facts=(fact,), memo=True)
    chosen, points = lay_out(vectors, seed=settings.seed, most=settings.map_points)
    points = unit_square(points)
    dialogues = [data.dialogues[i] for i in chosen]
    texts = [text_of(d) for d in dialogues]
    codes = group(vectors[chosen], count=settings.clusters, seed=settings.seed)
    words = typical_words(texts, codes)
    places = []
    for code, typical in enumerate(words):
        members = points[codes == code]
        x, y = np.median(members, axis=0)
        places.append(Area(round(float(x), 4), round(float(y), 4), tuple(typical), len(members)))
    names = "、".join("・".join(a.words) for a in places[:6] if a.words)
    part = "" if len(chosen) == data.n else f"（{data.n}件から選んだ{len(chosen)}件）"
    chart = MapChart(
        "map",
        "意味の地図（t-SNE）",
        f"{len(chosen)}件の会話を意味の近さで並べた散布図{part}。大きなまとまり: {names or 'なし'}。",
        tuple(round(float(x), 4) for x in points[:, 0]),
        tuple(round(float(y), 4) for y in points[:, 1]),
        tuple(d.id for d in dialogues),
        tuple(headline(d) for d in dialogues),
        tuple(excerpt(d) for d in dialogues),
        colorings(data, chosen),
        tuple(places),
    )
    return View(
        "meaning",
        "意味の地図",
        is_now=f"{len(chosen)}件を配置{part}。近い会話ほど近くにある。大きなまとまり: {names or 'なし'}",
        planned="どこかに固まりすぎず、由来や時期で分かれないこと",
        chance="地図は見るためのもの。検定は地図ではなく元の空間で行う",
        tests=tests,
        facts=() if tests else (Fact("由来・時期・書き手がひとつずつなので、比べる相手がまだない。", Verdict.UNKNOWN),),
        figures=(chart,),
        numbers={"drawn": len(chosen), "areas": [{"words": list(a.words), "n": a.n} for a in places]},
        memo=True,
    )


def colorings(data: Features, chosen: NDArray[np.int64]) -> tuple[Coloring, ...]:
    """Genre, closeness, mood, origin, month."""
    genres = np.where(data.genre < 0, len(data.taxonomy.names), data.genre)
    months = tuple(month or "日付なし" for month in data.months)

    def of(key: str, title: str, names: tuple[str, ...], codes: NDArray[np.int64], ordered: bool = False) -> Coloring:
        return Coloring(key, title, names, tuple(int(c) for c in codes[chosen]), ordered)

    return (
        of("genre", "ジャンル", (*data.taxonomy.names, NO_GENRE), genres),
        of("closeness", "親密さ", tuple(f"{i} {m}" for i, m in enumerate(CLOSENESS_MEANING)), data.closeness, True),
        of("mood", "機嫌", tuple(f"{i} {m}" for i, m in enumerate(MOOD_MEANING)), data.mood, True),
        of("kind", "由来", tuple(KIND_WORDS[k] for k in KINDS), data.kind),
        of("month", "月", months, data.month, True),
    )


def headline(dialogue: Dialogue) -> str:
    """One line about a dialogue."""
    genre = "・".join(dialogue.genre) or NO_GENRE
    levels = f"親密さ{dialogue.attribute.closeness}・機嫌{dialogue.attribute.mood}"
    return f"{genre}｜{levels}｜{len(dialogue.conversation)}ターン"


def excerpt(dialogue: Dialogue, turns: int = 4, length: int = 48) -> str:
    """The context and the first turns, cut short."""
    lines = [_cut(dialogue.context, length * 2)]
    lines += [f"{t.speaker}: {_cut(t.text, length)}" for t in dialogue.conversation[:turns]]
    return "\n".join(lines)


def _cut(text: str, length: int) -> str:
    packed = " ".join(text.split())
    return packed if len(packed) <= length else packed[: length - 1] + "…"
