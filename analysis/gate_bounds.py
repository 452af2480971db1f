"""Confidence bounds for turns that come in dialogues: estimates with one-sided bounds, never means alone.

Turns of one dialogue resemble one another, so n turns tell less than n independent ones.  Shares are
bounded by Clopper & Pearson's exact interval (Biometrika 26:404, 1934) at the *effective* sample size
(Korn & Graubard, Survey Methodology 24:193, 1998); other statistics by a jackknife that leaves out
one group (dialogue, scene) at a time (Efron & Tibshirani 1993, ch. 11), with Student's t.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BLOCKS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A number with one-sided bounds: `lower` and `upper` each hold with the confidence asked for.

    `n` observations lie in `groups` groups and tell as much as `effective` independent ones.  Without
    enough data value and bounds are NaN.
    """

    value: float
    lower: float
    upper: float
    n: int
    groups: int
    effective: float


NOTHING = Estimate(math.nan, math.nan, math.nan, 0, 0, 0.0)


def codes(groups: Sequence[str]) -> Ints:
    """Number the groups 0 … g-1."""
    return np.asarray(np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].reshape(-1), dtype=np.int64)


def clopper_pearson(successes: float, n: float, confidence: float) -> tuple[float, float]:
    """One-sided exact bounds (lower, upper) of a share; real numbers are allowed for effective sizes."""
    from scipy.special import betaincinv

    alpha = 1 - confidence
    lower = float(betaincinv(successes, n - successes + 1, alpha)) if successes > 0 else 0.0
    upper = float(betaincinv(successes + 1, n - successes, 1 - alpha)) if successes < n else 1.0
    return lower, upper


def share(hits: ArrayLike, groups: Ints, confidence: float, units: int | None = None) -> Estimate:
    """Share of hits among observations in groups; see Korn & Graubard (1998).

    The effective size is n over the design effect (the variance between groups over that of
    independent draws, at least 1), reduced further for having estimated that variance from few
    groups.  When all observations agree the variance says nothing; then `units` (default: the number
    of groups) independent observations are assumed.
    """
    from scipy.special import stdtrit

    values = np.asarray(hits, dtype=float)
    n, g = values.size, int(groups.max(initial=-1)) + 1
    if n == 0:
        return NOTHING
    p = float(values.mean())
    effective = float(min(n, units or g))
    if g == 1:
        effective = 1.0  # all of one dialogue: as good as one observation
    elif 0 < p < 1 and g < n:
        totals = np.bincount(groups, weights=values - p, minlength=g)
        variance = g / (g - 1) * float((totals**2).sum()) / n**2
        spread = max(1.0, variance / (p * (1 - p) / n))
        ratio = float(stdtrit(n - 1, confidence) / stdtrit(g - 1, confidence))
        effective = max(float(g), n / spread) * ratio**2
    lower, upper = clopper_pearson(p * effective, effective, confidence)
    return Estimate(p, lower, upper, n, g, effective)


def median(values: ArrayLike, groups: Ints, confidence: float) -> Estimate:
    """Median with order-statistic bounds: the median is at most x where surely half of all lie at or below x.

    Inverts the bound of `share` over the observed values (Woodruff 1952 for grouped samples).
    """
    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        return NOTHING
    middle = float(np.median(sample))
    around = share(sample <= middle, groups, confidence)
    points = np.unique(sample)
    above, below = points[points >= middle], points[points <= middle][::-1]
    upper = next((float(x) for x in above if share(sample <= x, groups, confidence).lower >= 0.5), math.inf)
    lower = next((float(x) for x in below if share(sample >= x, groups, confidence).lower >= 0.5), -math.inf)
    return Estimate(middle, lower, upper, around.n, around.groups, around.effective)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation with mean ranks for ties; NaN where one side is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / scale) if scale > 0 else math.nan


def _ranks(values: ArrayLike) -> Floats:
    """Ranks from 1, equal values sharing their mean rank."""
    _, place, count = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place.reshape(-1)], dtype=np.float64)


def correlation(a: ArrayLike, b: ArrayLike, groups: Ints, confidence: float) -> Estimate:
    """Spearman correlation with jackknife bounds over groups, on Fisher's scale (atanh).

    More than 50 groups are dealt into 50 blocks, which are left out as wholes.
    """
    if int(groups.max(initial=-1)) >= _BLOCKS:
        groups = groups % _BLOCKS
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)

    def scaled(kept: NDArray[np.bool_]) -> float:
        return math.atanh(max(-0.999999, min(0.999999, spearman(x[kept], y[kept]))))

    found = jackknife(scaled, x.size, groups, confidence)
    return dataclasses.replace(
        found, value=spearman(x, y) if x.size else math.nan, lower=math.tanh(found.lower), upper=math.tanh(found.upper)
    )


def jackknife(statistic: Callable[[NDArray[np.bool_]], float], n: int, groups: Ints, confidence: float) -> Estimate:
    """Estimate with bounds from leaving out one group at a time; needs three groups.

    `statistic` is given a mask of the observations to use, shape (n,).
    """
    from scipy.special import stdtrit

    g = int(groups.max(initial=-1)) + 1
    if n == 0:
        return NOTHING
    value = statistic(np.ones(n, dtype=bool))
    if g < 3 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, g, float(g))
    left_out = np.array([statistic(groups != k) for k in range(g)])
    error = math.sqrt((g - 1) / g * float(((left_out - left_out.mean()) ** 2).sum()))
    reach = float(stdtrit(g - 1, confidence)) * error
    return Estimate(value, value - reach, value + reach, n, g, float(g))


def weighted_mean(values: ArrayLike, weights: ArrayLike, confidence: float) -> Estimate:
    """Mean of independent values weighted by size, with linearised t bounds (Cochran 1977, §6.3)."""
    from scipy.special import stdtrit

    x, w = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    n = x.size
    if n == 0 or w.sum() <= 0:
        return NOTHING
    mean = float((w * x).sum() / w.sum())
    if n < 3:
        return Estimate(mean, math.nan, math.nan, n, n, float(n))
    error = math.sqrt(n / (n - 1) * float(((w * (x - mean)) ** 2).sum())) / float(w.sum())
    reach = float(stdtrit(n - 1, confidence)) * error
    return Estimate(mean, mean - reach, mean + reach, n, n, float(n))


def ratio_of_geometric_means(a: ArrayLike, b: ArrayLike, confidence: float) -> Estimate:
    """How many times `b` the typical `a` is, for positive right-skewed times: Welch's t on logarithms.

    Welch (Biometrika 34:28, 1947); the geometric mean of log-normal times is their median.
    """
    from scipy.special import stdtrit

    x, y = np.log(np.asarray(a, dtype=float)), np.log(np.asarray(b, dtype=float))
    n = x.size + y.size
    if min(x.size, y.size) == 0:
        return dataclasses.replace(NOTHING, n=n, groups=n)
    value = float(x.mean() - y.mean())
    if min(x.size, y.size) < 2:
        return Estimate(math.exp(value), math.nan, math.nan, n, n, float(n))
    parts = (float(x.var(ddof=1)) / x.size, float(y.var(ddof=1)) / y.size)
    total = sum(parts)
    if total == 0:
        return Estimate(math.exp(value), math.exp(value), math.exp(value), n, n, float(n))
    freedom = total**2 / (parts[0] ** 2 / (x.size - 1) + parts[1] ** 2 / (y.size - 1))
    reach = float(stdtrit(freedom, confidence)) * math.sqrt(total)
    return Estimate(math.exp(value), math.exp(value - reach), math.exp(value + reach), n, n, float(n))


def ratio_of_shares(a: Estimate, b: Estimate, confidence: float) -> Estimate:
    """How many times share `b` share `a` is, from two `share` estimates, with bounds on the logarithm.

    Katz et al. (Biometrics 34:469, 1978) at the effective sample sizes, half an observation added to
    each count so that none is zero (Walter, Biometrika 62:371, 1975).
    """
    from scipy.special import ndtri

    n = a.n + b.n
    if min(a.n, b.n) == 0:
        return dataclasses.replace(NOTHING, n=n)
    parts = [(x.value * x.effective + 0.5, x.effective + 0.5) for x in (a, b)]
    value = math.log(parts[0][0] / parts[0][1]) - math.log(parts[1][0] / parts[1][1])
    error = math.sqrt(sum(1 / hits - 1 / size for hits, size in parts))
    reach = float(ndtri(confidence)) * error
    effective = a.effective + b.effective
    return Estimate(
        math.exp(value), math.exp(value - reach), math.exp(value + reach), n, a.groups + b.groups, effective
    )


def bootstrap(
    statistic: Callable[[Ints], float], groups: Ints, rng: np.random.Generator, draws: int = 400
) -> tuple[float, float, float]:
    """Value and 90 % percentile interval from drawing whole groups with replacement (Davison & Hinkley 1997, §3.8).

    `statistic` is given indices of observations.  For tables and figures; decisions use the bounds above.
    """
    members = [np.flatnonzero(groups == k) for k in range(int(groups.max(initial=-1)) + 1)]
    if not members:
        return math.nan, math.nan, math.nan
    value = statistic(np.concatenate(members))
    drawn = [
        statistic(np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))]))
        for _ in range(draws)
    ]
    low, high = np.nanquantile(drawn, [0.05, 0.95]) if not np.all(np.isnan(drawn)) else (math.nan, math.nan)
    return value, float(low), float(high)
