"""DPO: teach a checkpoint to prefer what people wrote over what it had drafted (Rafailov et al. 2023)."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue import files
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import FileError, SettingsError
from dialogue.records import Attribute, Turn
from dialogue.rendering import render, render_prompt
from exporters.sft import base as bases
from exporters.sft.prepare import check_disk, fast_bf16, quiet_environment, read_dataset
from exporters.sft.rows import make_rows
from exporters.sft.settings import TrainSettings
from exporters.sft.training import git_commit, register

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Preference:
    """One pair: the scene and turns before Aku's turn, what a person made of it, what the model had drafted."""

    dialogue: str
    context: str
    turns: tuple[Turn, ...]
    attribute: Attribute | None
    chosen: str
    rejected: str


@dataclasses.dataclass(frozen=True, slots=True)
class PreferenceIds:
    """A pair as token ids; prompt + chosen is exactly what SFT would train on."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def read_preferences(path: Path) -> list[Preference]:
    """Read pairs in the form `aku export --format preferences` writes; raises `FileError` naming the line."""
    pairs = []
    for number, row in files.read_jsonl(path):
        try:
            pairs.append(_preference(row))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise FileError(f"{path}, line {number}: no preference pair ({error!r}); write the file anew.") from error
    return pairs


def preference_ids(pair: Preference, tokenizer: PreTrainedTokenizerBase, name: str) -> PreferenceIds:
    """Render a pair; both replies end with the end token."""
    prompt = render_prompt(pair.context, pair.turns, pair.attribute, tokenizer, name)
    replies = []
    for text in (pair.chosen, pair.rejected):
        segments = render(pair.context, [*pair.turns, Turn("Aku", text)], pair.attribute, tokenizer, name).segments
        replies.append(next(segment.ids for segment in reversed(segments) if segment.trained))
    return PreferenceIds(tuple(prompt), replies[0], replies[1])


def train_dpo(
    parent: Checkpoint,
    pairs: Sequence[Preference],
    dataset: Path,
    registry: Registry,
    settings: TrainSettings,
    *,
    work: Path,
    progress: Progress | None = None,
) -> Checkpoint:
    """Train `parent` on preference pairs with TRL's `DPOTrainer` and register the result as a whole model.

    A tenth of the pairs (at least one) is held out, by dialogue, to report how often the corrected
    reply is likelier than the draft.  An adapter is merged into its base first.

    Args:
        parent: The checkpoint to start from, which is also the reference model.
        pairs: Preference pairs.
        dataset: Data set version; its held-out dialogues show what DPO costs in ordinary loss.
        registry: Where the new checkpoint goes.
        settings: Section `[train]`; `dpo_*` are read.
        work: Folder for runs.
        progress: Called with steps done, all steps, and a line to show.

    Raises:
        SettingsError: Fewer than two dialogues with pairs.
        CheckpointError: The checkpoint can not be loaded.
        FileError: The disk is too small.
    """
    quiet_environment()
    model, tokenizer = load_checkpoint(parent)
    reference, _ = load_checkpoint(parent)
    train, held_out = split(pairs, settings.seed)
    limit = int(model.config.get_text_config().max_position_embeddings or 4096)
    rendered = {
        name: [ids for ids in (preference_ids(p, tokenizer, parent.format) for p in chosen) if _length(ids) <= limit]
        for name, chosen in (("train", train), ("held_out", held_out))
    }
    left_out = len(pairs) - sum(map(len, rendered.values()))
    if not rendered["train"] or not rendered["held_out"]:
        raise SettingsError("no preference pair fits into the model's context; shorten the dialogues.")
    parameters = int(model.num_parameters())
    check_disk(work, registry.root, parameters, "full")
    data = read_dataset(dataset)
    rows = make_rows(data.validation, tokenizer, parent.format, max_length=limit).rows if data.validation else ()
    from exporters.sft.fit_dpo import fit_dpo

    small = parameters < 20_000_000
    rate = settings.dpo_learning_rate or (1e-4 if small else 1e-6)
    key = _key(parent.id, rendered, settings, rate)
    metrics = fit_dpo(
        model,
        reference,
        tokenizer,
        rendered["train"],
        rendered["held_out"],
        rows,
        settings,
        name=parent.format,
        rate=rate,
        bf16=parameters >= 100_000_000 and fast_bf16(),
        folder=work / key,
        progress=progress,
    )
    card = {
        **{k: v for k, v in parent.card.items() if k != "id"},
        "parent": parent.id,
        "method": "full",
        "preferences": len(train),
        "left_out": {"pairs longer than the model's context": left_out} if left_out else {},
        "order": "dpo",
        "plan": key,
        "stages": [{"name": "dpo", "start": 0, "stop": metrics["steps"], "dialogues": len(train), "replayed": 0}],
        "settings": dataclasses.asdict(settings),
        "resolved": {"dpo_learning_rate": rate},
        "metrics": metrics,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
    }
    plan = {"order": "dpo", "pairs": [pair.dialogue for pair in train], "seed": settings.seed}
    return register(registry, work / key, card, plan)


def split(pairs: Sequence[Preference], seed: int) -> tuple[list[Preference], list[Preference]]:
    """Hold out a tenth of the dialogues (at least one); raises `SettingsError` if fewer than two have pairs."""
    dialogues = sorted({pair.dialogue for pair in pairs})
    if len(dialogues) < 2:
        raise SettingsError(
            f"{len(dialogues)} dialogue(s) with preference pairs; DPO needs corrected drafts of at least two."
        )
    held = set(random.Random(f"dpo {seed}").sample(dialogues, max(1, len(dialogues) // 10)))  # noqa: S311
    return [p for p in pairs if p.dialogue not in held], [p for p in pairs if p.dialogue in held]


def load_checkpoint(checkpoint: Checkpoint) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint's weights in fp32, an adapter merged into its base."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    folder = Path(checkpoint.card["base"]) if checkpoint.is_adapter else checkpoint.path
    bases.check_base(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    if checkpoint.is_adapter:
        from peft import PeftModel

        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
        model = PeftModel.from_pretrained(model, checkpoint.path).merge_and_unload()
    return model.requires_grad_(True), tokenizer


def _preference(row: dict[str, Any]) -> Preference:
    context, attribute, turns = "", None, []
    for message in row["prompt"]:
        role, content = message["role"], str(message["content"])
        if role == "system":
            context = content
        elif role == "attribute":
            levels = dict(part.split(":") for part in content.split(","))
            attribute = Attribute(int(levels["closeness"]), int(levels["mood"]))
        else:
            turns.append(Turn({"user": "User", "assistant": "Aku"}[role], content))  # type: ignore[arg-type]
    chosen, rejected = (str(row[side][0]["content"]) for side in ("chosen", "rejected"))
    return Preference(str(row["id"]), context, tuple(turns), attribute, chosen, rejected)


def _length(ids: PreferenceIds) -> int:
    return len(ids.prompt) + max(len(ids.chosen), len(ids.rejected))


def _key(parent: str, rendered: dict[str, list[PreferenceIds]], settings: TrainSettings, rate: float) -> str:
    pairs = {name: [dataclasses.asdict(ids) for ids in values] for name, values in rendered.items()}
    value = json.dumps([parent, pairs, dataclasses.asdict(settings), rate], sort_keys=True)
    return "dpo-" + hashlib.sha256(value.encode()).hexdigest()[:16]
