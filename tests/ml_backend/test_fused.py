"""The fused pass: the model's own scores, for the models that it knows, and hands off all others."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from backends import shape
from torch import nn

from ml_backend import packing
from ml_backend.caching import memory_for
from ml_backend.fused import FusedMemory, unsupported
from ml_backend.memory import NoMemory
from ml_backend.packing import pack
from ml_backend.slots import SlotMemory
from ml_backend.weights import Weights

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 64}

FUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "Mistral": ("Mistral", {"sliding_window": None}),
    "a window as long as the context": ("Mistral", {"sliding_window": 512}),
    "one key-value head": ("Mistral", {"sliding_window": None, "num_key_value_heads": 1}),
    "as many key-value heads as heads": ("Llama", {"num_key_value_heads": 4}),
    "wide heads, tied embeddings": ("Mistral", {"sliding_window": None, "head_dim": 24, "tie_word_embeddings": True}),
    "biases everywhere": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "biases of queries, keys and values": ("Qwen2", {}),
    "Llama 3's position codes": ("Llama", {"rope_parameters": LLAMA3}),
    "Yarn's position codes": ("Llama", {"rope_parameters": YARN}),
}
NOT_FUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "normalised queries and keys": ("Qwen3", {}),
    "sliding window": ("Mistral", {"sliding_window": 24}),
    "another activation": ("Llama", {"hidden_act": "gelu"}),
    "position codes that depend on the length": ("Llama", {"rope_parameters": DYNAMIC}),
}


@dataclasses.dataclass
class Text:
    """A row of the cache."""

    slot: int
    cached: list[int]


def weights_of(kind: tuple[str, dict[str, Any]], tokenizer: Any, dtype: torch.dtype = torch.float32) -> Weights:
    """A model with random weights, biases too."""
    import transformers

    name, options = kind
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**shape(tokenizer), **options})
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # biases begin as zeros and norms as ones, which would hide a mistake
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return Weights("0" * 12, model.to(dtype), tokenizer, "tags", torch.device("cpu"), Path(), None, 512)


def assert_same_scores(memory: FusedMemory, steps: Sequence[tuple[list[Text], list[list[int]]]]) -> None:
    """Feed the steps and compare each with a plain pass over the whole texts."""
    plain = NoMemory(memory.weights)
    for rows, feeds in steps:
        torch.testing.assert_close(memory.forward(rows, feeds), plain.forward(rows, feeds), rtol=1e-3, atol=1e-4)
        for row, feed in zip(rows, feeds, strict=True):
            row.cached.extend(feed)


@pytest.mark.parametrize("kind", FUSED.values(), ids=FUSED)
@pytest.mark.parametrize("packed", [False, True])
@torch.inference_mode()
def test_scores_are_the_models_own_in_any_order_of_rows(
    kind: tuple[str, dict[str, Any]], packed: bool, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(kind, tokenizer)
    if packed:
        monkeypatch.setattr(packing, "LEAST", 1)
        assert pack(weights.model)
    memory = memory_for(weights)
    assert isinstance(memory, FusedMemory)
    rng = random.Random(0)
    texts = [Text(slot, []) for slot in range(5)]

    def steps() -> Any:
        for number in range(12):
            rows = rng.sample(texts, rng.randint(1, 5)) if number % 3 else texts[: rng.randint(1, 5)]
            for row in rows:  # sometimes the last tokens are taken back
                del row.cached[len(row.cached) - rng.randint(0, min(3, len(row.cached))) :]
            lengths = [1 if number % 2 else rng.randint(1, 30) for _ in rows]
            yield rows, [rng.choices(range(len(tokenizer)), k=length) for length in lengths]

    assert_same_scores(memory, steps())


@torch.inference_mode()
def test_rows_change_places_and_are_copied(tokenizer: Any) -> None:
    memory = memory_for(weights_of(FUSED["Mistral"], tokenizer))
    assert isinstance(memory, FusedMemory)
    a, b = Text(0, []), Text(1, [])
    assert_same_scores(memory, [([a, b], [[5, 6, 7], [8, 9, 10, 11, 12]])])
    memory.swap(0, 1, 5)
    a.slot, b.slot = 1, 0
    memory.copy(a.slot, 6, len(a.cached))
    c = Text(6, list(a.cached))
    assert_same_scores(memory, [([c, b, a], [[13], [14], [15]]), ([b], [list(range(20, 50))])])


@torch.inference_mode()
def test_a_long_text_makes_the_buffers_grow_and_loses_nothing(tokenizer: Any) -> None:
    memory = memory_for(weights_of(FUSED["Mistral"], tokenizer))
    assert isinstance(memory, FusedMemory)
    a, b = Text(0, []), Text(1, [])
    ids = [i % len(tokenizer) for i in range(300)]
    assert_same_scores(memory, [([a], [ids[:100]]), ([b, a], [ids[:7], ids[100:]]), ([a, b], [[1], [2]])])


@pytest.mark.parametrize("kind", NOT_FUSED.values(), ids=NOT_FUSED)
def test_other_models_are_left_to_transformers(kind: tuple[str, dict[str, Any]], tokenizer: Any) -> None:
    weights = weights_of(kind, tokenizer)
    assert unsupported(weights)
    with pytest.raises(ValueError, match=unsupported(weights)):
        FusedMemory(weights)
    assert not isinstance(memory_for(weights), FusedMemory)


def test_bfloat16_and_adapters_are_left_to_transformers(tokenizer: Any) -> None:
    assert unsupported(weights_of(FUSED["Mistral"], tokenizer, torch.bfloat16))
    assert unsupported(dataclasses.replace(weights_of(FUSED["Mistral"], tokenizer), adapter="0123456789ab"))


def test_a_model_that_computes_something_else_keeps_its_own_pass(tokenizer: Any) -> None:
    weights = weights_of(FUSED["Mistral"], tokenizer)
    block = weights.model.model.layers[0].mlp
    block.register_forward_hook(lambda module, inputs, output: output * 1.5)
    assert not unsupported(weights)
    assert isinstance(memory_for(weights), SlotMemory)


@torch.inference_mode()
def test_joining_copies_no_weight_twice_and_the_model_still_works(tokenizer: Any) -> None:
    weights = weights_of(FUSED["wide heads, tied embeddings"], tokenizer)
    ids = torch.arange(20)[None]
    before = weights.model(ids).logits
    memory = memory_for(weights)
    assert isinstance(memory, FusedMemory)
    torch.testing.assert_close(weights.model(ids).logits, before)
    layer, attention = memory.layers[0], weights.model.model.layers[0].self_attn
    assert layer.inputs.weight is not None
    assert attention.q_proj.weight.data_ptr() == layer.inputs.weight.data_ptr()
    assert attention.v_proj.weight.untyped_storage().data_ptr() == layer.inputs.weight.untyped_storage().data_ptr()
    assert weights.model.lm_head.weight is weights.model.model.embed_tokens.weight
    assert isinstance(attention.q_proj, nn.Linear)
