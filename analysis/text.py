"""How a report shows text: numbers rounded, intervals, tables of text in Markdown and on a terminal."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

MISSING = "–"
NOT_MEASURED = "not measured"
INTERPRETED = "interpreted: not a speed measurement"
SIMULATED = "simulated: not a speed measurement"
UNTIMED = {"interpreted": INTERPRETED, "simulated": SIMULATED}
"""What stands for a time, by how kernels ran."""
# Headings whose cells are words; all others hold numbers and are set flush right.
TEXT_HEADINGS = frozenset(
    {"Compared", "Backend", "Equivalence", "Method", "Machine", "Library", "Kernels", "Measurement", "Agreement",
     "Run", "Status", "Reason", "Not finished", "Case", "Pass", "Family", "Worst case", "Side", "Suite", "Layers"}
)  # fmt: skip


def number(value: Any, digits: int, *, signed: bool = False) -> str:
    """``value`` to ``digits`` decimals with a true minus sign; MISSING for None or NaN."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    # A zero has no sign, whichever side it was rounded from.
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def significant(value: Any, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits, no exponent from 0.001 to 100,000; MISSING for None or NaN."""
    if value is None or math.isnan(value):
        return MISSING
    if value == 0 or math.isinf(value):
        return "0" if value == 0 else number(value, 0)
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}" if 1e-3 <= abs(value) < 1e5 else f"{value:.{digits - 1}e}"


def interval_text(mean: float, low: float, high: float, digits: int = 2, *, signed: bool = False) -> str:
    """``+0.12 [−0.05, +0.29]``, or ``[–]`` and ``[no spread]`` where there is no interval."""
    if math.isnan(mean):
        return MISSING
    middle = number(mean, digits, signed=signed)
    if math.isnan(low) or math.isnan(high):
        return f"{middle} [{MISSING}]"
    if low == high:
        return f"{middle} [no spread]"
    return f"{middle} [{number(low, digits, signed=signed)}, {number(high, digits, signed=signed)}]"


def markdown(view: pd.DataFrame) -> str:
    """A frame of text as a Markdown table, numbers flush right."""
    rule = ["---" if heading in TEXT_HEADINGS else "---:" for heading in view.columns]
    lines = [[markdown_cell(heading) for heading in view.columns], rule]
    lines += [[markdown_cell(str(cell)) for cell in row] for row in view.to_numpy()]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def markdown_cell(text: str) -> str:
    """``text`` on one line, with what would end a cell escaped."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def joined(view: pd.DataFrame, into: str, *others: str, heading: str | None = None) -> pd.DataFrame:
    """The view with the columns ``others`` set below the text of ``into``, on lines of their own where not MISSING."""
    cells = [
        "\n".join([first, *(text for text in rest if text not in (MISSING, ""))])
        for first, *rest in view[[into, *others]].to_numpy()
    ]
    narrower = view.assign(**{into: cells}).drop(columns=list(others))
    return narrower.rename(columns={into: heading or into})


def plain(view: pd.DataFrame, indent: str = "  ") -> str:
    """A frame of text as columns for a terminal."""
    columns = [[heading, *view[heading]] for heading in view.columns]
    widths = [max(map(len, cells)) for cells in columns]
    lines = []
    for row in zip(*columns, strict=True):
        cells = [
            cell.ljust(width) if heading in TEXT_HEADINGS else cell.rjust(width)
            for heading, cell, width in zip(view.columns, row, widths, strict=True)
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)
