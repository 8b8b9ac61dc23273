"""Measurements of bench.py and its host-cost benchmark, read into pandas.

Files are found by name under the paths given: ``timings.csv``, ``cases.csv`` (what there was to measure),
``correctness.csv``, ``predictions.csv`` and ``host_cost.csv``. A row that a kill cut short is counted, not used.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records import SCHEMA_VERSION, RecordError, shown_path

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
    for path in _files(paths, skip):
        if not _is_ours(path):
            warnings.append(f"{shown_path(path)}: skipped, not a record of bench.py")
            continue
        found, damaged = read_rows(path, COLUMNS[path.name])
        rows[path.name] += found
        folders[path.parent] = None
        if damaged:
            warnings.append(f"{shown_path(path)}: {damaged} unreadable rows skipped")
    frames = {name.removesuffix(".csv"): _frame(name, found) for name, found in rows.items()}
    frames["cases"] = frames["cases"].drop_duplicates(["suite", "case"], keep="last", ignore_index=True)
    return BenchRecords(**frames, folders=tuple(folders), warnings=tuple(warnings))


def read_rows(path: Path, columns: Sequence[str]) -> tuple[list[dict[str, str]], int]:
    """The rows of one file that have as many cells as its header, and the number of those that do not.

    Raises RecordError, in one line, where the file cannot be read or lacks one of ``columns``.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise RecordError(f"{shown_path(path)}: cannot be read ({error.strerror or error})") from None
    header = next(csv.reader(lines[:1]), [])
    missing = [name for name in ("schema_version", *columns) if name not in header]
    if missing:
        raise RecordError(
            f"{shown_path(path)}: lacks the column {missing[0]}, expected {path.name} as bench.py writes it"
        )
    rows, damaged = [], int(bool(lines[-1]))  # a last line without its line break was cut short
    for line in lines[1:-1]:
        cells = next(csv.reader([line]), [])
        row = dict(zip(header, cells, strict=False))
        if len(cells) == len(header) and row["schema_version"] == str(SCHEMA_VERSION):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def _files(paths: Sequence[Path | str], skip: Path | None) -> Iterator[Path]:
    """Every file of measurements below ``paths``, once, in sorted order; loops of links are not followed."""
    seen: set[str] = set()
    for path in map(Path, paths):
        for folder, children, names in os.walk(path, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen or (skip is not None and real == os.path.realpath(skip)):
                children.clear()
                continue
            seen.add(real)
            children[:] = sorted(child for child in children if not child.startswith("."))
            yield from (Path(folder) / name for name in sorted(names) if name in COLUMNS)


def _is_ours(path: Path) -> bool:
    """Whether the file begins as bench.py's do; an unreadable one is for `read_rows` to refuse."""
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
