"""Base-model directories: is it a causal LM, which format fits, new tokens for the levels, LoRA."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue import files
from dialogue.errors import CheckpointError, FileError
from dialogue.records import CLOSENESS_MEANING, LEVELS, MOOD_MEANING, Attribute
from dialogue.rendering import default_format, missing_tokens, render_prompt, required_tokens
from exporters.sft.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HASHED = (".safetensors", ".json", ".model", ".txt", ".jinja")
_MEANING = {
    "<|context|>": "場面",
    "<|user|>": "User",
    "<|aku|>": "Aku",
    **{f"<|closeness_{i}|>": meaning for i, meaning in enumerate(CLOSENESS_MEANING)},
    **{f"<|mood_{i}|>": meaning for i, meaning in enumerate(MOOD_MEANING)},
}
"""What each token of the format `tokens` means; its embedding starts as the mean of these words' embeddings."""


@dataclasses.dataclass(frozen=True, slots=True)
class Base:
    """A loaded base: model (fp32), tokenizer, the prompt format it will be trained with, and what was added."""

    path: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    format: str
    new_tokens: tuple[str, ...]
    parameters: int
    context: int
    demo: bool


def check_base(folder: Path) -> dict[str, Any]:
    """Return the config of a directory that can be a base; raises `CheckpointError` saying what is wrong with it."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such directory; name a folder with config.json and model.safetensors.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: holds no config.json, so it is no Hugging Face model directory.")
    try:
        config = files.read_json(folder / "config.json")
    except FileError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder}/config.json: is not a JSON object.")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and "auto_map" in files.read_json(folder / name):
            raise CheckpointError(f'{folder / name}: "auto_map" asks for remote code, which is never run; remove it.')
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder}: holds no *.safetensors weights; load it once and save it with save_pretrained()."
        )
    return config


def base_hash(folder: Path) -> str:
    """SHA-256 over names and bytes of the weights, configs and tokenizer files; 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _HASHED and p.name != "aku.json"):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:12]


def load_base(folder: Path, settings: TrainSettings) -> Base:
    """Load model and tokenizer, settle the prompt format and add the tokens it needs.

    Raises `CheckpointError` for a folder that is no causal LM, a tokenizer that does not belong to
    it, has no eos token or lacks the tags.  Never runs remote code, never unpickles.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed
    from transformers.utils import logging as transformers_logging

    check_base(folder)
    folder = folder.resolve()
    set_seed(settings.seed)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise CheckpointError(f"{folder}: a {config.model_type} model can not write text; a causal LM is needed.")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except CheckpointError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise whatever they like
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{folder}: can not be loaded as a causal language model ({first}).") from error
    if missing := sorted(loading["missing_keys"]):
        raise CheckpointError(f"{folder}: its weights lack {missing[0]} ({len(missing)} in all); copy the folder anew.")
    name = default_format(tokenizer) if settings.format == "auto" else settings.format
    new_tokens = prepare_tokens(model, tokenizer, name, folder)
    check_levels(tokenizer, name, folder)
    return Base(
        path=folder,
        model=model,
        tokenizer=tokenizer,
        format=name,
        new_tokens=new_tokens,
        parameters=model.num_parameters(),
        context=int(config.get_text_config().max_position_embeddings or 4096),
        demo=(folder / "aku_base.json").exists(),
    )


def prepare_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, folder: Path
) -> tuple[str, ...]:
    """Add what format `tokens` needs, each new embedding the mean of its meaning's; returns the new tokens.

    Raises `CheckpointError` if the tokenizer has no eos token, is larger than the model, or lacks the tags.
    """
    import torch

    if tokenizer.eos_token is None:
        raise CheckpointError(f"{folder}: the tokenizer has no eos token, so a reply could never end; set one.")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {rows}; they do not belong together."
        )
    missing = missing_tokens(tokenizer, name)
    if missing and name != "tokens":
        raise CheckpointError(
            f"{folder}: the tokenizer does not know {', '.join(missing)}, which format {name!r} needs; "
            'choose format = "steerlm" (or "tokens", which adds its own).'
        )
    if not missing:
        return ()
    meanings = {token: tokenizer(_MEANING[token], add_special_tokens=False)["input_ids"] for token in missing}
    tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in {id(e): e for e in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            for token, ids in meanings.items():
                layer.weight[tokenizer.convert_tokens_to_ids(token)] = layer.weight[ids].mean(dim=0)
    return tuple(token for token in required_tokens(name) if token in missing)


def interpolate_levels(base: Base, model: Any, seen: set[int]) -> tuple[str, ...]:
    """Lay level tokens that training never showed between their trained neighbours; returns which.

    The first stage of a data set holds the levels 0, 2 and 4 only.  Without this, 1 and 3 would stay
    where their Japanese meaning put them before training.  Outside the trained range the nearest
    trained level is taken.  Other formats have no token of their own for a level.

    Args:
        base: The base that was trained, in format `tokens`.
        model: The trained model, possibly with an adapter whose embeddings are trained.
        seen: Token ids that occurred in training.
    """
    import torch

    moved: list[str] = []
    layers = {id(e.weight): e.weight for e in (model.get_input_embeddings(), model.get_output_embeddings())}
    weights = [weight for weight in layers.values() if weight.requires_grad]
    if base.format != "tokens" or not weights:
        return ()
    for key in ("closeness", "mood"):
        ids = [base.tokenizer.convert_tokens_to_ids(f"<|{key}_{level}|>") for level in LEVELS]
        known = [level for level in LEVELS if ids[level] in seen]
        for level in LEVELS:
            if level in known or not known:
                continue
            below = max((k for k in known if k < level), default=min(known))
            above = min((k for k in known if k > level), default=max(known))
            share = (level - below) / (above - below) if above != below else 0.0
            with torch.no_grad():
                for weight in weights:
                    weight[ids[level]] = torch.lerp(weight[ids[below]], weight[ids[above]], share)
            moved.append(f"<|{key}_{level}|>")
    return tuple(moved)


def check_levels(tokenizer: PreTrainedTokenizerBase, name: str, folder: Path) -> None:
    """Assert that the model can tell the 25 attribute pairs apart; raises `CheckpointError`.

    A Unigram tokenizer that never saw ASCII turns "closeness:4,mood:0" into unknown tokens: training
    would run, and steering would be impossible.
    """
    pairs = [Attribute(closeness, mood) for closeness in LEVELS for mood in LEVELS]
    prompts = {pair: tuple(render_prompt("", [], pair, tokenizer, name)) for pair in pairs}
    if len(set(prompts.values())) < len(pairs):
        raise CheckpointError(
            f"{folder}: its tokenizer can not tell the attribute levels of format {name!r} apart (unknown characters); "
            'set format = "tokens", which adds a token for each level.'
        )


def with_lora(base: Base, settings: TrainSettings) -> Any:
    """Wrap the model with a LoRA adapter on all linear layers; new tokens make the embeddings trainable too.

    `trainable_token_indices` breaks on tied embeddings in the pinned TRL, hence `modules_to_save`
    with `ensure_weight_tying`.
    """
    from peft import LoraConfig, get_peft_model

    new = bool(base.new_tokens)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        modules_to_save=["embed_tokens"] if new else None,
        ensure_weight_tying=new and bool(base.model.config.tie_word_embeddings),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base.model, config)
