"""Configurations of a sweep in the order of what they reached, seeds folded into mean and spread."""

from __future__ import annotations

import pandas as pd

from tidepool.analysis.statistics import describe
from tidepool.analysis.sweeps.pareto import on_the_front
from tidepool.analysis.sweeps.points import SweepPoints, value_text


def best_point(sweep: SweepPoints) -> pd.Series | None:
    """The run that reached the most in the first objective, of equals in the next one; None where none finished."""
    finished = sweep.finished
    if finished.empty or not sweep.objectives:
        return None
    return _best_of(sweep, finished)


def _best_of(sweep: SweepPoints, points: pd.DataFrame) -> pd.Series:
    if not sweep.objectives:
        return points.iloc[0]
    return best_first(sweep, points).iloc[0]


def best_first(sweep: SweepPoints, points: pd.DataFrame) -> pd.DataFrame:
    """``points`` in the order of their first objective, equals in that of the next one."""
    costs = pd.DataFrame({objective.column: objective.cost(points[objective.column]) for objective in sweep.objectives})
    return points.loc[costs.sort_values([str(name) for name in costs], kind="stable").index]


def leaderboard(sweep: SweepPoints) -> pd.DataFrame:
    """A row a configuration with a finished run, the best mean of the first objective first, of equals the next one's.

    Columns: rank; run, its best; ``param/<name>`` of what was varied; for each objective ``<metric>_mean``, ``_std``
    (NaN for one run), ``_min``, ``_max``; n_finished, n_other (failed, refused, diverged, stopped); on_front where
    there are several objectives: no other configuration's means are as good in all of them and better in one.
    """
    columns = [f"param/{name}" for name in sweep.varied]
    points = sweep.points.assign(_configuration=_configurations(sweep))
    finished = points.loc[sweep.finished.index]
    rows = []
    for configuration, group in finished.groupby("_configuration", sort=False):
        row = {column: group[column].iloc[0] for column in columns}
        for objective in sweep.objectives:
            sample = describe(list(group[objective.column]))
            row |= {f"{objective.name}_mean": sample.mean, f"{objective.name}_std": sample.std,
                    f"{objective.name}_min": sample.minimum, f"{objective.name}_max": sample.maximum}  # fmt: skip
        best = _best_of(sweep, group)
        every = int((points["_configuration"] == configuration).sum())
        rows.append({"run": best["run"], **row, "n_finished": len(group), "n_other": every - len(group)})
    frame = pd.DataFrame(rows)
    if frame.empty or not sweep.objectives:
        return frame
    costs = pd.DataFrame({o.name: o.cost(frame[f"{o.name}_mean"]) for o in sweep.objectives})
    if len(sweep.objectives) > 1:
        frame["on_front"] = on_the_front(costs)
    frame = frame.loc[costs.sort_values([str(name) for name in costs], kind="stable").index].reset_index(drop=True)
    frame.insert(0, "rank", range(1, len(frame) + 1))
    return frame


def _configurations(sweep: SweepPoints) -> pd.Series:
    """What tells one configuration from another, for each point."""
    texts = [sweep.points[f"param/{name}"].map(value_text) for name in sweep.varied]
    if not texts:
        return pd.Series("", index=sweep.points.index)
    return pd.Series(list(zip(*texts, strict=True)), index=sweep.points.index, dtype="object")
