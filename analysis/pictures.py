"""Figures as PNG files, for slides and chats.  Same data as the page, drawn by matplotlib."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from analysis.figures import BarChart, Figure, HeatGrid, LineChart, MapChart, SpreadChart
from analysis.fonts import font_file

_ACCENT, _BAND, _FIX, _INK, _MUTED = "#37598f", "#e3e7ee", "#b3372f", "#23262d", "#6b7079"
_SPEAKER = {"User": "#4f7fc0", "Aku": "#c25c8a"}


def png(figure: Figure) -> bytes:
    """Draw a figure.  The bytes depend on the figure alone: no date, no window system."""
    import matplotlib as mpl
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    font_manager.fontManager.addfont(str(font_file()))
    family = font_manager.FontProperties(fname=str(font_file())).get_name()
    with mpl.rc_context({"font.family": family, "axes.edgecolor": _MUTED, "text.color": _INK, "font.size": 11}):
        canvas = Canvas(figsize=_size(figure), layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.subplots()
        axes.set_title(figure.title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        match figure:
            case BarChart():
                _bars(axes, figure)
            case HeatGrid():
                _grid(axes, figure)
            case SpreadChart():
                _spreads(axes, figure)
            case LineChart():
                _lines(axes, figure)
            case MapChart():
                _map(axes, figure)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _size(figure: Figure) -> tuple[float, float]:
    if isinstance(figure, BarChart):
        return 8, 1.2 + 0.32 * len(figure.bars)
    if isinstance(figure, SpreadChart):
        return 8, 1.2 + 0.32 * len(figure.spreads)
    if isinstance(figure, HeatGrid):
        return 1.8 + 1.4 * len(figure.columns), 1.4 + 0.7 * len(figure.rows)
    return (8, 4) if isinstance(figure, LineChart) else (8, 8)


def _short(label: str) -> str:
    """A label that leaves room for the plot; the page shows it whole."""
    return label if len(label) <= 24 else label[:23] + "…"


def _bars(axes: Any, chart: BarChart) -> None:
    rows = np.arange(len(chart.bars))
    for i, bar in enumerate(chart.bars):
        if bar.low is not None and bar.high is not None:
            axes.barh(i, bar.high - bar.low, left=bar.low, color=_BAND, height=0.9)
    axes.barh(
        rows, [b.value for b in chart.bars], color=[_FIX if b.outside else _ACCENT for b in chart.bars], height=0.5
    )
    for i, bar in enumerate(chart.bars):
        if bar.target is not None:
            axes.plot([bar.target, bar.target], [i - 0.45, i + 0.45], color=_INK, linewidth=1.5)
    axes.set_yticks(rows, [_short(b.label) for b in chart.bars])
    axes.invert_yaxis()
    axes.set_xlabel(chart.unit)


def _grid(axes: Any, grid: HeatGrid) -> None:
    counts = np.array(grid.counts)
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, counts.max() * 1.4), aspect="auto")
    for i, j in np.ndindex(*counts.shape):
        axes.text(j, i, f"{counts[i, j]}\n{grid.residuals[i][j]:+.1f}", ha="center", va="center", fontsize=10)
    axes.set_xticks(range(len(grid.columns)), grid.columns)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.set_xlabel(grid.column_title)
    axes.set_ylabel(grid.row_title)


def _spreads(axes: Any, chart: SpreadChart) -> None:
    if chart.low is not None and chart.high is not None:
        axes.axvspan(chart.low, chart.high, color=_BAND)
    for i, spread in enumerate(chart.spreads):
        q, color = spread.quantiles, _SPEAKER.get(spread.group, _ACCENT)
        axes.plot([q[0], q[4]], [i, i], color=color, linewidth=1.5)
        axes.plot([q[1], q[3]], [i, i], color=color, linewidth=7, alpha=0.6, solid_capstyle="butt")
        axes.plot([q[2]], [i], "|", color=color, markersize=13, markeredgewidth=2.5)
    axes.set_yticks(range(len(chart.spreads)), [f"{_short(s.label)}（{s.group}）" for s in chart.spreads])
    axes.invert_yaxis()
    axes.set_xlabel(chart.unit)


def _lines(axes: Any, chart: LineChart) -> None:
    for line in chart.lines:
        axes.plot(range(len(line.values)), line.values, label=line.name, marker="o", markersize=3)
    if chart.goal is not None:
        axes.axhline(chart.goal, color=_MUTED, linestyle="--", linewidth=1)
    places = np.unique(np.linspace(0, max(0, len(chart.steps) - 1), 8).astype(int))
    axes.set_xticks(places, [chart.steps[i] for i in places])
    axes.set_ylabel(chart.unit)
    axes.legend(frameon=False)


def _map(axes: Any, chart: MapChart) -> None:
    coloring = chart.colorings[0]
    axes.scatter(chart.x, chart.y, c=coloring.codes, cmap="tab20", s=14, linewidths=0)
    for area in chart.areas:
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
        axes.text(area.x, area.y, "・".join(area.words), ha="center", va="center", fontsize=9, bbox=box)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
