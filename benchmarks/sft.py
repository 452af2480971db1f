"""Trained reply tokens per second against TRL's `SFTTrainer` as it comes, on the same dialogues and model.

    python -m benchmarks.sft [--sizes 5M 100M] [--steps 6] [--rounds 2]

The dialogues are the starter corpus cut and joined to 4 to 16 turns in equal shares, which is what the
planner asks for by default.  Both sides train turn about in one process.  The peer has TRL's own
defaults (batch of 8, random order, padding, activation checkpointing, loss from `assistant_only_loss`)
in fp32, since its bf16 default is far slower on a CPU without bf16 instructions; where the machine has
them, the peer is run in bf16 as well.  Counted are labelled tokens and time inside optimiser steps,
the first step left out; time on the clock, and in core-seconds, which other programs on the machine
hardly change.  Share of peak: useful FLOPs (no padding, head only at labels, 6 per weight and token for
forward and backward; attention 12 · layers · width · length² · ½) per core-second against those of the
best square matrix product of the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset, disable_progress_bars
from transformers import MistralConfig, MistralForCausalLM, PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from analysis import PlanSettings
from dialogue import Dialogue, Turn, read_dialogues, write_dialogues
from dialogue.rendering import template, to_messages
from exporters.sft.demo_base import make_tokenizer
from exporters.sft.fit import make_trainer
from exporters.sft.prepare import fast_bf16, prepare
from exporters.sft.rows import IGNORED
from exporters.sft.settings import TrainSettings

STARTER = Path(__file__).parent.parent / "examples" / "starter.jsonl"
SIZES: dict[str, dict[str, int]] = {
    "5M": {"vocab_size": 4000, "hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704, "heads": 8},
    "100M": {"vocab_size": 32000, "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 2048, "heads": 12},
}
BATCH = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """Labelled tokens, seconds and core-seconds of the timed steps, and the FLOPs that were needed for them."""

    tokens: int
    seconds: float
    core_seconds: float
    flops: float

    @property
    def rate(self) -> float:
        """Trained reply tokens per second."""
        return self.tokens / self.seconds

    @property
    def core_rate(self) -> float:
        """Trained reply tokens per core-second."""
        return self.tokens / self.core_seconds


class Clock(TrainerCallback):
    """Times every optimiser step and stops after `steps` of them."""

    def __init__(self, steps: int) -> None:
        self.steps, self.begun = steps, (0.0, 0.0)
        self.seconds: list[float] = []
        self.core_seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.begun = (time.perf_counter(), time.process_time())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self.begun[0])
        self.core_seconds.append(time.process_time() - self.begun[1])
        control.should_training_stop = state.global_step >= self.steps


class Counting:
    """A collator that notes what was in every batch: dialogues' lengths, and their labelled tokens."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.lengths, self.labelled = inner, [], []

    def __call__(self, items: list[dict[str, Any]]) -> Any:
        """Collate and note."""
        self.lengths.append([len(item["ids"] if "ids" in item else item["input_ids"]) for item in items])
        self.labelled.append(sum(label != IGNORED for item in items for label in item["labels"]))
        return self.inner(items)


def make_base(folder: Path, size: dict[str, int], dialogues: Sequence[Dialogue]) -> None:
    """Save a randomly initialised Mistral with a tokenizer that knows the tags."""
    texts = [turn.text for d in dialogues for turn in d.conversation] + [d.context for d in dialogues]
    tokenizer = make_tokenizer([*texts, *["closeness:4,mood:0"] * 50], min(size["vocab_size"], 4000))
    tokenizer.chat_template = template("tags")
    geometry = {key: value for key, value in size.items() if key != "heads"}
    torch.manual_seed(0)
    config = MistralConfig(
        **geometry,
        num_attention_heads=size["heads"],
        num_key_value_heads=size["heads"] // 2,
        max_position_embeddings=2048,
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def planned(dialogues: Sequence[Dialogue], count: int = 208) -> list[Dialogue]:
    """Dialogues with as many turns as the planner's default settings ask for, from the starter corpus's turns."""
    chance = random.Random(0)
    made = []
    for number in range(count):
        turns: list[Turn] = []
        wanted = PlanSettings().turns[number % len(PlanSettings().turns)]
        first = chance.choice(dialogues)
        source = first
        while len(turns) < wanted:
            part = source.conversation
            turns += part[1:] if turns and part[0].speaker == turns[-1].speaker else part
            source = chance.choice(dialogues)
        made.append(dataclasses.replace(first, id=f"d{number}", conversation=tuple(turns[:wanted])))
    return made


def flops(model: Any, lengths: Sequence[int], labelled: int) -> float:
    """Needed FLOPs of forward and backward: no padding, the head only where a label stands."""
    config = model.config
    head = config.vocab_size * config.hidden_size
    layers = sum(p.numel() for name, p in model.named_parameters() if "layers." in name)
    attention = sum(6 * config.num_hidden_layers * config.hidden_size * n * n for n in lengths)
    return 6.0 * layers * sum(lengths) + 6.0 * head * labelled + attention


def timed(trainer: Any, steps: int) -> Speed:
    """Run `steps` optimiser steps and count all but the first."""
    clock, counting = Clock(steps), Counting(trainer.data_collator)
    trainer.data_collator = counting
    trainer.add_callback(clock)
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.args.save_strategy = "no"
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    chosen = slice(1, steps)
    lengths = [n for batch in counting.lengths[chosen] for n in batch]
    tokens = sum(counting.labelled[chosen])
    needed = flops(trainer.accelerator.unwrap_model(trainer.model), lengths, tokens)
    return Speed(tokens, sum(clock.seconds[chosen]), sum(clock.core_seconds[chosen]), needed)


def peer(base: Path, dialogues: Sequence[Dialogue], folder: Path, steps: int, seed: int, *, bf16: bool) -> Speed:
    """TRL as it comes."""
    from transformers import AutoTokenizer

    rows = [{"messages": to_messages(d.context, d.conversation, d.attribute)} for d in dialogues]
    trainer = SFTTrainer(
        model=MistralForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(folder), use_cpu=True, bf16=bf16, assistant_only_loss=True, report_to=[], seed=seed
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    return timed(trainer, steps)


def ours(base: Path, version: Path, folder: Path, steps: int, seed: int) -> Speed:
    """The studio's trainer with its defaults, at the peer's batch size."""
    settings = TrainSettings(batch_size=BATCH, micro_batch=BATCH, epochs=3, order="shuffle", seed=seed)
    return timed(make_trainer(prepare(base, version, settings), folder, None), steps)


def peak(dtype: torch.dtype, n: int = 2048) -> float:
    """FLOPs per core-second of the best of eight square matrix products."""
    a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        begun = time.process_time()
        a @ b
        best = min(best, time.process_time() - begun)
    return 2 * n**3 / best


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    dialogues = planned(read_dialogues(STARTER))
    top = peak(torch.float32)
    busy = f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    print(f"{busy}, peak in fp32 {top / 1e9:.0f} GFLOP per core-second", end="")
    print(f", bf16 peak {peak(torch.bfloat16) / 1e9:.0f} GFLOP" if fast_bf16() else ", no fast bf16")
    for name in options.sizes:
        with tempfile.TemporaryDirectory() as root:
            compare(name, Path(root), dialogues, options.steps, options.rounds, top)
    if torch.cuda.is_available():
        from benchmarks.sft_gpu import main as gpu

        gpu([])


def compare(name: str, root: Path, dialogues: Sequence[Dialogue], steps: int, rounds: int, top: float) -> None:
    """Train turn about and print rates, ratio and share of peak for one size."""
    make_base(root / "base", SIZES[name], dialogues)
    write_dialogues(root / "version" / "train.jsonl", dialogues)
    kinds = ["TRL fp32", *(["TRL bf16"] if fast_bf16() else []), "studio"]
    found: dict[str, list[Speed]] = {kind: [] for kind in kinds}
    for seed in range(rounds):
        for kind in kinds:
            folder = root / f"run-{kind}-{seed}"
            if kind == "studio":
                speed = ours(root / "base", root / "version", folder, steps, seed)
            else:
                speed = peer(root / "base", dialogues, folder, steps, seed, bf16=kind.endswith("bf16"))
            found[kind].append(speed)
    print(f"{name}: {rounds} rounds of {steps - 1} timed steps, batch {BATCH}")
    for kind, speeds in found.items():
        rate = statistics.median(speed.rate for speed in speeds)
        share = sum(s.flops for s in speeds) / sum(s.core_seconds for s in speeds) / top
        print(f"  {kind:9} {rate:8.0f} reply tokens/s   {share:5.1%} of fp32 peak")
    for kind in kinds[:-1]:
        pairs = list(zip(found["studio"], found[kind], strict=True))
        for what, ratios in (
            ("by the clock", [a.rate / b.rate for a, b in pairs]),
            ("by core-seconds", [a.core_rate / b.core_rate for a, b in pairs]),
        ):
            rounds_ = ", ".join(f"{r:.2f}" for r in ratios)
            print(f"  studio / {kind}, {what}: {statistics.median(ratios):.2f}x (rounds {rounds_})")


if __name__ == "__main__":
    main()
