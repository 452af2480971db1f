"""Do things that should be independent go together?  Genre with attributes, turns and lengths with attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.features import Features
from analysis.figures import HeatGrid, Spread, SpreadChart
from analysis.results import Test, Verdict, View
from analysis.settings import ReportSettings
from analysis.statistics import association_test, cramers_v, expected_counts, generator, group_means_test
from analysis.tables import spread_table
from analysis.views import FEW, TOO_FEW, quantiles
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING

MATERIAL_V = 0.1
"""Bias-corrected Cramér's V from which an association matters."""

MATERIAL_EPSILON = 0.05
"""Share of variance explained by groups from which a difference of means matters."""

_LEVELS = (
    ("closeness", "親密さ", CLOSENESS_MEANING),
    ("mood", "機嫌", MOOD_MEANING),
)


def association_view(data: Features, settings: ReportSettings) -> View:
    """Genre × closeness, genre × mood, turns × pair, length of Aku's turns × closeness and mood."""
    known = data.genre >= 0
    enough = int(known.sum()) >= FEW
    codes = {"closeness": data.closeness, "mood": data.mood}
    tests: list[Test] = []
    grids, spreads, numbers = [], [], {}
    aku_length = speaker_length(data, 1)
    for key, name, meanings in _LEVELS:
        genre, levels = data.genre[known], codes[key][known]
        table = np.zeros((len(data.taxonomy.names), 5))
        np.add.at(table, (genre, levels), 1)
        plain, corrected = cramers_v(table)
        numbers[f"genre_{key}"] = {"v": plain, "v_corrected": corrected}
        if enough:
            rng = generator(settings.seed, f"genre × {key}")
            _, p = association_test(genre, levels, rng, settings.permutations)
            tests.append(
                Test(
                    f"association.genre.{key}",
                    f"ジャンルと{name}が結びついていないか",
                    "補正V",
                    round(corrected, 3),
                    strongest(table, list(data.taxonomy.names), [f"{name}{i}" for i in range(5)]),
                    p,
                    material=corrected >= MATERIAL_V,
                    advice=f"ジャンルと{name}が結びついている（補正V = {corrected:.2f}、"
                    f"{strongest(table, list(data.taxonomy.names), [f'{name}{i}' for i in range(5)])}）。"
                    "ほかの組み合わせを書き足す。",
                )
            )
            grids.append(_grid(table, data, key, name, meanings))
        if data.n >= FEW:
            rng = generator(settings.seed, f"length × {key}")
            effect, p = group_means_test(aku_length, codes[key], rng, settings.permutations)
            tests.append(
                Test(
                    f"association.length.{key}",
                    f"Akuのターンの長さが{name}で変わるか",
                    "説明率 ε²",
                    round(effect, 3),
                    _means(aku_length, codes[key], name),
                    p,
                    material=False,
                    limit=Verdict.WATCH,
                    advice=f"Akuのターンの長さが{name}で変わる（{_means(aku_length, codes[key], name)}）。"
                    "意図した書き分けなら、そのままでよい。",
                )
            )
            spreads += _spreads(data, codes[key], name)
    if data.n >= FEW:
        rng = generator(settings.seed, "turns × pair")
        effect, p = group_means_test(data.turns, data.pair, rng, settings.permutations)
        tests.append(
            Test(
                "association.turns.pair",
                "ターン数が親密さと機嫌の組で変わるか",
                "説明率 ε²",
                round(effect, 3),
                f"組の違いが散らばりの{effect:.0%}を説明する",
                p,
                material=effect >= MATERIAL_EPSILON,
                advice=f"ターン数が親密さと機嫌の組で変わる（{effect:.0%}）。短い組には長い会話を、長い組には短い会話を足す。",
            )
        )
    chart = SpreadChart(
        "length-attribute",
        "属性ごとのAkuのターンの文字数",
        "親密さと機嫌の段階ごとに、Akuのターンの文字数の散らばり（10・25・50・75・90%点）。",
        tuple(spreads),
    )
    return View(
        "association",
        "属性とジャンル・長さの結びつき",
        is_now="補正V: "
        + "、".join(f"ジャンル × {n} {numbers[f'genre_{k}']['v_corrected']:.2f}" for k, n, _ in _LEVELS),
        planned="互いに独立（補正V 0）",
        chance="補正しないVは偶然だけでも "
        + "、".join(f"{numbers[f'genre_{k}']['v']:.2f}" for k, _, _ in _LEVELS)
        + " のように大きく出る。補正Vと並べ替え検定で見る",
        tests=tuple(tests),
        facts=() if data.n >= FEW else (TOO_FEW,),
        figures=(*grids, *((chart,) if spreads else ())),
        tables=(spread_table(chart, "属性"),) if spreads else (),
        numbers=numbers,
    )


def speaker_length(data: Features, speaker: int) -> NDArray[np.float64]:
    """Mean characters a turn of one speaker (0 User, 1 Aku), one value a dialogue; 0 where there is no turn."""
    mine = data.speaker == speaker
    sums = np.bincount(data.owner[mine], weights=data.length[mine], minlength=data.n)
    return np.asarray(sums / np.maximum(1, np.bincount(data.owner[mine], minlength=data.n)))


def strongest(table: NDArray[np.float64], rows: list[str], columns: list[str]) -> str:
    """Name the cell that is furthest above what independence would give."""
    expected = expected_counts(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.where(expected > 0, (table - expected) / np.sqrt(expected), 0)
    i, j = np.unravel_index(int(residual.argmax()), table.shape)
    return f"「{rows[int(i)]}」×{columns[int(j)]}が{int(table[i, j])}件（独立なら{expected[i, j]:.1f}）"


def _grid(table: NDArray[np.float64], data: Features, key: str, name: str, meanings: tuple[str, ...]) -> HeatGrid:
    expected = expected_counts(table)
    n = max(1.0, table.sum())
    slack = np.outer(1 - table.sum(axis=1) / n, 1 - table.sum(axis=0) / n)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.where(expected * slack > 0, (table - expected) / np.sqrt(expected * slack), 0)
    return HeatGrid(
        f"genre-{key}",
        f"ジャンル × {name}",
        f"ジャンルと{name}の組み合わせの件数。{strongest(table, list(data.taxonomy.names), list(meanings))}。",
        "ジャンル",
        name,
        data.taxonomy.names,
        tuple(f"{i} {meaning}" for i, meaning in enumerate(meanings)),
        _rows(table.astype(int)),
        _rows(expected.round(2)),
        _rows(residual.round(2)),
    )


def _rows(values: NDArray[Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())


def _means(values: NDArray[np.float64], codes: NDArray[np.int64], name: str) -> str:
    present = [(level, float(values[codes == level].mean())) for level in range(5) if (codes == level).any()]
    (low, least), (high, most) = min(present, key=lambda x: x[1]), max(present, key=lambda x: x[1])
    return f"{name}{low}で平均{least:.0f}文字、{name}{high}で{most:.0f}文字"


def _spreads(data: Features, codes: NDArray[np.int64], name: str) -> list[Spread]:
    found = []
    for level in range(5):
        chosen = data.length[(data.speaker == 1) & (codes[data.owner] == level)].astype(float)
        if chosen.size:
            found.append(Spread(f"{name}{level}", "Aku", quantiles(chosen), int(chosen.size)))
    return found
