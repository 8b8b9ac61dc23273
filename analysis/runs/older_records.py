"""Sweeps recorded as tables, before rows and curves were kept: runs.csv, sweep.json and tables made of its rows.

A row of runs.csv has a run's outcome and accuracy, no curve and no step time. Its settings are those that sweep.json
holds fixed and those that the row's ``settings`` name; the number of parameters is the table networks.csv's, where a
condition has one.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tidepool.analysis.statistics import describe
from tidepool.records import RecordError, check_schema_version, decode, number, read_json, shown_path
from tidepool.records.recorded_sweep import RecordedSweep, Row

RUNS = "runs.csv"
CONDITION = ("data", "model", "dtype", "settings", "backend")
_NEEDED = frozenset({"run", *CONDITION, "seed", "status", "test_accuracy_percent"})


def is_older_record(files: Iterable[str]) -> bool:
    """Whether a folder with these files is a sweep recorded as tables."""
    return {RUNS, "sweep.json", "environment.json"} <= set(files)


def read_older_record(folder: Path) -> RecordedSweep:
    """The rows that such a folder still holds, without curves. Raises RecordError, in one line."""
    sweep, environment = _json(folder / "sweep.json"), _json(folder / "environment.json")
    rows = _csv(folder / RUNS)
    missing = _NEEDED - (rows[0].keys() if rows else _NEEDED)
    if missing:
        raise RecordError(f"{shown_path(folder / RUNS)}: lacks the column {min(missing)}, expected a row a run")
    networks = _csv(folder / "networks.csv") if (folder / "networks.csv").is_file() else []
    parameters = {tuple(row.get(name, "") for name in CONDITION): row.get("parameters") for row in networks}
    shared = _fixed_settings(sweep) | {f"environment/{name}": value for name, value in environment.items()}
    runs = [_run(row, shared, parameters.get(tuple(row[name] for name in CONDITION)), sweep) for row in rows]
    return RecordedSweep(runs=runs, curves=[], sweep=sweep, environment=environment)


def differing_tables(folder: Path) -> list[str]:
    """A line for each recorded accuracy that the rows of runs.csv do not give: mean, spread and counts in accuracy.csv
    and networks.csv. (Times and parts of labels rest on rows that were not kept.) Raises RecordError."""
    of: dict[tuple[str, ...], list[float]] = {}
    for row in _csv(folder / RUNS):
        values = of.setdefault(tuple(row[name] for name in CONDITION), [])
        values += [_number(row["test_accuracy_percent"])] if row["status"] == "finished" else []
    lines = []
    for name in ("accuracy.csv", "networks.csv"):
        for row in _csv(folder / name) if (folder / name).is_file() else []:
            sample = describe(of.get(tuple(row.get(key, "") for key in CONDITION), []))
            for column, value in (("n_finished", sample.n), ("test_accuracy_mean_percent", sample.mean),
                                  ("test_accuracy_std_points", sample.std)):  # fmt: skip
                found = _number(row.get(column))
                if not _equal(found, value):
                    lines.append(f"{shown_path(folder / name)}: {column} {row.get(column)}, the rows give {value:.10g}")
    return lines


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))


def _run(cells: dict[str, str], shared: dict[str, Any], parameters: str | None, sweep: dict[str, Any]) -> Row:
    row: Row = {
        **shared,
        **{name: cells.get(name) or None for name in ("run", *CONDITION[:3], "backend", "status", "conv_library",
                                                      "kernel_mode", "sweep")},
        "seed": int(cells["seed"]) if cells["seed"].isdigit() else cells["seed"] or None,
        "exit_reason": cells.get("reason") or None,
        "test_accuracy": _number(cells["test_accuracy_percent"]) / 100,
        "train_seconds": _number(cells.get("train_seconds")),
        "steps": _number(cells.get("steps")),
        "parameters": _number(parameters),
        "margin_points": number(sweep.get("margin_points")),
        "damaged_lines": int(_number(cells.get("damaged_metric_lines") or "0")),
    }  # fmt: skip
    row.pop("environment/schema_version", None)
    row |= {f"config/{name}": value for name, value in _settings(cells["settings"])}
    return row | {f"config/{name}": row[name] for name in ("data", "model", "dtype", "backend", "seed")}


def _settings(text: str) -> Iterable[tuple[str, Any]]:
    """``lr=0.1, augment=true`` as names and values."""
    for part in filter(None, text.split(", ")):
        name, _, value = part.partition("=")
        try:
            yield name, None if value == "none" else json.loads(value)
        except ValueError:
            yield name, value


def _fixed_settings(sweep: dict[str, Any]) -> dict[str, Any]:
    parameters = sweep.get("parameters")
    found = parameters.items() if isinstance(parameters, dict) else ()
    return {f"config/{name}": of["value"] for name, of in found if isinstance(of, dict) and "value" in of}


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan


def _json(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if record is None:
        raise RecordError(f"{shown_path(path)}: no such file")
    check_schema_version(record.get("schema_version"), shown_path(path))
    decoded: dict[str, Any] = decode(record)
    return decoded


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{shown_path(path)}: cannot be read ({error})") from None
    return [{name: cell or "" for name, cell in row.items() if name is not None} for row in rows]
