"""Training speed beside the reference backend, compiled runs only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tidepool.analysis.conditions import CONDITION, REFERENCE, device_names
from tidepool.analysis.runs.records import Records
from tidepool.analysis.statistics import median_ratio
from tidepool.analysis.text import UNTIMED

MEASURED = "measured"
_KEYS = ("device", "backend", "conv_library", "kernel_mode")
_NUMBERS = ("step_ms_p50", "samples_per_second", "peak_memory_bytes")
MODE_UNKNOWN = "kernel mode not recorded: left out of ratios"


def speed_table(records: Records) -> pd.DataFrame:
    """One row a condition, machine, backend, library and kernel mode, over finished runs.

    A run is one process and one value: its own median step time. ``step_ms_p20``/``p80`` are percentiles across runs.
    ``speedup_vs_cudnn`` is median reference step time / median step time, so above 1 is faster. Interpreted and
    simulated kernels are never timed: their times are NaN here ("not measured" where shown) and enter no ratio.
    """
    frame, spans = records.ordered
    of = {name: frame[name].tolist() for name in ("status", *_NUMBERS)}
    named = [device_names(frame), *([_name(value) for value in frame[name].tolist()] for name in _KEYS[1:])]
    keys = [dict(zip(_KEYS, row, strict=True)) for row in zip(*named, strict=True)]
    rows = []
    for condition, start, end in spans:
        finished = [i for i in range(start, end) if of["status"][i] == "finished"]
        for key in _distinct(keys[i] for i in finished):
            mine = [i for i in finished if keys[i] == key]
            row = {**condition, **key, "n_runs": len(mine)}
            if key["kernel_mode"] != "compiled":
                rows.append(row | {"measurement": UNTIMED.get(key["kernel_mode"], MODE_UNKNOWN)})
                continue
            rows.append(row | _times(of, mine))
            if key["backend"] != REFERENCE:
                wanted = {"device": key["device"], "backend": REFERENCE, "kernel_mode": "compiled"}
                theirs = [i for i in finished if wanted.items() <= keys[i].items()]
                ratio, interval = median_ratio(_recorded(of["step_ms_p50"], theirs), _recorded(of["step_ms_p50"], mine))
                rows[-1] |= {"speedup_vs_cudnn": ratio, "speedup_ci95_low": interval.low,
                             "speedup_ci95_high": interval.high}  # fmt: skip
    columns = [
        *CONDITION, *_KEYS, "n_runs", "step_ms_p50_median", "step_ms_p50_p20", "step_ms_p50_p80",
        "samples_per_second_median", "peak_memory_MiB_median", "speedup_vs_cudnn", "speedup_ci95_low",
        "speedup_ci95_high", "measurement",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _name(value: Any) -> str:
    return "?" if value is None else str(value)


def _distinct(keys: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return list({tuple(key.values()): key for key in keys}.values())


def _times(of: dict[str, list[Any]], rows: list[int]) -> dict[str, Any]:
    step, rate, memory = (_recorded(of[name], rows) for name in _NUMBERS)
    return {
        "step_ms_p50_median": _percentile(step, 50),
        "step_ms_p50_p20": _percentile(step, 20),
        "step_ms_p50_p80": _percentile(step, 80),
        "samples_per_second_median": _percentile(rate, 50),
        "peak_memory_MiB_median": _percentile(memory, 50) / 2**20,
        "measurement": MEASURED,
    }


def _recorded(values: list[float], rows: list[int]) -> list[float]:
    return [values[i] for i in rows if not math.isnan(values[i])]


def _percentile(values: list[float], percent: float) -> float:
    """NaN of no values."""
    if len(values) < 2:
        return values[0] if values else math.nan
    return float(np.percentile(values, percent))
