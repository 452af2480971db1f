"""The part of DPO that loads TRL.  Imported only inside functions."""

from __future__ import annotations

import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from dialogue.rendering import template
from exporters.sft.evaluate import dialogue_losses
from exporters.sft.rows import Row
from exporters.sft.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from exporters.sft.dpo import PreferenceIds

Progress = Callable[[int, int, str], None]


class RenderedTrainer(DPOTrainer):  # type: ignore[misc]  # trl carries no types
    """`DPOTrainer` on pairs that are token ids already, so that they are what drafting builds."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        """Nothing leaves this machine."""


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers carries no types
    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.loss = progress, math.nan

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps, f"dpo, loss {self.loss:.3f}")


def fit_dpo(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[PreferenceIds],
    held_out: Sequence[PreferenceIds],
    rows: Sequence[Row],
    settings: TrainSettings,
    *,
    name: str,
    rate: float,
    bf16: bool,
    folder: Path,
    progress: Progress | None,
) -> dict[str, Any]:
    """Train, save to `folder/final`, and return the metrics before and after."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    disable_progress_bars()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    cpu = not torch.cuda.is_available()
    trainer = RenderedTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(folder),
            use_cpu=cpu,
            bf16=bf16,
            beta=settings.dpo_beta,
            max_length=None,
            learning_rate=rate,
            num_train_epochs=settings.dpo_epochs,
            per_device_train_batch_size=min(settings.micro_batch, 4),
            lr_scheduler_type="linear",
            warmup_steps=0.1,
            gradient_checkpointing=settings.activation_checkpointing,
            dataloader_pin_memory=not cpu,
            logging_steps=1,
            save_strategy="no",
            report_to=["tensorboard"],
            disable_tqdm=True,
            seed=settings.seed,
            data_seed=settings.seed,
        ),
        train_dataset=_dataset(train),
        processing_class=tokenizer,
        callbacks=[_Watch(progress)],
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    before, loss_before = preferred(model, held_out), _held_out(model, rows)
    begun = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - begun
    final = folder / "final"
    shutil.rmtree(final, ignore_errors=True)
    tokenizer.chat_template = template(name)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(final)
    tokenizer.save_pretrained(final)
    log = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "preferred": {"before": before, "after": preferred(model, held_out), "pairs": len(held_out)},
        "held_out_loss": {"before": loss_before, "after": _held_out(model, rows)},
        "train_loss": [{"step": line["step"], "stage": 1, "loss": line["loss"]} for line in log],
        "held_out_curve": [],
        "steps": trainer.state.global_step,
        "planned_steps": trainer.state.global_step,
        "stopped_early": False,
        "seconds": round(seconds, 1),
    }


def preferred(model: PreTrainedModel, pairs: Sequence[PreferenceIds]) -> float:
    """Share of pairs whose chosen reply has the higher mean log-probability a token."""
    wins = 0
    for pair in pairs:
        chosen, rejected = (_mean_log_probability(model, pair.prompt, reply) for reply in (pair.chosen, pair.rejected))
        wins += chosen > rejected
    return wins / len(pairs)


def _mean_log_probability(model: PreTrainedModel, prompt: Sequence[int], reply: Sequence[int]) -> float:
    labels = (*[-100] * len(prompt), *reply)
    row = Row("", 0, (*prompt, *reply), labels, (), ())
    return -dialogue_losses(model, [row])[0]


def _held_out(model: PreTrainedModel, rows: Sequence[Row]) -> float | None:
    if not rows:
        return None
    losses = dialogue_losses(model, rows)
    total = sum(row.trained for row in rows)
    return round(sum(loss * row.trained for loss, row in zip(losses, rows, strict=True)) / total, 6)


def _dataset(pairs: Sequence[PreferenceIds]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt_ids": [list(pair.prompt) for pair in pairs],
            "chosen_ids": [list(pair.chosen) for pair in pairs],
            "rejected_ids": [list(pair.rejected) for pair in pairs],
        }
    )
