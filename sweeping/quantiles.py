"""Distributions by their quantiles: what lies at a share from 0 to 1 of each of W&B's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

EDGE = 1e-9
"""Keeps draws of distributions without bounds finite."""


def between(low: float, high: float, quantile: float) -> float:
    """Uniform from `low` to `high`."""
    return min(max(low + quantile * (high - low), low), high)


def log_between(low: float, high: float, quantile: float) -> float:
    """Uniform in the logarithm from `low` to `high`, both above 0."""
    return min(max(math.exp(between(math.log(low), math.log(high), quantile)), low), high)


def inverse(distribution: str, settings: Mapping[str, Any], quantile: float) -> float:
    """The quantile of normal, log_normal, beta and their quantised kin, before rounding."""
    if distribution.endswith("beta"):
        from scipy.special import betaincinv  # an import that only beta needs

        return float(betaincinv(settings.get("a", 1), settings.get("b", 1), quantile))
    mu, sigma = settings.get("mu", 0.0), settings.get("sigma", 1.0)
    deviate = mu if sigma == 0 else NormalDist(mu, sigma).inv_cdf(quantile)
    return math.exp(deviate) if "log_normal" in distribution else deviate


def weighted_choice(values: Sequence[Any], weights: Sequence[float], quantile: float) -> Any:
    """The value whose share of the weights `quantile` falls into."""
    mark, total = quantile * sum(weights), 0.0
    for value, weight in zip(values, weights, strict=True):
        total += weight
        if mark < total:
            return value
    return next(value for value, weight in zip(values[::-1], weights[::-1], strict=True) if weight > 0)
