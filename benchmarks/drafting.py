"""Drafting: the engine against the usual way, on the same model, with the same greedy text.

The usual way is what LLM examples for Label Studio do: one task at a time, one turn at a time, the
whole conversation encoded again for every turn, `pipeline("text-generation")`.

    python benchmarks/drafting.py                              # 2M and 100M models, all cards, one card
    python benchmarks/drafting.py --sizes 2M --peer-cards 64   # the peer drafts every card, too
    python benchmarks/drafting.py --checkpoint workspace/checkpoints/0123456789ab

Models have random weights and a tokenizer of whole characters, so that every token is text and every
reply has the full length.  A trained checkpoint ends its replies itself.  Both sides get the same
prompts, the same forbidden tokens and the same clean-up; every differing turn is shown with the gap
between the two best logits at the first token that differs.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dialogue.checkpoints import Checkpoint, Registry
from dialogue.records import Attribute, Turn
from dialogue.rendering import render_prompt
from ml_backend.drafting import Draft, Drafter, DraftRequest
from ml_backend.settings import BackendSettings
from ml_backend.text_rules import problem, salvaged
from ml_backend.weights import load

SIZES = {
    "2M": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "heads": (6, 2), "vocabulary": 2000},
    "100M": {
        "hidden_size": 768,
        "intermediate_size": 2304,
        "num_hidden_layers": 12,
        "heads": (12, 4),
        "vocabulary": 16000,
    },
}
NEW_TOKENS = 20
"""Tokens of a drafted turn at most."""


def random_checkpoint(size: str, registry: Registry) -> Checkpoint:
    """Make a model with random weights and a tokenizer whose tokens are single characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

    spec = SIZES[size]
    special = ["</s>", "<unk>", "<ROLE>", "</ROLE>", "<ATTR>", "</ATTR>", "<CONTEXT>", "</CONTEXT>"]
    # What training data repeats in every turn is a token of its own in a trained tokenizer, too.
    phrases = ["User", "Aku", *(f"{key}:{level}" for key in ("closeness", ",mood") for level in range(5))]
    letters = phrases + [chr(c) for c in range(0x3041, 0x3094)]
    kanji = [chr(c) for c in range(0x4E00, 0x4E00 + int(spec["vocabulary"]))]
    words = list(dict.fromkeys([*special, "\n", *letters, *kanji]))[: int(spec["vocabulary"])]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    core.pre_tokenizer = pre_tokenizers.Split(Regex("User|Aku|(closeness|,mood):\\d|[\\s\\S]"), "isolated")
    core.decoder = decoders.Fuse()
    names = dict(zip(("eos_token", "unk_token"), special, strict=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, additional_special_tokens=special[2:], **names)
    torch.manual_seed(0)
    heads, groups = spec["heads"]
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=spec["hidden_size"],
            intermediate_size=spec["intermediate_size"],
            num_hidden_layers=spec["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=groups,
            max_position_embeddings=4096,
            sliding_window=None,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=0.06,  # spreads the logits, so that ties are rare as in a trained model
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return registry.add(Path(folder), {"format": "tags", "base": size, "created_at": "2026-01-01"})


def cards(count: int, turns: int) -> list[DraftRequest]:
    """Conversations whose User turns are written and whose Aku turns are blank."""
    rng = random.Random(0)
    kana = [chr(c) for c in range(0x3042, 0x3090)]

    def text(low: int, high: int) -> str:
        return "".join(rng.choice(kana) for _ in range(rng.randint(low, high)))

    made = []
    for number in range(count):
        conversation = [Turn("Aku", "") if i % 2 else Turn("User", text(10, 25)) for i in range(turns)]
        attribute = Attribute(rng.randrange(5), rng.randrange(5))
        made.append(DraftRequest(str(number), text(15, 40), tuple(conversation), attribute))
    return made


class Peer:
    """One task, one turn, the whole prefix again, through a text-generation pipeline."""

    def __init__(self, checkpoint: Checkpoint, settings: BackendSettings) -> None:
        from transformers import GenerationConfig, pipeline
        from transformers.utils import logging

        logging.set_verbosity_error()
        self.weights = load(checkpoint, settings.device, settings.dtype)
        self.pipeline = pipeline("text-generation", model=self.weights.model, tokenizer=self.weights.tokenizer)
        eos = self.weights.tokenizer.eos_token_id
        suppressed = self.weights.forbidden[0].isinf().nonzero()[:, 0].tolist()
        self.config = GenerationConfig(
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=1,
            suppress_tokens=suppressed,
            eos_token_id=eos,
            pad_token_id=eos,
        )
        self.tokens = 0

    def draft(self, request: DraftRequest) -> list[Turn]:
        """Draft one card turn by turn."""
        weights, turns = self.weights, list(request.turns)
        for number, turn in enumerate(turns):
            if turn.text:
                continue
            ids = render_prompt(request.context, turns[:number], request.attribute, weights.tokenizer, weights.format)
            prompt = weights.tokenizer.decode(ids, skip_special_tokens=False)
            answer = self.pipeline(prompt, generation_config=self.config, return_tensors=True, add_special_tokens=False)
            reply = list(answer[0]["generated_token_ids"])[len(ids) :]
            self.tokens += len(reply)
            ended = reply[-1] == weights.tokenizer.eos_token_id
            text = weights.tokenizer.decode(reply[:-1] if ended else reply, skip_special_tokens=False)
            fault = problem(text, ended=ended, control=weights.control)
            turns[number] = Turn("Aku", text.strip() if fault is None else salvaged(text, weights.control))
        return turns


@torch.inference_mode()
def logit_gap(drafter: Drafter, request: DraftRequest, ours: Sequence[Turn], theirs: Sequence[Turn]) -> str:
    """Describe the first token that differs: how far apart the two best logits are there."""
    weights = drafter.weights
    number = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    prompt = render_prompt(request.context, ours[:number], request.attribute, weights.tokenizer, weights.format)
    a, b = (weights.tokenizer(side[number].text, add_special_tokens=False)["input_ids"] for side in (ours, theirs))
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    logits = weights.model(torch.tensor([[*prompt, *a[:same]]], device=weights.device)).logits[0, -1].float()
    logits += weights.forbidden[0]
    best, spread = logits.topk(2).values, logits[logits.isfinite()].std()
    gap = f"best two logits {best[0] - best[1]:.4f} apart (spread {spread:.2f})"
    return f"card {request.id} turn {number} token {same}: {gap}"


class Counting:
    """Counts passes and tokens on their way to the model."""

    def __init__(self, memory: Any) -> None:
        self.memory, self.passes, self.tokens = memory, 0, 0

    def forward(self, rows: Any, feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Count and pass on."""
        self.passes += 1
        self.tokens += sum(map(len, feeds))
        return self.memory.forward(rows, feeds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)


def peaks(drafter: Drafter) -> tuple[float, float]:
    """Measure the machine: FLOP/s of a large matrix product and bytes/s of reading a large matrix once."""
    device, dtype = drafter.weights.device, drafter.weights.model.dtype
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(1, size, device=device, dtype=dtype)
    wide = torch.randn(4 * size, size, device=device, dtype=dtype)
    best = [0.0, 0.0]
    for _ in range(5):
        for index, (left, right, work) in enumerate(
            ((a, b, 2.0 * size**3), (x, wide, float(wide.numel() * wide.element_size())))
        ):
            synchronise(device)
            started = time.perf_counter()
            torch.nn.functional.linear(left, right)
            synchronise(device)
            best[index] = max(best[index], work / (time.perf_counter() - started))
    return best[0], best[1]


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(drafter: Drafter, work: Any) -> tuple[Any, float]:
    """Run `work` and return its result and seconds."""
    synchronise(drafter.weights.device)
    started = time.perf_counter()
    result = work()
    synchronise(drafter.weights.device)
    return result, time.perf_counter() - started


def measure(checkpoint: Checkpoint, name: str, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare both ways on one checkpoint; prints and returns the figures."""
    settings = BackendSettings(
        temperature=0, retries=0, max_new_tokens=options.new_tokens, dtype=dtype, device=options.device
    )
    drafter = Drafter(checkpoint, settings)
    weights = drafter.weights
    requests = cards(options.cards, options.turns)
    drafter.draft(cards(options.cards, options.turns))  # warm up, as a backend is after its first call
    counting = drafter.decoder.memory = drafter.decoder.batch.memory = Counting(drafter.decoder.memory)  # type: ignore[assignment]
    drafts: list[Draft]
    drafts, seconds = timed(drafter, lambda: drafter.draft(requests))
    many = Counting(None)
    many.passes, many.tokens = counting.passes, counting.tokens
    peer = Peer(checkpoint, settings)
    peer.draft(cards(1, 2)[0])
    peer.tokens = 0
    # One card alone, both ways by turns; the peer knows no other way, so these are its figures for many cards, too.
    single: list[Draft] = []
    peer_turns: list[list[Turn]] = []
    single_seconds = peer_seconds = 0.0
    for request in requests[: options.peer_cards]:
        (alone,), taken = timed(drafter, lambda request=request: drafter.draft([request]))
        theirs, peer_taken = timed(drafter, lambda request=request: peer.draft(request))
        single.append(alone)
        peer_turns.append(theirs)
        single_seconds, peer_seconds = single_seconds + taken, peer_seconds + peer_taken
    turns = equal = 0
    for request, draft, theirs in zip(requests, drafts, peer_turns, strict=False):
        written = [i for i, turn in enumerate(request.turns) if not turn.text]
        turns += len(written)
        equal += sum(draft.turns[i] == theirs[i] for i in written)
        if list(draft.turns) != theirs:
            print("  differs:", logit_gap(drafter, request, draft.turns, theirs))
    ours = sum(draft.tokens for draft in drafts) / seconds
    usual = peer.tokens / peer_seconds
    flops, bandwidth = peaks(drafter)
    parameters = weights.model.num_parameters() - weights.model.get_input_embeddings().weight.numel()
    weight_bytes = parameters * weights.model.dtype.itemsize
    figures = {
        "model": name,
        "parameters": weights.model.num_parameters(),
        "dtype": str(weights.model.dtype).removeprefix("torch."),
        "device": str(weights.device) if weights.device.type == "cpu" else torch.cuda.get_device_name(weights.device),
        "threads": torch.get_num_threads(),
        "cards": len(requests),
        "peer_cards": len(peer_turns),
        "tokens_per_second": round(ours, 1),
        "peer_tokens_per_second": round(usual, 1),
        "ratio": round(ours / usual, 2),
        "single_card_ratio": round(peer_seconds / single_seconds, 2),
        "equal_turns": f"{equal}/{turns}",
        "single_equals_batched": single == drafts[: len(single)],
        "share_of_matmul_peak": round(2 * parameters * many.tokens / seconds / flops, 3),
        "share_of_bandwidth": round(many.passes * weight_bytes / seconds / bandwidth, 3),
        "matmul_gflops": round(flops / 1e9),
        "bandwidth_gb_s": round(bandwidth / 1e9, 1),
        "passes": many.passes,
        "tokens_fed": many.tokens,
    }
    print(json.dumps(figures, ensure_ascii=False))
    return figures


def main() -> None:
    """Run the comparisons that the arguments ask for."""
    parser = argparse.ArgumentParser(description="The drafting engine against one-by-one text generation.")
    parser.add_argument("--sizes", nargs="*", default=["2M", "100M"], choices=[*SIZES])
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder to use instead of random models")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cards", type=int, default=64)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--peer-cards", type=int, default=8, help="cards that the peer drafts; its rate is what counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.checkpoint:
            checkpoint = Registry(options.checkpoint.parent).get(options.checkpoint.name)
            for dtype in options.dtypes:
                measure(checkpoint, options.checkpoint.name, dtype, options)
            return
        for size in options.sizes:
            checkpoint = random_checkpoint(size, Registry(Path(folder)))
            for dtype in options.dtypes:
                measure(checkpoint, size, dtype, options)


if __name__ == "__main__":
    main()
