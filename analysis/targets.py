"""What the data set is meant to look like at a given size: shares over pairs, topics, turns, first speaker."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from analysis.settings import PlanSettings
from dialogue.errors import SettingsError
from dialogue.genres import Taxonomy
from dialogue.records import Attribute

STARTER_PAIRS = (Attribute(2, 2), Attribute(4, 4), Attribute(0, 0), Attribute(4, 0), Attribute(0, 4))
"""The five pairs to begin with: a 2×2 factorial and its centre."""

PAIRS = tuple(Attribute(c, m) for c, m in itertools.product(range(5), repeat=2))
"""All 25 pairs, closeness first."""

Shares = NDArray[np.float64]


def is_starter(settings: PlanSettings, n: int) -> bool:
    """Tell whether at `n` dialogues only the five starting pairs are aimed at."""
    return settings.stage == "starter" or (settings.stage == "auto" and n <= settings.starter_until)


def pair_shares(settings: PlanSettings, n: int) -> Shares:
    """Target shares of the 25 pairs (in the order of `PAIRS`) for a set of `n` dialogues; sums to 1."""
    weights = np.array([settings.pair_weights.get(f"{p.closeness},{p.mood}", 1.0) for p in PAIRS], dtype=float)
    if is_starter(settings, n):
        weights = weights * np.array([p in STARTER_PAIRS for p in PAIRS])
    return _normalised(weights, "pair_weights")


def genre_shares(settings: PlanSettings, taxonomy: Taxonomy) -> Shares:
    """Target shares of the topics as main genre, in the taxonomy's order.

    Raises `SettingsError` for a weight of an unknown topic.
    """
    if unknown := set(settings.genre_weights) - set(taxonomy.names):
        raise SettingsError(f"[plan] genre_weights names {sorted(unknown)[0]}, which is no topic; see genres.toml.")
    return _normalised(np.array([settings.genre_weights.get(name, 1.0) for name in taxonomy.names]), "genre_weights")


def turn_shares(settings: PlanSettings) -> tuple[tuple[int, ...], Shares]:
    """Planned numbers of turns, ascending, and their shares (a number listed twice weighs double)."""
    values = tuple(sorted(set(settings.turns)))
    counts = np.array([settings.turns.count(value) for value in values], dtype=float)
    return values, counts / counts.sum()


def _normalised(weights: Shares, name: str) -> Shares:
    if weights.sum() <= 0:
        raise SettingsError(f"[plan] {name} leaves nothing to plan; give at least one a weight above 0.")
    return np.asarray(weights / weights.sum(), dtype=float)
