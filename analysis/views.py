"""Four of the memo's five views: genre, the 25 attribute pairs, number of turns, text length per turn."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.features import Features
from analysis.figures import Bar, BarChart, HeatGrid, Spread, SpreadChart
from analysis.results import Fact, Table, Test, Verdict, View
from analysis.settings import PlanSettings, ReportSettings
from analysis.statistics import (
    Fit,
    Floats,
    generator,
    goodness_of_fit,
    interval_test,
    wasserstein_test,
)
from analysis.tables import fit_table, spread_table
from analysis.targets import PAIRS, genre_shares, is_starter, pair_shares, turn_shares
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING, Attribute

FEW = 20
"""Below this number of dialogues a distribution can not be judged."""

REFERENCES = (("RealPersonaChat", 30.08, 13.16), ("JPersonaChat", 12.36, 40.25))
"""Published chit-chat corpora: utterances a dialogue, characters an utterance."""

TOO_FEW = Fact(f"会話がまだ{FEW}件に満たないので、偏りがあるかどうかはまだ言えない。", Verdict.UNKNOWN)


def pair_name(pair: Attribute) -> str:
    """Name of a pair, e.g. "4・0"."""
    return f"{pair.closeness}・{pair.mood}"


def share_tests(key: str, what: str, fit: Fit, labels: list[str]) -> tuple[Test, Test]:
    """The two goodness-of-fit tests of a view: one cell, and the whole."""
    worst_cell = int(np.abs(fit.residuals).argmax())
    observed = fit.expected + fit.residuals * np.sqrt(
        np.maximum(fit.expected * (1 - fit.expected / max(1, fit.n)), 1e-12)
    )
    ratio = float(observed[worst_cell] / max(fit.expected[worst_cell], 1e-9))
    side = "少ない" if ratio < 1 else "多い"
    cramer = float(np.sqrt(fit.chi_square / max(1, fit.n)))
    return (
        Test(
            f"{key}.cell",
            f"目標から大きく外れた{what}がひとつでもあるか",
            "最大の標準化残差",
            round(fit.largest_residual, 3),
            f"「{labels[worst_cell]}」は目標の{ratio:.2f}倍",
            fit.p_largest,
            material=not 0.75 <= ratio <= 1.33,
            advice=f"{what}「{labels[worst_cell]}」が目標の{ratio:.2f}倍で{side}。"
            + ("ここを書き足す。" if ratio < 1 else "ほかを書き足す。"),
        ),
        Test(
            f"{key}.whole",
            f"{what}の全体が目標からずれているか",
            "カイ二乗",
            round(fit.chi_square, 3),
            f"効果の大きさ w = {cramer:.2f}",
            fit.p_chi_square,
            material=cramer >= 0.1,
            advice=f"{what}の全体が目標からずれている（w = {cramer:.2f}）。`aku plan` のカードで均す。",
        ),
    )


def genre_view(data: Features, plan: PlanSettings, settings: ReportSettings) -> View:
    """Main genres against the target, and how the three published lists are covered."""
    names = list(data.taxonomy.names)
    shares = genre_shares(plan, data.taxonomy)
    known = data.genre[data.genre >= 0]
    counts = np.bincount(known, minlength=len(names))
    fit = goodness_of_fit(counts, shares, generator(settings.seed, "genre"), settings.simulations)
    missing = data.n - known.size
    facts = [TOO_FEW] if known.size < FEW else []
    if missing:
        text = f"{missing}件はジャンルがない（または一覧にない名前）。下の表で推定値を示す。"
        facts.append(
            Fact(text, Verdict.WATCH if data.n >= FEW else Verdict.UNKNOWN, f"{missing}件にジャンルを付ける。")
        )
    coverage, uncovered = coverage_table(data)
    if uncovered:
        entry_facts = "、".join(uncovered[:6]) + ("ほか" if len(uncovered) > 6 else "")
        judged = Verdict.WATCH if known.size >= 100 else Verdict.UNKNOWN
        facts.append(Fact(f"3つの一覧のうち、まだ触れていない項目: {entry_facts}", judged, f"{entry_facts}を書く。"))
    low, high = int(counts.argmin()), int(counts.argmax())
    chart = BarChart(
        "genre",
        "主なジャンルの件数",
        f"主なジャンルの横棒グラフ。最少は{names[low]}の{counts[low]}件、最多は{names[high]}の{counts[high]}件。"
        f"目標は{_span(fit.expected)}件。",
        tuple(_bar(name, counts[i], fit, i) for i, name in enumerate(names)),
    )
    return View(
        "genre",
        "ジャンル",
        is_now=f"{np.count_nonzero(counts)} / {len(names)} ジャンル。実効数 {fit.effective:.1f}"
        f"（{known.size}件、うち2つ目のジャンルあり {sum(len(g) > 1 for g in data.genres)}件）",
        planned=f"各ジャンル {_span(fit.expected)}件",
        chance=f"偶然だけでも実効数は平均 {fit.effective_mean:.1f}、20回に1回は {fit.effective_low:.1f} 以下",
        tests=share_tests("genre", "ジャンル", fit, names) if known.size >= FEW else (),
        facts=tuple(facts),
        figures=(chart,),
        tables=(fit_table("ジャンルごとの件数", "ジャンル", names, counts.tolist(), fit), coverage),
        numbers={
            "counts": dict(zip(names, counts.tolist(), strict=True)),
            "missing": missing,
            "effective": fit.effective,
            "effective_chance": [fit.effective_low, fit.effective_mean],
        },
        memo=True,
    )


def coverage_table(data: Features) -> tuple[Table, list[str]]:
    """Say for every entry of the three lists how many dialogues touch it, and name those none touches."""
    touched: dict[str, int] = {}
    for genres in data.genres:
        for code in {code for g in genres for code in data.taxonomy.topics[g].covers}:
            touched[code] = touched.get(code, 0) + 1
    rows, uncovered = [], []
    for published in data.taxonomy.lists:
        for code, name in published.entries.items():
            topics = "、".join(topic.name for topic in data.taxonomy.topics if code in topic.covers)
            rows.append((published.title, f"{code} {name}", str(touched.get(code, 0)), topics))
            if not touched.get(code):
                uncovered.append(f"{code} {name}")
    return Table("3つの一覧の網羅", ("一覧", "項目", "会話", "対応するジャンル"), tuple(rows)), uncovered


def pair_view(data: Features, plan: PlanSettings, settings: ReportSettings) -> View:
    """The 25-pair grid against the target of the stage."""
    shares = pair_shares(plan, data.n)
    counts = np.bincount(data.pair, minlength=25)
    fit = goodness_of_fit(counts, shares, generator(settings.seed, "pairs"), settings.simulations)
    starter = is_starter(plan, data.n)
    outside = int(counts[shares == 0].sum())
    facts = [TOO_FEW] if data.n < FEW else []
    if outside and starter:
        text = f"最初の5組のほかに{outside}件ある。この段階の目標には数えていない。"
        judged = Verdict.WATCH if outside > data.n / 2 else Verdict.OK
        facts.append(Fact(text, judged if data.n >= FEW else Verdict.UNKNOWN))
    zero = int(((counts == 0) & (shares > 0)).sum())
    grid = HeatGrid(
        "pairs",
        "親密さ × 機嫌",
        f"親密さと機嫌の25の組の件数。空の組は{zero}。最少{counts[shares > 0].min()}件、最多{counts.max()}件。",
        "親密さ",
        "機嫌",
        tuple(f"{i} {name}" for i, name in enumerate(CLOSENESS_MEANING)),
        tuple(f"{i} {name}" for i, name in enumerate(MOOD_MEANING)),
        _grid(counts),
        _grid(fit.expected),
        _grid(fit.residuals),
    )
    aim = "最初の5組に均等（残り20組は計画どおり空）" if starter else f"25組それぞれ {_span(fit.expected)}件"
    return View(
        "pairs",
        "親密さと機嫌の25の組",
        is_now=f"{np.count_nonzero(counts)} / 25 組。実効数 {fit.effective:.2f}",
        planned=aim,
        chance=f"偶然だけでも実効数は平均 {fit.effective_mean:.2f}、20回に1回は {fit.effective_low:.2f} 以下",
        tests=share_tests("pairs", "組", fit, [pair_name(p) for p in PAIRS]) if data.n >= FEW else (),
        facts=tuple(facts),
        figures=(grid,),
        tables=(fit_table("組ごとの件数", "組（親密さ・機嫌）", [pair_name(p) for p in PAIRS], counts.tolist(), fit),),
        numbers={
            "counts": {pair_name(p): int(c) for p, c in zip(PAIRS, counts, strict=True)},
            "expected": fit.expected.round(3).tolist(),
            "residuals": fit.residuals.round(3).tolist(),
            "effective": fit.effective,
            "effective_chance": [fit.effective_low, fit.effective_mean],
            "stage": "starter" if starter else "all",
        },
        memo=True,
    )


def turns_view(data: Features, plan: PlanSettings, settings: ReportSettings) -> View:
    """Number of turns against the planned numbers."""
    values, shares = turn_shares(plan)
    if is_starter(plan, data.n):
        values, shares = (10,), np.ones(1)
    present = sorted({*values, *np.unique(data.turns).tolist()})
    planned = {v: float(s) for v, s in zip(values, shares, strict=True)}
    spread = np.array([planned.get(v, 0.0) for v in present])
    counts = np.array([int((data.turns == v).sum()) for v in present])
    labels = [f"{v}ターン" for v in present]
    fit = goodness_of_fit(counts, spread, generator(settings.seed, "turns.band"), settings.simulations)
    tests: tuple[Test, ...] = ()
    distance = quantile = 0.0
    if data.n >= FEW:
        rng = generator(settings.seed, "turns")
        distance, p, quantile = wasserstein_test(data.turns, values, shares, rng, settings.simulations)
        mean, aim = float(data.turns.mean()), float(shares @ np.array(values))
        way = "短い" if mean < aim else "長い"
        # One number of turns off its target is worth a look, not more: what matters is the spread, the first test.
        cell = dataclasses.replace(share_tests("turns", "ターン数", fit, labels)[0], limit=Verdict.WATCH)
        tests = (
            Test(
                "turns.distance",
                "ターン数の分布が計画からずれているか",
                "Wasserstein距離（ターン）",
                round(distance, 3),
                f"平均 {mean:.1f}、計画 {aim:.1f}",
                p,
                material=distance >= settings.turns_tolerance,
                advice=f"ターン数が計画からずれている（平均 {mean:.1f}、計画 {aim:.1f}）。"
                + (f"計画より{way}会話が多い。" if abs(mean - aim) > 0.5 else "計画にある長さへ散らす。"),
            ),
            cell,
            _first_test(data, plan, settings),
        )
    chart = BarChart(
        "turns",
        "ターン数",
        f"ターン数ごとの件数。{_summary(data.turns, 'ターン')}。計画は{values[0]}〜{values[-1]}ターン。",
        tuple(_bar(label, counts[i], fit, i) for i, label in enumerate(labels)),
    )
    references = "、".join(f"{name} {turns}" for name, turns, _ in REFERENCES)
    return View(
        "turns",
        "ターン数",
        is_now=_summary(data.turns, "ターン") + f"、Aku から始まる会話 {_percent(data.aku_begins)}",
        planned=f"{values[0]}〜{values[-1]}ターン（{len(values)}通りに均等）、Aku から {plan.aku_begins:.0%}",
        chance=f"偶然だけでも距離は {quantile:.2f} ターンまでありうる（参考: {references}）",
        tests=tests,
        facts=() if data.n >= FEW else (TOO_FEW,),
        figures=(chart,),
        tables=(fit_table("ターン数ごとの件数", "ターン数", labels, counts.tolist(), fit),),
        numbers={"counts": {str(v): int(c) for v, c in zip(present, counts, strict=True)}, "distance": distance},
        memo=True,
    )


def _first_test(data: Features, plan: PlanSettings, settings: ReportSettings) -> Test:
    """Does Aku begin as often as planned?"""
    begun, aim = int(data.aku_begins.sum()), plan.aku_begins
    fit = goodness_of_fit(
        [data.n - begun, begun],
        np.array([1 - aim, aim]),
        generator(settings.seed, "turns.first"),
        settings.simulations,
    )
    share = begun / max(1, data.n)
    return Test(
        "turns.first",
        "Akuから始まる会話の割合が計画からずれているか",
        "標準化残差",
        round(fit.largest_residual, 3),
        f"{share:.0%}、計画 {aim:.0%}",
        fit.p_largest,
        material=abs(share - aim) >= 0.05,
        limit=Verdict.WATCH,
        advice=f"Akuから始まる会話が{share:.0%}で、計画の{aim:.0%}より{'多い' if share > aim else '少ない'}。",
    )


def length_view(data: Features, settings: ReportSettings) -> View:
    """Characters a turn: overall against the declared range, by turn position and by speaker."""
    means = data.mean_length
    tests: tuple[Test, ...] = ()
    low, high = settings.mean_length or (None, None)
    if data.n >= FEW and low is not None and high is not None:
        mean, p = interval_test(means, low, high)
        tests = (
            Test(
                "length.mean",
                f"1ターンの平均文字数が {low}〜{high} の外にあるか",
                "会話ごとの平均の平均（文字）",
                round(mean, 3),
                f"平均 {mean:.1f} 文字",
                p,
                material=True,
                advice=f"1ターンが平均 {mean:.1f} 文字で{'短すぎる' if mean < low else '長すぎる'}"
                f"（目標 {low}〜{high}）。",
            ),
        )
    last = int(min(data.position.max(initial=-1), 15))
    spreads = [s for i in range(last + 1) if (s := _spread(f"{i + 1}ターン目", data, data.position == i))]
    overall = [
        s for s in (_spread("User 全体", data, data.speaker == 0), _spread("Aku 全体", data, data.speaker == 1)) if s
    ]
    both = "、".join(f"{s.group} 中央値{s.quantiles[2]:.0f}文字" for s in overall)
    chart = SpreadChart(
        "length",
        "ターンの位置ごとの文字数",
        f"ターンの位置と話者ごとの文字数の散らばり（10・25・50・75・90%点）。{both}。",
        tuple(overall + spreads),
        low=low,
        high=high,
    )
    references = "、".join(f"{name} {length}文字" for name, _, length in REFERENCES)
    return View(
        "length",
        "ターンごとの文字数",
        is_now=(_summary(data.length, "文字") + f"（{both}）") if data.length.size else "ターンがまだない",
        planned=f"平均 {low}〜{high} 文字" if low is not None else "目標なし",
        chance=f"参考: {references}",
        tests=tests,
        facts=() if data.n >= FEW else (TOO_FEW,),
        figures=(chart,) if spreads else (),
        tables=(spread_table(chart, "ターンの位置"),) if spreads else (),
        numbers={
            "mean": float(data.length.mean()) if data.length.size else None,
            "quantiles": quantiles(data.length.astype(float)) if data.length.size else None,
        },
        memo=True,
    )


def _spread(label: str, data: Features, mask: NDArray[Any]) -> Spread | None:
    chosen = data.length[mask].astype(float)
    if not chosen.size:
        return None
    speakers = data.speaker[mask]
    group = "Aku" if speakers.mean() > 0.5 else "User"
    return Spread(label, group, quantiles(chosen), int(chosen.size))


def quantiles(values: Floats) -> tuple[float, float, float, float, float]:
    """Quantiles 10, 25, 50, 75, 90 %."""
    a, b, c, d, e = (float(q) for q in np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9)))
    return a, b, c, d, e


def _bar(label: str, count: int, fit: Fit, i: int) -> Bar:
    return Bar(label, float(count), float(fit.expected[i]), float(fit.low[i]), float(fit.high[i]))


def _grid(values: NDArray[Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in np.asarray(values).round(3).reshape(5, 5).tolist())


def _span(expected: Floats) -> str:
    low, high = float(expected.min()), float(expected.max())
    return f"{low:.1f}" if high - low < 0.05 else f"{low:.1f}〜{high:.1f}"


def _summary(values: NDArray[Any], unit: str) -> str:
    if not values.size:
        return "まだない"
    return f"平均 {values.mean():.1f}、中央値 {np.median(values):.0f}、{values.min()}〜{values.max()} {unit}"


def _percent(mask: NDArray[Any]) -> str:
    return f"{mask.mean():.0%}" if mask.size else "0%"
