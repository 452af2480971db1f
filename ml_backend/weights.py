"""Loading a checkpoint's model and tokenizer, and what the decoder must know about them.

Weights come from local safetensors alone and no code of a checkpoint is ever run.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch

from dialogue import files
from dialogue.checkpoints import Checkpoint, check_safe
from dialogue.errors import CheckpointError, FileError
from dialogue.rendering import missing_tokens


@dataclasses.dataclass(frozen=True)
class Weights:
    """A model ready to draft: on its device, in its number format, seen to give finite numbers."""

    id: str
    model: Any
    tokenizer: Any
    format: str
    device: torch.device
    base: Path
    adapter: str | None
    context_length: int

    def activate(self) -> None:
        """Switch the shared base to this checkpoint's adapter, if it is one."""
        if self.adapter is not None and self.model.active_adapter != self.adapter:
            self.model.set_adapter(self.adapter)
            self.model.requires_grad_(False)

    @functools.cached_property
    def layers(self) -> int:
        """Number of layers with a key-value cache."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @functools.cached_property
    def layer_types(self) -> set[str]:
        """Kinds of layers: full attention, sliding-window attention, or what has no such cache."""
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds:
            kinds = {"sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"}
        return kinds

    @functools.cached_property
    def sliding_window(self) -> int | None:
        """How many tokens sliding layers look back, or None if no layer slides."""
        if "sliding_attention" not in self.layer_types:
            return None
        return int(self.model.config.get_text_config().sliding_window)

    @functools.cached_property
    def control(self) -> tuple[str, ...]:
        """The tokenizer's control tokens as text."""
        return tuple({*self.tokenizer.get_added_vocab(), *self.tokenizer.all_special_tokens})

    @functools.cached_property
    def forbidden(self) -> torch.Tensor:
        """What is added to the scores, float32, shape (2, vocabulary): rows for an Aku and for a User turn.

        Control tokens are never written.  A User turn may end at one, since it has no end token.
        """
        size = int(self.model.get_output_embeddings().weight.shape[0])
        ids = set(self.tokenizer.convert_tokens_to_ids(list(self.control)))
        ids |= set(range(len(self.tokenizer), size))
        mask = torch.zeros(2, size)
        mask[0, sorted(ids - {self.tokenizer.eos_token_id})] = float("-inf")
        mask[1, sorted(ids - self.end_set[1])] = float("-inf")
        return mask.to(self.device)

    @functools.cached_property
    def end_set(self) -> tuple[frozenset[int], frozenset[int]]:
        """Token ids that end an Aku turn and a User turn.

        Aku ends with the end token.  User's turns were trained as plain text, so they end where it
        would go on: at a role header or at anything with a line break.
        """
        tokenizer = self.tokenizer
        eos = {int(tokenizer.eos_token_id)}
        headers = [t for t in ("<ROLE>", "<|aku|>", "<|user|>") if t in tokenizer.get_added_vocab()]
        return frozenset(eos), frozenset(eos | set(tokenizer.convert_tokens_to_ids(headers)) | self._line_breaks)

    @functools.cached_property
    def ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`end_set` as index tensors."""
        aku, user = (torch.tensor(sorted(ids), device=self.device) for ids in self.end_set)
        return aku, user

    @functools.cached_property
    def silent_ends(self) -> frozenset[int]:
        """End tokens that are no text themselves."""
        return self.end_set[1] - self._line_breaks

    @functools.cached_property
    def _line_breaks(self) -> frozenset[int]:
        texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        return frozenset(i for i, text in enumerate(texts) if "\n" in text)


def load(checkpoint: Checkpoint, device: str, dtype: str, share: Weights | None = None) -> Weights:
    """Load a checkpoint; an adapter whose base is the one of `share` is put onto that model, not loaded anew.

    Raises `CheckpointError` if anything about the folder is wrong, naming it.
    """
    try:
        check_safe(checkpoint.path)
        return _load(checkpoint, device, dtype, share)
    except (CheckpointError, FileError):
        raise
    except Exception as error:  # transformers, peft and safetensors raise whatever they like
        raise CheckpointError(
            f"{checkpoint.path}: can not be loaded ({type(error).__name__}: {_first_line(error)}); add it again."
        ) from error


def _load(checkpoint: Checkpoint, device: str, dtype: str, share: Weights | None) -> Weights:
    from transformers import AutoModelForCausalLM

    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    base, adapter = checkpoint.path, None
    if checkpoint.is_adapter:
        base, adapter = base_of(checkpoint), checkpoint.id
        check_safe(base)
    tokenizer = load_tokenizer(checkpoint, base)
    if adapter is not None and share is not None and share.adapter is not None and share.base == base:
        model = share.model
    else:
        model = AutoModelForCausalLM.from_pretrained(
            base, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
        if adapter is not None and len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
        model = model.to(where, _dtype(dtype, where, model.num_parameters()))
    if adapter is not None:
        from peft import PeftModel

        if model.__class__.__name__.startswith("Peft"):
            if adapter not in model.peft_config:
                model.load_adapter(str(checkpoint.path), adapter_name=adapter, autocast_adapter_dtype=False)
        else:
            model = PeftModel.from_pretrained(
                model, str(checkpoint.path), adapter_name=adapter, autocast_adapter_dtype=False
            )
    model.eval().requires_grad_(False)
    length = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 4096)
    weights = Weights(checkpoint.id, model, tokenizer, checkpoint.format, where, base, adapter, length)
    weights.activate()
    _check_finite(weights)
    return weights


def load_tokenizer(checkpoint: Checkpoint, base: Path) -> Any:
    """Load a checkpoint's tokenizer, from its base if it has none of its own; raises `CheckpointError`."""
    from transformers import AutoTokenizer

    source = checkpoint.path if (checkpoint.path / "tokenizer_config.json").exists() else base
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    if missing := missing_tokens(tokenizer, checkpoint.format):
        raise CheckpointError(f"{source}: the tokenizer does not know {missing[0]} of format {checkpoint.format!r}.")
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"{source}: the tokenizer has no eos token.")
    return tokenizer


def base_of(checkpoint: Checkpoint) -> Path:
    """Return the folder of an adapter's base model; raises `CheckpointError` if it is not there."""
    named = files.read_json(checkpoint.path / "adapter_config.json").get("base_model_name_or_path")
    for candidate in (named, checkpoint.card.get("base")):
        if isinstance(candidate, str) and candidate:
            for path in (Path(candidate), checkpoint.path / candidate, checkpoint.path.parent / candidate):
                if (path / "config.json").is_file():
                    return path.resolve()
    raise CheckpointError(f"{checkpoint.path}: its base model {named!r} is not on this machine; put it back.")


def _check_finite(weights: Weights) -> None:
    ids = torch.tensor([[weights.tokenizer.eos_token_id]], device=weights.device)
    with torch.inference_mode():
        logits = weights.model(input_ids=ids).logits
    if not bool(torch.isfinite(logits).all()):
        raise CheckpointError(f"checkpoint {weights.id}: the model gives no finite numbers; train it again.")


def _dtype(name: str, device: torch.device, parameters: int) -> torch.dtype:
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if parameters >= 50_000_000 and _cpu_multiplies_bfloat16() else torch.float32


@functools.cache
def _cpu_multiplies_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
