"""Tables that say in numbers what a figure shows: for reading, copying, and for those who do not see the figure."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.figures import LineChart, SpreadChart
from analysis.results import Table
from analysis.statistics import Fit


def fit_table(title: str, name: str, labels: Sequence[str], counts: Sequence[int], fit: Fit) -> Table:
    """Counts, targets, the band of chance (95 % for all rows at once) and standardised residuals."""
    rows = tuple(
        (
            label,
            str(int(counts[i])),
            f"{fit.expected[i]:.1f}",
            f"{fit.low[i]:.1f}〜{fit.high[i]:.1f}",
            f"{fit.residuals[i]:+.1f}",
        )
        for i, label in enumerate(labels)
    )
    note = "偶然の幅は、計画どおりに書いても、すべての行が同時に95%の確からしさで収まる範囲。残差は標準化したもの。"
    return Table(title, (name, "いま", "目標", "偶然の幅", "残差"), rows, note=note)


def spread_table(chart: SpreadChart, name: str) -> Table:
    """The quantiles of a chart of ranges."""
    rows = tuple((s.label, s.group, str(s.n), *(f"{q:.0f}" for q in s.quantiles)) for s in chart.spreads)
    columns = (name, "話者", "数", "10%点", "25%点", "中央値", "75%点", "90%点")
    return Table(f"{chart.title}（{chart.unit}）", columns, rows)


def line_table(chart: LineChart) -> Table:
    """The values of a line chart, the latest step first; at most a hundred steps."""
    last = len(chart.steps)
    rows = tuple(
        (chart.steps[i], *(f"{line.values[i]:,.0f}" for line in chart.lines))
        for i in range(last - 1, max(-1, last - 101), -1)
    )
    return Table(chart.title, ("時期", *(line.name for line in chart.lines)), rows)
