"""The Pareto front of several objectives, and the volume it dominates.

Less is better in every column here. Source of the hypervolume by slicing: While et al. 2006, "A Faster Algorithm for
Calculating Hypervolume".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def on_the_front(costs: pd.DataFrame) -> list[bool]:
    """For each row whether no other row is as low in every column and lower in one."""
    values = costs.to_numpy(dtype=float)
    return [
        not bool(np.any(np.all(values <= row, axis=1) & np.any(values < row, axis=1)))  # none dominates the row
        for row in values
    ]


def hypervolume(costs: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume between the points ``costs`` and ``reference``: of all that some point is as low as, in every column,
    and that lies below ``reference``. A point that does not lie below it adds nothing."""
    inside = [tuple(point) for point in costs if all(a < b for a, b in zip(point, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - min(point[0] for point in inside))
    volume = 0.0
    ordered = sorted(set(inside), key=lambda point: point[-1])
    ends = [point[-1] for point in ordered[1:]] + [reference[-1]]
    for index, end in enumerate(ends):
        thickness = end - ordered[index][-1]
        if thickness > 0:
            volume += thickness * hypervolume([point[:-1] for point in ordered[: index + 1]], reference[:-1])
    return volume
