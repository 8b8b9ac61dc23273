"""Recorded runs on disk, read into pandas.

A run folder is what ``train.py`` writes: ``config.json``, ``environment.json``, ``metrics.jsonl``, ``summary.json`` and
``media/``. Runs may lie at any depth under the paths given. Nothing is dropped in silence: a run without a summary is
``unfinished``, a line cut short by a kill is counted, a JSON file that is not ours is named in a warning.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

SCHEMA_VERSION = 1
BENCH_KIND = "bench"
"""What config.json and summary.json of a bench.py run say of themselves."""
STATUSES = ("finished", "diverged", "failed", "interrupted", "unfinished")

# Columns every runs frame has, whatever the files held.
RUN_TEXT = (
    "run", "path", "sweep", "status", "exit_reason", "run_id", "group", "started_at",
    "data", "model", "backend", "conv_library", "kernel_mode", "dtype",
)  # fmt: skip
RUN_NUMBERS = (
    "parameters", "epochs", "steps", "test_accuracy", "test_loss", "train_seconds",
    "step_ms_p50", "samples_per_second", "peak_memory_bytes", "margin_points",
)  # fmt: skip
METRIC_COLUMNS = ("run", "step", "epoch", "time_s", "metric", "value")

_ROW_KEYS = frozenset({"schema_version", "step", "epoch", "time_s"})
_OUR_KEYS = frozenset({"model", "backend", "seed", "status"})
_INSIDE_A_RUN = frozenset({"checkpoints", "media", "wandb"})
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class RecordError(ValueError):
    """Records that cannot be read at all; the message is one line naming the place and what was expected."""


class NoRunsError(RecordError):
    """There is no training run at all where some were expected."""


@dataclass(frozen=True)
class Records:
    """Runs and their metrics.

    ``runs``: one row a run: RUN_TEXT, ``seed``, RUN_NUMBERS, ``damaged_lines`` (of metrics.jsonl), then every config
    field as ``config/<name>`` and every environment field as ``environment/<name>``.
    ``metrics``: METRIC_COLUMNS, one measurement a row; where a resumed run wrote a step twice, the later value.
    ``warnings``: one line each. ``sweeps``: sweep folder name -> its ``sweep.json``. ``folders``: run -> its folder.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    warnings: tuple[str, ...]
    sweeps: dict[str, dict[str, Any]]
    folders: dict[str, Path]


def read_records(paths: Sequence[Path | str], *, skip: Path | None = None) -> Records:
    """Read every run under ``paths``; ``skip`` is a folder left unread (a report's own output).

    Raises RecordError, in one line, for a path that does not exist, for paths that hold no run, and for a record of
    another schema version.
    """
    warnings: list[str] = []
    rows: list[dict[str, Any]] = []
    metric_frames: list[pd.DataFrame] = []
    sweeps: dict[str, dict[str, Any]] = {}
    folders: dict[str, Path] = {}
    for folder in find_run_folders(paths, skip=skip):
        row = _read_run(folder, warnings)
        if row is None:
            continue
        name = shown_path(folder)
        sweep_folder, sweep = _sweep_of(folder, warnings)
        row.update(run=name, path=name, sweep=None, margin_points=math.nan)
        if sweep_folder is not None and sweep is not None:
            row.update(sweep=shown_path(sweep_folder), margin_points=_margin(sweep, sweep_folder, warnings))
            sweeps[shown_path(sweep_folder)] = sweep
        frame, row["damaged_lines"] = _read_metrics(folder / "metrics.jsonl", name, warnings)
        metric_frames.append(frame)
        rows.append(row)
        folders[name] = folder
    if not rows:
        hint = f"; {len(warnings)} files skipped, first: {warnings[0]}" if warnings else ""
        where = ", ".join(str(path) for path in paths) or "no path given"
        raise NoRunsError(f"no run records found under {where} (expected folders with config.json){hint}")
    filled = [frame for frame in metric_frames if not frame.empty]
    metrics = pd.concat(filled, ignore_index=True) if filled else _empty_metrics()
    return Records(_runs_frame(rows), metrics, tuple(dict.fromkeys(warnings)), sweeps, folders)


def find_run_folders(paths: Iterable[Path | str], *, skip: Path | None = None) -> Iterator[Path]:
    """Yield each folder under ``paths`` holding config.json or summary.json, once, in sorted order of the walk.

    Links are followed, loops are not. Raises RecordError if a path does not exist or is no folder.
    """
    seen: set[str] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise RecordError(f"{path}: no such folder (expected a run folder or a folder of runs)")
        if not path.is_dir():
            raise RecordError(f"{path}: a file, where a run folder or a folder of runs was expected")
        for folder, children, files in os.walk(path, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen or (skip is not None and real == os.path.realpath(skip)):
                children.clear()
                continue
            seen.add(real)
            is_run = "config.json" in files or "summary.json" in files
            hidden_or_inner = {c for c in children if c.startswith(".") or (is_run and c in _INSIDE_A_RUN)}
            children[:] = sorted(set(children) - hidden_or_inner)
            if is_run:
                yield Path(folder)


def shown_path(path: Path) -> str:
    """``path`` relative to the working directory where it lies below it, so that reports do not name the machine."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    below = absolute.is_relative_to(here) and absolute != here
    return _writable(str(absolute.relative_to(here) if below else path))


def restore_numbers(value: Any) -> Any:
    """``value`` with the strings "NaN", "Infinity" and "-Infinity" made floats again, at any depth."""
    if isinstance(value, str):
        return _NON_FINITE.get(value, _writable(value))
    if isinstance(value, list):
        return [restore_numbers(item) for item in value]
    if isinstance(value, dict):
        return {_writable(key): restore_numbers(item) for key, item in value.items()}
    return value


def _writable(text: str) -> str:
    """``text`` with what UTF-8 cannot hold (half a surrogate pair, a byte of a foreign file name) as ``?``."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _read_json(path: Path, warnings: list[str], *, required_key: bool = False) -> dict[str, Any] | None:
    """The object in ``path``; None where there is no file, or, with a warning, where it is damaged or foreign."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: bad UTF-8, bad JSON, 5,000 digits
        warnings.append(f"{shown_path(path)}: skipped, not readable as JSON ({' '.join(str(error).split())})")
        return None
    if not isinstance(value, dict) or "schema_version" not in value or (required_key and not _OUR_KEYS & value.keys()):
        warnings.append(f"{shown_path(path)}: skipped, not a Tidepool record")
        return None
    check_schema_version(value["schema_version"], shown_path(path))
    return restore_numbers(value)


def check_schema_version(found: Any, where: str) -> None:
    """Raise RecordError unless ``found`` is the version this code reads."""
    if found != SCHEMA_VERSION or isinstance(found, bool):
        raise RecordError(f"{where}: schema_version {found!r}, this version of analysis reads {SCHEMA_VERSION}")


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
    for name in RUN_TEXT[4:]:
        row[name] = summary.get(name)
    # What was asked for identifies a run: an unfinished one has no summary and must still fall in its group.
    for name in ("data", "model", "backend", "dtype", "seed"):
        row[name] = config.get(name, summary.get(name))
    for name in RUN_NUMBERS[:-1]:
        row[name] = _number(summary.get(name))
    row.update({f"config/{key}": value for key, value in config.items() if key != "schema_version"})
    row.update({f"environment/{key}": value for key, value in _flatten(environment) if key != "schema_version"})
    return row


def _number(value: Any) -> float:
    """``value`` as a float, infinite where it is too large for one, as JSON's 1e400 is; NaN where it is no number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _is_usable(record: dict[str, Any], path: Path, warnings: list[str]) -> bool:
    """Whether what names a run and groups it are single values; a warning naming the file where one is not."""
    for name in (*RUN_TEXT[3:], "seed"):
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


def _margin(sweep: dict[str, Any], folder: Path, warnings: list[str]) -> float:
    margin = sweep.get("margin_points")
    if margin is None:
        return math.nan
    if _number(margin) > 0 and math.isfinite(_number(margin)):
        return float(margin)
    warnings.append(
        f"{shown_path(folder / 'sweep.json')}: margin_points {margin!r} ignored, expected percentage points above 0"
    )
    return math.nan


def _read_metrics(path: Path, run: str, warnings: list[str]) -> tuple[pd.DataFrame, int]:
    """Long-format rows of one metrics.jsonl and the number of its lines that could not be read."""
    if not path.is_file():
        return _empty_metrics(), 0
    columns: dict[str, list[Any]] = {name: [] for name in METRIC_COLUMNS[1:]}
    damaged: list[int] = []
    lines = path.read_bytes().splitlines()
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        row = _metric_row(line)
        if row is None:
            damaged.append(index)
            continue
        if "schema_version" in row:
            check_schema_version(row["schema_version"], f"{shown_path(path)} line {index + 1}")
        for key, value in row.items():
            number = restore_numbers(value)
            if key in _ROW_KEYS or isinstance(number, bool) or not isinstance(number, int | float):
                continue
            columns["step"].append(row["step"])
            columns["epoch"].append(_number(restore_numbers(row.get("epoch"))))
            columns["time_s"].append(_number(restore_numbers(row.get("time_s"))))
            columns["metric"].append(key)
            columns["value"].append(_number(number))
    # A last line cut short is the expected trace of kill -9; anything else is worth a word.
    if inner := [index + 1 for index in damaged if index != len(lines) - 1]:
        warnings.append(f"{shown_path(path)}: {len(inner)} unreadable lines skipped, first at line {inner[0]}")
    if not columns["step"]:
        return _empty_metrics(), len(damaged)
    frame = pd.DataFrame({"run": run, **columns}).drop_duplicates(["step", "metric"], keep="last")
    return frame.sort_values("step", kind="stable", ignore_index=True), len(damaged)


def _metric_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int) or isinstance(row["step"], bool):
        return None
    if abs(row["step"]) >= 2**63:  # no step of ours, and more than a column of them can hold
        return None
    return row


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
