"""What changed between two data set versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from analysis.figures import Bar, BarChart
from analysis.results import Fact, Report, Table, Verdict, View

_MOST = 12


def with_comparison(now: Report, before: Report) -> Report:
    """Add a view that says what changed from `before` to `now`, as the first one after the memo's five."""
    views = list(now.views)
    place = max((i for i, view in enumerate(views) if view.memo), default=-1) + 1
    return dataclasses.replace(now, views=(*views[:place], compare(now, before), *views[place:]))


def compare(now: Report, before: Report) -> View:
    """Verdicts, numbers and shares side by side; the largest changes of share as a chart."""
    old = {view.key: view for view in before.views}
    pairs = [(view, old[view.key]) for view in now.views if view.key in old]
    verdicts = tuple((v.title, o.verdict.word, v.verdict.word) for v, o in pairs)
    worse = [v.title for v, o in pairs if v.verdict.rank > o.verdict.rank and o.verdict is not Verdict.UNKNOWN]
    better = [v.title for v, o in pairs if v.verdict.rank < o.verdict.rank and v.verdict is not Verdict.UNKNOWN]
    numbers = [("会話", f"{before.n:,}", f"{now.n:,}", f"{now.n - before.n:+,}")]
    numbers += [row for label, key, path, form in _NUMBERS if (row := _row(label, old, now, key, path, form))]
    changes = sorted(_changes(now, before), key=lambda c: (-abs(c[2] - c[1]), c[0]))[:_MOST]
    bars = tuple(
        Bar(label, round(100 * after, 2), target=round(100 * first, 2), note=f"前は{100 * first:.1f}%")
        for label, first, after in changes
    )
    name = before.version or "前の版"
    chart = BarChart(
        "changes",
        "割合が大きく変わったもの（棒は今、縦線は前）",
        "前の版から割合が大きく変わったもの。"
        + "、".join(f"{c[0]} {100 * c[1]:.1f}%→{100 * c[2]:.1f}%" for c in changes[:5]),
        bars,
        unit="%",
        mark="前",
    )
    parts = [f"悪くなった: {'、'.join(worse)}"] if worse else []
    parts += [f"よくなった: {'、'.join(better)}"] if better else []
    return View(
        "comparison",
        "前の版からの変化",
        is_now=f"{name}（{before.n:,}件）から{now.n - before.n:+,}件。" + ("。".join(parts) or "判定は変わらない"),
        facts=(
            Fact(
                f"判定が悪くなった観点は{len(worse)}。",
                Verdict.WATCH if worse else Verdict.OK,
                f"前の版より悪くなった: {'、'.join(worse)}。" if worse else "",
            ),
        ),
        figures=(chart,) if bars else (),
        tables=(
            Table("判定の変化", ("観点", "前", "今"), verdicts),
            Table("数値の変化", ("", "前", "今", "差"), tuple(numbers)),
        ),
        numbers={"before": before.version, "n_before": before.n, "worse": worse, "better": better},
    )


_NUMBERS = (
    ("ジャンルの実効数", "genre", ("effective",), ".2f"),
    ("組の実効数", "pairs", ("effective",), ".2f"),
    ("ターン数の計画からの距離", "turns", ("distance",), ".2f"),
    ("1ターンの平均文字数", "length", ("mean",), ".1f"),
    ("意味の実効数（100件あたり）", "meaning", ("vendi_per_100",), ".1f"),
    ("ジャンル × 親密さの補正V", "association", ("genre_closeness", "v_corrected"), ".3f"),
    ("ジャンル × 機嫌の補正V", "association", ("genre_mood", "v_corrected"), ".3f"),
    ("ほぼ同じ会話の組", "duplicates", ("pairs", "jaccard"), ".0f"),
    ("専門的な会話", "vocabulary", ("specialist",), ".0f"),
    ("読みやすさの中央値", "vocabulary", ("readability_median",), ".2f"),
)


def _row(
    label: str, old: Mapping[str, View], now: Report, key: str, path: tuple[str, ...], form: str
) -> tuple[str, str, str, str] | None:
    first, after = _value(old[key].numbers, path), _value(now.view(key).numbers, path)
    if first is None or after is None:
        return None
    return label, format(first, form), format(after, form), format(after - first, "+" + form)


def _value(numbers: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = numbers
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def _changes(now: Report, before: Report) -> list[tuple[str, float, float]]:
    found = []
    for key, prefix, suffix in (("genre", "", ""), ("pairs", "組", ""), ("turns", "", "ターン")):
        first, after = before.view(key).numbers.get("counts", {}), now.view(key).numbers.get("counts", {})
        total_first, total_after = max(1, sum(first.values())), max(1, sum(after.values()))
        for name in dict.fromkeys([*after, *first]):
            shares = first.get(name, 0) / total_first, after.get(name, 0) / total_after
            if shares[0] != shares[1]:
                found.append((f"{prefix}{name}{suffix}", *shares))
    return found
