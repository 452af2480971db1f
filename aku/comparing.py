"""What `aku train` prints when it compares: orders against shuffling, bases side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aku.console import console, progress_bar
from dialogue import Checkpoint, FileError, RecordError, files
from dialogue.settings import Workspace
from exporters.sft.settings import ORDERS, TrainSettings, load_stages


def compare_orders(workspace: Workspace, base: Path, data: Path, settings: TrainSettings, seeds: int) -> None:
    """Train every order with every seed, print table and verdict."""
    from rich.table import Table

    from exporters.sft.compare import compare_orders as compare

    stages = load_stages(workspace.settings)
    orders = [*ORDERS, "stages"] if stages else list(ORDERS)
    with progress_bar() as bar:
        row = bar.add_task("compare orders", total=None)
        result = compare(
            base,
            data,
            settings,
            orders,
            range(settings.seed, settings.seed + seeds),
            work=workspace.home / "runs",
            stages=stages,
            progress=lambda done, total, note: bar.update(row, completed=done, total=total, description=note),
        )
    table = Table("order", "held-out loss by seed", "mean", "against shuffling, 95 % interval", "verdict")
    intervals = {interval.name: interval for interval in result.intervals}
    for order in dict.fromkeys(run.order for run in result.runs):
        losses = [run.loss for run in result.runs if run.order == order]
        values = (" ".join(f"{loss:.3f}" for loss in losses), f"{sum(losses) / len(losses):.3f}")
        if order in intervals:
            i = intervals[order]
            table.add_row(order, *values, f"{i.mean:+.3f} [{i.low:+.3f}, {i.high:+.3f}]", i.verdict)
        else:
            table.add_row(order, *values, "", "the reference")
    console.print(table)
    console.print(f"Nats per token of Aku, mean over dialogues; pictures and numbers: {result.folder}", soft_wrap=True)


def compare_bases(workspace: Workspace, checkpoints: Sequence[Checkpoint], data: Path) -> Checkpoint:
    """Print bases side by side and return the checkpoint that is kept."""
    from rich.table import Table

    from exporters.sft.compare import base_result
    from exporters.sft.compare import compare_bases as compare

    results = [base_result(checkpoint, data) for checkpoint in checkpoints]
    folder = workspace.home / "runs" / f"bases-{data.name}"
    best, intervals = compare(results, folder)
    steering = {checkpoint.id: _steering(workspace, checkpoint) for checkpoint in checkpoints}
    table = Table("base", "checkpoint", "parameters", "before", "after", "steering (Spearman)", "")
    for result in results:
        kept = "kept" if result is best else ""
        cells = (f"{result.parameters / 1e6:.1f}M", f"{result.before:.3f}", f"{result.after:.3f}")
        table.add_row(result.base, result.checkpoint, *cells, steering[result.checkpoint]["text"], kept)
    console.print(table)
    console.print("Held-out loss in nats per character of Aku: comparable across tokenizers.")
    for interval in intervals:
        sure = "" if interval.low > 0 else " (the interval holds 0: the choice may be chance)"
        console.print(
            f"  {interval.name} is {interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] behind{sure}",
            markup=False,
        )
    facts = [{**dataclasses.asdict(result), "steering": steering[result.checkpoint]} for result in results]
    files.write_json(folder / "side_by_side.json", {"kept": best.checkpoint, "bases": facts})
    console.print(f"  numbers, picture and where the samples are: {folder}", soft_wrap=True, markup=False)
    return next(checkpoint for checkpoint in checkpoints if checkpoint.id == best.checkpoint)


def _steering(workspace: Workspace, checkpoint: Checkpoint) -> dict[str, Any]:
    """Evaluate a checkpoint as `aku evaluate` does; what can not be evaluated says why instead of stopping."""
    from aku.evaluation import evaluate

    try:
        folder = evaluate(workspace, checkpoint)
    except (FileError, RecordError) as error:
        return {"text": "not measured", "reason": str(error)}
    control = files.read_json(folder / "evaluation.json").get("steering")
    if control is None:
        return {"text": "not measured", "evaluation": str(folder)}
    shown = " / ".join(f"{control[name]['spearman']['value']:+.2f}" for name in ("closeness", "mood"))
    return {"text": shown, "evaluation": str(folder), "steering": control}
