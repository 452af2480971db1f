"""Settings of the report (`[report]`) and the planner (`[plan]`) in `aku.toml`."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from dialogue.settings import setting

Stage = Literal["auto", "starter", "all"]


@dataclasses.dataclass(frozen=True, slots=True)
class PlanSettings:
    """What the data set is meant to look like.  The report compares with the same targets."""

    stage: Stage = setting("auto", 'Which attribute pairs to aim at: "starter" (five), "all" (25), or "auto" by size.')
    starter_until: int = setting(10, 'With stage = "auto": number of dialogues up to which the five pairs are the aim.')
    pair_weights: dict[str, float] = setting({}, 'Weight of a pair "closeness,mood" (e.g. "4,0" = 2); others weigh 1.')
    genre_weights: dict[str, float] = setting({}, "Weight of a topic by name; others weigh 1, 0 leaves a topic out.")
    turns: tuple[int, ...] = setting(tuple(range(4, 17)), "Numbers of turns to plan, in equal shares.")
    aku_begins: float = setting(0.1, "Share of dialogues that Aku begins.")
    contexts: str = setting("", "File of scenes (JSONL: topic, context, opener); empty: examples/contexts.jsonl.")
    seed: int = setting(0, "Seed for choices between equally good cards.")

    def __post_init__(self) -> None:
        """Refuse values no plan can be made from."""
        if not self.turns or any(not 2 <= t <= 30 for t in self.turns):
            raise ValueError("turns must list whole numbers from 2 to 30.")
        if not 0 <= self.aku_begins <= 1:
            raise ValueError("aku_begins must lie between 0 and 1.")
        for weights in (self.pair_weights, self.genre_weights):
            if any(not _is_weight(w) for w in weights.values()):
                raise ValueError("weights must be numbers that are not negative.")
        for key in self.pair_weights:
            levels = key.split(",")
            if len(levels) != 2 or any(level.strip() not in {"0", "1", "2", "3", "4"} for level in levels):
                raise ValueError(f'pair_weights has the key {key!r}; write "closeness,mood", each 0-4.')


@dataclasses.dataclass(frozen=True, slots=True)
class ReportSettings:
    """How the report is made; the targets come from `plan`."""

    goal: int = setting(3000, "Number of dialogues to reach.")
    alpha: float = setting(0.05, "False alarms allowed over all tests of one report together (Holm).")
    simulations: int = setting(4000, "Draws for chance bands and Monte-Carlo p-values.")
    permutations: int = setting(1999, "Permutations per test of association.")
    mean_length: tuple[float, ...] = setting(
        (13.16, 40.25),
        "Mean characters a turn may have, from and to (default: RealPersonaChat, JPersonaChat); empty: no target.",
    )
    turns_tolerance: float = setting(1.0, "Wasserstein distance (turns) from the planned turns that is still fine.")
    embedding: str = setting("", "Folder of a sentence-transformers model; empty: character n-grams, offline.")
    dimensions: int = setting(64, "Dimensions kept of the character n-gram space.")
    map_points: int = setting(4000, "Most points drawn on the meaning map; beyond, a sample laid out with the rest.")
    clusters: int = setting(12, "Number of areas named on the meaning map.")
    test_points: int = setting(10000, "Most dialogues used by tests in embedding space (a seeded sample beyond).")
    rare_zipf: float = setting(3.0, "Words with a wordfreq Zipf value below this count as rare.")
    seed: int = setting(0, "Seed of every simulation, sample and of t-SNE.")

    def __post_init__(self) -> None:
        """Refuse values no report can be made from."""
        if len(self.mean_length) not in (0, 2):
            raise ValueError("mean_length must be two numbers (from, to) or empty.")
        if not 0 < self.alpha < 1 or self.simulations < 100 or self.permutations < 19:
            raise ValueError("alpha must lie in (0, 1), simulations be at least 100, permutations at least 19.")


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
