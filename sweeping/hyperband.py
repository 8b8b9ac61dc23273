"""Hyperband as W&B's sweeps do it: at each band a run has to be among the best 1/eta of all runs so far.

Source: Li et al. 2018, "Hyperband" (https://arxiv.org/abs/1603.06560), in the form of W&B's sweep documentation. One
difference: a value that is not a number counts as the worst one here, and is no iteration there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidepool.sweeping.spec import Hyperband


@dataclass(frozen=True)
class Judged:
    """What a run is judged by: its metric `at` the bands it has reached, and the `best` it has logged."""

    at: Mapping[int, float]
    best: float = math.nan


def judged(history: Sequence[float], rule: Hyperband, *, maximize: bool) -> Judged:
    """A run whose metric was logged as `history`."""
    numbers = [value for value in history if not math.isnan(value)]
    best = (max if maximize else min)(numbers, default=math.nan)
    return Judged({band: history[band - 1] for band in rule.bands if band <= len(history)}, best)


def runs_to_stop(runs: Mapping[str, Judged], running: Sequence[str], rule: Hyperband, *, maximize: bool) -> list[str]:
    """Which of the `running` runs to stop now, given every run so far, running or ended."""
    return [name for name in running if name in runs and runs[name].at and _is_behind(runs, name, rule, maximize)]


def _is_behind(runs: Mapping[str, Judged], name: str, rule: Hyperband, maximize: bool) -> bool:
    band = max(runs[name].at)
    at_band = sorted(_cost(other.at[band], maximize) for other in runs.values() if band in other.at)
    threshold = at_band[int(len(at_band) / rule.eta)]
    return _cost(runs[name].at[band] if rule.strict else runs[name].best, maximize) > threshold


def _cost(value: float, maximize: bool) -> float:
    if math.isnan(value):
        return math.inf
    return -value if maximize else value
