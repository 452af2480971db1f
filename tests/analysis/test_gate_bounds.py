"""Confidence bounds of the gate: textbook values, and coverage as often as they say."""

import math

import numpy as np
import pytest

from analysis import gate_bounds


def test_bounds_are_clopper_and_pearsons() -> None:
    lower, upper = gate_bounds.clopper_pearson(8, 10, 0.95)
    assert lower == pytest.approx(0.4931, abs=1e-4)  # the textbook's 90 % two-sided interval for 8 of 10
    assert upper == pytest.approx(0.9632, abs=1e-4)
    assert gate_bounds.clopper_pearson(0, 10, 0.95) == (0.0, pytest.approx(1 - 0.05**0.1))


def test_turns_of_one_dialogue_count_less_than_independent_ones() -> None:
    hits = np.repeat([1, 0, 1, 1, 0, 1, 0, 1, 1, 1], 10)  # ten dialogues that agree with themselves
    alone = gate_bounds.share(hits, np.arange(100), 0.95)
    together = gate_bounds.share(hits, np.repeat(np.arange(10), 10), 0.95)
    assert together.value == alone.value == 0.7
    assert alone.effective == 100
    assert 6 < together.effective <= 10
    assert together.lower < alone.lower


def test_bound_of_a_share_in_groups_holds_as_often_as_it_says() -> None:
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(40), 5)
    covered = 0
    for _ in range(400):
        p = rng.beta(0.4 * 9, 0.6 * 9, size=40)  # intra-class correlation 0.1
        covered += gate_bounds.share(rng.random(200) < p[groups], groups, 0.95).lower <= 0.4
    assert covered / 400 >= 0.93  # 0.95 - 2 standard errors


def test_median_bound_and_rank_correlation() -> None:
    values = np.arange(1, 101) / 100
    found = gate_bounds.median(values, np.arange(100), 0.95)
    assert found.value == pytest.approx(0.505)
    assert found.upper == pytest.approx(0.59)  # 59 of 100 at or below: the first share surely at least a half
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 5, 60), rng.integers(0, 5, 60)
    assert gate_bounds.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert math.isnan(gate_bounds.spearman([1, 1], [1, 2]))


def test_ratio_of_shares() -> None:
    a, b = (gate_bounds.share([1] * k + [0] * (100 - k), np.arange(100), 0.95) for k in (30, 60))
    found = gate_bounds.ratio_of_shares(a, b, 0.95)
    error = math.sqrt(1 / 30.5 - 1 / 100.5 + 1 / 60.5 - 1 / 100.5)
    assert found.value == pytest.approx(30.5 / 60.5)
    assert found.upper / found.value == pytest.approx(math.exp(1.6449 * error), rel=1e-4)
    none = gate_bounds.share([0] * 100, np.arange(100), 0.95)
    assert 0 < gate_bounds.ratio_of_shares(none, b, 0.95).upper < 0.1
    assert math.isnan(gate_bounds.ratio_of_shares(gate_bounds.NOTHING, b, 0.95).value)


def test_bound_on_a_ratio_of_shares_holds_as_often_as_it_says() -> None:
    rng, groups = np.random.default_rng(3), np.repeat(np.arange(20), 5)
    covered = 0
    for _ in range(400):
        p = rng.beta(0.5 * 9, 0.5 * 9, size=(2, 20))  # both shares are 0.5, alike within a dialogue
        a, b = (gate_bounds.share(rng.random(100) < side[groups], groups, 0.95) for side in p)
        covered += gate_bounds.ratio_of_shares(a, b, 0.95).upper >= 1
    assert covered / 400 >= 0.93


def test_ratio_of_times() -> None:
    rng = np.random.default_rng(3)
    a, b = 15 * np.exp(0.5 * rng.standard_normal(300)), 30 * np.exp(0.5 * rng.standard_normal(300))
    found = gate_bounds.ratio_of_geometric_means(a, b, 0.95)
    assert found.lower < 0.5 < found.upper
    assert math.isnan(gate_bounds.ratio_of_geometric_means(a, [], 0.95).value)
