"""Curriculum → one explicit order of dialogues, hashed, stored, and asserted batch by batch in training.

A plan lists, for every optimiser step, the dialogues it trains on.  Whole batches belong to one
stage; stages share one learning-rate schedule.  All built-in orders have the same number of steps,
so that they can be compared on equal budgets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

from dialogue.errors import SettingsError
from dialogue.records import Dialogue
from exporters.sft.settings import Order, Stage

_WINDOW = 8
"""Batches that are sorted by length together: neighbours in length share a batch, the window keeps variety."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One dialogue at one place of the order: its row, and whether its attributes are shown."""

    row: int
    with_attribute: bool


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage as compiled: optimiser steps `start` (included) to `stop` (excluded); `replayed` of its entries."""

    name: str
    start: int
    stop: int
    dialogues: int
    replayed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """The compiled order: `entries[step * batch_size : (step + 1) * batch_size]` is one optimiser step."""

    order: str
    batch_size: int
    entries: tuple[Entry, ...]
    stages: tuple[PlannedStage, ...]
    ids: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return len(self.entries) // self.batch_size

    @property
    def hash(self) -> str:
        """SHA-256 of the order, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def stage_at(self, step: int) -> int:
        """Number (from 0) of the stage that optimiser step `step` belongs to."""
        return next((i for i, stage in enumerate(self.stages) if step < stage.stop), len(self.stages) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form stored beside the checkpoint."""
        return {
            "order": self.order,
            "batch_size": self.batch_size,
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "dialogues": [self.ids[entry.row] for entry in self.entries],
            "without_attribute": [i for i, entry in enumerate(self.entries) if not entry.with_attribute],
        }


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """A stage to compile: the rows it is about, how many steps, and which earlier rows it may repeat."""

    name: str
    pool: tuple[int, ...]
    steps: int
    replay: float


class _Deck:
    """An endless supply of rows: shuffled passes, so that every row comes up equally often."""

    def __init__(self, rows: Sequence[int], chance: random.Random) -> None:
        self.rows, self.chance = tuple(rows), chance
        self.left: list[int] = []

    def draw(self, count: int) -> list[int]:
        drawn: list[int] = []
        while len(drawn) < count:
            if not self.left:
                self.left = self.chance.sample(self.rows, len(self.rows))
            take = min(count - len(drawn), len(self.left))
            drawn += self.left[:take]
            self.left = self.left[take:]
        return drawn


def builtin_plan(
    dialogues: Sequence[Dialogue],
    lengths: Sequence[int],
    order: Order,
    *,
    epochs: float,
    batch_size: int,
    stages: int = 3,
    replay: float = 0.2,
    attribute_dropout: float = 0.0,
    seed: int = 0,
) -> Plan:
    """Compile a built-in order over dialogues whose rows have `lengths` tokens.

    `shuffle`: one stage.  `staged`: groups of rising difficulty (mean rank of turns and of
    characters a turn), each repeating some of the earlier ones, together 1/`stages` of the steps,
    then everything.
    `short_to_long`: groups of rising length in tokens, no repetition.  `cyclic`: the same groups,
    once through per epoch.
    Every stage has a step at least.  Raises `SettingsError` for fewer dialogues than stages.
    """
    total = max(1, round(epochs * len(dialogues) / batch_size))
    if order == "shuffle":
        blocks = [_Block("shuffle", tuple(range(len(dialogues))), total, 0.0)]
        return _compile(dialogues, lengths, blocks, order, batch_size, attribute_dropout, seed)
    if len(dialogues) < stages:
        raise SettingsError(
            f"{len(dialogues)} dialogue(s) can not fill {stages} stages; write more, or set stages in [train]."
        )
    total = max(total, stages)
    everything = tuple(range(len(dialogues)))
    if order == "staged":
        # The last stage is the whole set and has most of the steps: nothing is forgotten at the end.
        groups = [*_quantile_groups(difficulty(dialogues), stages - 1), everything] if stages > 1 else [everything]
        first = max(stages - 1, total // stages) if stages > 1 else 0
        shares = [*_even(first, stages - 1), total - first]
        names = [*(f"difficulty {i + 1} of {stages - 1}" for i in range(stages - 1)), "everything"]
        repeats = [0.0, *[replay] * (stages - 2), 0.0][-stages:]
    else:
        groups = _quantile_groups([float(length) for length in lengths], stages)
        cycles = max(1, min(round(epochs), total // stages)) if order == "cyclic" else 1
        names = [f"length {g + 1} of {stages}" for g in range(stages)]
        if cycles > 1:
            names = [f"cycle {c + 1}, {name}" for c in range(cycles) for name in names]
        groups, shares, repeats = groups * cycles, _even(total, stages * cycles), [0.0] * stages * cycles
    blocks = [_Block(*parts) for parts in zip(names, groups, shares, repeats, strict=True)]
    return _compile(dialogues, lengths, blocks, order, batch_size, attribute_dropout, seed)


def _even(total: int, parts: int) -> list[int]:
    """Split `total` steps into parts that differ by one at most."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]


def staged_plan(
    dialogues: Sequence[Dialogue],
    lengths: Sequence[int],
    stages: Sequence[Stage],
    *,
    losses: Sequence[float] | None = None,
    batch_size: int,
    attribute_dropout: float = 0.0,
    seed: int = 0,
) -> Plan:
    """Compile hand-made `[[stage]]` tables; `losses` (base model, per dialogue) only if a stage asks for difficulty.

    Raises `SettingsError` for a stage that no dialogue belongs to, or fewer dialogues than stages.
    """
    if len(dialogues) < len(stages):
        raise SettingsError(f"{len(dialogues)} dialogue(s) can not fill {len(stages)} [[stage]] tables.")
    quantiles = _quantiles(losses) if losses is not None else None
    blocks = []
    for number, stage in enumerate(stages):
        if stage.by_difficulty and quantiles is None:
            raise SettingsError(f"[[stage]] {stage.name}: difficulty needs the base model's loss.")
        pool = tuple(
            i for i, d in enumerate(dialogues) if _belongs(d, stage, quantiles[i] if quantiles is not None else 0.5)
        )
        if not pool:
            raise SettingsError(f"[[stage]] {stage.name}: no dialogue passes its filter; widen it.")
        replay = stage.replay if number else 0.0
        steps = max(1, round(stage.epochs * len(pool) / (1 - replay) / batch_size))
        blocks.append(_Block(stage.name, pool, steps, replay))
    return _compile(dialogues, lengths, blocks, "stages", batch_size, attribute_dropout, seed)


def difficulty(dialogues: Sequence[Dialogue]) -> list[float]:
    """Difficulty without a model: mean of the ranks by number of turns and by characters a turn."""
    turns = _quantiles([float(len(d.conversation)) for d in dialogues])
    lengths = _quantiles([characters_per_turn(d) for d in dialogues])
    return [(a + b) / 2 for a, b in zip(turns, lengths, strict=True)]


def characters_per_turn(dialogue: Dialogue) -> float:
    """Mean number of characters a turn."""
    return sum(len(turn.text) for turn in dialogue.conversation) / len(dialogue.conversation)


def _belongs(dialogue: Dialogue, stage: Stage, quantile: float) -> bool:
    attribute = dialogue.attribute
    return (
        stage.min_turns <= len(dialogue.conversation) <= stage.max_turns
        and stage.min_length <= characters_per_turn(dialogue) <= stage.max_length
        and (not stage.closeness or attribute.closeness in stage.closeness)
        and (not stage.mood or attribute.mood in stage.mood)
        and (not stage.genre or bool(set(stage.genre) & set(dialogue.genre)))
        and stage.min_difficulty <= quantile <= stage.max_difficulty
    )


def _quantiles(values: Sequence[float]) -> list[float]:
    """Mid-rank of each value, scaled to 0-1; equal values get equal ranks."""
    ordered = sorted(values)
    positions: dict[float, list[int]] = {}
    for position, value in enumerate(ordered):
        positions.setdefault(value, []).append(position)
    scale = max(1, len(values) - 1)
    return [sum(positions[v]) / len(positions[v]) / scale for v in values]


def _quantile_groups(values: Sequence[float], count: int) -> list[tuple[int, ...]]:
    """Split indices into `count` groups of equal size by rising value (ties by index)."""
    ordered = sorted(range(len(values)), key=lambda i: (values[i], i))
    cuts = [len(ordered) * i // count for i in range(count + 1)]
    return [tuple(ordered[a:b]) for a, b in itertools.pairwise(cuts)]


def _compile(
    dialogues: Sequence[Dialogue],
    lengths: Sequence[int],
    blocks: Sequence[_Block],
    order: str,
    batch_size: int,
    attribute_dropout: float,
    seed: int,
) -> Plan:
    chance = random.Random(f"plan {seed}")  # noqa: S311  # an order of training, not a secret
    decks: dict[tuple[int, ...], _Deck] = {}
    entries: list[Entry] = []
    planned: list[PlannedStage] = []
    seen: set[int] = set()
    for block in blocks:
        needed = block.steps * batch_size
        earlier = tuple(sorted(seen - set(block.pool)))
        replayed = round(block.replay * needed) if earlier else 0
        rows = _draw(decks, block.pool, needed - replayed, chance) + _draw(decks, earlier, replayed, chance)
        start = len(entries) // batch_size
        for batch in _batches(rows, lengths, batch_size, chance):
            entries += [Entry(row, chance.random() >= attribute_dropout) for row in batch]
        planned.append(PlannedStage(block.name, start, start + block.steps, len(set(block.pool)), replayed))
        seen |= set(block.pool)
    return Plan(order, batch_size, tuple(entries), tuple(planned), tuple(d.id for d in dialogues))


def _draw(decks: dict[tuple[int, ...], _Deck], pool: tuple[int, ...], count: int, chance: random.Random) -> list[int]:
    if not count:
        return []
    return decks.setdefault(pool, _Deck(pool, chance)).draw(count)


def _batches(rows: list[int], lengths: Sequence[int], size: int, chance: random.Random) -> list[list[int]]:
    """Cut a stage's rows into batches of similar length, in random order; a batch is sorted long to short."""
    rows = chance.sample(rows, len(rows))
    batches: list[list[int]] = []
    for start in range(0, len(rows), _WINDOW * size):
        window = sorted(rows[start : start + _WINDOW * size], key=lambda row: -lengths[row])
        batches += [window[i : i + size] for i in range(0, len(window), size)]
    return chance.sample(batches, len(batches))
