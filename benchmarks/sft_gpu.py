"""The 519M geometry on a GPU: training steps of the studio's loss, as a share of the measured matmul peak.

    python -m benchmarks.sft_gpu [--tokens 16384] [--length 256] [--steps 20] [--no-compile]

Mistral with hidden 1024, 32 layers, 16/8 heads and 32,000 tokens, random weights in fp32, bf16
autocast, fused AdamW: what `aku train` does on a GPU, from the same batch and loss code
(`exporters.sft.loss`), without the trainer around it, so that neither trl nor datasets is needed.
Batches are random ids with lengths drawn around `--length` and about a third of them labelled, grouped by
length as a plan groups them.  Printed for eager mode, with decoder layers compiled one by one, and for the
plain way (all positions scored, activation checkpointing, unsorted lengths), each with reply tokens per
second, share of peak in useful FLOPs, and memory.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import MistralConfig, MistralForCausalLM

from exporters.sft.loss import Batch, Collator, reply_loss, to_device
from exporters.sft.rows import IGNORED

GEOMETRY = {
    "vocab_size": 32000,
    "hidden_size": 1024,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3584,
    "max_position_embeddings": 4096,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
"""519M parameters."""
Items = list[dict[str, Any]]


def make_model(device: str) -> Any:
    """Random weights in fp32."""
    torch.manual_seed(0)
    with torch.device(device):
        return MistralForCausalLM(MistralConfig(**GEOMETRY)).train()


def batches(count: int, tokens: int, length: int, *, grouped: bool, seed: int = 0) -> list[Items]:
    """Random dialogues of `length` ± 40 %, alternating prompt (two thirds) and labelled reply (one third)."""
    chance = random.Random(seed)
    size = max(1, tokens // length)
    lengths = [round(length * chance.uniform(0.6, 1.4)) for _ in range(count * size)]
    if grouped:  # as a plan does: sorted within eight batches
        for start in range(0, len(lengths), 8 * size):
            lengths[start : start + 8 * size] = sorted(lengths[start : start + 8 * size], reverse=True)
    items: Items = []
    for n in lengths:
        ids = [chance.randrange(32000) for _ in range(n)]
        labels = [token if place % 48 >= 32 else IGNORED for place, token in enumerate(ids)]
        items.append({"ids": ids, "labels": labels, "position": 0})
    return [items[i : i + size] for i in range(0, len(items), size)]


def useful_flops(items: Items) -> float:
    """Forward and backward without padding: 6 a weight and token, head only at labels, causal attention."""
    lengths = [len(item["ids"]) for item in items]
    labelled = sum(label != IGNORED for item in items for label in item["labels"])
    h, kv, f = 1024, 512, 3584
    layers = 32 * (2 * h * h + 2 * h * kv + 3 * h * f)
    attention = sum(6 * 32 * h * n * n for n in lengths)
    return 6.0 * layers * sum(lengths) + 6.0 * h * 32000 * labelled + attention


def peak(n: int = 8192) -> float:
    """FLOP/s of square bf16 matrix products, median of ten after three to warm up."""
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = [_seconds(lambda: a @ b) for _ in range(13)][3:]
    return 2 * n**3 / statistics.median(seconds)


def studio_loss(model: Any, inputs: Batch) -> torch.Tensor:
    """The studio's loss: head only where a label stands."""
    total, count = reply_loss(model, model.get_output_embeddings(), inputs)
    return total / count


def plain_loss(model: Any, inputs: Batch) -> torch.Tensor:
    """Every position scored."""
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
    return functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), inputs["labels"][:, 1:].flatten(), ignore_index=IGNORED
    )


def measure(
    name: str, model: Any, chosen: Sequence[Items], loss: Callable[..., torch.Tensor], top: float, warm: int
) -> float:
    """Train over the batches, print rate, share of peak and memory; returns reply tokens per second."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    collate = Collator(0)
    torch.cuda.reset_peak_memory_stats()
    seconds, tokens, flops = 0.0, 0, 0.0

    def step(items: Items) -> None:
        inputs = to_device(collate(items), "cuda")
        with torch.autocast("cuda", torch.bfloat16):
            value = loss(model, inputs)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimiser.step()
        optimiser.zero_grad()

    for number, items in enumerate(chosen):
        spent = _seconds(lambda items=items: step(items))
        if number >= warm:
            seconds += spent
            tokens += sum(label != IGNORED for item in items for label in item["labels"])
            flops += useful_flops(items)
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(
        f"  {name:38} {tokens / seconds:9.0f} reply tokens/s   {flops / seconds / 1e12:6.1f} TFLOP/s"
        f"   {flops / seconds / top:5.1%} of peak   {memory:5.1f} GiB",
        flush=True,
    )
    return tokens / seconds


def _seconds(call: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384, help="Tokens per step.")
    parser.add_argument("--length", type=int, default=256, help="Mean tokens of a dialogue.")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; this benchmark needs one.")
    torch.backends.cuda.matmul.allow_tf32 = True
    top = peak()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16 matmul peak {top / 1e12:.0f} TFLOP/s")
    grouped = batches(options.steps + 4, options.tokens, options.length, grouped=True)
    mixed = batches(options.steps + 4, options.tokens, options.length, grouped=False)
    model = make_model("cuda")
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.0f}M parameters, {options.tokens} tokens a step, dialogues of {options.length} ± 40 %")
    fast = measure("studio, eager", model, grouped, studio_loss, top, 4)
    if not options.no_compile:
        for layer in model.model.layers:  # one graph for all layers; lengths stay free
            layer.compile(dynamic=True)
        measure("studio, layers compiled", model, [*grouped[:6], *grouped], studio_loss, top, 10)
    del model
    torch.cuda.empty_cache()
    model = make_model("cuda")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    slow = measure("all positions, checkpointing, unsorted", model, mixed, plain_loss, top, 4)
    print(f"  studio (eager) / plain: {fast / slow:.2f}x")


if __name__ == "__main__":
    main()
