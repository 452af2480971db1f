"""Statistics that stay honest at small sizes: simulated null distributions, never asymptotic ones.

Every p-value is (1 + draws at least as extreme) / (1 + draws), so it is never 0 and the test keeps
its level at every n (Davison & Hinkley 1997, §4.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def generator(seed: int, name: str) -> np.random.Generator:
    """Return a random generator of its own for each named step, so that steps do not shift one another."""
    return np.random.default_rng([seed, *name.encode()])


def monte_carlo_p(observed: float, draws: ArrayLike) -> float:
    """Upper-tail p-value of `observed` among simulated `draws`, ties counting against the alarm."""
    values = np.asarray(draws, dtype=float)
    return float((1 + np.count_nonzero(values >= observed - 1e-9)) / (1 + values.size))


ENOUGH = 50
"""Draws at least as extreme as what is observed after which a permutation test stops."""


def sequential_p(observed: float, draw: Callable[[], float], most: int) -> float:
    """Upper-tail p-value by drawing until it is clear; at most `most` draws.

    Stops at the `ENOUGH`-th draw that is at least as extreme: p is then `ENOUGH` / draws, which is a valid p-value
    (Besag & Clifford 1991, Biometrika 78:301).  Where nothing is found, which is the usual case, this takes about a
    hundred draws instead of thousands; small p-values are as fine as with all draws.
    """
    extreme = 0
    for number in range(1, most + 1):
        extreme += draw() >= observed - 1e-9
        if extreme == ENOUGH:
            return ENOUGH / number
    return (1 + extreme) / (1 + most)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for testing all of them at once (Holm 1979): family-wise error kept."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def effective_number(counts: ArrayLike) -> float:
    """Effective number of categories, exp of the Shannon entropy (Hill number of order 1; Hill 1973)."""
    values = np.asarray(counts, dtype=float)
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_numbers(rows: Floats) -> Floats:
    """`effective_number` of every row of counts, (draws, k) → (draws,); no row may be empty."""
    shares = rows / rows.sum(axis=1, keepdims=True)
    return np.asarray(np.exp(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)))


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """Counts against target shares: what chance alone would give at this n.

    `residuals` are standardised, (x - n·p) / √(n·p·(1 - p)); `low` and `high` bound all cells at once
    with 95 %; `effective_low` is the 5 % quantile of the effective number under the target.
    """

    n: int
    expected: Floats
    residuals: Floats
    low: Floats
    high: Floats
    chi_square: float
    p_chi_square: float
    largest_residual: float
    p_largest: float
    effective: float
    effective_mean: float
    effective_low: float


def goodness_of_fit(counts: ArrayLike, shares: Floats, rng: np.random.Generator, draws: int = 4000) -> Fit:
    """Test counts against target shares with two statistics, both by simulation.

    Pearson's chi-square sees a diffuse lean, the largest standardised residual a single cell (which
    chi-square over 25 cells often misses).  Counts
    where the target is 0 are left out; the view names them.
    """
    observed = np.asarray(counts, dtype=float)
    n = int(observed.sum())
    expected = n * shares
    scale = np.sqrt(np.maximum(expected * (1 - shares), 1e-12))
    residuals = np.where(shares > 0, (observed - expected) / scale, 0.0)
    simulated = rng.multinomial(n, shares, size=draws).astype(float)
    inside = shares > 0
    drawn = np.abs(simulated[:, inside] - expected[inside]) / scale[inside]
    per_cell = np.maximum(expected[inside], 1e-12)
    chi_drawn = ((simulated[:, inside] - expected[inside]) ** 2 / per_cell).sum(axis=1)
    chi = float(((observed[inside] - expected[inside]) ** 2 / per_cell).sum())
    largest = float(np.abs(residuals).max()) if n else 0.0
    reach = float(np.quantile(drawn.max(axis=1), 0.95)) if n else 0.0
    entropies = effective_numbers(simulated[:1000]) if n else np.zeros(1)
    return Fit(
        n=n,
        expected=expected,
        residuals=residuals,
        low=np.where(inside, np.maximum(0, expected - reach * scale), 0.0),
        high=np.where(inside, expected + reach * scale, 0.0),
        chi_square=chi,
        p_chi_square=monte_carlo_p(chi, chi_drawn),
        largest_residual=largest,
        p_largest=monte_carlo_p(largest, drawn.max(axis=1)),
        effective=effective_number(observed),
        effective_mean=float(entropies.mean()) if n else 0.0,
        effective_low=float(np.quantile(entropies, 0.05)) if n else 0.0,
    )


def wasserstein(values: ArrayLike, points: ArrayLike, shares: ArrayLike) -> float:
    """1-Wasserstein distance between samples and a discrete target: area between the two distribution functions."""
    sample = np.sort(np.asarray(values, dtype=float))
    support, weight = np.asarray(points, dtype=float), np.asarray(shares, dtype=float)
    grid = np.unique(np.concatenate([sample, support]))
    below = np.searchsorted(sample, grid[:-1], side="right") / sample.size
    order = np.argsort(support)
    cumulative = np.concatenate([[0.0], np.cumsum(weight[order])])
    target = cumulative[np.searchsorted(support[order], grid[:-1], side="right")]
    return float((np.abs(below - target) * np.diff(grid)).sum())


def wasserstein_test(
    values: ArrayLike, points: Sequence[int], shares: Floats, rng: np.random.Generator, draws: int = 4000
) -> tuple[float, float, float]:
    """Distance from a declared discrete target, its Monte-Carlo p, and the 95 % quantile under the target."""
    sample = np.asarray(values, dtype=float)
    distance = wasserstein(sample, points, shares)
    gaps = np.diff(np.asarray(points, dtype=float))
    counts = rng.multinomial(sample.size, shares, size=draws)
    below = np.cumsum(counts, axis=1)[:, :-1] / sample.size
    drawn = (np.abs(below - np.cumsum(shares)[:-1]) * gaps).sum(axis=1)
    return distance, monte_carlo_p(distance, drawn), float(np.quantile(drawn, 0.95))


def contingency(a: Ints, b: Ints, rows: int, columns: int) -> Floats:
    """Two-way table of two integer codes."""
    return np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns).astype(float)


def cramers_v(table: Floats) -> tuple[float, float]:
    """Cramér's V, plain and bias-corrected (Bergsma 2013, J. Korean Stat. Soc. 42:323); empty lines are left out."""
    kept = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    n = kept.sum()
    rows, columns = kept.shape
    if min(rows, columns) < 2 or n < 2:
        return 0.0, 0.0
    phi2 = chi_square(kept) / n
    plain = np.sqrt(phi2 / (min(rows, columns) - 1))
    corrected = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    r, c = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    return float(plain), float(np.sqrt(corrected / max(1e-12, min(r, c) - 1)))


def expected_counts(table: Floats) -> Floats:
    """Counts that independence of rows and columns would give."""
    return np.asarray(np.outer(table.sum(axis=1), table.sum(axis=0)) / max(1.0, float(table.sum())))


def chi_square(table: Floats) -> float:
    """Pearson's chi-square of independence for a table without empty lines."""
    expected = expected_counts(table)
    return float(((table - expected) ** 2 / expected).sum())


def association_test(a: Ints, b: Ints, rng: np.random.Generator, permutations: int = 1999) -> tuple[float, float]:
    """Bias-corrected Cramér's V of two codes, and its permutation p (statistic: chi-square)."""
    codes_a, codes_b = _dense(a), _dense(b)
    rows, columns = int(codes_a.max(initial=-1)) + 1, int(codes_b.max(initial=-1)) + 1
    if min(rows, columns) < 2:
        return 0.0, 1.0
    table = contingency(codes_a, codes_b, rows, columns)
    expected = expected_counts(table)

    def draw() -> float:
        return float((contingency(codes_a, rng.permutation(codes_b), rows, columns) ** 2 / expected).sum())

    return cramers_v(table)[1], sequential_p(float((table**2 / expected).sum()), draw, permutations)


def group_means_test(
    values: ArrayLike, groups: Ints, rng: np.random.Generator, permutations: int = 1999
) -> tuple[float, float]:
    """Share of variance explained by groups (eta², bias-corrected to epsilon²) and its permutation p."""
    sample, codes = np.asarray(values, dtype=float), _dense(groups)
    k = int(codes.max(initial=-1)) + 1
    centred = sample - sample.mean() if sample.size else sample
    total = float((centred**2).sum())
    if k < 2 or total <= 0 or sample.size <= k:
        return 0.0, 1.0
    sizes = np.bincount(codes, minlength=k)

    def between(shuffled: Floats) -> float:
        return float((np.bincount(codes, weights=shuffled, minlength=k) ** 2 / sizes).sum())

    observed = between(centred)
    p = sequential_p(observed, lambda: between(rng.permutation(centred)), permutations)
    within = (total - observed) / (sample.size - k)
    return max(0.0, (observed - (k - 1) * within) / total), p


def permanova(points: Floats, groups: Ints, rng: np.random.Generator, permutations: int = 999) -> tuple[float, float]:
    """Do groups lie in different places of the embedding?  See Anderson (2001, Austral Ecology 26:32).

    `points` is (n, d).  Returns the share of squared distance between groups, bias-corrected, and p.
    """
    codes = _dense(groups)
    k = int(codes.max(initial=-1)) + 1
    n = codes.size
    centred = points - points.mean(axis=0) if n else points
    total = float((centred**2).sum())
    if k < 2 or n <= k or total <= 0:
        return 0.0, 1.0
    sizes = np.bincount(codes, minlength=k).astype(float)

    def between(labels: Ints) -> float:
        one_hot = np.zeros((k, n))
        one_hot[labels, np.arange(n)] = 1.0
        return float((((one_hot @ centred) ** 2).sum(axis=1) / sizes).sum())

    observed = between(codes)
    p = sequential_p(observed, lambda: between(rng.permutation(codes)), permutations)
    within = (total - observed) / (n - k)
    return max(0.0, (observed - (k - 1) * within) / total), p


def interval_test(values: ArrayLike, low: float, high: float) -> tuple[float, float]:
    """Mean of independent values, and p of the hypothesis that the true mean lies in [low, high] (one-sided t)."""
    from scipy import stats

    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean()) if sample.size else 0.0
    if sample.size < 3 or low <= mean <= high:
        return mean, 1.0
    error = max(float(sample.std(ddof=1)) / np.sqrt(sample.size), 1e-9)
    distance = (low - mean) if mean < low else (mean - high)
    return mean, float(max(stats.t.sf(distance / error, sample.size - 1), 1e-12))


def _dense(codes: Ints) -> Ints:
    return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64)
