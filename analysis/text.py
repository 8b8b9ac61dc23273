"""How a report shows text: numbers rounded, intervals, tables of text in Markdown and on a terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

MISSING = "–"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what makes a cell a formula
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
    """``text`` on one line, with what would end a cell, begin HTML, make a link or close one's text escaped."""
    for character in ("\\", "|", "`"):
        text = text.replace(character, "\\" + character)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return " ".join(text.replace("](", "]\\(").split())


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table in full, floats as they are, empty where NaN. A text that a spreadsheet would run as a formula gets an
    apostrophe in front, which spreadsheets show as the text it is."""
    words = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    safe = {name: pd.Series([_inert(v) for v in table[name]], index=table.index, dtype="object") for name in words}
    safe_names = {name: _inert(name) for name in table.columns}
    table.assign(**safe).rename(columns=safe_names).to_csv(path, index=False, lineterminator="\n")


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) else value


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
