"""Recorded runs, read into pandas: run folders and the records of sweeps, at any depth under the paths given.

Nothing is dropped in silence: a run without a summary is ``unfinished``, a line cut short by a kill is counted, a JSON
file that is not ours is named in a warning. A field that a record is too old to have reads as what its runs did.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.records import (
    BENCH_KIND,
    LATER_FIELDS,
    STATUSES,
    RecordError,
    check_schema_version,
    decode,
    find_folders,
    is_run,
    metric_lines,
    number,
    read_json,
    shown_path,
)
from tidepool.records.recorded_sweep import CURVE_KEYS, is_recorded_sweep, read_recorded_sweep

# Columns every runs frame has, whatever the files held: what was asked for, what came of it, the sweep it belongs to.
ASKED = ("data", "model", "backend", "dtype", "seed")
RUN_TEXT = (
    "run", "sweep", "status", "exit_reason", "run_id", "group", "started_at", *ASKED[:4], "conv_library", "kernel_mode",
)  # fmt: skip
MEASURED_NUMBERS = (
    "parameters", "epochs", "steps", "test_accuracy", "test_loss", "val_accuracy", "val_loss", "best_epoch",
    "train_seconds", "step_ms_p50", "samples_per_second", "peak_memory_bytes",
)  # fmt: skip
RUN_NUMBERS = (*MEASURED_NUMBERS, "margin_points")
METRIC_COLUMNS = (*CURVE_KEYS, "metric", "value")

_ROW_KEYS = frozenset({"schema_version", *CURVE_KEYS})
_OUR_KEYS = frozenset({"model", "backend", "seed", "status"})


class NoRunsError(RecordError):
    """There is no training run at all where some were expected."""


@dataclass(frozen=True)
class Records:
    """Runs and their metrics.

    ``runs``: one row a run: RUN_TEXT, ``seed``, RUN_NUMBERS, ``damaged_lines`` (of metrics.jsonl), then every config
    field as ``config/<name>`` and every environment field as ``environment/<name>``.
    ``metrics``: METRIC_COLUMNS, one measurement a row; where a resumed run wrote a step twice, the later value.
    ``warnings``: one line each. ``sweeps``: sweep folder name -> its ``sweep.json``. ``folders``: run -> its folder,
    of runs that are not from the record of a sweep.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    warnings: tuple[str, ...]
    sweeps: dict[str, dict[str, Any]]
    folders: dict[str, Path]


@dataclass
class _Found:
    """What has been read so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[pd.DataFrame] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)


def read_records(paths: Sequence[Path | str], *, skip: Path | None = None) -> Records:
    """Read every run under ``paths``; ``skip`` is a folder left unread (a report's own output). A run that is there as
    a folder and in the record of its sweep counts once.

    Raises RecordError, in one line, for a path that does not exist, for paths that hold no run, for a record of another
    schema version and for the record of a sweep that is not whole.
    """
    found = _Found()
    recorded = []
    for folder, files in find_folders(paths, skip=skip):
        if is_run(files):
            _add_folder(found, folder)
        elif is_recorded_sweep(files):
            recorded.append(folder)
    for folder in recorded:
        _add_recorded(found, folder)
    if not found.rows:
        hint = f"; {len(found.warnings)} files skipped, first: {found.warnings[0]}" if found.warnings else ""
        where = ", ".join(str(path) for path in paths) or "no path given"
        raise NoRunsError(f"no run records found under {where} (expected folders with config.json){hint}")
    filled = [frame for frame in found.metrics if not frame.empty]
    metrics = pd.concat(filled, ignore_index=True) if filled else _empty_metrics()
    return Records(_runs_frame(found.rows), metrics, tuple(dict.fromkeys(found.warnings)), found.sweeps, found.folders)


def _add_folder(found: _Found, folder: Path) -> None:
    """Add the run in a folder of its own."""
    row = _read_run(folder, found.warnings)
    if row is None:
        return
    name = shown_path(folder)
    sweep_folder, sweep = _sweep_of(folder, found.warnings)
    row.update(run=name, sweep=None, margin_points=math.nan)
    if sweep_folder is not None and sweep is not None:
        row["sweep"] = shown_path(sweep_folder)
        row["margin_points"] = _margin(sweep, shown_path(sweep_folder / "sweep.json"), found.warnings)
        found.sweeps[row["sweep"]] = sweep
    frame, row["damaged_lines"] = _read_metrics(folder / "metrics.jsonl", name, found.warnings)
    found.metrics.append(frame)
    found.rows.append(row)
    found.folders[name] = folder


def _add_recorded(found: _Found, folder: Path) -> None:
    """Add the runs in the record of a sweep, but those there already."""
    record = read_recorded_sweep(folder)
    there = {row["run"] for row in found.rows}
    rows = [row for row in record.runs if row["run"] not in there]
    found.rows += [_with_later_fields(row) for row in rows]
    found.sweeps |= {row["sweep"]: record.sweep for row in rows if row["sweep"] is not None}
    found.metrics.append(_long([row for row in record.curves if row["run"] not in there]))


def _long(curves: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows of curves.parquet as one measurement a row. A NaN was measured, None was not."""
    rows = [
        (*(row[key] for key in CURVE_KEYS), name, value)
        for row in curves
        for name, value in row.items()
        if name not in CURVE_KEYS and value is not None
    ]
    return pd.DataFrame(rows, columns=list(METRIC_COLUMNS)) if rows else _empty_metrics()


def _read_json(path: Path, warnings: list[str], *, required_key: bool = False) -> dict[str, Any] | None:
    """The object in ``path``; None where there is no file, or, with a warning, where it is damaged or foreign."""
    try:
        value = read_json(path) if path.is_file() else None
    except RecordError as error:
        warnings.append(f"{error}, skipped")
        return None
    if value is None:
        return None
    if "schema_version" not in value or (required_key and not _OUR_KEYS & value.keys()):
        warnings.append(f"{shown_path(path)}: not a record of this project, skipped")
        return None
    check_schema_version(value["schema_version"], shown_path(path))
    return decode(value)


def _read_run(folder: Path, warnings: list[str]) -> dict[str, Any] | None:
    config = _read_json(folder / "config.json", warnings, required_key=True)
    summary = _read_json(folder / "summary.json", warnings, required_key=True)
    if config is None and summary is None:
        return None
    environment = _read_json(folder / "environment.json", warnings) or {}
    config, summary = config or {}, summary or {}
    if BENCH_KIND in (config.get("kind"), summary.get("kind")):
        return None  # a run of bench.py, which bench_records reads
    for record, name in ((config, "config.json"), (summary, "summary.json")):
        if not _is_usable(record, folder / name, warnings):
            return None
    status = summary.get("status", "unfinished")
    if status not in STATUSES:
        warnings.append(f"{shown_path(folder / 'summary.json')}: unknown status {status!r}, counted as failed")
        status = "failed"
    row: dict[str, Any] = {"status": status}
    row |= {name: summary.get(name) for name in RUN_TEXT if name not in row}
    # What was asked for identifies a run: an unfinished one has no summary and must still fall in its group.
    row |= {name: config.get(name, summary.get(name)) for name in ASKED}
    row |= {name: number(summary.get(name)) for name in MEASURED_NUMBERS}
    row.update({f"config/{key}": value for key, value in config.items() if key != "schema_version"})
    row.update({f"environment/{key}": value for key, value in _flatten(environment) if key != "schema_version"})
    return _with_later_fields(row)


def _with_later_fields(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the settings its record is too old to name; a run that recorded no setting at all has none."""
    missing = {f"config/{name}": value for name, value in LATER_FIELDS.items() if row.get(f"config/{name}") is None}
    return row | missing if any(name.startswith("config/") for name in row) else row


def _is_usable(record: dict[str, Any], path: Path, warnings: list[str]) -> bool:
    """Whether what names a run and groups it are single values; a warning naming the file where one is not."""
    for name in (*RUN_TEXT[2:], "seed"):
        if isinstance(record.get(name), list | dict):
            kind = "a list" if isinstance(record[name], list) else "a mapping"
            warnings.append(f"{shown_path(path)}: run skipped, {name} is {kind}, expected a single value")
            return False
    return True


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _sweep_of(folder: Path, warnings: list[str]) -> tuple[Path | None, dict[str, Any] | None]:
    """The nearest of the three folders above a run that holds a sweep.json, and what it says."""
    for parent in list(Path(os.path.abspath(folder)).parents)[:3]:
        if (parent / "sweep.json").is_file():
            return parent, _read_json(parent / "sweep.json", warnings)
    return None, None


def _margin(sweep: dict[str, Any], shown: str, warnings: list[str]) -> float:
    margin = sweep.get("margin_points")
    if margin is None:
        return math.nan
    if number(margin) > 0 and math.isfinite(number(margin)):
        return float(margin)
    warnings.append(f"{shown}: margin_points {margin!r} ignored, expected percentage points above 0")
    return math.nan


def _read_metrics(path: Path, run: str, warnings: list[str]) -> tuple[pd.DataFrame, int]:
    """Long-format rows of one metrics.jsonl and the number of its lines that could not be read."""
    columns: dict[str, list[Any]] = {name: [] for name in METRIC_COLUMNS[1:]}
    damaged: list[int] = []
    line = 0
    for line, row in metric_lines(path):
        if row is None or not _has_step(row):
            damaged.append(line)
            continue
        if "schema_version" in row:
            check_schema_version(row["schema_version"], f"{shown_path(path)} line {line}")
        for key, value in row.items():
            if key in _ROW_KEYS or not isinstance(decode(value), int | float) or isinstance(value, bool):
                continue
            columns["step"].append(row["step"])
            columns["epoch"].append(number(row.get("epoch")))
            columns["time_s"].append(number(row.get("time_s")))
            columns["metric"].append(key)
            columns["value"].append(number(value))
    # A last line cut short is the expected trace of kill -9; anything else is worth a word.
    if inner := [number for number in damaged if number != line]:
        warnings.append(f"{shown_path(path)}: {len(inner)} unreadable lines skipped, first at line {inner[0]}")
    if not columns["step"]:
        return _empty_metrics(), len(damaged)
    frame = pd.DataFrame({"run": run, **columns}).drop_duplicates(["step", "metric"], keep="last")
    return frame.sort_values("step", kind="stable", ignore_index=True), len(damaged)


def _has_step(row: dict[str, Any]) -> bool:
    """Whether a row says which step it is of, in a number that is one of ours and fits a column of them."""
    step = row.get("step")
    return isinstance(step, int) and not isinstance(step, bool) and abs(step) < 2**63


def _empty_metrics() -> pd.DataFrame:
    kinds = {"run": "object", "step": "int64", "epoch": "float64", "time_s": "float64", "metric": "object"}
    return pd.DataFrame({name: pd.Series(dtype=kinds.get(name, "float64")) for name in METRIC_COLUMNS})


def _runs_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    fixed = [*RUN_TEXT, "seed", *RUN_NUMBERS, "damaged_lines"]
    extra = sorted({key for row in rows for key in row} - set(fixed))
    numeric = {*RUN_NUMBERS, "damaged_lines"}
    # Object columns keep a seed of 2**63 and a missing text exactly as they were recorded.
    columns = {
        name: pd.Series([row.get(name) for row in rows], dtype="float64" if name in numeric else "object")
        for name in [*fixed, *extra]
    }
    columns["damaged_lines"] = columns["damaged_lines"].astype("int64")
    return pd.DataFrame(columns)
