"""What a review round says: how often models and people are rated well, and how far the raters agree."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis import gate_bounds as bounds
from analysis.gate_bounds import Estimate
from dialogue.review_project import RATINGS


@dataclasses.dataclass(frozen=True, slots=True)
class Rated:
    """One writer's replies as people rated them; `counts` by rating, best first."""

    origin: str
    counts: tuple[int, ...]
    kept: Estimate
    corrected: int


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """How far raters agree on items that more than one of them rated.

    `alpha` is Krippendorff's, ordinal: 1 is perfect, 0 is chance; NaN where nobody rated the same item.
    `low` and `high` bound it with 90 % (items drawn with replacement).
    """

    alpha: float
    low: float
    high: float
    items: int
    people: int


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """The outcome of a review round."""

    rated: tuple[Rated, ...]
    agreement: Agreement

    def of(self, origin: str) -> Rated | None:
        """Return one writer's part."""
        return next((rated for rated in self.rated if rated.origin == origin), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        from analysis.steering import plain

        return {
            "rated": plain([dataclasses.asdict(r) for r in self.rated]),
            "agreement": plain(dataclasses.asdict(self.agreement)),
        }


def summarise(rows: Sequence[Mapping[str, Any]], confidence: float = 0.95, seed: int = 0) -> Round:
    """Summarise a round's `ratings.jsonl`."""
    rated = []
    for origin in sorted({str(row["origin"]) for row in rows}):
        own = [row for row in rows if row["origin"] == origin]
        counts = tuple(sum(row["rating"] == rating for row in own) for rating in RATINGS)
        kept = bounds.share(
            [row["rating"] == RATINGS[0] for row in own], bounds.codes([str(row["item"]) for row in own]), confidence
        )
        corrected = sum(bool(row.get("distance")) for row in own)
        rated.append(Rated(origin, counts, kept, corrected))
    return Round(tuple(rated), agreement(rows, seed))


def agreement(rows: Sequence[Mapping[str, Any]], seed: int = 0, draws: int = 400) -> Agreement:
    """Krippendorff's alpha over the items rated by more than one person, with its bootstrap interval."""
    by_item: dict[str, list[int]] = {}
    for row in rows:
        by_item.setdefault(str(row["item"]), []).append(RATINGS.index(row["rating"]))
    units = [ratings for ratings in by_item.values() if len(ratings) > 1]
    people = len({row["annotator"] for row in rows if row.get("annotator")})
    if not units:
        return Agreement(math.nan, math.nan, math.nan, 0, people)
    value, low, high = bounds.bootstrap(
        lambda index: krippendorff_alpha([units[i] for i in index], len(RATINGS)),
        np.arange(len(units), dtype=np.int64),
        np.random.default_rng([seed, 11]),
        draws,
    )
    return Agreement(value, low, high, len(units), people)


def krippendorff_alpha(units: Sequence[Sequence[int]], levels: int) -> float:
    """Krippendorff's alpha for ordinal ratings 0 … levels-1; any number of ratings per unit.

    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", §C with the ordinal metric.
    NaN when there are no two ratings of one unit, or when all ratings are the same.
    """
    coincidences = np.zeros((levels, levels))
    for unit in units:
        if len(unit) < 2:
            continue
        counts = np.bincount(unit, minlength=levels).astype(float)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(axis=1)
    n = totals.sum()
    reach = np.cumsum(totals) - totals / 2
    distance = (reach[:, None] - reach[None, :]) ** 2
    expected = float((np.outer(totals, totals) * distance).sum())
    if n < 2 or expected == 0:
        return math.nan
    return 1 - float(n - 1) * float((coincidences * distance).sum()) / expected
