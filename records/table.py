"""Tables of measurements: CSV, one measurement a row, units in column names, appended and never rewritten.

An appended row is one write that ends in a line break, so that a kill costs at most the row it cut short. Such a row,
or anything else that does not have the header's cells, is skipped when read and counted.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidepool.records.folders import shown_path
from tidepool.records.schema import SCHEMA_VERSION, RecordError


@dataclass(frozen=True)
class Table:
    """A CSV file of `columns`, `schema_version` first, at `path`; the file need not exist."""

    path: Path
    columns: Sequence[str]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows at the end, on disk before this returns. A missing value is an empty cell; `schema_version` is
        filled in.

        Raises RecordError where the file has another header or cannot be written, ValueError for a column that the
        table does not have.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            start = self._start(writer)
            for row in rows:
                cells = {"schema_version": SCHEMA_VERSION, **row}
                writer.writerow({name: _cell(value) for name, value in cells.items()})
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(start + text.getvalue())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordError(f"{shown_path(self.path)}: cannot be written ({error.strerror or error})") from None

    def read(self) -> tuple[list[dict[str, str]], int]:
        """The rows of the file as text, and how many of its lines were damaged. Raises RecordError."""
        if not self.path.exists():
            return [], 0
        header, rows, damaged = read_table(self.path)
        if header != list(self.columns):
            raise RecordError(f"{shown_path(self.path)}: another header than {self.path.name} of this version has")
        return rows, damaged

    def _start(self, writer: "csv.DictWriter[str]") -> str:
        """What to write before new rows: the header of a new file, or what keeps a row that was cut short apart."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            writer.writeheader()
            return ""
        self.read()  # refuses a foreign file
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            # With that many cells more than there are columns, it cannot be taken for a whole row.
            return "" if file.read(1) == b"\n" else "," * len(self.columns) + "\n"


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]], int]:
    """(header, rows of this schema version with a cell for each column, number of other lines) of a CSV file.

    Raises RecordError, in one line, where the file cannot be read.
    """
    try:
        *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise RecordError(f"{shown_path(path)}: cannot be read ({error.strerror or error})") from None
    header = next(csv.reader(lines[:1] or [rest]), [])
    rows, damaged = [], int(bool(rest))  # a last line without its line break was cut short
    for line in lines[1:]:
        cells = next(csv.reader([line]), [])
        row = dict(zip(header, cells, strict=False))
        if len(cells) == len(header) and row.get("schema_version") == str(SCHEMA_VERSION):
            rows.append(row)
        else:
            damaged += 1
    return header, rows, damaged


def _cell(value: Any) -> Any:
    """A value as one cell on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.7g}"
    return " ".join(value.split()) if isinstance(value, str) else value
