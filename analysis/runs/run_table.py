"""The page's table of runs: a row a run, or a condition and backend with its seeds folded into mean and spread."""

from __future__ import annotations

import math
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tidepool.analysis.conditions import CONDITION, rows_by, varying_settings
from tidepool.analysis.data_table import DataColumn, DataTable
from tidepool.analysis.runs.records import Records
from tidepool.analysis.statistics import describe

_NUMBERS = (
    DataColumn("Validation accuracy %", 2, source="val_accuracy", scale=100),
    DataColumn("Test accuracy %", 2, source="test_accuracy", scale=100),
    DataColumn("Parameters", 0, source="parameters"),
    DataColumn("Training s", 1, source="train_seconds"),
    DataColumn("Step ms", 3, source="step_ms_p50"),
    DataColumn("Peak memory MiB", 0, source="peak_memory_bytes", scale=2**-20),
)
_SPREAD = "Std points"


def run_table(records: Records, out: Path | None) -> DataTable:
    """Every run with the settings that vary, its outcome and numbers; a link to its folder from a page in ``out``.

    Step times are those of compiled kernels only. A column without any value is left out.
    """
    frame, spans = records.ordered
    of = {name: frame[name].tolist() for name in frame.columns if not name.startswith(("config/", "environment/"))}
    settings = _varying(frame, of)
    numbers = {column.name: _numbers(column, of) for column in _NUMBERS}
    shown = [column for column in _NUMBERS if any(value is not None for value in numbers[column.name])]
    groups = [(start, mine) for _, start, end in spans for mine in rows_by(of["backend"], start, end).values()]
    reasons = [_reason(of, i) for i in range(len(of["run"]))]
    folds = any(len(mine) > 1 for _, mine in groups)
    columns = [DataColumn("Run", link=True), DataColumn("Seed", 0), DataColumn("Status"),
               *(DataColumn(name, _digits(texts)) for name, texts in settings.items()), *shown,
               *([DataColumn(_SPREAD, 2)] if folds else []), DataColumn("Note", long=any(reasons))]  # fmt: skip
    rows = []
    for i, run in enumerate(of["run"]):
        row = [run, _seed(of["seed"][i]), of["status"][i], *(_value(texts[i]) for texts in settings.values())]
        row += [numbers[column.name][i] for column in shown] + ([None] if folds else [])
        rows.append([*row, reasons[i], _link(records, run, out)])
    folded = [_folded(mine, of, settings, [numbers[column.name] for column in shown]) for _, mine in groups]
    if not records.compared:  # nothing to hold side by side: the best first
        best = next((i for i, c in enumerate(columns) if c.source in ("val_accuracy", "test_accuracy")), None)
        if best is not None:
            for several in (rows, folded):
                several.sort(key=partial(_falling, best))
    base = "" if out is None else quote(os.fsencode(os.path.relpath(Path.cwd(), os.path.abspath(out)))) + "/"
    return DataTable(columns, rows, folded if folds else None, base)


def _falling(column: int, row: list[Any]) -> float:
    return math.inf if row[column] is None else -row[column]


def _folded(mine: list[int], of: dict[str, Any], settings: dict[str, list[str]], numbers: list[list[Any]]) -> list[Any]:
    """One row of several runs: means over those that finished, the spread of their test accuracy, the rest counted."""
    finished = [i for i in mine if of["status"][i] == "finished"]
    count = Counter(of["status"][i] for i in mine)
    status = ", ".join(f"{number} {name}" for name, number in count.items()) if len(mine) > 1 else of["status"][mine[0]]
    seeds = {of["seed"][i] for i in mine}
    row: list[Any] = [of["run"][mine[0]] if len(mine) == 1 else f"{len(mine)} runs"]
    row += [f"{len(seeds)} seeds" if len(seeds) > 1 else _seed(of["seed"][mine[0]]), status]
    row += [_value(texts[mine[0]]) for texts in settings.values()]
    for values in numbers:
        recorded = [values[i] for i in finished if values[i] is not None]
        row.append(_number(describe(recorded).mean) if recorded else None)
    spread = describe([100 * of["test_accuracy"][i] for i in finished]).std
    notes = list(dict.fromkeys(filter(None, (_reason(of, i) for i in mine))))
    more = [f"and {len(notes) - 3} more notes"] if len(notes) > 3 else []
    return [*row, _number(spread), "; ".join([*notes[:3], *more]), None]


def _varying(frame: Any, of: dict[str, Any]) -> dict[str, list[str]]:
    """Data, network, dtype and backend where they vary (the backend always), and the settings that vary."""
    fixed = {name.capitalize(): of[name] for name in CONDITION[:3] if len(set(of[name])) > 1}
    return {**fixed, "Backend": [str(name) for name in of["backend"]], **varying_settings(frame)}


def _numbers(column: DataColumn, of: dict[str, Any]) -> list[float | None]:
    values = [_number(column.scale * value) for value in of[column.source]]
    if column.source == "step_ms_p50":
        values = [v if mode == "compiled" else None for v, mode in zip(values, of["kernel_mode"], strict=True)]
    return values


def _number(value: float) -> float | None:
    if math.isnan(value):
        return None
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _value(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    return float(f"{number:.7g}") if math.isfinite(number) else text


def _digits(texts: list[str]) -> int:
    """-1, as it is written, for a column of settings: as text where any is a word."""
    return -1 if all(isinstance(_value(text), float) for text in set(texts)) else -2


def _seed(seed: Any) -> Any:
    return seed if isinstance(seed, int) and abs(seed) < 2**53 else None if seed is None else str(seed)


def _reason(of: dict[str, Any], i: int) -> str:
    damaged = f"{of['damaged_lines'][i]} metric lines damaged" if of["damaged_lines"][i] else ""
    reason = of["exit_reason"][i] or ("no summary: still running, or killed" if of["status"][i] == "unfinished" else "")
    mode = of["kernel_mode"][i]
    return "; ".join(filter(None, (reason, damaged, mode if mode in ("interpreted", "simulated") else "")))


def _link(records: Records, run: str, out: Path | None) -> str | int | None:
    """Where the run's folder lies from the page; 1 where that is the table's ``base`` and the run's name."""
    folder = records.folders.get(run)
    if folder is None or out is None:
        return None
    if run == str(folder) and not os.path.isabs(run) and ".." not in run:
        return 1
    return quote(os.fsencode(os.path.relpath(os.path.abspath(folder), os.path.abspath(out)))) + "/"
