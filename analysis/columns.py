"""A table as a README shows it: columns of Markdown cells, each known by the name that a block gives it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.analysis.runs import recorded_tables, shown
from tidepool.analysis.text import MISSING, TEXT_HEADINGS, markdown_cell, number, significant
from tidepool.records import RecordError, shown_path
from tidepool.records.recorded_sweep import is_recorded_sweep

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf|nan")
_WHOLE = re.compile(r"[+-]?\d+(?:\.0)?")
# Columns of words even where every word in them could be read as a number, or where none is filled in.
_WORDS = frozenset(
    {"data", "model", "dtype", "settings", "backend", "reference", "difference_method", "equivalence", "device",
     "conv_library", "kernel_mode", "measurement", "agreement", "run", "seed", "status", "reason", "sweep", "commit",
     "date", "gpu", "cpu", "driver", "cuda", "cudnn", "torch", "triton", "python"}
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column as shown: heading and cells are Markdown; words are flush left, numbers right."""

    heading: str
    words: bool
    cells: list[str]


def read_columns(path: Path) -> tuple[dict[str, Column], list[Column]]:
    """The columns of a table that a block may name, and those it shows when it names none.

    ``path`` is a CSV or Markdown file, or, in the folder of a recorded sweep, the name of a table derived from it.
    Raises RecordError, in one line, where there is no such table.
    """
    if in_recorded_sweep(path):
        tables = recorded_tables(path.parent)
        if path.name not in tables:
            raise RecordError(f"no table {path.name!r} in the record of a sweep, expected any of {', '.join(tables)}")
        return _columns(tables[path.name].to_csv(index=False), path)
    return _read_markdown(path) if path.suffix == ".md" else _columns(read_text(path), path)


def in_recorded_sweep(path: Path) -> bool:
    """Whether ``path`` names a table in the folder of a recorded sweep."""
    return path.parent.is_dir() and is_recorded_sweep(file.name for file in path.parent.iterdir())


def _columns(text: str, path: Path) -> tuple[dict[str, Column], list[Column]]:
    """The columns a block may name, and those it shows when it names none.

    The tables of a report are shown as the report shows them, and can be named by its headings (``Mean %`` as
    ``mean_percent``); any column of the file can be named as the file names it.
    """
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row] or [[]]
    except csv.Error as error:
        raise RecordError(f"{shown_path(path)}: not readable as CSV ({error})") from None
    if not header:
        raise RecordError(f"{shown_path(path)}: empty, expected a table")
    if any(len(row) != len(header) for row in rows):
        raise RecordError(f"{shown_path(path)}: rows of different lengths, expected {len(header)} cells in each")
    raw = {name: [row[index] for row in rows] for index, name in enumerate(header)}
    plain = {name: _plain_column(name, cells) for name, cells in raw.items()}
    typed = pd.DataFrame({name: pd.Series(_values(name, cells), dtype="object") for name, cells in raw.items()})
    try:
        view = shown(path.stem, typed)
    except KeyError:  # a table of another kind
        return plain, list(plain.values())
    except (TypeError, ValueError) as error:
        raise RecordError(f"{shown_path(path)}: not the {path.stem} table of a report ({error})") from None
    columns = [Column(name, name in TEXT_HEADINGS, list(map(markdown_cell, view[name]))) for name in view.columns]
    return plain | {_key(column.heading): column for column in columns}, columns


def _plain_column(name: str, cells: list[str]) -> Column:
    heading = re.sub(r" percent$", " %", name.replace("_", " "))
    heading = markdown_cell(heading[:1].upper() + heading[1:])
    values = _values(name, cells)
    if name in _WORDS or any(isinstance(value, str) for value in values):
        return Column(heading, True, [markdown_cell(cell) for cell in cells])
    if name.endswith(("_percent", "_points")):
        return Column(heading, False, [number(v, 2, signed=name.startswith("difference")) for v in values])
    if all(_WHOLE.fullmatch(cell) or not cell for cell in cells):
        return Column(heading, False, [cell.removesuffix(".0").replace("-", "−") or MISSING for cell in cells])
    return Column(heading, False, [significant(value).replace("-", "−") for value in values])


def _values(name: str, cells: list[str]) -> list[Any]:
    """The cells of a CSV column as analysis wrote them: words, whole numbers, or floats with NaN for an empty cell."""
    if name == "seed":
        return [cell or None for cell in cells]
    if name in _WORDS or any(cell and not _NUMBER.fullmatch(cell) for cell in cells):
        return cells
    if all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells):
        return [int(cell) for cell in cells]
    return [float(cell) if cell else math.nan for cell in cells]


def _read_markdown(path: Path) -> tuple[dict[str, Column], list[Column]]:
    """The columns of the one table in a Markdown file, by key and in order; text around it is left out."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    rows = [row_cells(line) for line in lines if line.startswith("|")]
    rules = [index for index, row in enumerate(rows) if all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    if rules != [1] or any(len(row) != len(rows[0]) for row in rows):
        raise RecordError(f"{shown_path(path)}: expected one Markdown table with as many cells in each row")
    columns = [
        Column(heading, not rule.endswith(":"), [row[index] for row in rows[2:]])
        for index, (heading, rule) in enumerate(zip(rows[0], rows[1], strict=True))
    ]
    return {_key(column.heading): column for column in columns}, columns


def row_cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table, escapes left as they stand; empty for any other line."""
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in re.findall(r"((?:\\.|[^|\\])*)\|", line[1:])]


def _key(heading: str) -> str:
    """``Difference to cudnn, points [95 %]`` as a block's columns= names it: ``difference_to_cudnn_points``."""
    words = re.sub(r"\[.*?\]", "", heading).lower().replace("%", "percent")
    return re.sub(r"\W+", "_", words).strip("_")


def chosen(known: dict[str, Column], names: Sequence[str]) -> list[Column]:
    for name in names:
        if name not in known:
            raise RecordError(f"unknown column {name!r}, expected any of {', '.join(known)}")
    return [known[name] for name in names]


def table_lines(columns: list[Column]) -> list[str]:
    rows = [
        [column.heading for column in columns],
        ["---" if column.words else "---:" for column in columns],
        *map(list, zip(*(column.cells for column in columns), strict=True)),
    ]
    return ["| " + " | ".join(row) + " |" for row in rows]


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecordError(f"{shown_path(path)}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{shown_path(path)}: cannot be read ({' '.join(str(error).split())})") from None
