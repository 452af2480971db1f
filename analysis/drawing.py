"""Figures as HTML: bars, grids and ranges are boxes that flow with the page, maps and lines are SVG."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from analysis.figures import BarChart, Figure, HeatGrid, LineChart, MapChart, SpreadChart

SafeJson = Callable[[object], str]


def draw(figure: Figure, safe_json: SafeJson) -> str:
    """Return the figure with caption and text alternative."""
    match figure:
        case BarChart():
            inner = _bars(figure)
        case HeatGrid():
            inner = _grid(figure)
        case SpreadChart():
            inner = _spreads(figure)
        case LineChart():
            inner = _lines(figure)
        case MapChart():
            return _map(figure, safe_json)
    return (
        f'<figure id="fig-{escape(figure.id)}"><figcaption>{escape(figure.title)}</figcaption>'
        f'<div class="plot" role="img" aria-label="{escape(figure.alt)}">{inner}</div></figure>'
    )


def _bars(chart: BarChart) -> str:
    reach = max([1.0, *(max(b.value, b.high or 0, b.target or 0) for b in chart.bars)])

    def at(value: float) -> str:
        return f"{100 * value / reach:.2f}%"

    rows = []
    for bar in chart.bars:
        band, tip = "", f"{bar.label}: {bar.value:g}{chart.unit}"
        if bar.target is not None:
            tip += f"（{chart.mark} {bar.target:.1f}"
        if bar.low is not None and bar.high is not None:
            band = f'<i class="band" style="left:{at(bar.low)};width:{at(bar.high - bar.low)}"></i>'
            tip += f"、偶然の幅 {bar.low:.1f}〜{bar.high:.1f}"
        tip += "）" if bar.target is not None else ""
        mark = f'<i class="target" style="left:{at(bar.target)}"></i>' if bar.target is not None else ""
        outside = " outside" if bar.outside else ""
        rows.append(
            f'<div class="bar{outside}" data-tip="{escape(tip)}"><span>{escape(bar.label)}</span>'
            f'<div>{band}<i class="value" style="width:{at(bar.value)}"></i>{mark}</div><b>{bar.value:g}</b></div>'
        )
    keys = ['<span><i class="k value"></i>いま</span>']
    if any(bar.target is not None for bar in chart.bars):
        keys.append(f'<span><i class="k target"></i>{escape(chart.mark)}</span>')
    if any(bar.low is not None for bar in chart.bars):
        keys.append('<span><i class="k band"></i>偶然の幅（95%）</span>')
    if any(bar.outside for bar in chart.bars):
        keys.append('<span><i class="k out"></i>偶然の幅の外</span>')
    legend = f'<p class="legend">{"".join(keys)}</p>' if len(keys) > 1 else ""
    return f'<div class="bars">{"".join(rows)}</div>{legend}'


def _grid(grid: HeatGrid) -> str:
    most = max([1, *(c for row in grid.counts for c in row)])
    head = "".join(f"<span class=head>{escape(name)}</span>" for name in grid.columns)
    cells = []
    for i, name in enumerate(grid.rows):
        cells.append(f'<span class="head side">{escape(name)}</span>')
        for j, count in enumerate(grid.counts[i]):
            residual, expected = grid.residuals[i][j], grid.expected[i][j]
            shade = round(count / most, 3)
            mark = " low" if residual <= -3 else " high" if residual >= 3 else ""
            tip = f"{name} × {grid.columns[j]}: {count}件（目標 {expected:.1f}、残差 {residual:+.1f}）"
            cells.append(
                f'<span class="cell{mark}" style="--s:{shade}" data-tip="{escape(tip)}">'
                f"<b>{count}</b><small>{residual:+.1f}</small></span>"
            )
    tight = " tight" if len(grid.rows) > 8 else ""
    return (
        f'<p class="axes">縦: {escape(grid.row_title)} ／ 横: {escape(grid.column_title)}'
        "（大きい数字は件数、小さい数字は残差）</p>"
        f'<div class="grid{tight}" style="--n:{len(grid.columns)}"><span></span>{head}{"".join(cells)}</div>'
    )


def _spreads(chart: SpreadChart) -> str:
    reach = max([1.0, *(s.quantiles[4] for s in chart.spreads)])

    def at(value: float) -> str:
        return f"{100 * min(value, reach) / reach:.2f}%"

    band = ""
    if chart.low is not None and chart.high is not None:
        width = 100 * (min(chart.high, reach) - min(chart.low, reach)) / reach
        band = f'<i class="band" style="left:{at(chart.low)};width:{width:.2f}%"></i>'
    rows = []
    for s in chart.spreads:
        q = s.quantiles
        tip = f"{s.label}（{s.group}、{s.n}）: 中央値 {q[2]:.0f}{chart.unit}、10%点 {q[0]:.0f}、90%点 {q[4]:.0f}"
        rows.append(
            f'<div class="bar spread {escape(s.group.lower())}" data-tip="{escape(tip)}">'
            f"<span>{escape(s.label)}</span><div>{band}"
            f'<i class="thin" style="left:{at(q[0])};width:{100 * (q[4] - q[0]) / reach:.2f}%"></i>'
            f'<i class="thick" style="left:{at(q[1])};width:{100 * (q[3] - q[1]) / reach:.2f}%"></i>'
            f'<i class="median" style="left:{at(q[2])}"></i></div><b>{q[2]:.0f}</b></div>'
        )
    marks = "".join(f'<u style="left:{25 * k}%">{reach * k / 4:.0f}</u>' for k in range(5))
    rows.append(
        f'<div class="bar scale" aria-hidden="true"><span>{escape(chart.unit)}</span><div>{marks}</div><b></b></div>'
    )
    groups = {s.group for s in chart.spreads}
    keys = "".join(f'<span><i class="k {g.lower()}"></i>{g}</span>' for g in ("User", "Aku") if g in groups)
    keys += '<span><i class="k band"></i>平均の目標の幅</span>' if band else ""
    legend = f'<p class="legend">{keys}太い帯は中央の半分、細い線は10〜90%、数字は中央値</p>'
    return f'<div class="bars">{"".join(rows)}</div>{legend}'


def _lines(chart: LineChart) -> str:
    reach = max([1.0, chart.goal or 0, *(v for line in chart.lines for v in line.values)])
    count = max(1, len(chart.steps) - 1)

    def place(i: int, value: float) -> str:
        return f"{100 * i / count:.2f},{60 - 58 * value / reach:.2f}"

    paths = "".join(
        f'<polyline class="line c{k}" points="{" ".join(place(i, v) for i, v in enumerate(line.values))}"/>'
        for k, line in enumerate(chart.lines)
    )
    goal = ""
    if chart.goal is not None:
        height = f"{60 - 58 * chart.goal / reach:.2f}"
        goal = f'<line class="goal" x1="0" x2="100" y1="{height}" y2="{height}"/>'
    names = "".join(
        f'<span><i class="k c{k}"></i>{escape(line.name)} {line.values[-1]:,.0f}{escape(chart.unit)}</span>'
        for k, line in enumerate(chart.lines)
    )
    names += f"<span>┄ 目標 {chart.goal:,.0f}{escape(chart.unit)}</span>" if chart.goal is not None else ""
    ends = f"<span>{escape(chart.steps[0])}</span><span>{escape(chart.steps[-1])}</span>" if chart.steps else ""
    return (
        f'<svg class="lines" viewBox="0 0 100 62" preserveAspectRatio="none" aria-hidden="true">{goal}{paths}</svg>'
        f'<p class="ends">{ends}</p><p class="legend">{names}</p>'
    )


def _map(chart: MapChart, safe_json: SafeJson) -> str:
    points = "".join(
        f'<circle cx="{1000 * x:.1f}" cy="{1000 * (1 - y):.1f}" r="6" data-i="{i}"/>'
        for i, (x, y) in enumerate(zip(chart.x, chart.y, strict=True))
    )
    labels = "".join(
        f'<span style="left:{100 * a.x:.1f}%;top:{100 * (1 - a.y):.1f}%">{escape("・".join(a.words))}</span>'
        for a in chart.areas
        if a.words
    )
    shades = _shades(chart)
    options = "".join(f'<option value="{escape(c.key)}">{escape(c.title)}</option>' for c in chart.colorings)
    data = {
        "ids": chart.ids,
        "heads": chart.heads,
        "texts": chart.texts,
        "colorings": {
            c.key: {"groups": c.groups, "codes": c.codes, "ordered": c.ordered, "title": c.title}
            for c in chart.colorings
        },
    }
    return (
        f'<figure id="fig-{escape(chart.id)}" class="map"><figcaption>{escape(chart.title)}'
        f'<label>色分け <select class="color-by">{options}</select></label></figcaption>'
        f'<div class="plot" role="img" aria-label="{escape(chart.alt)}"><svg viewBox="0 0 1000 1000" '
        f'aria-hidden="true">{shades}{points}</svg><div class="areas" aria-hidden="true">{labels}</div></div>'
        f'<p class="legend map-legend"></p><script type="application/json">{safe_json(data)}</script></figure>'
    )


def _shades(chart: MapChart) -> str:
    if not chart.density:
        return ""
    size, most = 1000 / chart.cells, max(chart.density)
    cells = (
        f'<rect x="{size * (k % chart.cells):.1f}" y="{1000 - size * (k // chart.cells + 1):.1f}" width="{size:.1f}" '
        f'height="{size:.1f}" opacity="{0.35 * (count / most) ** 0.5:.2f}"/>'
        for k, count in enumerate(chart.density)
        if count
    )
    return f'<g class="shades">{"".join(cells)}</g>'
