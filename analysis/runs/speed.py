"""Training speed beside the reference backend, compiled runs only."""

from __future__ import annotations

import pandas as pd

from tidepool.analysis.conditions import CONDITION, REFERENCE, conditions, device_name
from tidepool.analysis.runs.records import Records
from tidepool.analysis.statistics import median_ratio
from tidepool.analysis.text import UNTIMED

MEASURED = "measured"
MODE_UNKNOWN = "kernel mode not recorded: left out of ratios"


def speed_table(records: Records) -> pd.DataFrame:
    """One row a condition, machine, backend, library and kernel mode, over finished runs.

    A run is one process and one value: its own median step time. ``step_ms_p20``/``p80`` are percentiles across runs.
    ``speedup_vs_cudnn`` is median reference step time / median step time, so above 1 is faster. Interpreted and
    simulated kernels are never timed: their times are NaN here ("not measured" where shown) and enter no ratio.
    """
    rows = []
    keys = ["device", "backend", "conv_library", "kernel_mode"]
    for condition, group in conditions(records.runs):
        finished = group[group["status"] == "finished"]
        finished = finished.assign(device=[device_name(run) for _, run in finished.iterrows()])
        finished = finished.assign(**{k: finished[k].map(lambda v: "?" if v is None else str(v)) for k in keys})
        for key, runs in finished.groupby(keys, sort=False):
            named = dict(zip(keys, key, strict=True))
            mode = named["kernel_mode"]
            row = {**condition, **named, "n_runs": len(runs)}
            if mode != "compiled":
                rows.append(row | {"measurement": UNTIMED.get(str(mode), MODE_UNKNOWN)})
                continue
            times = runs["step_ms_p50"].dropna()
            row |= {
                "step_ms_p50_median": times.median(),
                "step_ms_p50_p20": times.quantile(0.2),
                "step_ms_p50_p80": times.quantile(0.8),
                "samples_per_second_median": runs["samples_per_second"].median(),
                "peak_memory_MiB_median": runs["peak_memory_bytes"].median() / 2**20,
                "measurement": MEASURED,
            }
            same = (finished["device"] == named["device"]) & (finished["backend"] == REFERENCE)
            reference = finished.loc[same & (finished["kernel_mode"] == "compiled"), "step_ms_p50"].dropna()
            if named["backend"] != REFERENCE:
                ratio, interval = median_ratio(reference.tolist(), times.tolist())
                row |= {"speedup_vs_cudnn": ratio, "speedup_ci95_low": interval.low, "speedup_ci95_high": interval.high}
            rows.append(row)
    columns = [
        *CONDITION, *keys, "n_runs", "step_ms_p50_median", "step_ms_p50_p20", "step_ms_p50_p80",
        "samples_per_second_median", "peak_memory_MiB_median", "speedup_vs_cudnn", "speedup_ci95_low",
        "speedup_ci95_high", "measurement",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
