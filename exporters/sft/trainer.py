"""TRL's `SFTTrainer`, made fast on replies only, bound to a plan, and safe to kill.

Imported only inside functions: it loads torch, transformers and TRL.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl
from trl import SFTTrainer

from dialogue import files
from dialogue.errors import CheckpointError
from exporters.sft.loss import Batch, reply_loss, to_device
from exporters.sft.plan import Plan
from exporters.sft.rows import Row

Progress = Callable[[int, int, str], None]
MARKER = "aku_complete.json"


class PlanTrainer(SFTTrainer):  # type: ignore[misc]  # trl carries no types
    """Trains along a `Plan` and asserts in every batch that it is the planned one."""

    def __init__(self, *, plan: Plan, run_key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan, self.run_key = plan, run_key
        self.head = self.model.get_output_embeddings()
        self.trained_tokens = 0
        self._step, self._micro = -1, 0
        local = self.args.per_device_train_batch_size
        self._local, self._world = local, self.accelerator.num_processes
        if local * self._world * self.args.gradient_accumulation_steps != plan.batch_size:
            raise CheckpointError("the planned batch does not divide over the processes; this is a programming error.")

    def _send_telemetry(self) -> None:
        """Nothing leaves this machine."""

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy over the trained tokens of the whole optimiser step, all processes together."""
        total, count = reply_loss(model, self.head, inputs)
        self.trained_tokens += count
        # DDP averages gradients over processes, while the divisor counts the tokens of all of them.
        scale = 1 / max(count, 1) if num_items_in_batch is None else self._world / num_items_in_batch
        return total * scale

    def training_step(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Check the batch against the plan, then train on it; raises `CheckpointError` if it is another one."""
        step = self.state.global_step
        self._micro = self._micro + 1 if step == self._step else 0
        self._step = step
        start = step * self.plan.batch_size
        start += (self._micro * self._world + self.accelerator.process_index) * self._local
        if inputs["positions"] != list(range(start, start + self._local)):
            raise CheckpointError(
                f"step {step}: the data loader delivered other dialogues than the plan {self.plan.hash} says; "
                "training stopped, since the curriculum would not be the one on record."
            )
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the stage to every line of the training log."""
        if "loss" in logs:
            logs["stage"] = float(self.plan.stage_at(max(0, self.state.global_step - 1)) + 1)
        Trainer.log(self, logs, start_time)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Exact held-out loss: nats per trained token over the whole set, whatever the batches."""
        metrics = {f"{metric_key_prefix}_loss": self.held_out_loss()}
        self.log(dict(metrics))
        control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.control: TrainerControl = control
        return metrics

    def held_out_loss(self) -> float:
        """Mean loss per trained token over the held-out set.

        Each process takes every n-th dialogue and the sums are added up; under FSDP, where a forward
        pass needs all processes, each takes all of them.
        """
        data, model = self.eval_dataset, self.model
        if self.is_fsdp_enabled:
            model = self.model_wrapped
        elif self._world > 1:
            data = data.select(range(self.accelerator.process_index, len(data), self._world))
        was_training = model.training
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for inputs in DataLoader(data, self.args.per_device_eval_batch_size, collate_fn=self.data_collator):
                with self.accelerator.autocast():
                    total, count = reply_loss(model, self.head, to_device(inputs, self.args.device))
                sums += torch.stack([total.double(), total.new_tensor(count).double()])
        model.train(was_training)
        if not self.is_fsdp_enabled:
            sums = self.accelerator.reduce(sums, reduction="sum")
        loss, tokens = sums.tolist()
        return float(loss / tokens)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save, then leave a marker: a folder without it was cut off and is not resumed from."""
        Trainer._save_checkpoint(self, model, trial)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            files.write_json(folder / MARKER, {"run": self.run_key, "plan": self.plan.hash})


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers carries no types
    """Progress with loss and time left, and early stopping.

    The number of evaluations without a better loss is counted from the log that is saved with the
    trainer's state, so that a resumed run stops where an uninterrupted one would.
    """

    def __init__(self, plan: Plan, patience: int, progress: Progress | None) -> None:
        self.plan, self.patience, self.progress = plan, patience, progress
        self.begun, self.first, self.loss, self.held_out = 0.0, 0, math.nan, math.nan

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.begun, self.first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Remember the last losses."""
        self.loss = (logs or {}).get("loss", self.loss)
        self.held_out = (logs or {}).get("eval_loss", self.held_out)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell how far it is."""
        if self.progress is None or not state.is_world_process_zero:
            return
        done = state.global_step
        left = (time.monotonic() - self.begun) / max(1, done - self.first) * (self.plan.steps - done)
        parts = [f"stage {self.plan.stage_at(done - 1) + 1}/{len(self.plan.stages)}"]
        parts += [f"loss {self.loss:.3f}"] if math.isfinite(self.loss) else []
        parts += [f"held-out {self.held_out:.3f}"] if math.isfinite(self.held_out) else []
        self.progress(done, self.plan.steps, ", ".join([*parts, f"{left:.0f} s left"]))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the held-out loss has not improved for `patience` evaluations."""
        losses = [line["eval_loss"] for line in state.log_history if "eval_loss" in line]
        if self.patience and losses and len(losses) - 1 - losses.index(min(losses)) >= self.patience:
            control.should_training_stop = True


def planned_items(plan: Plan, rows: tuple[Row, ...]) -> dict[str, list[Any]]:
    """Columns of the training set in the plan's order."""
    chosen = [(rows[entry.row], entry.with_attribute) for entry in plan.entries]
    return {
        "ids": [list(row.ids if shown else row.ids_without) for row, shown in chosen],
        "labels": [list(row.labels if shown else row.labels_without) for row, shown in chosen],
        "position": list(range(len(chosen))),
    }


def last_complete(folder: Path, run_key: str) -> Path | None:
    """Newest checkpoint of this very run that was saved to its end; cut-off ones are removed."""
    found: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        marker = path / MARKER
        if marker.exists() and files.read_json(marker).get("run") == run_key:
            found.append((int(path.name.rsplit("-", 1)[1]), path))
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(found)[1] if found else None
