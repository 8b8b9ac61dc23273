"""The points of a sweep: what each varied, how it ended and what it reached.

From the sweep's own list, points.json, which knows the runs of other machines too; where there is none, as in the
record of a sweep, from the runs.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.analysis.runs import Records
from tidepool.records import RecordError, decode, number, read_json

POINTS_FILE = "points.json"
SEED = "seed"
FIXED = ("run", "outcome", "reason", "command")


@dataclass(frozen=True)
class Objective:
    """What the sweep was to make small or large."""

    name: str
    maximize: bool

    @property
    def column(self) -> str:
        return f"metric/{self.name}"

    def cost(self, values: pd.Series) -> pd.Series:
        """The values such that less is better."""
        return -values if self.maximize else values


@dataclass(frozen=True)
class SweepPoints:
    """One sweep. ``points``: a row a point with FIXED, ``param/<name>`` and ``metric/<name>`` (NaN where there is
    none). ``varied``: the parameters that differ among them, but the seed, which repeats a configuration."""

    name: str
    method: str
    objectives: tuple[Objective, ...]
    points: pd.DataFrame
    varied: tuple[str, ...]
    seeds: int

    @property
    def finished(self) -> pd.DataFrame:
        """The points that finished with a number for every objective."""
        columns = [objective.column for objective in self.objectives]
        there = self.points["outcome"] == "finished"
        return self.points[there & self.points[columns].notna().all(axis=1)] if columns else self.points[there]

    @property
    def varies_backends(self) -> bool:
        """Whether it compares backends."""
        return "backend" in self.varied


def of_content(content: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> SweepPoints:
    """The sweep with the sweep file ``content`` and these ``rows``: run, outcome, reason, command, params, values (by
    name of metric)."""
    rows = list(rows)
    objectives = _objectives(content)
    frame = pd.DataFrame([_row(row, objectives) for row in rows], dtype="object")
    for column in (*FIXED, *(objective.column for objective in objectives)):
        if column not in frame:
            frame[column] = None
    for objective in objectives:
        frame[objective.column] = frame[objective.column].map(_finite).astype("float64")
    names = [str(column) for column in frame if str(column).startswith("param/")]
    texts = {column.removeprefix("param/"): frame[column].map(value_text) for column in names}
    varied = tuple(name for name in texts if name != SEED and texts[name].nunique() > 1)
    seeds = int(texts[SEED].nunique()) if SEED in texts else 1
    name, method = str(content.get("name", "sweep")), str(content.get("method", ""))
    return SweepPoints(name, method, objectives, frame, varied, seeds)


def _row(row: Mapping[str, Any], objectives: tuple[Objective, ...]) -> dict[str, Any]:
    params, values = row.get("params") or {}, row.get("values") or {}
    return (
        {name: row.get(name) for name in FIXED}
        | {f"param/{name}": value for name, value in params.items()}
        | {objective.column: values.get(objective.name) for objective in objectives}
    )


def read_sweeps(records: Records) -> list[SweepPoints]:
    """The sweeps that runs belong to, by name of their folder."""
    found = []
    for folder, content in sorted(records.sweeps.items()):
        if isinstance(content.get("parameters"), dict):
            found.append(of_content(content, _listed(Path(folder)) or _of_runs(records, folder, content)))
    return found


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        rows = decode((read_json(folder / POINTS_FILE) or {}).get("points", []))
    except RecordError:
        return []
    return [row for row in rows if isinstance(row, dict) and row.get("outcome") not in ("waiting", "running")]


def _of_runs(records: Records, folder: str, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    runs = records.runs[records.runs["sweep"] == folder]
    names = list(_parameter_names(content["parameters"]))
    last = records.metrics.drop_duplicates(["run", "metric"], keep="last").set_index(["run", "metric"])["value"]
    rows = []
    for _, run in runs.iterrows():
        params = {name: run.get(f"config/{name}") for name in names}
        values = {objective.name: _value(run, objective.name, last) for objective in _objectives(content)}
        command = _command(content, params)
        rows.append({**run[["run"]], "outcome": run["status"], "reason": run["exit_reason"], "params": params,
                     "values": values, "command": command})  # fmt: skip
    return rows


def _value(run: pd.Series, name: str, last: pd.Series) -> float:
    """A run's value of a metric: its summary's, else the last that was logged."""
    summed = number(run.get(name.replace("/", "_")))
    return float(last.get((run["run"], name), math.nan)) if math.isnan(summed) else summed


def _parameter_names(block: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for name, settings in block.items():
        if isinstance(settings, Mapping) and "parameters" in settings:
            yield from _parameter_names(settings["parameters"], f"{prefix}{name}.")
        else:
            yield prefix + name


def _command(content: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    flags = [f"--{name}={value}" for name, value in params.items() if value is not None]
    return shlex.join(["python", str(content.get("program", "train.py")), *flags])


def _objectives(content: Mapping[str, Any]) -> tuple[Objective, ...]:
    metric = content.get("metric")
    listed = metric if isinstance(metric, list) else [metric]
    return tuple(
        Objective(str(each["name"]), each.get("goal") == "maximize")
        for each in listed
        if isinstance(each, Mapping) and "name" in each
    )


def _finite(value: Any) -> float:
    value = number(value)
    return value if math.isfinite(value) else math.nan


def value_text(value: Any) -> str:
    """A parameter's value as a table shows it, equal for equal values."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    return json.dumps(value, sort_keys=True, default=str)
