"""Figures of a sweep: parallel coordinates, slices, importance, the front, and curves coloured by what they led to.

Dark is good, and the best run is drawn last and widest, so that the figures read in grey as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from tidepool.analysis.drawing import RC, Figure, canvas_and_axes, figure, label_text, slug
from tidepool.analysis.runs import Records
from tidepool.analysis.sweeps.importance import importance_table
from tidepool.analysis.sweeps.leaderboard import best_first, leaderboard
from tidepool.analysis.sweeps.points import Objective, SweepPoints, value_text

SECTION = "sweep"
MOST_SLICES = 8
MOST_CURVES = 200
_MOST_NAMES = 8  # on an axis of words
_COLOURS = colormaps["viridis_r"]
_LOG_RATIO = 100
_PALE = "#c9d1d8"


def draw_sweeps(sweeps: Sequence[SweepPoints], records: Records | None) -> list[Figure]:
    """All figures that the sweeps allow; of learning curves where the runs' records are at hand."""
    figures: list[Figure] = []
    with mpl.rc_context(RC):
        for sweep in sweeps:
            if sweep.finished.empty or not sweep.objectives:
                continue
            figures += _parallel_coordinates(sweep)
            figures += _slices(sweep)
            figures += _importance(sweep)
            figures += _front(sweep)
            figures += [] if records is None else _curves(sweep, records)
    return figures


def _shades(sweep: SweepPoints, points: pd.DataFrame) -> tuple[list[Any], ScalarMappable]:
    """A colour for each point, darkest for the best of the first objective, and their scale."""
    objective = sweep.objectives[0]
    values = points[objective.column].to_numpy(dtype=float)
    low, high = float(values.min()), float(values.max())
    norm = Normalize(low, high if high > low else low + 1)
    colours = _COLOURS if objective.maximize else colormaps["viridis"]
    scale = ScalarMappable(norm, colours)
    return [scale.to_rgba(value) for value in values], scale


def _best_last(sweep: SweepPoints) -> pd.DataFrame:
    return best_first(sweep, sweep.finished).iloc[::-1]


def _parallel_coordinates(sweep: SweepPoints) -> Iterator[Figure]:
    if len(sweep.varied) < 2:
        return
    points = _best_last(sweep)
    columns = [*(f"param/{name}" for name in sweep.varied), *(objective.column for objective in sweep.objectives)]
    heights = [_heights(points[column]) for column in columns]
    canvas, axes = canvas_and_axes(max(4.7, 1.2 * len(columns)), 3.2)
    shades, _ = _shades(sweep, points)
    for row, shade in enumerate(shades):
        last = row == len(points) - 1
        line = [height[0][row] for height in heights]
        axes.plot(range(len(columns)), line, color=shade, lw=2.6 if last else 0.9, alpha=1.0 if last else 0.7)
    for place, (_, marks) in enumerate(heights):
        for height, text in marks:
            axes.annotate(label_text(text), (place, height), xytext=(3, 0), textcoords="offset points", fontsize=7,
                          va="center")  # fmt: skip
    names = [label_text(column.partition("/")[2]) for column in columns]
    axes.set_xticks(range(len(columns)), names, rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.5)
    axes.grid(axis="x")
    caption = (f"{sweep.name}: each line is a finished run, from its parameters to what it reached; "
               "the widest line is the best.")  # fmt: skip
    yield figure(canvas, f"parallel-{slug(sweep.name)}", SECTION, caption)


def _heights(values: pd.Series) -> tuple[list[float], list[tuple[float, str]]]:
    """Where each value lies between 0 and 1 on its axis, and the marks on that axis."""
    if _is_numeric(values):
        numbers = np.asarray([float(value) for value in values])
        low, high = float(numbers.min()), float(numbers.max())
        if high == low:
            return [0.5] * len(numbers), [(0.5, f"{low:.4g}")]
        scaled = np.log(numbers) if _is_logarithmic(low, high) else numbers
        span = scaled.max() - scaled.min()
        return list((scaled - scaled.min()) / span), [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]
    texts = [value_text(value) for value in values]
    names = sorted(set(texts))
    places = {name: index / max(1, len(names) - 1) for index, name in enumerate(names)}
    return [places[text] for text in texts], [(places[name], name) for name in names[:_MOST_NAMES]]


def _is_numeric(values: pd.Series) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _is_logarithmic(low: float, high: float) -> bool:
    return low > 0 and high / low >= _LOG_RATIO


def _slices(sweep: SweepPoints) -> Iterator[Figure]:
    points = _best_last(sweep)
    for objective in sweep.objectives:
        for name in sweep.varied[:MOST_SLICES]:
            canvas, axes = canvas_and_axes(3.4, 2.6)
            _slice(axes, points[f"param/{name}"], points[objective.column])
            axes.set_xlabel(label_text(name))
            axes.set_ylabel(label_text(objective.name))
            caption = f"{sweep.name}: {objective.name} against {name}; a dot a finished run, all else varying with it."
            yield figure(canvas, f"slice-{slug(sweep.name)}-{slug(objective.name)}-{slug(name)}", SECTION, caption)


def _slice(axes: Axes, values: pd.Series, reached: pd.Series) -> None:
    style: Any = {"marker": "o", "s": 16, "color": "#0b4f8a", "alpha": 0.6, "linewidths": 0}
    if _is_numeric(values):
        numbers = [float(value) for value in values]
        axes.scatter(numbers, reached, **style)
        if _is_logarithmic(min(numbers), max(numbers)):
            axes.set_xscale("log")
        return
    texts = [value_text(value) for value in values]
    names = sorted(set(texts))
    axes.scatter([names.index(text) for text in texts], reached, **style)
    axes.set_xticks(range(len(names)), [label_text(name[:24]) for name in names], rotation=30, ha="right")


def _importance(sweep: SweepPoints) -> Iterator[Figure]:
    table = importance_table(sweep)
    for metric, rows in table.groupby("metric", sort=False):
        ordered = rows.sort_values("importance")
        canvas, axes = canvas_and_axes(4.2, 0.9 + 0.28 * len(ordered))
        axes.barh([label_text(str(name)) for name in ordered["parameter"]], ordered["importance"], color="#0b4f8a")
        axes.set_xlabel("share of the spread explained")
        axes.set_xlim(0, 1)
        caption = (f"{sweep.name}: importance of each parameter for {metric}, by fANOVA on {len(sweep.finished)} runs; "
                   "seeds are not among the parameters, so their noise is in every share.")  # fmt: skip
        yield figure(canvas, f"importance-{slug(sweep.name)}-{slug(str(metric))}", SECTION, caption)


def _front(sweep: SweepPoints) -> Iterator[Figure]:
    if len(sweep.objectives) < 2:
        return
    board = leaderboard(sweep)
    first, second = sweep.objectives[:2]
    canvas, axes = canvas_and_axes(4.7, 3.2)
    x, y = board[f"{second.name}_mean"], board[f"{first.name}_mean"]
    front = board["on_front"].to_numpy(dtype=bool)
    axes.scatter(x[~front], y[~front], color=_PALE, s=22, label="bettered")
    axes.scatter(x[front], y[front], color="#0b4f8a", s=34, marker="D", label="on the front", zorder=3)
    if len(sweep.objectives) == 2:
        order = np.argsort(x[front].to_numpy(), kind="stable")
        axes.step(x[front].to_numpy()[order], y[front].to_numpy()[order], where="post", color="#0b4f8a", lw=1.1)
    if _is_logarithmic(float(x.min()), float(x.max())) or (x.min() > 0 and x.max() / x.min() > 20):
        axes.set_xscale("log")
    axes.set_xlabel(f"{label_text(second.name)} ({_goal(second)})")
    axes.set_ylabel(f"{label_text(first.name)} ({_goal(first)})")
    axes.legend(loc="best", fontsize=8)
    caption = f"{sweep.name}: means of configurations, {first.name} against {second.name}, and the Pareto front."
    yield figure(canvas, f"front-{slug(sweep.name)}", SECTION, caption)


def _goal(objective: Objective) -> str:
    return "more is better" if objective.maximize else "less is better"


def _curves(sweep: SweepPoints, records: Records) -> Iterator[Figure]:
    objective = sweep.objectives[0]
    points = _best_last(sweep).tail(MOST_CURVES)
    recorded = records.metrics[records.metrics["metric"] == objective.name]
    by_run = {run: rows for run, rows in recorded.groupby("run") if len(rows) > 1}
    names = {str(run).rpartition("/")[2]: run for run in by_run}
    shades, scale = _shades(sweep, points)
    canvas, axes = canvas_and_axes(4.7, 3.2)
    drawn = 0
    for place, (run, shade) in enumerate(zip(points["run"], shades, strict=True)):
        rows = by_run.get(names.get(str(run).rpartition("/")[2], ""))
        if rows is None:
            continue
        best = place == len(points) - 1
        x = "epoch" if bool(np.isfinite(rows["epoch"]).all()) else "step"
        axes.plot(rows[x], rows["value"], color=shade, lw=2.4 if best else 0.9, alpha=1.0 if best else 0.7)
        axes.set_xlabel(x)
        drawn += 1
    if not drawn:
        return
    axes.set_ylabel(label_text(objective.name))
    if not math.isclose(*scale.get_clim()):
        canvas.colorbar(scale, ax=axes, label=label_text(f"{objective.name}, as judged"))
    caption = (
        f"{sweep.name}: {objective.name} while training, {drawn} runs coloured by what they led to; the thick line is "
        "the best."
    )
    yield figure(canvas, f"curves-{slug(sweep.name)}", SECTION, caption)
