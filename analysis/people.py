"""Who wrote what: per annotator numbers, and whether length, turns and attributes depend on the writer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.associations import MATERIAL_EPSILON, MATERIAL_V
from analysis.features import KINDS, Features
from analysis.figures import Spread, SpreadChart
from analysis.results import Fact, Table, Test, Verdict, View
from analysis.settings import ReportSettings
from analysis.statistics import (
    Floats,
    association_test,
    effective_number,
    generator,
    group_means_test,
    permanova,
)
from analysis.views import quantiles

SMALLEST = 5
"""A writer, month or origin with fewer dialogues is not compared."""


def people_view(data: Features, settings: ReportSettings) -> View:
    """Per annotator: how many, how long, how spread; tests of length, turns and pairs."""
    groups, chosen = compared(data.annotator)
    rows = tuple(_row(data, code) for code in np.argsort(-np.bincount(data.annotator), kind="stable"))
    columns = (
        "書き手",
        "件数",
        "ターン数",
        "文字/ターン",
        "組の実効数",
        "ジャンルの実効数",
        "下書きから",
        "時間の中央値",
    )
    table = Table("書き手ごと", columns, rows if data.n else ())
    is_now = f"書き手 {len(data.annotators)}人" if data.n else "まだいない"
    if np.unique(groups).size < 2:
        fact = Fact(f"{SMALLEST}件以上書いた人が2人そろうと、書き手による偏りを調べられる。", Verdict.UNKNOWN)
        return View("people", "書き手", is_now=is_now, facts=(fact,), tables=(table,))
    rng = generator(settings.seed, "people")
    lengths, turns, pairs = data.mean_length[chosen], data.turns[chosen], data.pair[chosen]
    length_effect, length_p = group_means_test(lengths, groups, rng, settings.permutations)
    turns_effect, turns_p = group_means_test(turns, groups, rng, settings.permutations)
    v, pair_p = association_test(groups, pairs, rng, settings.permutations)
    tests = (
        _means(
            "people.length", "書き手で1ターンの長さが違わないか", lengths, groups, data, length_effect, length_p, "文字"
        ),
        _means("people.turns", "書き手でターン数が違わないか", turns, groups, data, turns_effect, turns_p, "ターン"),
        Test(
            "people.pairs",
            "書き手と属性の組が結びついていないか",
            "補正V",
            round(v, 3),
            f"書き手 {np.unique(groups).size}人 × 25組",
            pair_p,
            material=v >= MATERIAL_V,
            advice=f"特定の人が特定の親密さと機嫌ばかり書いている（補正V = {v:.2f}）。カードを配り直す。",
        ),
    )
    return View(
        "people",
        "書き手",
        is_now=is_now,
        planned="誰が書いても、長さも組も同じ散らばり",
        chance="書き手の名前を入れ替えて、偶然の幅を出している",
        tests=tests,
        figures=(_chart(data, groups, chosen),),
        tables=(table,),
        numbers={"counts": {name: int((data.annotator == i).sum()) for i, name in enumerate(data.annotators)}},
    )


def _chart(data: Features, groups: NDArray[np.int64], chosen: NDArray[np.bool_]) -> SpreadChart:
    """Characters a turn of the writers who are compared, the most prolific first; at most twenty."""
    codes, counts = np.unique(groups, return_counts=True)
    order = codes[np.argsort(-counts, kind="stable")][:20]
    means = data.mean_length
    spreads = tuple(
        Spread(data.annotators[code], "会話の平均", quantiles(means[mine]), int(mine.sum()))
        for code in order
        for mine in (chosen & (data.annotator == code),)
    )
    low, high = min(spreads, key=lambda s: s.quantiles[2]), max(spreads, key=lambda s: s.quantiles[2])
    return SpreadChart(
        "people-length",
        "書き手ごとの1ターンの文字数",
        "書き手ごとの、1ターンの平均文字数の散らばり（会話ごと）。中央値の最小は"
        f"{low.label}の{low.quantiles[2]:.0f}文字、最大は{high.label}の{high.quantiles[2]:.0f}文字。",
        spreads,
    )


def meaning_tests(data: Features, vectors: Floats, settings: ReportSettings) -> tuple[Test, ...]:
    """Do origin, month or writer lie in different places of meaning?  Tested in embedding space, never on the map."""
    rng = generator(settings.seed, "meaning")
    sample: NDArray[np.int64] = np.arange(data.n, dtype=np.int64)
    if data.n > settings.test_points:
        sample = np.sort(rng.choice(data.n, settings.test_points, replace=False)).astype(np.int64)
    tests = []
    for key, name, codes in (
        ("kind", "由来", _origin(data)),
        ("month", "月", data.month),
        ("annotator", "書き手", data.annotator),
    ):
        groups, chosen = compared(codes[sample])
        if np.unique(groups).size < 2:
            continue
        effect, p = permanova(vectors[sample][chosen], groups, rng, max(199, settings.permutations // 2))
        tests.append(
            Test(
                f"meaning.{key}",
                f"{name}によって話の中身が分かれていないか",
                "説明率 R²",
                round(effect, 4),
                f"{name}の違いが意味の散らばりの{effect:.1%}を説明する",
                p,
                material=False,
                limit=Verdict.WATCH,
                advice=f"{name}によって話の中身が違う（意味の散らばりの{effect:.1%}）。地図を「{name}」で色分けして確かめる。",
            )
        )
    return tuple(tests)


def compared(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Group codes of the dialogues whose group is large enough, and the mask that chooses them."""
    chosen = np.bincount(codes, minlength=1)[codes] >= SMALLEST if codes.size else np.zeros(0, dtype=bool)
    return codes[chosen], chosen


def _origin(data: Features) -> NDArray[np.int64]:
    return np.asarray(data.kind == KINDS.index("drafted"), dtype=np.int64)


def _means(
    key: str,
    question: str,
    values: NDArray[Any],
    groups: NDArray[np.int64],
    data: Features,
    effect: float,
    p: float,
    unit: str,
) -> Test:
    means = {code: float(values[groups == code].mean()) for code in np.unique(groups).tolist()}
    low, high = min(means, key=lambda c: means[c]), max(means, key=lambda c: means[c])
    detail = f"{data.annotators[low]} 平均{means[low]:.1f}{unit}、{data.annotators[high]} 平均{means[high]:.1f}{unit}"
    return Test(
        key,
        question,
        "説明率 ε²",
        round(effect, 3),
        detail,
        p,
        material=effect >= MATERIAL_EPSILON,
        advice=f"書き手によって{'1ターンの長さ' if unit == '文字' else 'ターン数'}が違う（{detail}）。目安をそろえる。",
    )


def _row(data: Features, code: int) -> tuple[str, ...]:
    mine = data.annotator == code
    times = [t for d, own in zip(data.dialogues, mine, strict=True) if own and (t := d.source.lead_time)]
    genres = np.bincount(data.genre[mine & (data.genre >= 0)], minlength=1)
    return (
        data.annotators[code],
        str(int(mine.sum())),
        f"{data.turns[mine].mean():.1f}",
        f"{data.mean_length[mine].mean():.1f}",
        f"{effective_number(np.bincount(data.pair[mine])):.1f}",
        f"{effective_number(genres):.1f}",
        f"{_origin(data)[mine].mean():.0%}",
        f"{np.median(times) / 60:.1f}分" if times else "–",
    )
