"""Recorded runs, read into pandas: run folders and the records of sweeps, at any depth under the paths given.

Nothing is dropped in silence: a run without a summary is ``unfinished``, a line cut short by a kill is counted, a JSON
file that is not ours is named in a warning, and so is a record of another schema version or one that is not whole,
which is left out and counted. A field that a record lacks reads as what its runs did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.analysis.conditions import Condition, ordered
from tidepool.analysis.runs.columns_of_rows import ColumnsOfRows
from tidepool.analysis.runs.curves import CurveColumns
from tidepool.analysis.runs.older_records import is_older_record, read_older_record
from tidepool.analysis.runs.run_folder import RUN_NUMBERS, RUN_TEXT, SweepOf, read_run, with_defaults
from tidepool.records import RecordError, find_folders, is_run, shown_path
from tidepool.records.recorded_sweep import is_recorded_sweep, read_curves, read_recorded_sweep


class NoRunsError(RecordError):
    """There is no training run at all where some were expected."""


@dataclass(frozen=True)
class Records:
    """Runs and their metrics.

    ``runs``: one row a run: RUN_TEXT, ``seed``, RUN_NUMBERS, ``damaged_lines`` (of metrics.jsonl), then every config
    field as ``config/<name>`` and every environment field as ``environment/<name>``.
    ``metrics``: METRIC_COLUMNS, one measurement a row; where a resumed run wrote a step twice, the later value.
    ``warnings``: one line each. ``sweeps``: sweep folder name -> its ``sweep.json``. ``folders``: run -> its folder,
    of runs that are not from the record of a sweep. ``left_out``: records of which nothing was read, by name.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    warnings: tuple[str, ...]
    sweeps: dict[str, dict[str, Any]]
    folders: dict[str, Path]
    left_out: tuple[str, ...] = ()

    @cached_property
    def ordered(self) -> tuple[pd.DataFrame, list[tuple[Condition, int, int]]]:
        """The runs in order with the span of each condition (`conditions.ordered`), worked out once."""
        return ordered(self.runs)

    @cached_property
    def groups(self) -> list[tuple[Condition, pd.DataFrame]]:
        """The runs of each condition; a frame each, which is much for thousands of conditions."""
        frame, spans = self.ordered
        return [(condition, frame.iloc[start:end]) for condition, start, end in spans]

    @cached_property
    def compared(self) -> list[tuple[Condition, pd.DataFrame]]:
        """The runs of each condition that more than one backend ran."""
        frame, spans = self.ordered
        backends = frame["backend"].tolist()
        return [(condition, frame.iloc[start:end]) for condition, start, end in spans
                if len(set(backends[start:end])) > 1]  # fmt: skip


@dataclass
class _Found:
    """What has been read so far."""

    rows: ColumnsOfRows = field(default_factory=ColumnsOfRows)
    curves: CurveColumns = field(default_factory=CurveColumns)
    warnings: list[str] = field(default_factory=list)
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, folder: Path, reason: object) -> None:
        """Note that a record was not read, and why."""
        self.warnings.append(f"{reason}; left out")
        self.left_out.append(shown_path(folder))


def read_records(paths: Sequence[Path | str], *, skip: Path | None = None) -> Records:
    """Read every run under ``paths``; ``skip`` is a folder left unread (a report's own output). A run that is there as
    a folder and in the record of its sweep counts once.

    Raises RecordError, in one line, for a path that does not exist and for paths that hold no readable run.
    """
    found = _Found()
    sweep_of = SweepOf(found.warnings)
    recorded: list[tuple[Path, bool]] = []
    for folder, files in find_folders(paths, skip=skip):
        if is_run(files):
            _add_folder(found, folder, sweep_of)
        elif is_recorded_sweep(files) or is_older_record(files):
            recorded.append((folder, is_recorded_sweep(files)))
    for folder, current in recorded:
        _add_recorded(found, folder, current=current)
    if not found.rows.count:
        raise NoRunsError(_no_runs_text(paths, found))
    return Records(
        runs=_runs_frame(found.rows),
        metrics=found.curves.frame(),
        warnings=tuple(dict.fromkeys(found.warnings)),
        sweeps=found.sweeps,
        folders=found.folders,
        left_out=tuple(found.left_out),
    )


def _no_runs_text(paths: Sequence[Path | str], found: _Found) -> str:
    hint = f"; {len(found.warnings)} files skipped, first: {found.warnings[0]}" if found.warnings else ""
    where = ", ".join(str(path) for path in paths) or "no path given"
    return f"no run records found under {where} (expected folders with config.json){hint}"


def _add_folder(found: _Found, folder: Path, sweep_of: SweepOf) -> None:
    """Add the run in a folder of its own."""
    name = shown_path(folder)
    try:
        row = read_run(folder, name, found.warnings)
        if row is None:
            return
        sweep = sweep_of(folder)
        damaged = found.curves.add_file(folder / "metrics.jsonl", name, found.warnings)
    except RecordError as error:
        found.leave_out(folder, error)
        return
    row |= {"run": name, "sweep": sweep.name, "margin_points": sweep.margin_points, "damaged_lines": damaged}
    if sweep.name is not None:
        found.sweeps[sweep.name] = sweep.content
    found.rows.add(row)
    found.folders[name] = folder


def _add_recorded(found: _Found, folder: Path, *, current: bool) -> None:
    """Add the runs in the record of a sweep, but those there already; ``current`` in the form of this version."""
    try:
        record = read_recorded_sweep(folder, curves=False) if current else read_older_record(folder)
        curves = read_curves(folder) if current else {}
    except RecordError as error:
        found.leave_out(folder, error)
        return
    there = set(found.rows.values.get("run", ()))
    rows = [row for row in record.runs if row["run"] not in there]
    for row in rows:
        found.rows.add(with_defaults(row))
    found.sweeps |= {row["sweep"]: record.sweep for row in rows if row["sweep"] is not None}
    if curves:
        found.curves.add_columns(curves, frozenset(row["run"] for row in rows))


def _runs_frame(rows: ColumnsOfRows) -> pd.DataFrame:
    fixed = [*RUN_TEXT, "seed", *RUN_NUMBERS, "damaged_lines"]
    names: Iterable[str] = [*fixed, *sorted(rows.values.keys() - set(fixed))]
    numeric = {*RUN_NUMBERS, "damaged_lines"}
    # Object columns keep a seed of 2**63 and a missing text exactly as they were recorded.
    columns = {name: pd.Series(rows.column(name), dtype="float64" if name in numeric else "object") for name in names}
    columns["damaged_lines"] = columns["damaged_lines"].fillna(0).astype("int64")
    frame = pd.DataFrame(columns)
    frame.columns = pd.Index(list(columns), dtype="object")  # looked up in a tenth of the time that text columns take
    return frame
