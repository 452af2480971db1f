"""Orders and bases side by side, on equal budgets, with intervals: did the curriculum earn its place?"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialogue import files
from dialogue.checkpoints import Checkpoint
from dialogue.errors import SettingsError
from exporters.sft.plots import plot_curves, plot_intervals
from exporters.sft.prepare import Prepared, check_disk, prepare, read_dataset
from exporters.sft.rows import make_rows
from exporters.sft.settings import Order, Stage, TrainSettings

Progress = Callable[[int, int, str], None]
REFERENCE = "shuffle"
"""The order that every other one has to beat."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One trained order: held-out loss (nats per token of Aku), the same by dialogue, and the curve on the way."""

    order: str
    seed: int
    loss: float
    by_dialogue: tuple[float, ...]
    curve: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference with its 95 % interval; negative: better than the reference."""

    name: str
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        if self.high < 0:
            return "earned its place: better than shuffling"
        return "does harm: shuffling is better" if self.low > 0 else "no difference seen: shuffling is as good"


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """All runs, the interval of every order against shuffling, and the folder with table, JSON and pictures."""

    runs: tuple[Run, ...]
    intervals: tuple[Interval, ...]
    folder: Path


def compare_orders(
    base: Path,
    dataset: Path,
    settings: TrainSettings,
    orders: Sequence[str],
    seeds: Sequence[int],
    *,
    work: Path,
    stages: Sequence[Stage] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Train every order with every seed on the same budget and compare held-out losses, paired by seed.

    `orders` are built-in names, or "stages" for the `[[stage]]` tables; shuffling is always among
    them.  No weights are kept.  A run that was finished before (killed comparison) is not repeated.
    Raises `SettingsError` without held-out dialogues or with fewer than two seeds, and what `train` raises.
    """
    if len(seeds) < 2:
        raise SettingsError("comparing orders needs at least two seeds: one run says nothing about chance.")
    wanted = list(dict.fromkeys([REFERENCE, *orders]))
    runs: list[Run] = []
    for place, (order, seed) in enumerate((order, seed) for seed in seeds for order in wanted):
        tables = stages if order == "stages" else ()
        builtin: Order = "shuffle" if order == "stages" else order  # type: ignore[assignment]  # checked by the settings
        changed = dataclasses.replace(settings, order=builtin, seed=seed)
        prepared = prepare(base, dataset, changed, tables)
        if prepared.held_out is None:
            raise SettingsError(f"{dataset}: has no validation.jsonl, so there is nothing to compare losses on.")
        total = len(wanted) * len(seeds)
        runs.append(_run(prepared, order, work, progress, f"run {place + 1}/{total}, {order}, seed {seed}: "))
    intervals = tuple(difference(runs, order) for order in wanted if order != REFERENCE)
    folder = work / f"orders-{dataset.name}"
    _write(folder, runs, intervals, seeds)
    return Comparison(tuple(runs), intervals, folder)


def difference(runs: Sequence[Run], order: str) -> Interval:
    """Mean held-out difference of an order to shuffling, with a 95 % interval for other seeds *and* other dialogues.

    With d[s, i] the paired difference for seed s and held-out dialogue i, the variance of its mean is
    bounded by var_s(mean_i d) / S + var_i(mean_s d) / n (both factors random, crossed; Searle,
    Casella & McCulloch 1992, ch. 4, where the interaction is counted twice, which errs on the safe
    side); Student's t with min(S, n) - 1 degrees of freedom.
    """
    from scipy.stats import t

    def table(name: str) -> NDArray[np.float64]:
        chosen = sorted((run for run in runs if run.order == name), key=lambda run: run.seed)
        return np.array([run.by_dialogue for run in chosen])

    d = table(order) - table(REFERENCE)
    seeds, dialogues = d.shape
    variance = float(np.var(d.mean(axis=1), ddof=1)) / seeds
    if dialogues > 1:
        variance += float(np.var(d.mean(axis=0), ddof=1)) / dialogues
    freedom = min(seeds, max(dialogues, 2)) - 1
    half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    mean = float(d.mean())
    return Interval(order, mean, mean - half, mean + half)


def paired_interval(a: Sequence[float], b: Sequence[float], name: str, *, draws: int = 4000) -> Interval:
    """95 % percentile bootstrap over dialogues of the mean of `a - b` (Efron & Tibshirani 1993, ch. 13)."""
    d = np.asarray(a) - np.asarray(b)
    chance = np.random.default_rng(0)
    means = d[chance.integers(0, len(d), (draws, len(d)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(name, float(d.mean()), float(low), float(high))


def _run(prepared: Prepared, order: str, work: Path, progress: Progress | None, lead: str) -> Run:
    folder = work / prepared.key
    saved = folder / "held_out.json"
    if not saved.exists():
        from exporters.sft.evaluate import dialogue_losses
        from exporters.sft.fit import make_trainer
        from exporters.sft.trainer import last_complete

        check_disk(work, work, prepared.base.parameters, prepared.settings.method)

        def show(done: int, total: int, note: str) -> None:
            if progress is not None:
                progress(done, total, lead + note)

        trainer = make_trainer(prepared, folder, show)
        state = last_complete(folder, prepared.key)
        trainer.train(resume_from_checkpoint=str(state) if state else None)
        losses = dialogue_losses(trainer.model, prepared.held_out.rows if prepared.held_out else ())
        curve = [[line["step"], line["eval_loss"]] for line in trainer.state.log_history if "eval_loss" in line]
        files.write_json(saved, {"by_dialogue": losses, "curve": curve})
        for path in folder.glob("checkpoint-*"):
            shutil.rmtree(path)
    value: dict[str, Any] = files.read_json(saved)
    losses = value["by_dialogue"]
    points = tuple((int(step), float(loss)) for step, loss in value["curve"])
    return Run(order, prepared.settings.seed, float(np.mean(losses)), tuple(losses), points)


def _write(folder: Path, runs: Sequence[Run], intervals: Sequence[Interval], seeds: Sequence[int]) -> None:
    """Write `orders.json`, a picture of the curves (mean over seeds) and one of the intervals."""
    value = {
        "seeds": list(seeds),
        "runs": [dataclasses.asdict(run) for run in runs],
        "intervals": [{**dataclasses.asdict(i), "verdict": i.verdict} for i in intervals],
    }
    files.write_json(folder / "orders.json", value)
    orders = list(dict.fromkeys(run.order for run in runs))
    curves = {order: mean_curve([run.curve for run in runs if run.order == order]) for order in orders}
    plot_curves(folder / "curves.svg", curves, "nats per token of Aku")
    rows = [(i.name, i.mean, i.low, i.high) for i in intervals]
    plot_intervals(folder / "intervals.svg", rows, "held-out loss minus that of shuffling, nats per token")


def mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Average curves of several seeds over the steps that all of them have."""
    shared = set.intersection(*({step for step, _ in curve} for curve in curves))
    by_step = {step: [loss for curve in curves for s, loss in curve if s == step] for step in sorted(shared)}
    return [(step, sum(losses) / len(losses)) for step, losses in by_step.items()]


@dataclasses.dataclass(frozen=True, slots=True)
class BaseResult:
    """One base after training: held-out loss in nats per *character* of Aku, comparable across tokenizers."""

    base: str
    checkpoint: str
    parameters: int
    before: float
    after: float
    by_dialogue: tuple[float, ...]
    curve: tuple[tuple[int, float], ...]


def base_result(checkpoint: Checkpoint, dataset: Path) -> BaseResult:
    """Read one base's figures from its checkpoint; losses by dialogue are computed from the saved weights.

    Raises `SettingsError` without held-out dialogues.
    """
    from exporters.sft.dpo import load_checkpoint
    from exporters.sft.evaluate import dialogue_losses

    metrics = checkpoint.card["metrics"]
    if not metrics.get("held_out_per_character"):
        raise SettingsError(f"{dataset}: has no held-out dialogues, so bases can not be compared.")
    model, tokenizer = load_checkpoint(checkpoint)
    rows = make_rows(
        read_dataset(dataset).validation,
        tokenizer,
        checkpoint.format,
        max_length=checkpoint.card["resolved"]["max_length"],
        too_long=checkpoint.card["settings"]["too_long"],
        where=f"{dataset}/validation.jsonl",
    ).rows
    losses = dialogue_losses(model, rows)
    scale = metrics["held_out_per_character"]["after"] / metrics["held_out_loss"]["after"]
    return BaseResult(
        checkpoint.card["base_name"],
        checkpoint.id,
        checkpoint.card["parameters"],
        metrics["held_out_per_character"]["before"],
        metrics["held_out_per_character"]["after"],
        tuple(loss * row.trained / row.characters for loss, row in zip(losses, rows, strict=True)),
        tuple((line["step"], line["loss"] * scale) for line in metrics["held_out_curve"]),
    )


def compare_bases(results: Sequence[BaseResult], folder: Path) -> tuple[BaseResult, tuple[Interval, ...]]:
    """Return the base with the lowest held-out loss, and how the others differ from it; writes JSON and pictures.

    Held-out dialogues are the same for all, so differences are paired by dialogue (bootstrap).
    """
    best = min(results, key=lambda result: (result.after, result.checkpoint))
    others = [result for result in results if result is not best]
    intervals = tuple(paired_interval(o.by_dialogue, best.by_dialogue, f"{o.base} ({o.checkpoint})") for o in others)
    value = {
        "kept": best.checkpoint,
        "bases": [dataclasses.asdict(result) for result in results],
        "differences_to_kept": [dataclasses.asdict(interval) for interval in intervals],
    }
    files.write_json(folder / "bases.json", value)
    curves = {f"{r.base} ({r.checkpoint})": [(0, r.before), *r.curve] for r in results}
    plot_curves(folder / "bases.svg", curves, "nats per character of Aku")
    return best, intervals
