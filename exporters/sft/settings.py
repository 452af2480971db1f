"""What a training run can be told: section `[train]` of `aku.toml`, and its `[[stage]]` tables."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal

from dialogue.errors import SettingsError
from dialogue.settings import load_section, setting

ORDERS = ("staged", "shuffle", "short_to_long", "cyclic")
Order = Literal["staged", "shuffle", "short_to_long", "cyclic"]


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a hand-made curriculum: which dialogues, for how long, how much is repeated from before.

    All filters that are given must hold.  Bounds include their ends; `difficulty` is the quantile
    (0 easiest, 1 hardest) of the base model's loss on Aku's turns.
    """

    name: str = setting("", "Name shown in logs and plots.")
    min_turns: int = setting(0, "Fewest turns.")
    max_turns: int = setting(10_000, "Most turns.")
    min_length: float = setting(0.0, "Least mean number of characters a turn.")
    max_length: float = setting(1e9, "Greatest mean number of characters a turn.")
    closeness: tuple[int, ...] = setting((), "Levels of closeness; empty: all.")
    mood: tuple[int, ...] = setting((), "Levels of mood; empty: all.")
    genre: tuple[str, ...] = setting((), "Topics of which at least one must be given; empty: all.")
    min_difficulty: float = setting(0.0, "Lower bound on the quantile of the base model's loss.")
    max_difficulty: float = setting(1.0, "Upper bound on the quantile of the base model's loss.")
    epochs: float = setting(1.0, "Times each dialogue of the stage is seen.")
    replay: float = setting(0.2, "Share of dialogues drawn from earlier stages.")

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.epochs <= 0:
            raise ValueError("epochs must be greater than 0.")
        if not 0 <= self.replay < 1:
            raise ValueError("replay must be at least 0 and less than 1.")

    @property
    def by_difficulty(self) -> bool:
        """Whether the filter asks for the base model's loss."""
        return self.min_difficulty > 0 or self.max_difficulty < 1


@dataclasses.dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train.  0 or "auto" means: chosen from the size of the model, and written on the checkpoint's card."""

    format: Literal["auto", "tags", "tokens", "steerlm", "phrase"] = setting(
        "auto", "Prompt format; auto: tags if the tokenizer knows them, else steerlm."
    )
    method: Literal["full", "lora"] = setting("full", "Train all weights, or a LoRA adapter.")
    order: Order = setting("staged", "Built-in curriculum; [[stage]] tables replace it.")
    stages: int = setting(3, "Number of stages of the built-in orders.")
    replay: float = setting(0.2, "Share of dialogues repeated from earlier stages in a built-in staged order.")
    epochs: float = setting(0.0, "Times each dialogue is seen; 0: 3, or 18 for a model under 20M parameters.")
    batch_size: int = setting(0, "Dialogues per optimiser step, all devices together; 0: 8, or 4 under 20M parameters.")
    micro_batch: int = setting(8, "Dialogues per device and forward pass; smaller saves memory.")
    learning_rate: float = setting(0.0, "Peak learning rate; 0: from the number of parameters.")
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = setting("cosine", "Shape of the learning rate.")
    warmup: float = setting(0.05, "Share of steps in which the learning rate rises.")
    weight_decay: float = setting(0.01, "AdamW weight decay.")
    attribute_dropout: float = setting(0.1, "Share of dialogues rendered without attributes.")
    max_length: int = setting(0, "Longest dialogue in tokens; 0: the model's context.")
    too_long: Literal["refuse", "drop_turns"] = setting(
        "refuse", "Dialogue longer than that: stop with a message, or leave out its last turns."
    )
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "auto: bf16 from 100M parameters where it is fast.")
    packing: bool = setting(False, "Lay several dialogues into one row; they can not see one another.")
    evaluations: int = setting(8, "Evaluations on held-out dialogues (and saves) per run.")
    patience: int = setting(
        -1,
        "Stop after so many evaluations without a better held-out loss; 0: never; -1: 3, never under 20M parameters.",
    )
    lora_rank: int = setting(16, "Rank of the LoRA adapter.")
    lora_alpha: int = setting(32, "Scale of the LoRA adapter.")
    lora_dropout: float = setting(0.0, "Dropout of the LoRA adapter.")
    activation_checkpointing: bool = setting(False, "Trade time for memory.")
    seed: int = setting(0, "Seed of the order, the dropout and new weights.")
    dpo_beta: float = setting(0.1, "DPO: how strongly the trained model is held to its starting point.")
    dpo_epochs: float = setting(1.0, "DPO: times each preference pair is seen.")
    dpo_learning_rate: float = setting(0.0, "DPO: peak learning rate; 0: 1e-6, or 1e-4 under 20M parameters.")
    temperature: float = setting(0.8, "Sampling temperature written on the card for drafting.")
    top_p: float = setting(0.95, "Nucleus written on the card for drafting.")
    max_new_tokens: int = setting(128, "Longest drafted turn in tokens, written on the card.")

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if min(self.stages, self.micro_batch, self.evaluations, self.lora_rank) < 1:
            raise ValueError("stages, micro_batch, evaluations and lora_rank must be at least 1.")
        shares = (self.replay, self.attribute_dropout, self.lora_dropout, self.warmup)
        if min(shares) < 0 or max(shares) >= 1:
            raise ValueError("replay, attribute_dropout, lora_dropout and warmup must be at least 0 and less than 1.")
        if min(self.epochs, self.batch_size) < 0 or self.learning_rate < 0:
            raise ValueError("epochs, batch_size and learning_rate must not be negative.")


def load_train_settings(path: Path) -> TrainSettings:
    """Read section `[train]`; raises `SettingsError`."""
    return load_section(path, "train", TrainSettings)


def load_stages(path: Path) -> tuple[Stage, ...]:
    """Read the `[[stage]]` tables of `aku.toml` in their order; raises `SettingsError` naming the table."""
    if not path.exists():
        return ()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("stage", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML ({error}); correct it.") from error
    if not isinstance(tables, list):
        raise SettingsError(f"{path}: write each stage as a table [[stage]] (two brackets).")
    return tuple(_stage(path, number, table) for number, table in enumerate(tables, 1))


def _stage(path: Path, number: int, table: dict[str, Any]) -> Stage:
    fields = {field.name: field for field in dataclasses.fields(Stage)}
    where = f"{path}: [[stage]] number {number}"
    for key, value in table.items():
        if key not in fields:
            raise SettingsError(f"{where} has no key {key!r}; it knows {', '.join(fields)}.")
        if not _fits(value, fields[key].default):
            raise SettingsError(f"{where}: {key} = {value!r} is of the wrong type; see docs/training.md.")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        return Stage(**({"name": f"stage {number}"} | values))
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def _fits(value: Any, default: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(default, tuple):
        return isinstance(value, list)
    return isinstance(value, (int, float)) if isinstance(default, float) else isinstance(value, type(default))
