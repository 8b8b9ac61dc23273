"""Metrics of many runs in flat arrays, forty bytes a measurement, and the long frame made of them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tidepool.records import check_schema_version, decode, metric_lines, number, shown_path
from tidepool.records.recorded_sweep import CURVE_KEYS

METRIC_COLUMNS = (*CURVE_KEYS, "metric", "value")
_ROW_KEYS = frozenset({"schema_version", *CURVE_KEYS})


class CurveColumns:
    """Measurements as they are read: codes of run and metric, step, epoch, time, value."""

    def __init__(self) -> None:
        self._runs: dict[str, int] = {}
        self._metrics: dict[str, int] = {}
        kinds = {"run": "i", "step": "q", "epoch": "d", "time_s": "d", "metric": "i", "value": "d"}
        self._columns: dict[str, array[Any]] = {name: array(kind) for name, kind in kinds.items()}

    def add_file(self, path: Path, run: str, warnings: list[str]) -> int:
        """Add the rows of a metrics.jsonl; returns how many of its lines could not be read.

        Raises RecordError for a line of another schema version, and then adds nothing.
        """
        damaged: list[int] = []
        rows = []
        line = 0
        for line, row in metric_lines(path):
            if row is None or not _has_step(row):
                damaged.append(line)
                continue
            if row.get("schema_version", 1) != 1 or ("schema_version" in row and row["schema_version"] is True):
                check_schema_version(row["schema_version"], f"{shown_path(path)} line {line}")
            rows.append(row)
        # A last line cut short is the expected trace of kill -9; anything else is worth a word.
        if inner := [number for number in damaged if number != line]:
            warnings.append(f"{shown_path(path)}: {len(inner)} unreadable lines skipped, first at line {inner[0]}")
        self._add_rows(run, rows)
        return len(damaged)

    def add_columns(self, given: Mapping[str, np.ndarray], runs: frozenset[str]) -> None:
        """Add the columns of curves.parquet (`read_curves`), of ``runs`` only. A NaN was measured, a masked value was
        not."""
        wanted = [run in runs for run in given["run"]]
        codes = np.array([self._runs.setdefault(run, len(self._runs)) if there else -1
                          for run, there in zip(given["run"], wanted, strict=True)], dtype=np.int32)  # fmt: skip
        for name, values in given.items():
            if name in CURVE_KEYS:
                continue
            kept = np.flatnonzero(~np.ma.getmaskarray(values) & np.array(wanted, dtype=bool))
            metric = np.full(len(kept), self._metrics.setdefault(name, len(self._metrics)), dtype=np.int32)
            step = given["step"]
            for key, column in (("run", codes), ("step", step), ("epoch", given["epoch"]), ("time_s", given["time_s"]),
                                ("metric", None), ("value", values)):  # fmt: skip
                part = metric if column is None else np.ma.getdata(column)[kept]
                self._columns[key].frombytes(np.ascontiguousarray(part).tobytes())

    def _add_rows(self, run: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of one run: those with the same fields together where no two of them could be of one step and
        metric, else one by one, in order."""
        alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in rows:
            alike.setdefault(tuple(row), []).append(row)
        once = len({row["step"] for row in rows}) == len(rows)
        if not once:  # an evaluation has a row of its own at a step of training, with metrics of its own
            names = [name for fields in alike for name in fields if name not in _ROW_KEYS]
            once = len(set(names)) == len(names) and all(
                len({row["step"] for row in group}) == len(group) for group in alike.values()
            )
        for group in alike.values() if once else ([row] for row in rows):
            self._add_alike(run, group)

    def _add_alike(self, run: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns, code = self._columns, self._runs.setdefault(run, len(self._runs))
        keys: dict[str, array[Any]] = {
            "run": array("i", [code]) * len(rows),
            "step": array("q", [row["step"] for row in rows]),
            "epoch": array("d", [_float(row.get("epoch")) for row in rows]),
            "time_s": array("d", [_float(row.get("time_s")) for row in rows]),
        }
        for name in rows[0]:
            if name in _ROW_KEYS:
                continue
            values = [row[name] for row in rows]
            if set(map(type, values)) == {float}:
                measured: Sequence[int] = range(len(values))
            else:
                measured = [i for i, value in enumerate(values) if _is_measurement(value)]
                values = [_float(values[i]) for i in measured]
            if not values:
                continue
            whole = len(measured) == len(rows)
            for key, column in keys.items():
                columns[key].extend(column if whole else array(column.typecode, [column[i] for i in measured]))
            metric = self._metrics.setdefault(name, len(self._metrics))
            columns["metric"].extend(array("i", [metric]) * len(values))
            columns["value"].extend(array("d", values))

    def frame(self) -> pd.DataFrame:
        """METRIC_COLUMNS, one measurement a row, by run in the order they were added and by step; run and metric are
        categories. Of a step that a resumed run wrote twice, the later value."""
        of = {name: np.frombuffer(values, dtype=values.typecode) for name, values in self._columns.items()}
        kept = _sorted_and_once(of["run"], of["step"], of["metric"])
        of = {name: values[kept] for name, values in of.items()}
        columns: dict[str, Any] = {name: of[name] for name in METRIC_COLUMNS}
        for name, known in (("run", self._runs), ("metric", self._metrics)):
            columns[name] = pd.Categorical.from_codes(of[name], categories=pd.Index(list(known), dtype="object"))
        return pd.DataFrame(columns)


def _sorted_and_once(run: np.ndarray, step: np.ndarray, metric: np.ndarray) -> np.ndarray | slice:
    """Indices of the rows in order of run and step, the last of those that are of one run, step and metric."""
    if not len(run):
        return slice(None)
    order = np.lexsort((np.arange(len(run)), metric, step, run))
    same = np.logical_and.reduce([np.diff(values[order]) == 0 for values in (run, step, metric)])
    last = order[np.append(~same, True)]
    return last[np.lexsort((last, step[last], run[last]))]


def _has_step(row: Mapping[str, Any]) -> bool:
    """Whether a row says which step it is of, in a number that is one of ours and fits a column of them."""
    step = row.get("step")
    return type(step) is int and abs(step) < 2**63


def _is_measurement(value: Any) -> bool:
    kind = type(value)
    return kind is float or kind is int or (kind is str and type(decode(value)) is float)


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    return math.nan if value is None else number(value)
