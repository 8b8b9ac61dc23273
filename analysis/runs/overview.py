"""Figures over all conditions: accuracy against parameters and against training time, and seeds on both sides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from tidepool.analysis.conditions import REFERENCE, backends, condition_title
from tidepool.analysis.drawing import (
    OTHER_STYLE,
    STYLES,
    Figure,
    Mark,
    canvas_and_axes,
    figure,
    label_text,
    legend,
)
from tidepool.analysis.runs.accuracy import seed_scores
from tidepool.analysis.runs.records import Records
from tidepool.analysis.text import UNTIMED

_AGAINST = (("parameters", "parameters"), ("train_seconds", "training time, s"))


@dataclass(frozen=True)
class _Place:
    """One mark: its backend, where it stands, the text under the pointer."""

    backend: str
    x: float
    y: float
    text: str


def draw_overview(records: Records) -> Iterator[Figure]:
    """Accuracy against parameters and time where they vary, and each seed on both sides."""
    for column, label in _AGAINST:
        yield from _against(records, column, label)
    yield from _parity(records)


def _against(records: Records, column: str, label: str) -> Iterator[Figure]:
    places = list(_places(records, column))
    if len({place.x for place in places}) < 2:
        return
    canvas, axes = canvas_and_axes()
    for backend in dict.fromkeys(place.backend for place in places):
        mine = [place for place in places if place.backend == backend]
        style = STYLES.get(backend, OTHER_STYLE)
        axes.scatter([p.x for p in mine], [p.y for p in mine], s=18 if len(mine) > 200 else 30, marker=style.marker,
                     facecolor="none", edgecolor=style.colour, lw=1.1, alpha=0.8, label=label_text(backend),
                     zorder=style.order, rasterized=len(places) > 2_000)  # fmt: skip
    values = [place.x for place in places]
    if max(values) > 20 * min(values) > 0:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy, %")
    legend(axes)
    untimed = column == "train_seconds" and any(mode in UNTIMED for mode in records.runs["kernel_mode"])
    note = " Interpreted and simulated runs are left out." if untimed else ""
    caption = f"Test accuracy against {label}: one mark a finished run.{note}"
    marks: list[Mark] = [(axes, place.x, place.y, place.text) for place in places]
    yield figure(canvas, f"accuracy-against-{column.replace('_', '-')}", "overview", caption, marks)


def _places(records: Records, column: str) -> Iterator[_Place]:
    wanted = ["run", "backend", "status", "kernel_mode", "test_accuracy", column]
    for run, backend, status, mode, accuracy, x in zip(*(records.runs[n].tolist() for n in wanted), strict=True):
        timed = column != "train_seconds" or mode not in UNTIMED
        if status == "finished" and timed and math.isfinite(accuracy) and math.isfinite(x):
            yield _Place(str(backend), x, 100 * accuracy, f"{run}\n{100 * accuracy:.2f} %, {x:,.6g}")


def _parity(records: Records) -> Iterator[Figure]:
    """Each seed's accuracy on a backend against the reference's: on the line where they agree."""
    places = [place for condition, group in records.compared
              for place in _pairs(condition_title(condition), group)]  # fmt: skip
    if not places:
        return
    canvas, axes = canvas_and_axes(height=3.6)
    values = [value for place in places for value in (place.x, place.y)]
    room = max(0.08 * (max(values) - min(values)), 0.05)
    ends = [min(values) - room, max(values) + room]
    axes.plot(ends, ends, color="#7a8794", lw=1)
    for backend in dict.fromkeys(place.backend for place in places):
        mine = [place for place in places if place.backend == backend]
        style = STYLES.get(backend, OTHER_STYLE)
        axes.scatter([p.x for p in mine], [p.y for p in mine], s=34, marker=style.marker, facecolor="none",
                     edgecolor=style.colour, lw=1.3, label=label_text(backend), zorder=3)  # fmt: skip
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_xlabel(f"test accuracy on {REFERENCE}, %")
    axes.set_ylabel("test accuracy, %")
    legend(axes)
    caption = f"Each seed on both sides: on the line a backend ends where {REFERENCE} does. {len(places)} pairs."
    yield figure(canvas, "parity", "overview", caption, [(axes, p.x, p.y, p.text) for p in places])


def _pairs(title: str, group: pd.DataFrame) -> Iterator[_Place]:
    scores = {name: seed_scores(runs) for name, runs in backends(group)}
    reference = scores.pop(REFERENCE, {})
    for backend, mine in scores.items():
        for seed in mine.keys() & reference.keys():
            x, y = reference[seed], mine[seed]
            if math.isfinite(x) and math.isfinite(y):
                yield _Place(backend, x, y, f"{title}\nseed {seed}: {y:.2f} % beside {x:.2f} %")
