"""A tiny base model made on the spot, for the demo and the tests: it knows the tags and some Japanese small talk."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue import files
from dialogue.records import LEVELS, Dialogue
from dialogue.rendering import required_tokens
from exporters.sft.prepare import quiet_environment

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int, str], None]
_EOS = "</s>"
_VOCABULARY = 3000
_CONTEXT = 2048
_TOKENS = 250_000
"""Tokens of pre-training, repetitions counted: under a minute on two quiet cores."""
_BATCH, _BLOCK = 4, 256
_RATE = 5e-3
_ATTRIBUTES = [f"closeness:{c},mood:{m}" for c in LEVELS for m in LEVELS] * 20
"""Only the tokenizer sees them: without them one attribute pair would cost twenty tokens a turn."""


def make_demo_base(
    folder: Path,
    texts: Sequence[Dialogue],
    contexts: Sequence[str],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    tokens: int = _TOKENS,
) -> Path:
    """Make a base of about two million parameters (Mistral type) from dialogues, put in place atomically.

    It stands in for a real pre-trained base: byte-level BPE that round-trips every character, the
    tags as special tokens, pre-trained as a language model on the dialogues' text without their
    attributes.  The same input gives the same weights.  An existing folder is kept as it is.

    Args:
        folder: Where the model goes.
        texts: Dialogues to learn Japanese small talk from.
        contexts: More text for the tokenizer and the model: scenes without a dialogue.
        seed: Seed of weights and order.
        progress: Called with optimiser steps done, all steps, and a line to show.
        tokens: How many tokens to train on, repetitions counted.
    """
    if (folder / "aku_base.json").exists():
        return folder
    quiet_environment()
    import torch
    from transformers import MistralConfig, MistralForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    documents = [_document(d) for d in texts] + [f"<CONTEXT>{context}</CONTEXT>\n" for context in contexts]
    tokenizer = make_tokenizer([*documents, *_ATTRIBUTES])
    torch.manual_seed(seed)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=_CONTEXT,
            sliding_window=None,
            tie_word_embeddings=True,
            initializer_range=0.06,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
        )
    )
    _pretrain(model, tokenizer, documents, tokens, seed, progress)
    with files.atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        facts = {"demo": True, "dialogues": len(texts), "contexts": len(contexts), "seed": seed, "tokens": tokens}
        files.write_json(temporary / "aku_base.json", facts)
    return folder


def make_tokenizer(
    documents: Sequence[str], vocabulary: int = _VOCABULARY, tokens: Sequence[str] = required_tokens("tags")
) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer that knows an eos token and `tokens`, by default the user's base's tags."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [_EOS, *tokens]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_EOS,
        additional_special_tokens=special[1:],
        clean_up_tokenization_spaces=False,
    )


def _document(dialogue: Dialogue) -> str:
    """Text in the manner of the user's own pre-training: tags, roles, no attributes."""
    turns = "".join(
        f"<ROLE>{turn.speaker}</ROLE>\n{turn.text}{_EOS if turn.speaker == 'Aku' else ''}\n"
        for turn in dialogue.conversation
    )
    return f"<CONTEXT>{dialogue.context}</CONTEXT>\n{turns}"


def _pretrain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[str],
    tokens: int,
    seed: int,
    progress: Progress | None,
) -> None:
    """Language-model training with AdamW and a cosine schedule until `tokens` tokens were seen."""
    import torch
    from torch.nn import functional

    chance = random.Random(seed)  # noqa: S311  # an order of training, not a secret
    encoded = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
    steps = max(1, round(tokens / (_BATCH * _BLOCK)))
    stream: list[int] = []
    while len(stream) < steps * _BATCH * _BLOCK:  # documents end to end, in a new order each time
        stream += [token for ids in chance.sample(encoded, len(encoded)) for token in ids]
    blocks = torch.tensor(stream[: steps * _BATCH * _BLOCK]).view(steps, _BATCH, _BLOCK)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    model.train()
    for step, ids in enumerate(blocks):
        rate = _RATE * min(1.0, (step + 1) / 20) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        logits: Any = model(input_ids=ids, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch carries no type here
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if progress is not None:
            progress(step + 1, steps, f"demo base, loss {loss.item():.2f}")
    model.eval()
