"""The fifth of the memo's views: where the dialogues lie in meaning, as a t-SNE map to look at.

Nothing is ever tested on the map: tests run in embedding space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.diversity import vendi_at
from analysis.embedding import Floats, group, typical_words
from analysis.features import KIND_WORDS, KINDS, Features
from analysis.figures import Area, Coloring, MapChart
from analysis.layout import Layout
from analysis.results import Fact, Table, Test, Verdict, View
from analysis.settings import ReportSettings
from analysis.statistics import generator
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING, Dialogue

NO_GENRE = "ジャンルなし"
PER = 100
"""Vendi scores are given for samples of so many dialogues, so that data sets of different size compare."""


def meaning_view(
    data: Features,
    vectors: Floats,
    bags: Sequence[Sequence[str]],
    layout: Layout | None,
    settings: ReportSettings,
    tests: tuple[Test, ...] = (),
) -> View:
    """Draw the layout (none: numbers and tests alone), name its areas, offer five ways to colour it."""
    if data.n < 2:
        fact = Fact("会話が2件に満たないので、地図はまだ描けない。", Verdict.UNKNOWN)
        return View("meaning", "意味の地図", is_now=f"{data.n}件", facts=(fact,), memo=True)
    variety = vendi_at(vectors, PER, generator(settings.seed, "vendi"))
    spoken = (
        f"意味の実効数（Vendi）は{PER}件あたり {variety:.1f}" if variety else f"{PER}件になると意味の実効数を出せる"
    )
    chart, how = (None, "") if layout is None else _chart(data, vectors, bags, layout, settings)
    names = [] if chart is None else ["・".join(area.words) for area in chart.areas if area.words]
    return View(
        "meaning",
        "意味の地図",
        is_now=f"{how}{spoken}。" + (f"大きなまとまり: {'、'.join(names[:6])}" if names else ""),
        planned="一か所に固まらず、由来・時期・書き手で分かれないこと",
        chance="地図は見るためのもの。検定は地図ではなく元の空間で、ラベルを入れ替えて行う",
        tests=tests,
        facts=() if tests else (Fact("由来・時期・書き手がひとつずつなので、比べる相手がまだない。", Verdict.UNKNOWN),),
        figures=(chart,) if chart else (),
        tables=(_areas(chart),) if chart and len(chart.areas) > 1 else (),
        numbers={"vendi_per_100": variety, "areas": names},
        memo=True,
    )


def _chart(
    data: Features, vectors: Floats, bags: Sequence[Sequence[str]], layout: Layout, settings: ReportSettings
) -> tuple[MapChart, str]:
    chosen, points = layout.chosen, layout.points
    dialogues = [data.dialogues[i] for i in chosen]
    codes = group(vectors[chosen], count=settings.clusters, seed=settings.seed)
    places = []
    for code, typical in enumerate(typical_words([bags[i] for i in chosen], codes)):
        x, y = np.median(points[codes == code], axis=0)
        places.append(Area(round(float(x), 4), round(float(y), 4), tuple(typical), int((codes == code).sum())))
    how = f"{data.n}件を配置。" if len(chosen) == data.n else f"{data.n:,}件から{len(chosen):,}件を選んで配置。"
    if len(chosen) < data.n:
        how += "残りは濃淡で示す。"
    if layout.placed:
        how += f"前の地図をそのまま使い、新しい{layout.placed}件を近い会話のそばに置いた。"
    names = "、".join("・".join(area.words) for area in places[:6] if area.words)
    chart = MapChart(
        "map",
        "意味の地図（t-SNE）",
        f"{len(chosen)}件の会話を意味の近さで並べた散布図。大きなまとまり: {names or 'なし'}。",
        tuple(float(x) for x in points[:, 0]),
        tuple(float(y) for y in points[:, 1]),
        tuple(d.id for d in dialogues),
        tuple(headline(d) for d in dialogues),
        tuple(excerpt(d) for d in dialogues),
        colorings(data, chosen),
        tuple(places),
        tuple(layout.density.tolist()),
        layout.cells,
        layout.fresh,
    )
    return chart, how


def _areas(chart: MapChart) -> Table:
    rows = tuple(("・".join(area.words) or "–", str(area.n)) for area in chart.areas)
    note = "まとまりは元の空間で分けたもの（k平均法）。名前は、ほかより目立って多い言葉。"
    return Table("意味のまとまり", ("目立つ言葉", "会話"), rows, note=note)


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
