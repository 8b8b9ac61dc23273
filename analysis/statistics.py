"""Means, intervals, differences and equivalence, each with its formula and where it comes from.

Every function tells the truth at the edges: where too few values, no spread or a NaN leave a quantity undefined it is
NaN, never zero and never a number computed from the rest.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """Closed interval at a confidence level; both ends NaN where it is undefined."""

    low: float
    high: float
    level: float

    @property
    def defined(self) -> bool:
        """Whether both ends are numbers."""
        return not (math.isnan(self.low) or math.isnan(self.high))


@dataclass(frozen=True)
class Sample:
    """n values: mean, sample standard deviation (n - 1 in the divisor; NaN at n = 1), least and greatest."""

    n: int
    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Difference:
    """mean(a) - mean(b) with what is needed to test it.

    ``method``: "paired" (``n_a == n_b`` pairs), "welch", or "none" where no difference can be formed.
    ``standard_error`` and ``degrees_of_freedom`` are NaN where undefined; ``unpaired`` names seeds without a partner.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float
    method: str
    n_a: int
    n_b: int
    unpaired: tuple[Hashable, ...] = ()

    def interval(self, level: float = 0.95) -> Interval:
        """mean ± t(1 - (1 - level)/2; degrees of freedom) · standard error. No width where there is no spread."""
        return _t_interval(self.mean, self.standard_error, self.degrees_of_freedom, level)


@dataclass(frozen=True)
class Equivalence:
    """Outcome of two one-sided tests: ``shown`` is None where the test is undefined (n = 1, no spread, NaN)."""

    shown: bool | None
    p_value: float
    margin: float
    interval: Interval


def describe(values: Sequence[float]) -> Sample:
    """Sample mean and s = sqrt(Σ(x - x̄)² / (n - 1)). A NaN among the values makes all but ``n`` NaN."""
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        return Sample(0, math.nan, math.nan, math.nan, math.nan)
    with np.errstate(invalid="ignore"):  # an infinity among the values: its spread is NaN, and that is the answer
        std = _std(x) if x.size > 1 else math.nan
        return Sample(x.size, float(x.mean()), std, float(x.min()), float(x.max()))


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """x̄ ± t(1 - (1 - level)/2; n - 1) · s/√n (Student 1908, "The probable error of a mean"). NaN for n < 2."""
    sample = describe(values)
    error = sample.std / math.sqrt(sample.n) if sample.n > 1 else math.nan
    return _t_interval(sample.mean, error, sample.n - 1, level)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Student's t on the differences d_i = a_i - b_i: d̄, s_d/√n, n - 1 degrees of freedom.

    Raises ValueError where the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs expected, got {len(a)} and {len(b)} values")
    sample = describe([x - y for x, y in zip(a, b, strict=True)])
    error = sample.std / math.sqrt(sample.n) if sample.n > 1 else math.nan
    freedom = sample.n - 1 if sample.n > 1 else math.nan
    return Difference(sample.mean, error, freedom, "paired", sample.n, sample.n)


def welch_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Difference of means at unequal variances: se² = s_a²/n_a + s_b²/n_b, with Satterthwaite's degrees of freedom
    se⁴ / (s_a⁴/(n_a²(n_a-1)) + s_b⁴/(n_b²(n_b-1))) (Welch 1947, Biometrika 34). Undefined where a side has n < 2.
    """
    left, right = describe(a), describe(b)
    mean = left.mean - right.mean
    if left.n < 2 or right.n < 2:
        method = "welch" if left.n and right.n else "none"
        return Difference(mean, math.nan, math.nan, method, left.n, right.n)
    var_a, var_b = left.std**2 / left.n, right.std**2 / right.n
    error = math.sqrt(var_a + var_b)
    # No spread on either side: the formula is 0/0, and any freedom gives the same interval of no width.
    freedom = (
        left.n + right.n - 2.0
        if error == 0
        else (var_a + var_b) ** 2 / (var_a**2 / (left.n - 1) + var_b**2 / (right.n - 1))
    )
    return Difference(mean, error, freedom, "welch", left.n, right.n)


def seed_difference(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> Difference:
    """a - b, paired on the seeds both have where they share at least two, otherwise Welch over all values.

    Pairing removes what a seed does to both sides alike (initial weights, order of the data); seeds without a partner
    are then left out and named in ``unpaired``.
    """
    shared = [seed for seed in a if seed in b]
    if len(shared) < 2:
        return welch_difference(list(a.values()), list(b.values()))
    alone = tuple(sorted((set(a) | set(b)) - set(shared), key=str))
    pairs = paired_difference([a[seed] for seed in shared], [b[seed] for seed in shared])
    return Difference(pairs.mean, pairs.standard_error, pairs.degrees_of_freedom, "paired", pairs.n_a, pairs.n_b, alone)


def tost(difference: Difference, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests of |true difference| < margin (Schuirmann 1987, J. Pharmacokin. Biopharm. 15).

    p = max(P(T ≥ (d + margin)/se), P(T ≤ (d - margin)/se)); equivalence is shown where p < alpha, which is where the
    (1 - 2·alpha) interval lies inside ±margin. Undefined where the standard error is NaN or zero: a sample without any
    spread gives a t test nothing to measure by. Raises ValueError for a margin that is not above zero.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    interval = difference.interval(1 - 2 * alpha)
    error, freedom = difference.standard_error, difference.degrees_of_freedom
    if math.isnan(difference.mean) or math.isnan(error) or error == 0:
        return Equivalence(None, math.nan, margin, interval)
    below = stats.t.sf((difference.mean + margin) / error, freedom)
    above = stats.t.cdf((difference.mean - margin) / error, freedom)
    p_value = float(max(below, above))
    return Equivalence(p_value < alpha, p_value, margin, interval)


def seeds_needed(
    std: float, margin: float, *, paired: bool, alpha: float = 0.05, power: float = 0.8, limit: int = 10_000
) -> int | None:
    """Least number of seeds a side at which TOST shows equivalence with probability ``power`` when there is none to
    find: 2·P(T' > t(1 - alpha; ν)) - 1 with T' noncentral t at margin/se (Phillips 1990, J. Pharmacokin. Biopharm. 18).

    ``std`` is that of a run (two samples, ν = 2n - 2) or, ``paired``, of the differences (ν = n - 1).
    None where it is not defined or beyond ``limit``.
    """
    if not (std > 0 and margin > 0 and math.isfinite(std)):
        return None
    counts = np.arange(2, limit + 1)
    freedom = counts - 1.0 if paired else 2.0 * counts - 2
    noncentrality = margin / (std * np.sqrt((1.0 if paired else 2.0) / counts))
    # Where the margin is many standard errors wide the test succeeds surely, and scipy's tail would underflow to NaN.
    critical = stats.t.ppf(1 - alpha, freedom)
    reached = 2 * stats.nct.sf(critical, freedom, np.minimum(noncentrality, 30.0)) - 1
    enough = np.flatnonzero(reached >= power)
    return int(counts[enough[0]]) if enough.size else None


def median_ratio(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, Interval]:
    """median(numerator) / median(denominator) and its percentile bootstrap interval.

    Each value is one process, and processes are resampled with replacement on each side by itself (Efron & Tibshirani
    1993, "An Introduction to the Bootstrap", ch. 13). A side of one process has no spread to resample: the ratio
    stands, the interval is NaN. The same input gives the same interval (``seed``).
    """
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    undefined = Interval(math.nan, math.nan, level)
    if top.size == 0 or bottom.size == 0 or np.median(bottom) == 0:
        return math.nan, undefined
    ratio = float(np.median(top) / np.median(bottom))
    if top.size < 2 or bottom.size < 2 or not math.isfinite(ratio):
        return ratio, undefined
    rng = np.random.default_rng(seed)
    tops = np.median(top[rng.integers(top.size, size=(resamples, top.size))], axis=1)
    bottoms = np.median(bottom[rng.integers(bottom.size, size=(resamples, bottom.size))], axis=1)
    low, high = np.quantile(tops / bottoms, [(1 - level) / 2, (1 + level) / 2])
    return ratio, Interval(float(low), float(high), level)


def median_interval(
    values: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, Interval]:
    """The median of values of one process each and its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    One process has no spread to resample: the median stands, the interval is NaN. The same input gives the same
    interval (``seed``).
    """
    x = np.asarray(values, dtype=np.float64)
    undefined = Interval(math.nan, math.nan, level)
    if x.size == 0:
        return math.nan, undefined
    middle = float(np.median(x))
    if x.size < 2 or not math.isfinite(middle):
        return middle, undefined
    rng = np.random.default_rng(seed)
    medians = np.median(x[rng.integers(x.size, size=(resamples, x.size))], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return middle, Interval(float(low), float(high), level)


def _std(x: np.ndarray) -> float:
    """Sample standard deviation; what rounding alone makes of equal values (under 1e-12 of their size) is zero."""
    std = float(x.std(ddof=1))
    return 0.0 if std <= 1e-12 * float(np.abs(x).max()) else std


def _t_interval(mean: float, error: float, freedom: float, level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if math.isnan(mean) or math.isnan(error) or not freedom > 0:
        return Interval(math.nan, math.nan, level)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Interval(mean - half, mean + half, level)
