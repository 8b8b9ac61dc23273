"""The record of a sweep below ``results/``, made of its run folders: no machine's name, folders or users are in it."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tidepool.analysis.runs.curves import METRIC_COLUMNS
from tidepool.analysis.runs.records import Records, read_records
from tidepool.records import RecordError, shown_path
from tidepool.records.recorded_sweep import RecordedSweep, write_recorded_sweep

RESULTS = "results"
# An absolute path with at least one folder in it; its last part may stay.
_MACHINE_PATH = re.compile(r"(?<![\w./…-])/(?:[^\s/'\":,;]+/)+([^\s/'\":,;]*)")
# What of the runs' environments is kept: nothing that names a machine, its folders or its users.
_ENVIRONMENT = (
    "cpu", "cpu_threads", "device", "gpu", "gpu_capability", "gpu_memory_bytes", "driver", "cuda", "cudnn", "torch",
    "triton", "python",
)  # fmt: skip


def record(folder: Path, out: Path) -> tuple[Records, dict[str, Any]]:
    """Write the record of the sweep in ``folder`` into ``out``; the same from wherever the runs lie.

    Returns the records read and the environment written. Raises RecordError, in one line, where ``folder`` is not one
    sweep, its runs disagree on the commit, no sweep file rebuilds it, or ``out`` is not below results/.
    """
    if Path(os.path.abspath(RESULTS)) not in Path(os.path.abspath(out)).parents:
        raise RecordError(f"{out}: expected a folder below {RESULTS}/, such as {RESULTS}/quickstart")
    folder = Path(os.path.abspath(folder))
    here = shown_path(folder)
    records = read_records([folder])
    if list(records.sweeps) != [here]:
        raise RecordError(f"{here}: expected the folder of one sweep, with its sweep.json")
    name = str(records.sweeps[here].get("name"))
    sweep_command = shlex.join(["python", "sweep.py", _sweep_file(name)])
    own_command = ["python", "-m", "tidepool.analysis.readme", "--record", f"runs/{name}", "--out", shown_path(out)]
    environment = _merged_environment(records, here)
    environment["command"] = f"{sweep_command} && {shlex.join(own_command)}"
    content = RecordedSweep(
        runs=_rows(_portable(_kept(records.runs), (here, str(folder)), f"runs/{name}")),
        curves=_wide(_portable(records.metrics, (here, str(folder)), f"runs/{name}")),
        sweep=records.sweeps[here],
        environment=environment,
    )
    write_recorded_sweep(out, content)
    return records, environment


def _kept(runs: pd.DataFrame) -> pd.DataFrame:
    """The columns of runs that a record keeps: of the environment nothing that names a machine."""
    kept = {f"environment/{name}" for name in ("commit", "dirty", "date", *_ENVIRONMENT)}
    return runs[
        [name for name in runs.columns
         if not name.startswith("environment/") or name.startswith("environment/precision/") or name in kept]
    ]  # fmt: skip


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _wide(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """METRIC_COLUMNS as the rows of curves.parquet: a run and step each, its ``time_s`` the last that was recorded."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for run, step, epoch, time_s, metric, value in metrics[list(METRIC_COLUMNS)].itertuples(index=False):
        row = rows.setdefault((run, int(step)), {"run": run, "step": int(step)})
        row |= {"epoch": float(epoch), "time_s": float(time_s), metric: float(value)}
    return list(rows.values())


def _sweep_file(name: str) -> str:
    """The file under sweeps/ that makes the sweep called ``name``."""
    for path in sorted(Path("sweeps").glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue  # not the one: it could not have been run
        if isinstance(content, dict) and str(content.get("name", path.stem)) == name:
            return path.as_posix()
    raise RecordError(f"no file in sweeps/ makes the sweep {name!r}, so no command rebuilds its record")


def _merged_environment(records: Records, where: str) -> dict[str, Any]:
    """The runs' environments as one: a value where they agree, a list where they do not. One commit, or RecordError."""
    recorded = {
        name.removeprefix("environment/"): list(records.runs[name])
        for name in records.runs.columns
        if name.startswith("environment/")
    }
    missing = [None] * len(records.runs)
    commits = Counter(c if isinstance(c, str) else None for c in recorded.get("commit", missing))
    if len(commits) > 1:
        counts = ", ".join(f"{count} at {commit[:12] if commit else 'none'}" for commit, count in commits.most_common())
        raise RecordError(f"{where}: runs disagree on the commit ({counts}); run the sweep again from one commit")
    dates = sorted(date for date in recorded.get("date", missing) if isinstance(date, str))
    dirty = recorded.get("dirty", missing)
    merged: dict[str, Any] = {
        "commit": next(iter(commits)),
        "dirty": True if True in dirty else None if None in dirty else False,
        "date": dates[0] if dates else None,
        "last_date": dates[-1] if dates else None,
        "runs": len(records.runs),
    }
    for name in (*_ENVIRONMENT, *(name for name in recorded if name.startswith("precision/"))):
        texts = {json.dumps(value): value for value in recorded.get(name, missing)}
        values = [texts[text] for text in sorted(texts)]
        merged[name.replace("/", "_")] = values[0] if len(values) == 1 else values
    return merged


def _portable(table: pd.DataFrame, folders: Sequence[str], written: str) -> pd.DataFrame:
    """``table`` as any machine would write it: a path in the runs' folder, by any of its names in ``folders``, as one
    in ``written``, other absolute paths cut short."""

    def portable(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for folder in folders:
            if value == folder or value.startswith(f"{folder}/"):
                return written + value[len(folder) :]
        return _MACHINE_PATH.sub(r"…/\1", value)

    words = {
        name: pd.Series([portable(value) for value in table[name]], index=table.index, dtype="object")
        for name in table.columns
        if not pd.api.types.is_numeric_dtype(table[name])
    }
    return table.assign(**words)
