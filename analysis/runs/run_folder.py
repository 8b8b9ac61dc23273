"""One run folder as one row: what was asked for, what came of it, where, and the sweep it belongs to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidepool.records import (
    BENCH_KIND,
    FIRST_DEFAULTS,
    LATER_FIELDS,
    SCHEMA_VERSION,
    STATUSES,
    RecordError,
    check_schema_version,
    decode,
    number,
    read_json,
    shown_path,
)

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
_SINGLE = (*RUN_TEXT[2:], "seed")
_OUR_KEYS = frozenset({"model", "backend", "seed", "status"})
_DEFAULTS = {f"config/{name}": value for name, value in (FIRST_DEFAULTS | LATER_FIELDS).items()}


def read_run(folder: Path, name: str, warnings: list[str]) -> dict[str, Any] | None:
    """The row of the run in ``folder``, which messages call ``name``; None where there is no run of train.py.

    Raises RecordError for a record of another schema version.
    """
    config = _read(folder, "config.json", warnings)
    summary = _read(folder, "summary.json", warnings)
    if config is None and summary is None:
        return None
    environment = _read(folder, "environment.json", warnings, any_keys=True) or {}
    config, summary = config or {}, summary or {}
    if BENCH_KIND in (config.get("kind"), summary.get("kind")):
        return None  # a run of bench.py, which bench_records reads
    for record, file in ((config, "config.json"), (summary, "summary.json")):
        if not _is_usable(record, f"{name}/{file}", warnings):
            return None
    status = summary.get("status") or "unfinished"
    if status not in STATUSES:
        warnings.append(f"{name}/summary.json: unknown status {status!r}, counted as failed")
        status = "failed"
    row: dict[str, Any] = {"status": status}
    row |= {key: summary.get(key) for key in RUN_TEXT if key not in row}
    # What was asked for identifies a run: an unfinished one has no summary and must still fall in its group.
    row |= {key: config.get(key, summary.get(key)) for key in ASKED}
    row |= {key: number(summary.get(key)) for key in MEASURED_NUMBERS}
    row.update((f"config/{key}", value) for key, value in config.items() if key != "schema_version")
    row.update((f"environment/{key}", value) for key, value in _flat(environment) if key != "schema_version")
    return with_defaults(row)


def with_defaults(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the settings its record does not name; a run that recorded no setting at all has none."""
    if not any(name.startswith("config/") for name in row):
        return row
    return row | {name: value for name, value in _DEFAULTS.items() if row.get(name) is None}


@dataclass(frozen=True)
class Sweep:
    """The sweep a run belongs to: its folder as shown, its sweep.json, the margin declared. No name where none."""

    name: str | None = None
    content: dict[str, Any] = field(default_factory=dict)
    margin_points: float = math.nan


class SweepOf:
    """The sweep of a run folder: the nearest of the three folders above it that holds a sweep.json, read once."""

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings
        self._known: dict[Path, Sweep | None] = {}

    def __call__(self, folder: Path) -> Sweep:
        """Raises RecordError for a sweep.json of another schema version."""
        for parent in Path(os.path.abspath(folder)).parents[:3]:
            if parent not in self._known:
                self._known[parent] = self._read(parent)
            if (sweep := self._known[parent]) is not None:
                return sweep
        return Sweep()

    def _read(self, folder: Path) -> Sweep | None:
        path = folder / "sweep.json"
        if not path.is_file():
            return None
        content = _read(folder, "sweep.json", self._warnings, any_keys=True)
        if content is None:
            return Sweep()
        margin = margin_of(content, shown_path(path), self._warnings)
        return Sweep(name=shown_path(folder), content=content, margin_points=margin)


def margin_of(sweep: dict[str, Any], shown: str, warnings: list[str]) -> float:
    """The margin that a sweep.json declares, NaN where none or, with a warning, one that cannot be used."""
    margin = sweep.get("margin_points")
    if margin is None:
        return math.nan
    if number(margin) > 0 and math.isfinite(number(margin)):
        return float(margin)
    warnings.append(f"{shown}: margin_points {margin!r} ignored, expected percentage points above 0")
    return math.nan


def _read(folder: Path, name: str, warnings: list[str], *, any_keys: bool = False) -> dict[str, Any] | None:
    """The object in a file; None where there is no file, or, with a warning, where it is damaged or foreign."""
    path = f"{folder}/{name}"
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return None
    except OSError:
        raw = b""
    try:
        value = json.loads(raw)
        plain = isinstance(value, dict) and not (b'NaN"' in raw or b'nity"' in raw or b"\\u" in raw)
    except (ValueError, RecursionError):
        value, plain = None, False
    if not isinstance(value, dict):
        _refuse(Path(path), warnings)
        return None
    if "schema_version" not in value or not (any_keys or _OUR_KEYS & value.keys()):
        warnings.append(f"{shown_path(Path(path))}: not a record of this project, skipped")
        return None
    if value["schema_version"] != SCHEMA_VERSION or value["schema_version"] is True:
        check_schema_version(value["schema_version"], shown_path(Path(path)))
    record: dict[str, Any] = value if plain else decode(value)
    return record


def _refuse(path: Path, warnings: list[str]) -> None:
    """Say what `read_json` has against a file."""
    try:
        read_json(path)
    except RecordError as error:
        warnings.append(f"{error}, skipped")


def _is_usable(record: dict[str, Any], shown: str, warnings: list[str]) -> bool:
    """Whether what names a run and groups it are single values, made text where it must be text; a warning naming the
    file where one is not."""
    for name in _SINGLE:
        value = record.get(name)
        if value is None or (type(value) is str and name != "seed") or (name == "seed" and type(value) is int):
            continue
        if isinstance(value, list | dict):
            kind = "a list" if isinstance(value, list) else "a mapping"
            warnings.append(f"{shown}: run skipped, {name} is {kind}, expected a single value")
            return False
        expected = "a whole number" if name == "seed" else "text"
        warnings.append(f"{shown}: {name} is {value!r}, expected {expected}; read as the text {str(value)!r}")
        record[name] = str(value)
    return True


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value
