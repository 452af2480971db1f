"""The part of a run that loads TRL: arguments, trainer, resume, held-out loss, saving the weights."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, disable_progress_bars
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback
from trl import SFTConfig

from dialogue.rendering import template
from exporters.sft import base as bases
from exporters.sft.base import Base
from exporters.sft.plan import Plan
from exporters.sft.rows import Row, Rows
from exporters.sft.settings import TrainSettings
from exporters.sft.trainer import Collator, PlanTrainer, Progress, Watch, held_out_loss, last_complete, planned_items

if TYPE_CHECKING:
    from exporters.sft.training import Resolved


def fit(
    base: Base,
    rows: Rows,
    held_out: Rows | None,
    plan: Plan,
    settings: TrainSettings,
    resolved: Resolved,
    *,
    folder: Path,
    run_key: str,
    progress: Progress | None,
) -> dict[str, Any]:
    """Train along the plan, resuming if `folder` holds a part of this run; returns the metrics.

    The finished model, its tokenizer and the chat template lie in `folder/final`.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    disable_progress_bars()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
    torch.manual_seed(settings.seed)
    model = bases.with_lora(base, settings) if settings.method == "lora" else base.model
    model.config.use_cache = False
    evaluation = evaluation_set(held_out.rows if held_out else ())
    trainer = PlanTrainer(
        plan=plan,
        run_key=run_key,
        model=model,
        args=arguments(plan, settings, resolved, folder, evaluate=evaluation is not None),
        train_dataset=Dataset.from_dict(planned_items(plan, rows.rows)),
        eval_dataset=evaluation,
        processing_class=base.tokenizer,
        data_collator=Collator(base.tokenizer.eos_token_id, packing=settings.packing),
        callbacks=[Watch(plan, resolved.patience, progress)],
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    before = _loss(trainer, evaluation)
    state = last_complete(folder, run_key)
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=str(state) if state else None)
    seconds = time.monotonic() - begun
    after = _loss(trainer, evaluation)
    save(trainer, base, folder / "final")
    return {
        "held_out_loss": {"before": before, "after": after},
        "train_loss": [
            {"step": line["step"], "stage": int(line["stage"]), "loss": line["loss"]}
            for line in trainer.state.log_history
            if "loss" in line and "stage" in line
        ],
        "held_out_curve": [
            {"step": line["step"], "loss": line["eval_loss"]}
            for line in trainer.state.log_history
            if "eval_loss" in line
        ],
        "steps": trainer.state.global_step,
        "planned_steps": plan.steps,
        "stopped_early": trainer.state.global_step < plan.steps,
        "seconds": round(seconds, 1),
    }


def arguments(plan: Plan, settings: TrainSettings, resolved: Resolved, folder: Path, *, evaluate: bool) -> SFTConfig:
    """TRL's arguments: one epoch over the planned order, nothing reordered, nothing cut, nothing sent anywhere."""
    cpu = not torch.cuda.is_available()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    interval = max(1, -(-plan.steps // settings.evaluations))
    return SFTConfig(
        output_dir=str(folder),
        use_cpu=cpu,
        bf16=resolved.bf16,
        fp16=False,
        per_device_train_batch_size=resolved.micro_batch,
        per_device_eval_batch_size=resolved.micro_batch,
        gradient_accumulation_steps=plan.batch_size // (resolved.micro_batch * world),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=resolved.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup if plan.steps > 1 else 0,
        weight_decay=settings.weight_decay,
        gradient_checkpointing=settings.activation_checkpointing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=True,
        logging_steps=max(1, min(10, plan.steps // 50)),
        logging_first_step=True,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=evaluate and resolved.patience > 0,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        report_to=["tensorboard"],
        disable_tqdm=True,
        seed=settings.seed,
        data_seed=settings.seed,
    )


def evaluation_set(rows: tuple[Row, ...]) -> Dataset | None:
    """Held-out rows, long to short so that batches need little padding; None if there are none."""
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    return Dataset.from_dict(
        {
            "ids": [list(row.ids) for row in ordered],
            "labels": [list(row.labels) for row in ordered],
            "position": list(range(len(ordered))),
        }
    )


def _loss(trainer: PlanTrainer, evaluation: Dataset | None) -> float | None:
    if evaluation is None:
        return None
    loader = DataLoader(evaluation, batch_size=8, collate_fn=trainer.data_collator)
    trainer.model.to(trainer.args.device)
    with contextlib.nullcontext():
        value = held_out_loss(trainer.model, trainer.head, loader, trainer.accelerator)
    return round(value, 6)


def save(trainer: PlanTrainer, base: Base, folder: Path) -> None:
    """Write weights (safetensors), tokenizer with the format's chat template, and generation defaults."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True
    base.tokenizer.chat_template = template(base.format)
    if trainer.args.should_save:
        model.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()
