"""The README's summary of a folder of bench.py's measurements: speed of `auto`'s training step, or host time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.analysis.bench.kernel_speed import CONDITION, mean_table, ratio_table, select
from tidepool.analysis.bench.records import BenchRecords, read_bench_records
from tidepool.analysis.bench.views import (
    condition_text,
    host_cost_table,
    host_cost_view,
    prediction_table,
    prediction_view,
    readme_view,
)
from tidepool.analysis.text import markdown
from tidepool.records import RecordError


def measurement_block(shown: str, folder: Path, columns: Sequence[str]) -> list[str]:
    """The lines of a block: a table, an empty line, where it comes from.

    Timings come before host time, host time before predictions. Raises RecordError, in one line, for a folder without
    measurements and for ``columns``, which such a block does not have.
    """
    if columns:
        raise RecordError("columns= goes with a table; a folder of measurements has its own summary")
    records = read_bench_records([folder])
    if records.empty:
        raise RecordError(f"{shown}: no measurements of bench.py in this folder")
    if len(records.cases) or len(records.timings):
        view, origin = _speed(records, shown)
    elif len(records.host_cost):
        newest = records.host_cost.sort_values("measured_at", kind="stable").iloc[-1]
        same = records.host_cost[(records.host_cost[_HOST_KEYS] == newest[_HOST_KEYS]).all(axis=1)]
        view = host_cost_view(host_cost_table(_only_host(records, same))).drop(columns="Compared")
        origin = _origin(shown, newest, newest["cpu"] if not newest["gpu"] else newest["gpu"])
    else:
        found = prediction_table(records)
        found = found[(found["pass"] == "train") & (found["device"] == found["device"].iloc[0])]
        view = prediction_view(found).drop(columns="Compared")
        first = found.iloc[0]
        rates = f"{first['matrix_tflops']:g} TFLOP/s and {first['copy_bytes_per_s'] / 1e12:g} TB/s"
        origin = (
            f"[{shown}]({shown}): bounds for a training step on {first['device']} in {first['dtype']} at {rates} "
            f"({first['device_source']}): assumptions, not measurements. Rebuilt by `python bench.py --predict --out "
            f"{shown}`."
        )
    return [*markdown(view).splitlines(), "", origin]


_HOST_KEYS = ["cpu", "gpu", "kernel_mode", "torch", "triton", "source"]


def _speed(records: BenchRecords, shown: str) -> tuple[pd.DataFrame, str]:
    """Means over the newest card, dtype and graphs of the timings; over nothing where nothing was timed."""
    rows = select(records).rows
    ratios = ratio_table(records)
    rebuild = f"Recorded by `python bench.py --visit --out {shown}` on an NVIDIA GPU"
    if rows.empty:
        return readme_view(mean_table(ratios, records)), f"[{shown}]({shown}): nothing has been timed yet. {rebuild}."
    newest = rows.sort_values("measured_at", kind="stable").iloc[-1]
    mine = ratios[(ratios[CONDITION] == newest[CONDITION]).all(axis=1)]
    what = f"auto's training step, {condition_text(newest)}; {rows['process'].nunique()} processes"
    origin = _origin(shown, newest, what)
    return readme_view(mean_table(mine, records)), f"{origin} Every case: `python -m tidepool.analysis.report {shown}`."


def _origin(shown: str, row: Any, where: str) -> str:
    dirty = " with uncommitted changes" if row["dirty"] == "True" else ""
    commit = f"commit {row['commit'][:12]}{dirty}" if row["commit"] else "commit not recorded"
    versions = f"PyTorch {row['torch']}, Triton {row['triton']}, Python {row['python']}"
    command = " ".join(str(row["command"]).split())
    return (
        f"[{shown}]({shown}): {where}; {commit}, {str(row['measured_at'])[:10]}, {versions}. Recorded by `{command}`."
    )


def _only_host(records: BenchRecords, rows: pd.DataFrame) -> BenchRecords:
    return BenchRecords(records.timings, records.cases, records.correctness, records.predictions, rows)
