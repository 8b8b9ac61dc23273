"""What all figures of a report share: style, canvas, legend, SVG.

Backends differ in colour, lightness, line style and marker at once, so they can be told apart in grey and by
colour-blind readers. The same drawing gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.conditions import REFERENCE

RC: Any = {
    "svg.hashsalt": "tidepool",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#7a8794",
    "axes.labelcolor": "#1d2733",
    "axes.grid": True,
    "grid.color": "#e4e8ec",
    "axes.axisbelow": True,
    "xtick.color": "#4a5664",
    "ytick.color": "#4a5664",
    "legend.frameon": False,
}


Point = tuple[float, float, str]
Mark = tuple[Axes, float, float, str]
"""What is shown under the pointer: axes, x and y in their units, text."""
_MOST_POINTS = 500


@dataclass(frozen=True)
class Figure:
    """One drawing: file stem, section of the report it belongs to, caption, and the SVG itself."""

    name: str
    section: str
    caption: str
    svg: str
    png: bytes = b""
    points: tuple[Point, ...] = ()
    """What is shown under the pointer: places as fractions of width and height from the top left, with their text."""


@dataclass(frozen=True)
class Style:
    colour: str
    line: Any
    marker: str
    width: float
    order: int


STYLES = {
    REFERENCE: Style("#e8963e", "-", "s", 3.2, 2),
    "triton": Style("#0b4f8a", (0, (4, 1.5)), "o", 1.6, 5),
    "compile": Style("#1b8a6b", (0, (1, 1.2)), "^", 1.6, 4),
    "auto": Style("#6a2c70", (0, (5, 1.5, 1, 1.5)), "D", 1.6, 3),
}
OTHER_STYLE = Style("#404040", "-", "v", 1.2, 3)


def write_figures(figures: Sequence[Figure], folder: Path) -> None:
    """Write each figure as ``<name>.svg`` and ``<name>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        (folder / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
        if figure.png:
            (folder / f"{figure.name}.png").write_bytes(figure.png)


def canvas_and_axes(width: float = 4.7, height: float = 3.0) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, canvas.add_subplot()


def legend(axes: Axes) -> None:
    """Above the axes, where no curve can run through it."""
    handles, labels = axes.get_legend_handles_labels()
    if handles and isinstance(axes.figure, Canvas):
        axes.figure.legend(handles, labels, loc="outside upper left", ncols=2, handlelength=2.8, columnspacing=1.4)


def figure(canvas: Canvas, name: str, section: str, caption: str, marks: Iterable[Mark] = ()) -> Figure:
    """The drawing as SVG and PNG, with what is shown under the pointer."""
    drawing, picture = io.StringIO(), io.BytesIO()
    canvas.savefig(drawing, format="svg", transparent=True, metadata=_UNDATED)
    canvas.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    width, height = canvas.get_size_inches() * canvas.dpi
    points = []
    for axes, x, y, text in islice(marks, _MOST_POINTS):
        across, up = axes.transData.transform((x, y))
        if math.isfinite(across) and math.isfinite(up):
            points.append((across / width, 1 - up / height, text))
    return Figure(name, section, caption, drawing.getvalue(), picture.getvalue(), tuple(points))


_UNDATED: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}


def label_text(text: str) -> str:
    """``text`` as a figure can carry it: a dollar sign is a dollar sign, not the start of a formula."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
