"""Canvases of claims in the project's one style, a size larger for the projector, and curves with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.pictures import decode
from tidepool.analysis.claims.frame.samples import curve
from tidepool.analysis.drawing import RC

STYLE: Any = {**RC, "font.size": 11, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left"}
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0b4f8a", "#e8963e", "#1b8a6b", "#6a2c70", "#404040"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, GREY)
MARKERS = ("o", "s", "^", "D", "v")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))


def panels(count: int, width: float = 9.0, height: float = 3.8, **settings: Any) -> tuple[Canvas, list[Axes]]:
    """A canvas with `count` axes beside each other."""
    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, list(np.atleast_1d(canvas.subplots(1, count, **settings)))


def plot_curve(axes: Axes, table: pd.DataFrame, case: str, quantity: str, number: int, **label: Any) -> None:
    """The mean over seeds with its 95 % interval as a band; `number` chooses colour, line and marker at once."""
    points = curve(table, case, quantity)
    scale = label.pop("scale", 1.0)
    colour = COLOURS[number % 5]
    axes.plot(
        points["at"],
        scale * points["mean"],
        color=colour,
        linestyle=LINES[number % 5],
        marker=MARKERS[number % 5],
        markersize=5,
        label=label.pop("label", case),
    )
    axes.fill_between(points["at"], scale * points["low"], scale * points["high"], color=colour, alpha=0.18, lw=0)


def bars(axes: Axes, names: Sequence[str], samples: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
    """A bar for each mean, a dot for each seed."""
    for place, (values, colour) in enumerate(zip(samples, colours, strict=True)):
        axes.bar(place, float(np.mean(values)), color=colour, alpha=0.75, width=0.7)
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
        axes.plot(place + np.asarray(spread), values, "o", color="#1d2733", markersize=3)
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="x", visible=False)


def show_picture(axes: Axes, picture: str, title: str = "", *, colours: str = "gray", size: float = 9) -> None:
    axes.imshow(decode(picture), cmap=colours, vmin=0, vmax=255, interpolation="nearest")
    bare(axes, title, size)


def bare(axes: Axes, title: str = "", size: float = 9) -> None:
    """Axes without ticks and frame, for a picture."""
    axes.set_xticks([]), axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=size, fontweight="normal", loc="center")


def styled() -> Any:
    return matplotlib.rc_context(STYLE)
