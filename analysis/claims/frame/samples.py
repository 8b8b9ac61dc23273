"""Rows of a claim as samples by seed, and the words and intervals a conclusion is made of."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import pandas as pd

from tidepool.analysis.statistics import Difference, mean_interval, paired_difference, seed_difference
from tidepool.analysis.text import interval_text

Sample = Mapping[Hashable, float]


def by_seed(table: pd.DataFrame, case: str, quantity: str, at: float | None = None) -> dict[Hashable, float]:
    """seed -> value of one quantity of one case; `at` chooses its place on the axis, where it has several."""
    rows = table[(table["case"] == case) & (table["quantity"] == quantity)]
    rows = rows if at is None else rows[rows["at"] == at]
    return {int(seed): float(value) for seed, value in zip(rows["seed"], rows["value"], strict=True)}


def curve(table: pd.DataFrame, case: str, quantity: str) -> pd.DataFrame:
    """Columns at, mean, low, high: the mean over seeds at each place and its 95 % interval (no width where none)."""
    rows = table[(table["case"] == case) & (table["quantity"] == quantity)]
    points = []
    for at, group in rows.groupby("at"):
        mean, interval = float(group["value"].mean()), mean_interval(list(group["value"]))
        ends = (interval.low, interval.high) if interval.defined else (mean, mean)
        points.append((float(str(at)), mean, *ends))
    return pd.DataFrame(points, columns=["at", "mean", "low", "high"])


def mean(sample: Sample) -> float:
    return math.fsum(sample.values()) / len(sample) if sample else math.nan


def mean_text(sample: Sample, digits: int = 1, *, scale: float = 1.0) -> str:
    """``98.2 [97.9, 98.5]``: the mean and its 95 % interval, each times `scale`."""
    values = [scale * value for value in sample.values()]
    interval = mean_interval(values)
    return interval_text(scale * mean(sample), interval.low, interval.high, digits)


def percent(sample: Sample, digits: int = 1) -> str:
    """``98.2 [97.9, 98.5] %`` of a sample of fractions; the interval ends where fractions do, at 0 and 100."""
    interval = mean_interval(list(sample.values()))
    low, high = (
        100 * min(max(end, 0.0), 1.0) if interval.defined else math.nan for end in (interval.low, interval.high)
    )
    return f"{interval_text(100 * mean(sample), low, high, digits)} %"


def points(a: Sample, b: Sample, digits: int = 1) -> str:
    """``+1.2 [+0.8, +1.6] points``: a - b of fractions, paired by seed."""
    return f"{difference_text(a, b, digits, scale=100)} points"


def difference_text(a: Sample, b: Sample, digits: int = 2, *, scale: float = 1.0) -> str:
    found = difference(a, b)
    interval = found.interval()
    ends = (scale * interval.low, scale * interval.high)
    return interval_text(scale * found.mean, *ends, digits, signed=True)


def difference(a: Sample, b: Sample) -> Difference:
    """a - b, paired by the seeds both have."""
    return seed_difference(dict(a), dict(b))


def above(a: Sample, b: Sample, margin: float = 0.0) -> bool:
    """Whether the 95 % interval of a - b lies over `margin` (equal values of no spread count by their mean)."""
    found = difference(a, b)
    interval = found.interval()
    return (interval.low if interval.defined else found.mean) > margin


def within(a: Sample, b: Sample, margin: float) -> bool:
    """Whether the 90 % interval of a - b lies inside ±margin, which is TOST at 5 %; no spread counts by the mean."""
    interval = paired_difference(list(a.values()), list(b.values())).interval(0.90)
    ends = (interval.low, interval.high) if interval.defined else (difference(a, b).mean,) * 2
    return max(map(abs, ends)) < margin


def per_seed(table: pd.DataFrame, case: str, quantity: str) -> dict[Hashable, pd.DataFrame]:
    """seed -> its rows of a quantity, in the order of the axis."""
    rows = table[(table["case"] == case) & (table["quantity"] == quantity)].sort_values("at", kind="stable")
    return {int(str(seed)): group for seed, group in rows.groupby("seed")}
