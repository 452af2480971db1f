"""The part of a run that loads TRL: arguments, trainer, resume, held-out loss, saving the weights."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig

from dialogue.rendering import template
from exporters.sft import base as bases
from exporters.sft.base import Base
from exporters.sft.loss import Collator
from exporters.sft.prepare import Prepared, world_size
from exporters.sft.rows import Row
from exporters.sft.trainer import PlanTrainer, Progress, Watch, last_complete, planned_items


def fit(prepared: Prepared, folder: Path, progress: Progress | None) -> dict[str, Any]:
    """Train along the plan, resuming if `folder` holds a part of this run; returns the metrics.

    The finished model, its tokenizer and the chat template lie in `folder/final`.
    """
    trainer = make_trainer(prepared, folder, progress)
    before = _loss(trainer)
    state = last_complete(folder, prepared.key)
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=str(state) if state else None)
    seconds = time.monotonic() - begun
    seen = {token for entry in prepared.plan.entries for token in prepared.rows.rows[entry.row].ids}
    moved = () if trainer.is_fsdp_enabled else bases.interpolate_levels(prepared.base, trainer.model, seen)
    after = _loss(trainer)
    save(trainer, prepared.base, folder / "final")
    log = trainer.state.log_history
    return {
        "held_out_loss": {"before": before, "after": after},
        "held_out_per_character": _scaled(before, after, _tokens_per_character(prepared)),
        "train_loss": [{k: line[k] for k in ("step", "stage", "loss")} for line in log if "stage" in line],
        "held_out_curve": [{"step": line["step"], "loss": line["eval_loss"]} for line in log if "eval_loss" in line],
        "steps": trainer.state.global_step,
        "planned_steps": prepared.plan.steps,
        "stopped_early": trainer.state.global_step < prepared.plan.steps,
        "interpolated_levels": list(moved),
        "seconds": round(seconds, 1),
        "reply_tokens_per_second": round(trainer.trained_tokens * world_size() / max(seconds, 1e-9), 1),
    }


def make_trainer(prepared: Prepared, folder: Path, progress: Progress | None) -> PlanTrainer:
    """Build the trainer of a run, quiet, logging to `folder/tensorboard`."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")  # it says what we asked for
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
    settings, plan = prepared.settings, prepared.plan
    torch.manual_seed(settings.seed)
    model = bases.with_lora(prepared.base, settings) if settings.method == "lora" else prepared.base.model
    model.config.use_cache = False
    trainer = PlanTrainer(
        plan=plan,
        run_key=prepared.key,
        model=model,
        args=arguments(prepared, folder),
        train_dataset=Dataset.from_dict(planned_items(plan, prepared.rows.rows)),
        eval_dataset=evaluation_set(prepared.held_out.rows) if prepared.held_out else None,
        processing_class=prepared.base.tokenizer,
        data_collator=Collator(prepared.base.tokenizer.eos_token_id, packing=settings.packing),
        callbacks=[Watch(plan, prepared.resolved.patience, progress)],
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    return trainer


def arguments(prepared: Prepared, folder: Path) -> SFTConfig:
    """TRL's arguments: one epoch over the planned order, nothing reordered, nothing cut, nothing sent anywhere."""
    settings, resolved, plan = prepared.settings, prepared.resolved, prepared.plan
    cpu = not torch.cuda.is_available()
    every = max(1, min(10, plan.steps // 50))
    # A multiple of the logging interval, so that a resumed run averages its log over the same steps.
    interval = every * max(1, -(-plan.steps // (settings.evaluations * every)))
    return SFTConfig(
        output_dir=str(folder),
        use_cpu=cpu,
        bf16=resolved.bf16,
        fp16=False,
        per_device_train_batch_size=resolved.micro_batch,
        per_device_eval_batch_size=resolved.micro_batch,
        gradient_accumulation_steps=plan.batch_size // (resolved.micro_batch * world_size()),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=resolved.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup * plan.steps),
        weight_decay=settings.weight_decay,
        gradient_checkpointing=settings.activation_checkpointing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=True,
        logging_steps=every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if prepared.held_out else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=prepared.held_out is not None and resolved.patience > 0,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        report_to=["tensorboard"],
        disable_tqdm=True,
        seed=settings.seed,
        data_seed=settings.seed,
    )


def evaluation_set(rows: Sequence[Row]) -> Dataset:
    """Held-out rows, long to short so that batches need little padding."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    return Dataset.from_dict(
        {
            "ids": [list(row.ids) for row in ordered],
            "labels": [list(row.labels) for row in ordered],
            "position": list(range(len(ordered))),
        }
    )


def save(trainer: PlanTrainer, base: Base, folder: Path) -> None:
    """Write weights (safetensors), and the tokenizer with the format's chat template."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True
    base.tokenizer.chat_template = template(base.format)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_fsdp_enabled else None
    if trainer.args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, state_dict=state)
        base.tokenizer.save_pretrained(folder)
    wait_for_everyone()


def wait_for_everyone() -> None:
    """Let all processes of a distributed run come to the same point."""
    PartialState().wait_for_everyone()


def _loss(trainer: PlanTrainer) -> float | None:
    """Held-out loss of the weights as they are; None if no dialogue is held out."""
    return None if trainer.eval_dataset is None else round(trainer.held_out_loss(), 6)


def _scaled(before: float | None, after: float | None, factor: float | None) -> dict[str, float] | None:
    if before is None or after is None or factor is None:
        return None
    return {"before": round(before * factor, 6), "after": round(after * factor, 6)}


def _tokens_per_character(prepared: Prepared) -> float | None:
    """Trained tokens per character of Aku on the held-out dialogues: makes losses of two tokenizers comparable."""
    if prepared.held_out is None:
        return None
    rows = prepared.held_out.rows
    return sum(row.trained for row in rows) / sum(row.characters for row in rows)
