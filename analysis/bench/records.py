"""Measurements of bench.py and its host-cost benchmark, read into pandas.

Files are found by name under the paths given: ``timings.csv``, ``cases.csv`` (what there was to measure),
``correctness.csv``, ``predictions.csv`` and ``host_cost.csv``. A row that a kill cut short is counted, not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.records import RecordError, find_folders, shown_path
from tidepool.records.table import read_table

# The columns that tables and figures need, by file; a file may have more.
_TIMED_ON = (
    "suite", "case", "family", "pass", "backend", "dtype", "status", "reason", "process", "replicate", "measured_at",
    "time_ms_p50", "cuda_graph", "inputs_bytes", "peak_above_inputs_bytes", "flops", "fused_bytes", "eager_bytes",
    "roofline_ms", "roofline_share", "copy_bytes_per_s", "matmul_tflops", "kernel_mode", "plan", "gpu", "driver",
    "cuda", "conv_library", "torch", "triton", "python", "commit", "dirty", "source", "command",
)  # fmt: skip
COLUMNS: dict[str, tuple[str, ...]] = {
    "timings.csv": _TIMED_ON,
    "cases.csv": ("suite", "case", "family", "description", "source", "note", "batch"),
    "correctness.csv": ("suite", "case", "backend", "dtype", "status", "reason", "gpu", "source"),
    "predictions.csv": (
        "suite", "case", "family", "pass", "dtype", "device", "device_source", "matrix_tflops", "copy_bytes_per_s",
        "flops", "fused_bytes", "eager_bytes", "bytes_ratio", "workspace_bytes", "fused_saved_bytes",
        "eager_saved_bytes", "fused_roofline_ms", "eager_roofline_ms", "bound_ratio", "commit", "source",
    ),
    "host_cost.csv": (
        "measured_at", "process", "side", "what", "host_us_p50", "host_us_p20", "host_us_p80", "blocks",
        "calls_per_block", "device", "kernel_mode", "gpu", "cpu", "torch", "triton", "python", "commit", "dirty",
        "source", "command",
    ),
}  # fmt: skip
_BEGINNING = b"schema_version,"
_NUMBERS = frozenset(
    {"time_ms_p50", "inputs_bytes", "peak_above_inputs_bytes", "flops", "fused_bytes", "eager_bytes", "roofline_ms",
     "roofline_share", "copy_bytes_per_s", "matmul_tflops", "batch", "bytes_ratio", "workspace_bytes",
     "fused_saved_bytes", "eager_saved_bytes", "fused_roofline_ms", "eager_roofline_ms", "bound_ratio",
     "matrix_tflops", "host_us_p50", "host_us_p20", "host_us_p80", "blocks", "calls_per_block"}
)  # fmt: skip


@dataclass(frozen=True)
class BenchRecords:
    """Frames by file, each with COLUMNS' columns, empty where no such file was found; text cells are empty, numbers
    NaN where nothing was recorded. ``folders`` holds measurements, ``warnings`` are one line each."""

    timings: pd.DataFrame
    cases: pd.DataFrame
    correctness: pd.DataFrame
    predictions: pd.DataFrame
    host_cost: pd.DataFrame
    folders: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether nothing at all was found."""
        return not self.folders


def read_bench_records(paths: Sequence[Path | str], *, skip: Path | None = None) -> BenchRecords:
    """Read every file of measurements under ``paths``; ``skip`` is a folder left unread (a report's own output).

    Raises RecordError, in one line, for a file that cannot be read or lacks a column.
    """
    warnings: list[str] = []
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in COLUMNS}
    folders: dict[Path, None] = {}
    files = find_folders(paths, skip=skip)
    for path in (folder / name for folder, names in files for name in names if name in COLUMNS):
        if not _is_ours(path):
            warnings.append(f"{shown_path(path)}: skipped, not a record of bench.py")
            continue
        found, damaged = _read(path)
        rows[path.name] += found
        folders[path.parent] = None
        if damaged:
            warnings.append(f"{shown_path(path)}: {damaged} unreadable rows skipped")
    frames = {name.removesuffix(".csv"): _frame(name, found) for name, found in rows.items()}
    frames["cases"] = frames["cases"].drop_duplicates(["suite", "case"], keep="last", ignore_index=True)
    return BenchRecords(**frames, folders=tuple(folders), warnings=tuple(warnings))


def _read(path: Path) -> tuple[list[dict[str, str]], int]:
    """The rows of one file, and the number of lines that could not be read. Raises RecordError, in one line."""
    header, rows, damaged = read_table(path)
    missing = [name for name in ("schema_version", *COLUMNS[path.name]) if name not in header]
    if missing:
        raise RecordError(
            f"{shown_path(path)}: lacks the column {missing[0]}, expected {path.name} as bench.py writes it"
        )
    return rows, damaged


def _is_ours(path: Path) -> bool:
    """Whether the file begins as bench.py's do; an unreadable one is for `_read` to refuse."""
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return True


def _frame(name: str, rows: list[dict[str, str]]) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for column in COLUMNS[name]:
        cells = pd.Series([row[column] for row in rows], dtype="object")
        columns[column] = pd.to_numeric(cells, errors="coerce").astype("float64") if column in _NUMBERS else cells
    return pd.DataFrame(columns)
