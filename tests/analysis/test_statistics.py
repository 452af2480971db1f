"""The statistics against hand calculations, scipy, and their own promise: p is uniform under the null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis import statistics as s


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_effective_number_is_the_exponential_of_the_entropy() -> None:
    assert s.effective_number([5, 5, 5, 5]) == pytest.approx(4)
    assert s.effective_number([10, 0, 0]) == pytest.approx(1)
    assert s.effective_number([3, 1]) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))
    assert s.effective_number([]) == 0.0


def test_holm_against_a_worked_example() -> None:
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([]) == []
    assert s.holm([0.9, 0.8]) == [1.0, 1.0]


def test_goodness_of_fit_statistics_agree_with_scipy() -> None:
    counts = np.array([30, 14, 6, 50])
    fit = s.goodness_of_fit(counts, np.full(4, 0.25), rng(), 20_000)
    expected = stats.chisquare(counts)
    assert fit.chi_square == pytest.approx(expected.statistic)
    moderate = s.goodness_of_fit([30, 20, 22, 28], np.full(4, 0.25), rng(), 20_000)
    assert moderate.p_chi_square == pytest.approx(stats.chisquare([30, 20, 22, 28]).pvalue, abs=0.02)
    assert fit.residuals[3] == pytest.approx((50 - 25) / np.sqrt(100 * 0.25 * 0.75))


def test_a_count_without_a_target_is_no_division_by_zero() -> None:
    fit = s.goodness_of_fit([5, 5, 3], np.array([0.5, 0.5, 0.0]), rng())
    assert np.isfinite(fit.residuals).all()
    empty = s.goodness_of_fit([0, 0], np.array([0.5, 0.5]), rng())
    assert empty.p_chi_square == 1.0
    assert empty.effective == 0.0


def test_chance_band_holds_all_cells_at_once() -> None:
    shares, generator = np.full(25, 1 / 25), rng(3)
    fit = s.goodness_of_fit(np.full(25, 20), shares, rng(1), 4000)
    drawn = generator.multinomial(500, shares, size=1000)
    inside = ((drawn >= fit.low) & (drawn <= fit.high)).all(axis=1).mean()
    assert 0.92 <= inside <= 0.98


def test_wasserstein_agrees_with_scipy() -> None:
    values, points, shares = rng().integers(2, 20, 200), [4, 6, 8, 12], np.array([0.1, 0.2, 0.3, 0.4])
    expected = stats.wasserstein_distance(values, points, v_weights=shares)
    assert s.wasserstein(values, points, shares) == pytest.approx(expected)


def test_wasserstein_p_is_small_only_off_target() -> None:
    points, shares = (4, 6, 8, 10), np.full(4, 0.25)
    on = s.wasserstein_test(rng().choice(points, 300), points, shares, rng(1))
    off = s.wasserstein_test(np.full(300, 10), points, shares, rng(1))
    assert on[1] > 0.05
    assert off[1] < 0.001
    assert off[0] == pytest.approx(3.0)


def test_corrected_v_is_near_zero_where_plain_v_is_large_by_chance() -> None:
    generator = rng(5)
    plain, corrected = [], []
    for _ in range(40):
        table = s.contingency(generator.integers(11, size=100), generator.integers(25, size=100), 11, 25)
        a, b = s.cramers_v(table)
        plain.append(a)
        corrected.append(b)
    assert np.mean(plain) == pytest.approx(0.49, abs=0.03)
    assert np.median(corrected) < 0.1


def test_v_is_one_for_a_perfect_association() -> None:
    codes = np.tile(np.arange(4), 50)
    plain, corrected = s.cramers_v(s.contingency(codes, codes, 4, 4))
    assert plain == pytest.approx(1)
    assert corrected == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["association", "means", "permanova"])
def test_permutation_p_is_uniform_without_an_effect(name: str) -> None:
    generator = rng(7)
    found = []
    for i in range(200):
        groups = generator.integers(3, size=60)
        if name == "association":
            found.append(s.association_test(groups, generator.integers(4, size=60), rng(i), 99)[1])
        elif name == "means":
            found.append(s.group_means_test(generator.normal(size=60), groups, rng(i), 99)[1])
        else:
            found.append(s.permanova(generator.normal(size=(60, 5)), groups, rng(i), 99)[1])
    assert np.mean(np.array(found) <= 0.1) < 0.17
    assert 0.4 < np.mean(found) < 0.6


def test_drawing_stops_early_and_keeps_the_level() -> None:
    drawn: list[float] = []

    def draw(generator: np.random.Generator) -> float:
        drawn.append(float(generator.normal()))
        return drawn[-1]

    found = []
    for i in range(2000):
        generator = rng(i)
        found.append(s.sequential_p(float(generator.normal()), lambda own=generator: draw(own), 999))
    p = np.array(found)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p)), level
        assert (p <= level).mean() >= level - 3 * np.sqrt(level * (1 - level) / len(p)) - 0.01, level
    assert len(drawn) < 2000 * 300, "most of 999 draws are saved where there is nothing to find"
    assert s.sequential_p(10.0, lambda: 0.0, 999) == 1 / 1000
    assert s.sequential_p(0.0, lambda: 0.0, 999) == 1.0


def test_permutation_tests_see_an_effect() -> None:
    generator = rng(2)
    groups = np.repeat([0, 1, 2], 40)
    assert s.association_test(groups, (groups + (generator.random(120) < 0.3)) % 3, rng(), 499)[1] < 0.01
    effect, p = s.group_means_test(groups + generator.normal(size=120), groups, rng(), 499)
    assert p < 0.01
    assert effect > 0.2
    points = np.eye(3)[groups] + generator.normal(size=(120, 3)) * 0.5
    assert s.permanova(points, groups, rng(), 199)[1] < 0.01


def test_degenerate_groups_are_never_an_alarm() -> None:
    assert s.association_test(np.zeros(9, dtype=int), np.arange(9), rng(), 99) == (0.0, 1.0)
    assert s.group_means_test(np.ones(9), np.arange(9) % 2, rng(), 99) == (0.0, 1.0)
    assert s.permanova(np.ones((9, 2)), np.arange(9) % 2, rng(), 99) == (0.0, 1.0)
    assert s.group_means_test(np.zeros(0), np.zeros(0, dtype=int), rng(), 99) == (0.0, 1.0)


def test_interval_test_rejects_only_outside() -> None:
    values = rng().normal(20, 3, 200)
    assert s.interval_test(values, 13, 40) == (pytest.approx(values.mean()), 1.0)
    assert s.interval_test(values, 25, 40)[1] < 1e-6
    assert s.interval_test([], 1, 2) == (0.0, 1.0)


def test_generators_are_independent_of_one_another() -> None:
    assert s.generator(0, "a").random() == s.generator(0, "a").random()
    assert s.generator(0, "a").random() != s.generator(0, "b").random()
