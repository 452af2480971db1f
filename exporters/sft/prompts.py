"""Tokenizers for looking at prompts without loading a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dialogue.errors import CheckpointError
from dialogue.records import Dialogue
from dialogue.rendering import missing_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def format_tokenizer(folder: Path | None, name: str | None, dialogue: Dialogue) -> PreTrainedTokenizerBase:
    """Return a folder's tokenizer, or a throw-away one trained on the dialogue itself.

    The tokens that format `tokens` adds in training are added here too.  Raises `CheckpointError` if
    the folder holds no tokenizer.
    """
    if folder is None:
        from exporters.sft.demo_base import make_tokenizer

        tokenizer = make_tokenizer([dialogue.context, *(turn.text for turn in dialogue.conversation)])
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: holds no tokenizer that can be loaded.") from error
    if name == "tokens" and (missing := missing_tokens(tokenizer, name)):
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    return tokenizer
