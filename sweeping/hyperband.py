"""Hyperband as W&B's sweeps do it: at each band a run has to be among the best 1/eta of all runs so far.

Source: Li et al. 2018, "Hyperband" (https://arxiv.org/abs/1603.06560), in the form of W&B's sweep documentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tidepool.sweeping.spec import Hyperband


def runs_to_stop(
    histories: Mapping[str, Sequence[float]], running: Sequence[str], rule: Hyperband, *, maximize: bool
) -> list[str]:
    """Which of the `running` runs to stop now.

    `histories` holds the metric of every run so far, running or ended, in the order it was logged. A value that is
    not a number counts as the worst.
    """
    costs = {name: [_cost(value, maximize) for value in history] for name, history in histories.items() if history}
    doomed = []
    for name in running:
        history = costs.get(name, [])
        reached = [band for band in rule.bands if band <= len(history)]
        if not reached:
            continue
        band = reached[-1]
        at_band = sorted(other[band - 1] for other in costs.values() if len(other) >= band)
        threshold = at_band[int(len(at_band) / rule.eta)]
        reference = history[band - 1] if rule.strict else min(history)
        if reference > threshold:
            doomed.append(name)
    return doomed


def _cost(value: float, maximize: bool) -> float:
    if math.isnan(value):
        return math.inf
    return -value if maximize else value
