"""The record of a claim: `<name>.csv` (a row a measurement), `<name>.json` (environment), `<name>.md`, figures.

The CSV is replaced whole each time a cell is measured, so that a kill leaves whole cells, and the next run goes on
behind them. Cells are appended in the order they were measured.
"""

from __future__ import annotations

import io
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.analysis.claims.frame.claim import Measurement
from tidepool.records import (
    SOURCE,
    RecordError,
    cpu_name,
    git_state,
    package_version,
    read_json,
    shown_path,
    write_atomically,
    write_json,
)

COLUMNS = ("case", "seed", "quantity", "at", "value", "picture")
_TYPES: dict[str, Any] = {"case": str, "seed": int, "quantity": str, "at": float, "value": float, "picture": str}


def empty_table() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in _TYPES.items()})


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a claim's CSV; none where there is no file. Raises RecordError, in one line, for another table."""
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values={"at": [""], "value": ["", "nan"]})
        if tuple(table.columns) != COLUMNS:
            raise ValueError(f"columns {', '.join(map(str, table.columns))}; expected {', '.join(COLUMNS)}")
        return table.astype(_TYPES)
    except FileNotFoundError:
        return empty_table()
    except (OSError, ValueError) as error:
        raise RecordError(f"{shown_path(path)}: cannot be read as a claim's rows ({error})") from None


def measured_cells(table: pd.DataFrame) -> set[tuple[str, int]]:
    return {(str(case), int(seed)) for case, seed in zip(table["case"], table["seed"], strict=True)}


def append_cell(path: Path, case: str, seed: int, measured: Iterable[Measurement]) -> None:
    """Add the rows of one cell, all of them or none."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ",".join(COLUMNS) + "\n"
    rows = [[case, seed, m.quantity, _short(m.at), _short(m.value), m.picture] for m in measured]
    buffer = io.StringIO()
    pd.DataFrame(rows).to_csv(buffer, header=False, index=False, lineterminator="\n")
    write_atomically(path, (before + buffer.getvalue()).encode())


def write_environment(path: Path, seconds: float, processor_seconds: float, cells: int) -> None:
    """The machine and versions of the rows beside it; seconds (on the clock, and of
    processors) and `cells` add up over the runs that made them."""
    before = read_json(path) or {}
    commit, dirty = git_state(SOURCE)
    write_json(
        path,
        {
            "commit": commit,
            "dirty": dirty,
            "command": f"tidepool claim {shlex.join(sys.argv[2:] if sys.argv[1:2] == ['claim'] else sys.argv[1:])}",
            "cpu": cpu_name(),
            "gpu": None,
            "torch": package_version("torch"),
            "triton": package_version("triton"),
            "python": platform.python_version(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(before.get("seconds", 0) + seconds, 1),
            "processor_seconds": round(before.get("processor_seconds", 0) + processor_seconds, 1),
            "cells": before.get("cells", 0) + cells,
        },
    )


def _short(value: float | None) -> str:
    """Nine significant digits, which a float32 needs."""
    return "" if value is None else f"{value:.9g}"
