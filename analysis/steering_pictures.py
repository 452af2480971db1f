"""The control matrix as a heat map: what was asked for against what is heard, over the 25 pairs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from analysis.fonts import font_file
from analysis.judge_features import Floats
from analysis.steering import Steering
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING


def control_png(found: Steering) -> bytes:
    """Draw three panels: mean heard closeness and mood by wanted pair, and the 25 × 25 confusion of pairs.

    The bytes depend on the figures alone.
    """
    import matplotlib as mpl
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    font_manager.fontManager.addfont(str(font_file()))
    family = font_manager.FontProperties(fname=str(font_file())).get_name()
    with mpl.rc_context({"font.family": family, "text.color": "#23262d", "font.size": 10}):
        figure = Figure(figsize=(11, 13), layout="constrained")
        FigureCanvasAgg(figure)
        panels: dict[str, Any] = figure.subplot_mosaic(
            [["closeness", "mood"], ["pairs", "pairs"]], height_ratios=(1, 1.7)
        )
        _levels(panels["closeness"], found.mean_closeness, "聞こえた親密さの平均（縦にだけ変わるのがよい）")
        _levels(panels["mood"], found.mean_mood, "聞こえた機嫌の平均（横にだけ変わるのがよい）")
        _confusion(panels["pairs"], found)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _levels(axes: Any, means: Floats, title: str) -> None:
    axes.imshow(means, cmap="RdYlBu_r", vmin=0, vmax=4)
    for row, column in np.ndindex(5, 5):
        value = means[row, column]
        axes.text(column, row, "–" if np.isnan(value) else f"{value:.1f}", ha="center", va="center")
    axes.set_title(title, fontsize=11)
    axes.set_xticks(range(5), [f"{i} {name}" for i, name in enumerate(MOOD_MEANING)], rotation=30, ha="right")
    axes.set_yticks(range(5), [f"{i} {name}" for i, name in enumerate(CLOSENESS_MEANING)])
    axes.set_xlabel("頼んだ機嫌")
    axes.set_ylabel("頼んだ親密さ")


def _confusion(axes: Any, found: Steering) -> None:
    shares = found.matrix / np.maximum(found.matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=max(0.2, float(shares.max())))
    for border in range(5, 25, 5):
        axes.axhline(border - 0.5, color="#b9bec7", linewidth=0.8)
        axes.axvline(border - 0.5, color="#b9bec7", linewidth=0.8)
    names = [f"{c}・{m}" for c in range(5) for m in range(5)]
    axes.set_xticks(range(25), names, fontsize=8, rotation=90)
    axes.set_yticks(range(25), names, fontsize=8)
    axes.set_title(f"25ペアの対応（親密さ・機嫌、{int(found.matrix.sum())}応答、対角線が正解）", fontsize=11)
    axes.set_xlabel("聞こえたペア")
    axes.set_ylabel("頼んだペア")
