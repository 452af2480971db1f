"""Pictures of training, as SVG that is the same for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_run(path: Path, metrics: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> None:
    """Draw training loss (nats per token) against optimiser steps, stages as bands, and the held-out loss."""
    figure, axes = _figure()
    for number, stage in enumerate(stages):
        axes.axvspan(stage["start"], stage["stop"], color=f"C{number % 10}", alpha=0.12, label=stage["name"])
    train = metrics["train_loss"]
    axes.plot([line["step"] for line in train], [line["loss"] for line in train], color="0.35", label="training")
    held_out = metrics["held_out_curve"]
    if held_out:
        steps = [0, *(line["step"] for line in held_out)]
        losses = [metrics["held_out_loss"]["before"], *(line["loss"] for line in held_out)]
        axes.plot(steps, losses, color="crimson", marker="o", markersize=3, label="held-out")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss, nats per token of Aku")
    axes.legend(fontsize="x-small")
    _save(figure, path)


def plot_curves(path: Path, curves: Mapping[str, Sequence[tuple[int, float]]], unit: str) -> None:
    """Draw one held-out curve per name: (step, loss) pairs."""
    figure, axes = _figure()
    for name, points in curves.items():
        axes.plot([step for step, _ in points], [loss for _, loss in points], marker="o", markersize=3, label=name)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"held-out loss, {unit}")
    axes.legend(fontsize="x-small")
    _save(figure, path)


def plot_intervals(path: Path, rows: Sequence[tuple[str, float, float, float]], unit: str) -> None:
    """Draw `(name, mean, low, high)` as points with intervals, one line each, zero marked."""
    figure, axes = _figure()
    for place, (_, mean, low, high) in enumerate(rows):
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color="C0", capsize=3)
    axes.axvline(0.0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    _save(figure, path)


def _figure() -> tuple[Any, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    """Write an SVG without date and with stable ids."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "aku"}), files.atomic_open(path, "wb") as handle:
        figure.savefig(handle, format="svg", metadata={"Date": None, "Creator": None})
