"""The user's own geometry on a CPU: load, one training step, save, draft, and how much memory that takes.

    python -m benchmarks.geometry [--folder DIR] [--method full|lora]

Mistral with 519M random weights (hidden 1024, 32 layers, 16/8 heads, 32,000 tokens, context 4,096) and a
tokenizer that knows the tags.  Needs about 25 GB of disk and, as measured, well under 24 GiB of memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads

import torch
from transformers import MistralConfig, MistralForCausalLM

from benchmarks.sft_gpu import GEOMETRY
from dialogue import Attribute, Registry, Turn, read_dialogues, write_dialogues
from exporters.sft import TrainSettings, train
from exporters.sft.demo_base import make_tokenizer
from ml_backend.drafting import Drafter
from ml_backend.requests import DraftRequest
from ml_backend.settings import BackendSettings

STARTER = Path(__file__).parent.parent / "examples" / "starter.jsonl"


def note(begun: float, what: str) -> None:
    """Print time since the start and the peak of resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.monotonic() - begun:6.0f} s  peak {peak:5.1f} GiB  {what}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="Where the base and the checkpoint go (default: a temporary folder)."
    )
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        dialogues = read_dialogues(STARTER)[:8]
        base = root / "base"
        if not (base / "config.json").exists():
            texts = [turn.text for d in read_dialogues(STARTER) for turn in d.conversation]
            tokenizer = make_tokenizer(texts, 4000)
            torch.manual_seed(0)
            config = MistralConfig(**GEOMETRY, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
            model = MistralForCausalLM(config)
            model.save_pretrained(base)
            tokenizer.save_pretrained(base)
            note(begun, f"made a base of {model.num_parameters() / 1e6:.0f}M random parameters")
            del model
        write_dialogues(root / "version" / "train.jsonl", dialogues)
        settings = TrainSettings(method=options.method, order="shuffle", epochs=1.0, micro_batch=4, learning_rate=1e-4)
        checkpoint = train(
            base,
            root / "version",
            Registry(root / "checkpoints"),
            settings,
            work=root / "runs",
            progress=lambda done, total, text: note(begun, f"step {done}/{total}: {text}"),
        )
        metrics = checkpoint.card["metrics"]
        note(begun, f"saved {checkpoint.id}: loss {metrics['train_loss'][0]['loss']:.2f} in {metrics['seconds']:.0f} s")
        drafter = Drafter(checkpoint, BackendSettings(device="cpu", max_new_tokens=16, retries=0))
        turns = (Turn("User", "こんにちは。"), Turn("Aku", ""))
        draft = drafter.draft([DraftRequest("1", "駅前で。", turns, Attribute(2, 2), limit=1)])[0]
        note(begun, f"drafted {draft.tokens} tokens: {draft.turns[-1].text!r} ({draft.problem or 'ended by itself'})")


if __name__ == "__main__":
    main()
