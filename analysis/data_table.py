"""A table that the page's script sorts, filters and folds: its first rows as HTML, all of them as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tidepool.analysis import page
from tidepool.analysis.text import MISSING, number

_STATIC = 100  # rows that stand on the page without its script
_TONES = {"finished": "good", "diverged": "bad", "failed": "bad", "interrupted": "warn", "unfinished": "warn"}


@dataclass(frozen=True)
class DataColumn:
    """A heading; ``digits`` behind the point of its numbers, -1 as they are, -2 for words; ``source``: its values."""

    name: str
    digits: int = -2
    link: bool = False
    long: bool = False
    source: str = ""
    scale: float = 1.0

    @property
    def css(self) -> str:
        """Words flush left, numbers right."""
        return ("text long" if self.long or self.link else "text") if self.digits == -2 else "num"


@dataclass(frozen=True)
class DataTable:
    """Rows of texts, numbers and None, each with one value more than there are columns: the link of its first, None,
    or 1 for ``base`` and the name. ``folded``: the same with seeds taken together."""

    columns: list[DataColumn]
    rows: list[list[Any]]
    folded: list[list[Any]] | None = None
    base: str = ""


def data_table(table: DataTable) -> str:
    """The table as HTML."""
    head = "".join(f'<th scope="col" class="{c.css}">{page.text(c.name)}</th>' for c in table.columns)
    static = (table.folded or table.rows)[:_STATIC]
    body = "\n".join(f"<tr>{_row(table.columns, row)}</tr>" for row in static)
    left = len(table.rows) - len(static)
    note = f"<noscript><p>{left} more rows need JavaScript; tables/runs.csv has all.</p></noscript>" if left > 0 else ""
    data = {
        "columns": [{"name": c.name, "digits": c.digits, "css": c.css, "link": c.link} for c in table.columns],
        "rows": table.rows,
        "folded": table.folded,
        "tones": _TONES,
        "base": table.base,
    }
    return (
        f'<div class="data"><div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        f'</table></div>{note}<script type="application/json">{_json(data)}</script></div>'
    )


def _row(columns: list[DataColumn], row: list[Any]) -> str:
    return "".join(f'<td class="{c.css}">{_cell(v, c)}</td>' for c, v in zip(columns, row, strict=False))


def _cell(value: Any, column: DataColumn) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float) and column.digits >= 0:
        return page.text(number(value, column.digits))
    return page.text(f"{value:g}" if isinstance(value, float) else value)


def _json(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
