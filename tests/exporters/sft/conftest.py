"""A nano model and a small data set version: every training in these tests takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialogue import Dialogue, read_dialogues, write_dialogues

STARTER = Path(__file__).parents[3] / "examples" / "starter.jsonl"


def save_nano(folder: Path, dialogues: list[Dialogue], *, tags: bool = True, **changes: object) -> Path:
    """A randomly initialised Mistral of some ten thousand parameters with a real byte-level tokenizer."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from dialogue.rendering import required_tokens
    from exporters.sft.demo_base import make_tokenizer

    texts = [turn.text for d in dialogues for turn in d.conversation] + [d.context for d in dialogues]
    tokenizer = make_tokenizer(texts + ["closeness:4,mood:0"] * 50, 500, required_tokens("tags") if tags else ())
    torch.manual_seed(1)
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.1,
    }
    MistralForCausalLM(MistralConfig(**{**config, **changes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def some() -> list[Dialogue]:
    """Sixteen dialogues of the starter corpus."""
    return read_dialogues(STARTER)[:16]


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory, some: list[Dialogue]) -> Path:
    """A base directory that knows the tags."""
    return save_nano(tmp_path_factory.mktemp("base") / "nano", some)


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory, some: list[Dialogue]) -> Path:
    """A data set version: twelve dialogues to train on, four held out."""
    folder = tmp_path_factory.mktemp("datasets") / "0123456789ab"
    write_dialogues(folder / "train.jsonl", some[:12])
    write_dialogues(folder / "validation.jsonl", some[12:])
    return folder
