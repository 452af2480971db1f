"""A training run from a base and a data set version to a registered checkpoint."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dialogue import files
from dialogue.checkpoints import Checkpoint, Registry
from exporters.sft.card import model_card
from exporters.sft.plots import plot_run
from exporters.sft.prepare import Prepared, check_disk, full_disk_in_words, is_main_process, prepare
from exporters.sft.settings import Stage, TrainSettings

Progress = Callable[[int, int, str], None]


def train(
    base: Path,
    dataset: Path,
    registry: Registry,
    settings: TrainSettings,
    *,
    work: Path,
    stages: Sequence[Stage] = (),
    progress: Progress | None = None,
) -> Checkpoint:
    """Fine-tune `base` on a data set version and register the checkpoint.

    The run lives in a folder of `work` named after everything that decides its outcome; the same
    call after a kill goes on where it stopped, to the same weights.  A finished run's trainer
    states are removed, its TensorBoard log stays.  The same call after the end returns the checkpoint.

    Args:
        base: Hugging Face directory of a causal LM.
        dataset: Folder with `train.jsonl` and `validation.jsonl`.
        registry: Where the checkpoint goes.
        settings: Section `[train]`.
        work: Folder for runs, usually `<workspace>/runs`.
        stages: `[[stage]]` tables; empty: the built-in order of `settings`.
        progress: Called with optimiser steps done, all steps, and a line to show.

    Raises:
        CheckpointError: The base can not be trained, or the loader left the plan.
        RecordError: A dialogue is too long or would not be trained properly.
        SettingsError: Settings that do not fit together or the data.
        FileError: A file is missing or broken, or the disk is too small.
    """
    prepared = prepare(base, dataset, settings, stages)
    run = work / prepared.key
    if (done := finished(registry, run)) is not None:
        return done
    check_disk(work, registry.root, prepared.base.parameters, settings.method)
    from exporters.sft.fit import fit, wait_for_everyone

    with full_disk_in_words(work):
        metrics = fit(prepared, run, progress)
        card = make_card(prepared, metrics)
        if is_main_process():
            register(registry, run, card, prepared.plan.to_dict())
    wait_for_everyone()
    return registry.get(str(files.read_json(run / "checkpoint.json")["id"]))


def finished(registry: Registry, run: Path) -> Checkpoint | None:
    """Return the checkpoint that this very run ended in before, if it still is in the registry."""
    if not (run / "checkpoint.json").exists():
        return None
    checkpoint_id = str(files.read_json(run / "checkpoint.json")["id"])
    return next((checkpoint for checkpoint in registry if checkpoint.id == checkpoint_id), None)


def make_card(prepared: Prepared, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what `aku.json` says of a run."""
    base, settings, data = prepared.base, prepared.settings, prepared.data
    return {
        "base": str(base.path),
        "base_name": base.path.name,
        "base_hash": prepared.base_hash,
        "dataset": data.name,
        "dataset_hash": data.hash,
        "dialogues": {"train": len(data.train), "held_out": len(data.validation)},
        "left_out": {reason: len(ids) for reason, ids in prepared.rows.left_out.items()},
        "format": base.format,
        "method": settings.method,
        "generation": {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_new_tokens": settings.max_new_tokens,
        },
        "order": prepared.plan.order,
        "plan": prepared.plan.hash,
        "stages": [dataclasses.asdict(stage) for stage in prepared.plan.stages],
        "settings": dataclasses.asdict(settings),
        "resolved": dataclasses.asdict(prepared.resolved),
        "metrics": metrics,
        "demo": base.demo,
        "parameters": base.parameters,
        "new_tokens": list(base.new_tokens),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
    }


def register(registry: Registry, run: Path, card: dict[str, Any], plan: dict[str, Any]) -> Checkpoint:
    """Put plan, log, picture and card beside the weights in `run/final`, and the folder into the registry."""
    final = run / "final"
    files.write_json(final / "training" / "plan.json", plan)
    files.write_jsonl(final / "training" / "log.jsonl", card["metrics"]["train_loss"])
    plot_run(final / "training" / "loss.svg", card["metrics"], card["stages"])
    with files.atomic_open(final / "README.md") as handle:
        handle.write(model_card(card))
    checkpoint = registry.add(final, card)
    files.write_json(run / "checkpoint.json", {"id": checkpoint.id})
    shutil.rmtree(final)
    for path in run.glob("checkpoint-*"):
        shutil.rmtree(path)
    return checkpoint


def git_commit() -> str | None:
    """Commit of the studio's own source tree, or None outside a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
