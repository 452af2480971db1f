"""Everything of a run that is settled before a single step: data, model, rows, plan, learning rate, disk."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dialogue.errors import FileError, SettingsError
from dialogue.records import Dialogue, read_dialogues
from exporters.sft import base as bases
from exporters.sft.plan import Plan, builtin_plan, staged_plan
from exporters.sft.rows import Rows, make_rows
from exporters.sft.settings import Stage, TrainSettings

if TYPE_CHECKING:
    from exporters.sft.base import Base

_SMALL, _MIDDLE, _LARGE = 20_000_000, 100_000_000, 300_000_000
"""Numbers of parameters at which the automatic settings change."""


_FULL = ("No space left on device", "Disk quota exceeded", "File too large", "PytorchStreamWriter failed writing")
"""What safetensors, torch and tensorboard say when a disk is full."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """A data set version: its name, the hash of its records, the dialogues to train on and the held-out ones."""

    name: str
    hash: str
    train: tuple[Dialogue, ...]
    validation: tuple[Dialogue, ...]


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


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start; `key` names it by everything that decides its outcome."""

    base: Base
    base_hash: str
    data: Dataset
    rows: Rows
    held_out: Rows | None
    plan: Plan
    settings: TrainSettings
    resolved: Resolved
    key: str


def prepare(base: Path, dataset: Path, settings: TrainSettings, stages: Sequence[Stage] = ()) -> Prepared:
    """Load, render and plan.  Raises what `train` raises, before any time is spent on training."""
    quiet_environment()
    data = read_dataset(dataset)
    loaded = bases.load_base(base, settings)
    resolved = resolve(settings, loaded, world_size())
    rows = _rows(data.train, loaded, settings, resolved, f"{dataset}/train.jsonl")
    held_out = (
        _rows(data.validation, loaded, settings, resolved, f"{dataset}/validation.jsonl") if data.validation else None
    )
    plan = make_plan(data, rows, loaded, settings, stages, resolved)
    digest = bases.base_hash(base)
    key = run_key(digest, data.hash, settings, resolved, plan)
    return Prepared(loaded, digest, data, rows, held_out, plan, settings, resolved, key)


def quiet_environment() -> None:
    """Set what libraries read when they are first imported: no network, no spinning threads.

    Waiting OpenMP threads that spin halve the speed on a machine that does anything else.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def world_size() -> int:
    """Number of processes that train together (`accelerate launch`, `torchrun`)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the one process that writes."""
    return int(os.environ.get("RANK", "0")) == 0


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


def resolve(settings: TrainSettings, base: Base, world: int = 1) -> Resolved:
    """Choose what was left to the program, from the number of parameters and the machine.

    Learning rates: 2e-5 at 300M parameters and more, 1e-4 from 20M, 2e-3 below; ten times that for
    LoRA, 5e-3 at most.  Raises `SettingsError` if the batch does not divide over the processes.
    """
    small = base.parameters < _SMALL
    rate = 2e-3 if small else 1e-4 if base.parameters < _LARGE else 2e-5
    if settings.method == "lora":
        rate = min(10 * rate, 5e-3)
    batch = settings.batch_size or (4 if small else 8)
    if batch % world:
        raise SettingsError(f"batch_size {batch} does not divide over {world} processes; set it in [train].")
    share = batch // world
    return Resolved(
        epochs=settings.epochs or (18.0 if small else 3.0),
        batch_size=batch,
        learning_rate=settings.learning_rate or rate,
        patience=settings.patience if settings.patience >= 0 else (0 if small else 3),
        bf16=settings.precision == "bf16"
        or (settings.precision == "auto" and base.parameters >= _MIDDLE and fast_bf16()),
        micro_batch=max(m for m in range(1, share + 1) if share % m == 0 and m <= settings.micro_batch),
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
    data: Dataset, rows: Rows, base: Base, settings: TrainSettings, stages: Sequence[Stage], resolved: Resolved
) -> Plan:
    """Compile the curriculum for these rows; `[[stage]]` tables come before the built-in order."""
    wanted = {row.dialogue for row in rows.rows}
    dialogues = [d for d in data.train if d.id in wanted]
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


def run_key(base: str, data: str, settings: TrainSettings, resolved: Resolved, plan: Plan) -> str:
    """Name of a run: a hash of all that decides its outcome, so that a resumed run can only be the same run."""
    value = [base, data, dataclasses.asdict(settings), dataclasses.asdict(resolved), plan.hash]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def check_disk(work: Path, registry: Path, parameters: int, method: str) -> None:
    """Refuse to begin when the states of a run would not fit; raises `FileError`.

    Full training keeps two or three resumable states (weights and two AdamW moments in fp32,
    12 bytes a parameter) and the finished weights (4 bytes), LoRA about a twentieth of that.
    """
    scale = 1.0 if method == "full" else 0.05
    for folder, needed in ((work, 40 * scale * parameters), (registry, 4 * scale * parameters)):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise FileError(
                f"{folder}: training needs about {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free; "
                "free some space before hours are spent."
            )


@contextlib.contextmanager
def full_disk_in_words(folder: Path) -> Iterator[None]:
    """Turn the many ways in which libraries report a full disk into one `FileError` with the remedy."""
    try:
        yield
    except Exception as error:
        text = str(error)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and not any(words in text for words in _FULL):
            raise
        raise FileError(
            f"{folder}: the disk is full; free some space and run the same command again, it goes on where it stopped."
        ) from error


def _rows(dialogues: Sequence[Dialogue], base: Base, settings: TrainSettings, resolved: Resolved, where: str) -> Rows:
    return make_rows(
        dialogues,
        base.tokenizer,
        base.format,
        max_length=resolved.max_length,
        too_long=settings.too_long,
        where=where,
    )
