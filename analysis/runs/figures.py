"""Figures of a report as SVG: curves, accuracy by seed, agreement of the first losses, speed, confusion.

The reference is drawn broad and pale underneath, the others thin and dark on top: where two
curves coincide, both stay visible. The same records give the same bytes.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tidepool.analysis.conditions import (
    CONDITION,
    REFERENCE,
    Condition,
    backends,
    condition_title,
)
from tidepool.analysis.drawing import (
    OTHER_STYLE,
    RC,
    STYLES,
    Figure,
    Mark,
    canvas_and_axes,
    figure,
    label_text,
    legend,
    slug,
)
from tidepool.analysis.runs.accuracy import AGREEMENT_LIMIT, loss_differences, seed_scores
from tidepool.analysis.runs.overview import draw_overview
from tidepool.analysis.runs.records import Records
from tidepool.analysis.runs.speed import MEASURED
from tidepool.analysis.statistics import mean_interval

MOST_CONDITIONS = 6
_BEST_OF_MANY = 3
_MOST_LINES = 60  # of one backend in one figure
_MOST_POINTS = 150
_LOWEST_DIFFERENCE = 1e-9  # where a difference of exactly 0 is drawn on the logarithmic axis
_NUMBERS_UP_TO = 12  # classes; a confusion matrix with more is shown without its counts


def draw(records: Records, tables: dict[str, pd.DataFrame]) -> list[Figure]:
    """All figures the records allow, for the first MOST_CONDITIONS conditions."""
    figures: list[Figure] = []
    differences = loss_differences(records)
    with mpl.rc_context(RC):
        figures += draw_overview(records)
        for index, (condition, group) in enumerate(drawn_groups(records)):
            metrics = records.metrics[records.metrics["run"].isin(group["run"])].astype({"run": "object"})
            stem = f"{index + 1:02d}-{slug(condition_title(condition))}"
            title = condition_title(condition)
            figures += _curves(stem, title, group, metrics)
            figures += _accuracy(stem, title, group)
            figures += _agreement(stem, title, condition, differences)
            figures += _speed(stem, title, condition, tables["speed"])
            figures += _confusions(stem, title, group, records.folders)
    return figures


def drawn_groups(records: Records) -> list[tuple[Condition, pd.DataFrame]]:
    """The first MOST_CONDITIONS conditions that compare backends; where none does, all, or the best few of many."""
    frame, spans = records.ordered
    if records.compared or len(spans) <= MOST_CONDITIONS:
        return (records.compared or records.groups)[:MOST_CONDITIONS]
    accuracy = frame["test_accuracy"].fillna(-1).to_numpy()
    best = sorted(spans, key=lambda span: -float(accuracy[span[1] : span[2]].mean()))[:_BEST_OF_MANY]
    return [(condition, frame.iloc[start:end]) for condition, start, end in best]


def example_runs(group: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """For each backend the run shown as an example: finished if one is, the lowest seed of those."""
    for name, runs in backends(group):
        finished = runs[runs["status"] == "finished"]
        yield name, (runs if finished.empty else finished).iloc[0]


def _curves(stem: str, title: str, group: pd.DataFrame, metrics: pd.DataFrame) -> Iterator[Figure]:
    wanted = [
        ("train/loss", "training loss", 1.0),
        ("train/accuracy", "training accuracy, %", 100.0),
        ("val/loss", "validation loss", 1.0),
        ("val/accuracy", "validation accuracy, %", 100.0),
        ("test/loss", "test loss", 1.0),
        ("test/accuracy", "test accuracy, %", 100.0),
    ]
    for metric, label, scale in wanted:
        rows = metrics[metrics["metric"] == metric]
        if rows.empty or (metric.startswith("test/") and not rows["run"].duplicated().any()):
            continue  # runs read the test split once, but for those recorded before there was a validation split
        by_epoch = bool(np.isfinite(rows["epoch"]).all())
        canvas, axes = canvas_and_axes()
        binned, marks = _draw_curves(axes, group, rows, "epoch" if by_epoch else "step", scale)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)
        axes.set_xlabel("epoch" if by_epoch else "optimizer step")
        axes.set_ylabel(label)
        if (limits := _robust_limits(rows["value"] * scale)) is not None:
            axes.set_ylim(*limits)
        legend(axes)
        note = f" Each point is the mean of up to {binned} recorded steps." if binned > 1 else ""
        caption = f"{title}: {label}. Thick: mean of the finished runs; band: least to greatest; thin: each run.{note}"
        yield figure(canvas, f"curve-{metric.replace('/', '-')}-{stem}", "curves", caption, marks)


def _draw_curves(axes: Axes, group: pd.DataFrame, rows: pd.DataFrame, x: str, scale: float) -> tuple[int, list[Mark]]:
    """Draw every run and each backend's mean; returns how many recorded steps the fullest point stands for, and the
    means as values under the pointer."""
    marks: list[Mark] = []
    steps = np.sort(rows["step"].unique())
    edges = steps if len(steps) <= _MOST_POINTS else np.linspace(steps[0], steps[-1] + 1, _MOST_POINTS + 1)
    bins = np.searchsorted(edges, rows["step"], side="right") - 1
    points = rows.assign(bin=bins).groupby(["run", "bin"])
    # A NaN among a point's steps is a gap in the line, never bridged by its neighbours.
    table = pd.DataFrame({"x": points[x].mean(), "y": points["value"].apply(lambda v: v.mean(skipna=False)) * scale})
    table = table.replace([np.inf, -np.inf], np.nan)
    for name, runs in backends(group):
        style = STYLES.get(name, OTHER_STYLE)
        mine = [run for run in runs["run"] if run in table.index.get_level_values("run")]
        status = dict(zip(runs["run"], runs["status"], strict=True))
        for run in mine[:_MOST_LINES]:
            line = table.loc[run]
            if status[run] in ("diverged", "failed"):
                axes.plot(line["x"], line["y"], color="#a01c1c", lw=1.4, ls=(0, (2, 1)), marker="x", markevery=[-1],
                          zorder=6, label=label_text(f"{status[run]}: {name}, {Path(run).name}"))  # fmt: skip
                continue
            axes.plot(line["x"], line["y"], color=style.colour, alpha=0.35, lw=0.7, zorder=style.order - 1.5)
        finished = [run for run in runs.loc[runs["status"] == "finished", "run"] if run in mine]
        if not finished:
            continue
        places, values = (table.loc[finished, column].unstack("run").to_numpy() for column in ("x", "y"))
        # Past the end of the shortest run, and where one is NaN, there is no mean.
        mean = pd.DataFrame({"x": places.mean(axis=1), "y": values.mean(axis=1)}).dropna()
        if len(finished) > 2:
            low, high = (pd.Series(end(values, axis=1)).reindex(mean.index) for end in (np.min, np.max))
            axes.fill_between(mean["x"], low, high, color=style.colour, alpha=0.18, lw=0, zorder=style.order - 1.6)
        marks += [(axes, a, b, f"{name}, {x} {a:.4g}: {b:.5g}") for a, b in mean.to_numpy()]
        marker = style.marker if len(mean) <= 30 else None
        label = label_text(f"{name}, mean of {len(finished)}" if len(finished) > 1 else name)
        axes.plot(mean["x"], mean["y"], color=style.colour, ls=style.line, lw=style.width, marker=marker,
                  ms=2 + 1.5 * style.width, zorder=style.order, label=label)  # fmt: skip
    return int(points.size().max()), marks


def _robust_limits(values: pd.Series) -> tuple[float, float] | None:
    """Limits that a few diverging steps cannot stretch; None unless the highest dwarfs the 99th percentile."""
    finite = values[np.isfinite(values)]
    if finite.empty:
        return None
    high = float(finite.quantile(0.99))
    if high > 0 and finite.max() > 5 * high:
        return min(0.0, float(finite.min())), 1.5 * high
    return None


def _accuracy(stem: str, title: str, group: pd.DataFrame) -> Iterator[Figure]:
    scores = [(name, list(seed_scores(runs).values())) for name, runs in backends(group)]
    scores = [(name, values) for name, values in scores if np.isfinite(values).any()]
    if not scores:
        return
    canvas, axes = canvas_and_axes(height=1.15 + 0.62 * len(scores))
    # The view is set by what was measured: at two seeds an interval can be a hundred times as wide.
    measured = [value for _, values in scores for value in values if math.isfinite(value)]
    room = max(0.5 * (max(measured) - min(measured)), 0.1)
    left, right = min(measured) - room, max(measured) + room
    cut = False
    marks: list[Mark] = []
    for row, (name, values) in enumerate(reversed(scores)):
        style = STYLES.get(name, OTHER_STYLE)
        # Seeds are spread on a fixed ladder, so that equal accuracies stay countable.
        offsets = (np.arange(len(values)) % 5 - 2) * 0.07 + 0.02
        axes.scatter(
            values, row + offsets, s=26, marker=style.marker, facecolor="white", edgecolor=style.colour, lw=1.3
        )
        interval = mean_interval(values)
        mean = float(np.mean(values))
        marks += [(axes, v, float(row + o), f"{name}: {v:.2f} %") for v, o in zip(values, offsets, strict=True)]
        marks.append((axes, mean, row - 0.32, f"{name}: mean {mean:.2f} % [{interval.low:.2f}, {interval.high:.2f}]"))
        if interval.defined:
            cut |= interval.low < left or interval.high > right
            axes.plot([interval.low, interval.high], [row - 0.32] * 2, color=style.colour, lw=3, solid_capstyle="butt")
        axes.plot([mean, mean], [row - 0.42, row - 0.22], color="#1d2733", lw=2)
    axes.set_yticks(range(len(scores)), [label_text(name) for name, _ in reversed(scores)])
    axes.set_ylim(-0.65, len(scores) - 0.45)
    axes.set_xlim(left, right)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("test accuracy, %")
    caption = f"{title}: test accuracy, one mark a seed; below it the mean (tick) and its 95 % interval (bar, Student)."
    if cut:
        caption += " An interval goes on beyond the figure; its ends are in the CSV."
    yield figure(canvas, f"accuracy-{stem}", "accuracy", caption, marks)


def _agreement(stem: str, title: str, condition: dict[str, str], differences: pd.DataFrame) -> Iterator[Figure]:
    mine = differences[(differences[CONDITION] == pd.Series(condition)).all(axis=1)]
    if not np.isfinite(mine["relative_difference"]).any():
        return
    canvas, axes = canvas_and_axes(height=2.7)
    zeros = False
    for name, rows in mine.groupby("backend", sort=False):
        style = STYLES.get(str(name), OTHER_STYLE)
        for index, (_, line) in enumerate(rows.groupby("seed", sort=False)):
            value = line["relative_difference"].replace(np.inf, np.nan)
            zeros |= bool((value == 0).any())
            drawn = value.where((value > _LOWEST_DIFFERENCE) | value.isna(), _LOWEST_DIFFERENCE)
            axes.plot(line["step"], drawn, color=style.colour, lw=1, marker=style.marker, ms=3.5, alpha=0.75,
                      label=label_text(f"{name}, each seed") if index == 0 else None)  # fmt: skip
    axes.set_yscale("log")
    limit = AGREEMENT_LIMIT.get(condition["dtype"])
    if limit is not None:
        axes.axhline(limit, color="#a01c1c", lw=1.2, ls=(0, (6, 2)), label=f"limit {limit:g}")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("relative difference of loss")
    axes.set_xticks(sorted(mine["step"].unique()))
    legend(axes)
    note = f" No difference at all is drawn at {_LOWEST_DIFFERENCE:g}." if zeros else ""
    caption = f"{title}: |loss − {REFERENCE} loss| / {REFERENCE} loss at the first steps, same seed.{note}"
    yield figure(canvas, f"agreement-{stem}", "agreement", caption)


def _speed(stem: str, title: str, condition: dict[str, str], speed: pd.DataFrame) -> Iterator[Figure]:
    if not speed["speedup_vs_cudnn"].notna().any():
        return  # one bar compares nothing; the table has its time
    rows = speed[(speed[CONDITION] == pd.Series(condition)).all(axis=1) & (speed["measurement"] == MEASURED)]
    for number, (device, bars) in enumerate(rows.dropna(subset="step_ms_p50_median").groupby("device")):
        canvas, axes = canvas_and_axes(height=1.1 + 0.45 * len(bars))
        marks: list[Mark] = []
        for row, (_, bar) in enumerate(bars.iloc[::-1].iterrows()):
            style = STYLES.get(bar["backend"], OTHER_STYLE)
            hatch = {REFERENCE: "", "triton": "//", "compile": "..", "auto": "xx"}.get(bar["backend"], "--")
            median = bar["step_ms_p50_median"]
            axes.barh(row, median, height=0.6, color=style.colour, hatch=hatch, edgecolor="white")
            spread = [[median - bar["step_ms_p50_p20"]], [bar["step_ms_p50_p80"] - median]]
            axes.errorbar(median, row, xerr=spread, color="#1d2733", capsize=3, lw=1.2)
            marks.append((axes, median, row, f"{bar['backend']}: {median:.4g} ms"))
        labels = [
            f"{label_text(bar['backend'])}\n({label_text(bar['conv_library'])})"
            for _, bar in bars.iloc[::-1].iterrows()
        ]
        axes.set_yticks(range(len(bars)), labels)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("step time, ms (median of runs; whisker p20–p80)")
        caption = f"{title} on {device}: step time in training, compiled runs only. Shorter is faster."
        yield figure(canvas, f"speed-{stem}" + (f"-{number + 1}" if number else ""), "speed", caption, marks)


def _confusions(stem: str, title: str, group: pd.DataFrame, folders: dict[str, Path]) -> Iterator[Figure]:
    for name, run in example_runs(group):
        folder = folders.get(run["run"])
        counts = None if folder is None else read_confusion(folder / "media" / "confusion.csv")
        if counts is None:
            continue
        labels, matrix = [label_text(label) for label in counts[0]], counts[1]
        canvas, axes = canvas_and_axes(height=4.4)
        total = matrix.sum(axis=1, keepdims=True)
        share = np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)
        axes.imshow(_confusion_colours(share), interpolation="nearest")
        axes.grid(visible=False)
        few = len(labels) <= _NUMBERS_UP_TO
        for row, column in np.argwhere(matrix > 0) if few else []:
            dark = share[row, column] > 0.5 or row != column
            colour = "white" if dark else "#1d2733"
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
        if few:
            slanted = max(map(len, labels)) > 2
            axes.set_xticks(range(len(labels)), labels, rotation=90 if slanted else 0)
            axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        wrong = int(matrix.sum() - np.trace(matrix))
        seed = "" if run["seed"] is None else f", seed {run['seed']}"
        caption = (
            f"{title}, {name}{seed}: {wrong} of {matrix.sum():.0f} test samples wrong. "
            "Blue: share of the true class that is right; red: wrong, darker where more are; numbers: samples."
        )
        marks: list[Mark] = [
            (axes, column, row, f"{labels[row]} taken for {labels[column]}: {matrix[row, column]:.0f}")
            for row, column in np.argwhere(matrix > 0)
        ]
        yield figure(canvas, f"confusion-{slug(name)}-{stem}", "pictures", caption, marks)


def _confusion_colours(share: np.ndarray) -> np.ndarray:
    """RGB of each cell: right ones blue by their share of the class; wrong ones red by their share of the worst, the
    least of them dark enough to be seen."""
    right = mpl.colormaps["Blues"](0.15 + 0.7 * share)[..., :3]
    wrong = np.where(np.eye(len(share), dtype=bool), 0.0, share)
    strength = 0.55 + 0.4 * wrong / max(float(wrong.max()), 1e-9)
    colours = np.where((wrong > 0)[..., None], mpl.colormaps["Reds"](strength)[..., :3], right)
    return np.where((share == 0)[..., None], 1.0, colours)


def read_confusion(path: Path) -> tuple[list[str], np.ndarray] | None:
    """Class labels and counts [true, predicted] of a confusion.csv (true,predicted,count), or None if unreadable."""
    cells: dict[tuple[str, str], float] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                cell = (str(row["true"]), str(row["predicted"]))
                cells[cell] = cells.get(cell, 0.0) + float(row["count"])
    except (OSError, UnicodeDecodeError, KeyError, ValueError, TypeError, csv.Error):
        return None
    # The true classes stand in their own order; a class only ever predicted comes after them.
    labels = list(dict.fromkeys([true for true, _ in cells] + [predicted for _, predicted in cells]))
    if not labels or not all(math.isfinite(count) for count in cells.values()):
        return None
    if all(re.fullmatch(r"\d+", label) for label in labels):
        labels.sort(key=int)
    matrix = np.zeros((len(labels), len(labels)))
    place = {label: index for index, label in enumerate(labels)}
    for (true, predicted), count in cells.items():
        matrix[place[true], place[predicted]] = count
    return labels, matrix
