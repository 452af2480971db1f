"""A training run from a base and a data set version to a registered checkpoint."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue import files
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import FileError, SettingsError
from dialogue.records import Dialogue, read_dialogues
from exporters.sft import base as bases
from exporters.sft.card import model_card
from exporters.sft.plan import Plan, builtin_plan, staged_plan
from exporters.sft.rows import Rows, make_rows
from exporters.sft.settings import Stage, TrainSettings

if TYPE_CHECKING:
    from exporters.sft.base import Base

Progress = Callable[[int, int, str], None]
_SMALL = 20_000_000
_LARGE = 100_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """A data set version: its name, the hash of its files, the dialogues to train on and the held-out ones."""

    name: str
    hash: str
    train: tuple[Dialogue, ...]
    validation: tuple[Dialogue, ...]


def read_dataset(folder: Path) -> Dataset:
    """Read `train.jsonl` and, if there and not empty, `validation.jsonl` of a version folder.

    Raises `FileError` or `RecordError` naming the file and record.
    """
    if not (folder / "train.jsonl").is_file():
        raise FileError(f"{folder}: holds no train.jsonl; name a data set version, or run `aku export`.")
    train = read_dialogues(folder / "train.jsonl")
    held_out = folder / "validation.jsonl"
    validation = read_dialogues(held_out) if held_out.exists() and held_out.stat().st_size else []
    digest = hashlib.sha256()
    for dialogue in (*train, None, *validation):
        digest.update(json.dumps(dialogue.to_dict() if dialogue else None, sort_keys=True).encode())
    return Dataset(folder.name, digest.hexdigest()[:16], tuple(train), tuple(validation))


@dataclasses.dataclass(frozen=True, slots=True)
class Resolved:
    """Settings with every "automatic" replaced by the value used for this base."""

    epochs: float
    batch_size: int
    learning_rate: float
    patience: int
    bf16: bool
    micro_batch: int
    max_length: int


def resolve(settings: TrainSettings, base: Base, world: int = 1) -> Resolved:
    """Choose what was left to the program, from the number of parameters and the machine.

    Learning rates: 2e-5 at 300M parameters and more, 1e-4 from 20M, 2e-3 below; ten times that for LoRA.
    Raises `SettingsError` if the batch does not divide over the processes.
    """
    small = base.parameters < _SMALL
    rate = 2e-3 if small else 1e-4 if base.parameters < 3 * _LARGE else 2e-5
    if settings.method == "lora":
        rate = min(10 * rate, 5e-3)
    batch = settings.batch_size or (4 if small else 8)
    if batch % world:
        raise SettingsError(f"batch_size {batch} does not divide over {world} processes; set it in [train].")
    share = batch // world
    micro = max(m for m in range(1, share + 1) if share % m == 0 and m <= settings.micro_batch)
    return Resolved(
        epochs=settings.epochs or (14.0 if small else 3.0),
        batch_size=batch,
        learning_rate=settings.learning_rate or rate,
        patience=settings.patience if settings.patience >= 0 else (0 if small else 3),
        bf16=settings.precision == "bf16"
        or (settings.precision == "auto" and base.parameters >= _LARGE and fast_bf16()),
        micro_batch=micro,
        max_length=min(settings.max_length or base.context, base.context),
    )


def fast_bf16() -> bool:
    """Whether this machine multiplies bf16 matrices faster than fp32: a GPU from Ampere on, AMX or AVX512-BF16."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists():
        return False
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("flags", 1)[-1].split("\n", 1)[0].split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def make_plan(
    dataset: Dataset,
    rows: Rows,
    base: Base,
    settings: TrainSettings,
    stages: Sequence[Stage],
    resolved: Resolved,
) -> Plan:
    """Compile the curriculum for these rows."""
    wanted = {row.dialogue for row in rows.rows}
    dialogues = [d for d in dataset.train if d.id in wanted]
    lengths = [len(row.ids) for row in rows.rows]
    if stages:
        losses = None
        if any(stage.by_difficulty for stage in stages):
            from exporters.sft.evaluate import dialogue_losses

            losses = dialogue_losses(base.model, rows.rows)
        return staged_plan(
            dialogues,
            lengths,
            stages,
            losses=losses,
            batch_size=resolved.batch_size,
            attribute_dropout=settings.attribute_dropout,
            seed=settings.seed,
        )
    return builtin_plan(
        dialogues,
        lengths,
        settings.order,
        epochs=resolved.epochs,
        batch_size=resolved.batch_size,
        stages=settings.stages,
        replay=settings.replay,
        attribute_dropout=settings.attribute_dropout,
        seed=settings.seed,
    )


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
    states are removed, its TensorBoard log stays.

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
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    bases.check_base(base)
    data = read_dataset(dataset)
    loaded = bases.load_base(base, settings)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    resolved = resolve(settings, loaded, world)
    rows = _rows(data.train, loaded, settings, resolved, f"{dataset}/train.jsonl")
    held_out = (
        _rows(data.validation, loaded, settings, resolved, f"{dataset}/validation.jsonl") if data.validation else None
    )
    plan = make_plan(data, rows, loaded, settings, stages, resolved)
    digest = bases.base_hash(base)
    key = run_key(digest, data.hash, settings, resolved, plan)
    check_disk(work, registry.root, loaded.parameters)
    from exporters.sft.fit import fit

    result = fit(loaded, rows, held_out, plan, settings, resolved, folder=work / key, run_key=key, progress=progress)
    card = {
        "base": str(base.resolve()),
        "base_name": base.resolve().name,
        "base_hash": digest,
        "dataset": data.name,
        "dataset_hash": data.hash,
        "dialogues": {"train": len(data.train), "held_out": len(data.validation)},
        "left_out": {reason: len(ids) for reason, ids in rows.left_out.items()},
        "format": loaded.format,
        "method": settings.method,
        "generation": {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_new_tokens": settings.max_new_tokens,
        },
        "order": plan.order,
        "plan": plan.hash,
        "stages": [dataclasses.asdict(stage) for stage in plan.stages],
        "settings": dataclasses.asdict(settings),
        "resolved": dataclasses.asdict(resolved),
        "metrics": result,
        "demo": loaded.demo,
        "parameters": loaded.parameters,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
    }
    return _register(registry, work / key, plan, card, loaded)


def _rows(dialogues: Sequence[Dialogue], base: Base, settings: TrainSettings, resolved: Resolved, where: str) -> Rows:
    return make_rows(
        dialogues,
        base.tokenizer,
        base.format,
        max_length=resolved.max_length,
        too_long=settings.too_long,
        where=where,
    )


def _register(registry: Registry, run: Path, plan: Plan, card: dict[str, Any], base: Base) -> Checkpoint:
    """Write template, plan and card beside the weights, and hand the folder to the registry."""
    final = run / "final"
    files.write_json(final / "training" / "plan.json", plan.to_dict())
    with files.atomic_open(final / "README.md") as handle:
        handle.write(model_card(card))
    checkpoint = registry.add(final, card)
    shutil.rmtree(final)
    for path in run.glob("checkpoint-*"):
        shutil.rmtree(path)
    return checkpoint


def run_key(base: str, data: str, settings: TrainSettings, resolved: Resolved, plan: Plan) -> str:
    """Name of a run: a hash of all that decides its outcome, so that a resumed run can only be the same run."""
    value = [base, data, dataclasses.asdict(settings), dataclasses.asdict(resolved), plan.hash]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def check_disk(work: Path, registry: Path, parameters: int) -> None:
    """Refuse to begin when the states of a run would not fit; raises `FileError`.

    Two resumable states (weights and two AdamW moments, 12 bytes a parameter each) in `work`, then
    the finished weights (4 bytes a parameter) there and in the registry.
    """
    for folder, needed in ((work, 28 * parameters), (registry, 4 * parameters)):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise FileError(
                f"{folder}: training needs about {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free; "
                "free some space before hours are spent."
            )


def git_commit() -> str | None:
    """Commit of the studio's own source tree, or None outside a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
