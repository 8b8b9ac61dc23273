"""Each formula against an independent computation, and honesty at n = 1, n = 2, no spread and NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tidepool.analysis.statistics import (
    describe,
    mean_interval,
    median_ratio,
    paired_difference,
    seed_difference,
    seeds_needed,
    tost,
    welch_difference,
)

A = [97.2, 98.1, 98.3, 97.8, 98.0, 97.5]
B = [97.0, 98.2, 98.1, 97.5, 97.9, 97.6]
NAN = math.nan


def test_describe_is_the_sample_standard_deviation() -> None:
    sample = describe([1.0, 2.0, 4.0])
    assert (sample.n, sample.minimum, sample.maximum) == (3, 1.0, 4.0)
    assert sample.mean == pytest.approx(7 / 3)
    assert sample.std == pytest.approx(math.sqrt(7 / 3))


def test_describe_at_none_one_equal_values_and_nan() -> None:
    assert describe([]).n == 0
    assert math.isnan(describe([]).mean)
    assert describe([5.0]).mean == 5.0
    assert math.isnan(describe([5.0]).std)
    assert describe([0.1 + 0.2, 0.3, 0.3]).std == 0.0
    with_nan = describe([1.0, NAN])
    assert with_nan.n == 2
    assert math.isnan(with_nan.mean)
    assert math.isnan(with_nan.maximum)


def test_mean_interval_is_scipys_t_interval() -> None:
    low, high = stats.t.interval(0.9, len(A) - 1, loc=np.mean(A), scale=stats.sem(A))
    interval = mean_interval(A, 0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_mean_interval_known_from_a_table() -> None:
    # n = 2: x̄ = 1, s = √2, t(0.975; 1) = 12.706 -> 1 ± 12.706
    interval = mean_interval([0.0, 2.0])
    assert interval.high == pytest.approx(1 + 12.7062, abs=1e-3)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, NAN], [1.0, math.inf]])
def test_mean_interval_undefined(values: list[float]) -> None:
    assert not mean_interval(values).defined


def test_no_spread_gives_an_interval_of_no_width() -> None:
    interval = mean_interval([2.0, 2.0, 2.0])
    assert (interval.low, interval.high) == (2.0, 2.0)


def test_paired_difference_is_scipys_paired_t() -> None:
    theirs = stats.ttest_rel(A, B)
    ours = paired_difference(A, B)
    assert ours.mean / ours.standard_error == pytest.approx(theirs.statistic)
    low, high = theirs.confidence_interval(0.95)
    assert (ours.interval().low, ours.interval().high) == pytest.approx((low, high))


def test_paired_difference_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="pairs expected, got 2 and 1 values"):
        paired_difference([1.0, 2.0], [1.0])


def test_welch_difference_is_scipys_welch() -> None:
    theirs = stats.ttest_ind(A, B[:4], equal_var=False)
    ours = welch_difference(A, B[:4])
    assert ours.degrees_of_freedom == pytest.approx(theirs.df)
    low, high = theirs.confidence_interval(0.95)
    assert (ours.interval().low, ours.interval().high) == pytest.approx((low, high))


def test_welch_difference_at_one_value_has_a_mean_and_no_interval() -> None:
    ours = welch_difference([2.0], [1.0, 1.5])
    assert ours.mean == 0.75
    assert not ours.interval().defined


def test_seed_difference_pairs_shared_seeds_and_names_the_rest() -> None:
    ours = seed_difference({0: 1.0, 1: 2.0, 5: 100.0}, {1: 1.5, 0: 1.0, 7: -100.0})
    assert (ours.method, ours.n_a, ours.unpaired) == ("paired", 2, (5, 7))
    assert ours.mean == pytest.approx(0.25)


def test_seed_difference_without_two_shared_seeds_is_welch() -> None:
    ours = seed_difference({0: 1.0, 1: 2.0}, {1: 1.5, 2: 1.0, 3: 2.0})
    assert (ours.method, ours.n_a, ours.n_b, ours.unpaired) == ("welch", 2, 3, ())


def test_seed_difference_with_an_empty_side() -> None:
    assert seed_difference({}, {0: 1.0}).method == "none"


@pytest.mark.parametrize("margin", [0.05, 0.1, 0.2, 0.5])
def test_tost_is_shown_exactly_where_the_90_percent_interval_lies_within_the_margin(margin: float) -> None:
    outcome = tost(paired_difference(A, B), margin)
    inside = -margin < outcome.interval.low and outcome.interval.high < margin
    assert outcome.shown is inside
    assert outcome.shown is (outcome.p_value < 0.05)


def test_tost_p_value_is_the_larger_of_two_scipy_tests() -> None:
    differences = np.subtract(A, B)
    lower = stats.ttest_1samp(differences, -0.3, alternative="greater").pvalue
    upper = stats.ttest_1samp(differences, 0.3, alternative="less").pvalue
    assert tost(paired_difference(A, B), 0.3).p_value == pytest.approx(max(lower, upper))


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0]), ([NAN, 1.0, 2.0], [1.0, 1.0, 2.0])])
def test_tost_is_undefined_at_one_pair_no_spread_and_nan(a: list[float], b: list[float]) -> None:
    outcome = tost(paired_difference(a, b), 0.3)
    assert outcome.shown is None
    assert math.isnan(outcome.p_value)


@pytest.mark.parametrize("margin", [0.0, -0.1, NAN])
def test_tost_refuses_a_margin_that_is_not_above_zero(margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be above 0"):
        tost(paired_difference(A, B), margin)


def simulated_power(n: int, std: float, margin: float) -> float:
    """Share of 100,000 paired experiments with n pairs and no true difference in which TOST shows equivalence."""
    x = np.random.default_rng(0).normal(0, std, size=(100_000, n))
    error = x.std(axis=1, ddof=1) / math.sqrt(n)
    critical = stats.t.ppf(0.95, n - 1)
    return float(np.mean(((x.mean(1) + margin) / error > critical) & ((x.mean(1) - margin) / error < -critical)))


def test_seeds_needed_is_the_least_that_reaches_the_power_in_simulation() -> None:
    n = seeds_needed(0.14, 0.1, paired=True)
    assert n is not None
    assert simulated_power(n, 0.14, 0.1) >= 0.8 > simulated_power(n - 1, 0.14, 0.1)


@pytest.mark.parametrize("std", [0.0, NAN, math.inf])
def test_seeds_needed_is_none_without_a_spread(std: float) -> None:
    assert seeds_needed(std, 0.3, paired=True) is None


def test_seeds_needed_falls_with_the_margin() -> None:
    needed = [seeds_needed(0.14, margin, paired=True) for margin in (0.3, 0.2, 0.1)]
    assert needed == sorted(needed)
    assert needed[0] < needed[-1]
    assert seeds_needed(0.14, 1e-6, paired=True) is None


def test_median_ratio_and_its_interval() -> None:
    ratio, interval = median_ratio([4.0, 4.1, 4.2, 4.3], [2.0, 2.05, 2.1, 2.2])
    assert ratio == pytest.approx(4.15 / 2.075)
    assert 4.0 / 2.2 <= interval.low < ratio < interval.high <= 4.3 / 2.0


def test_median_ratio_is_the_same_every_time() -> None:
    assert median_ratio(A, B) == median_ratio(A, B)


def test_median_ratio_of_one_process_has_no_interval() -> None:
    ratio, interval = median_ratio([4.0], [2.0, 2.1])
    assert ratio == pytest.approx(4 / 2.05)
    assert not interval.defined


@pytest.mark.parametrize(
    ("top", "bottom"), [([], [1.0]), ([1.0], []), ([1.0, 2.0], [0.0, 0.0]), ([NAN, 1.0], [1.0, 1.0])]
)
def test_median_ratio_undefined(top: list[float], bottom: list[float]) -> None:
    ratio, interval = median_ratio(top, bottom)
    assert math.isnan(ratio)
    assert not interval.defined


def test_bootstrap_covers_the_true_ratio() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        _, interval = median_ratio(rng.normal(4, 0.2, 15), rng.normal(2, 0.1, 15), resamples=500)
        hits += interval.low <= 2.0 <= interval.high
    assert hits >= 88
