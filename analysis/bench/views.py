"""The tables of bench.py's measurements as their reader sees them: text, numbers rounded, units in headings."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from tidepool.analysis.bench.kernel_speed import ALL, BEST, CONDITION, MEASURED, OPPONENTS, UNSUPPORTED
from tidepool.analysis.bench.records import BenchRecords
from tidepool.analysis.statistics import median_ratio
from tidepool.analysis.text import MISSING, NOT_MEASURED, interval_text, significant

OPPONENT_TITLES = {
    "cudnn": "cuDNN NCHW",
    "cudnn_channels_last": "cuDNN channels_last",
    "compile": "torch.compile",
    "compile_max_autotune": "max-autotune",
    "cudnn_conv_relu": "cuDNN conv+ReLU",
    BEST: "Best of these",
}
PASS_TITLES = {
    "forward": "forward (inference)",
    "forward_training": "forward (training)",
    "backward": "backward",
    "train": "training step",
}


_MEMORY = "Memory, of channels_last"


def without_empty(view: pd.DataFrame) -> pd.DataFrame:
    """The view without the opponents that no row has anything to say about."""
    empty = [name for name in OPPONENT_TITLES.values() if name in view and (view[name] == MISSING).all()]
    return view.drop(columns=empty)


def pass_title(name: Any) -> str:
    """``training step`` for ``train``; a pass of another name as it is."""
    return PASS_TITLES.get(str(name), str(name))


def condition_text(row: Any) -> str:
    """``NVIDIA H200, bf16`` and, where they were on, ``, CUDA graphs``."""
    if not row["dtype"]:
        return "no card yet"
    graphs = ", CUDA graphs" if str(row["cuda_graph"]) == "True" else ""
    return f"{row['gpu'] or 'no GPU'}, {row['dtype']}{graphs}"


def case_view(ratios: pd.DataFrame, backend: str) -> pd.DataFrame:
    """A row a case and pass for one own backend: its time, its share of the roofline, the ratio to each opponent."""
    mine = ratios[ratios["backend"] == backend]
    rows = []
    for key, group in mine.groupby([*CONDITION, "suite", "case", "pass"], sort=False):
        named = dict(zip([*CONDITION, "suite", "case", "pass"], key, strict=True))
        by_opponent = {row["opponent"]: row for _, row in group.iterrows()}
        timed = group[group["status"] == MEASURED]
        first = timed.iloc[0] if len(timed) else None
        row = {
            "Compared": f"{named['suite']}, {pass_title(named['pass'])}, {condition_text(named)}",
            "Case": named["case"],
            f"{backend} ms": NOT_MEASURED if first is None else significant(first["time_ms"]),
            "Of roofline %": MISSING if first is None else significant(100 * first["roofline_share"]),
            "Processes n": MISSING if first is None else str(int(timed["processes"].max())),
        }
        row |= {OPPONENT_TITLES[name]: _ratio_cell(by_opponent.get(name)) for name in (*OPPONENTS, BEST)}
        memory = by_opponent.get("cudnn_channels_last")
        row[_MEMORY] = MISSING if memory is None else significant(memory["memory_ratio"])
        rows.append(row)
    view = without_empty(pd.DataFrame(rows, dtype="object"))
    return view.sort_values("Compared", kind="stable", ignore_index=True) if len(view) else view


def mean_view(means: pd.DataFrame, *, families: bool) -> pd.DataFrame:
    """A row a suite, pass and own backend (and family): geometric means over the whole list, beside each opponent."""
    mine = means if families else means[means["family"] == ALL]
    keys = [*CONDITION, "suite", "pass", "backend", "family"]
    rows = []
    for key, group in mine.groupby(keys, sort=False):
        named = dict(zip(keys, key, strict=True))
        by_opponent = {row["opponent"]: row for _, row in group.iterrows()}
        best = by_opponent.get(BEST)
        row = {
            "Compared": f"{named['suite']}, {condition_text(named)}",
            "Pass": pass_title(named["pass"]),
            "Backend": named["backend"],
            **({"Family": named["family"]} if families else {}),
            "Cases": str(int(group["cases"].max())),
        }
        row |= {OPPONENT_TITLES[name]: mean_cell(by_opponent.get(name)) for name in (*OPPONENTS, BEST)}
        row["Worst case"] = MISSING if best is None else worst_cell(best)
        memory = by_opponent.get("cudnn_channels_last")
        row[_MEMORY] = MISSING if memory is None else significant(memory["memory_ratio_geometric_mean"])
        rows.append(row)
    return without_empty(pd.DataFrame(rows, dtype="object"))


def readme_view(means: pd.DataFrame) -> pd.DataFrame:
    """The README's table: `auto`'s training step by family, the whole list of each suite last."""
    mine = means[(means["backend"] == "auto") & (means["pass"] == "train")]
    shown_opponents = [name for name in (*OPPONENTS, BEST) if name in set(mine["opponent"])]
    rows = []
    for (suite, family), group in mine.groupby(["suite", "family"], sort=False):
        by_opponent = {row["opponent"]: row for _, row in group.iterrows()}
        row = {"Suite": suite, "Layers": "all" if family == ALL else family, "Cases": str(int(group["cases"].max()))}
        row |= {OPPONENT_TITLES[name]: mean_cell(by_opponent.get(name)) for name in shown_opponents}
        best, memory = by_opponent.get(BEST), by_opponent.get("cudnn_channels_last")
        row["Worst case"] = MISSING if best is None else worst_cell(best)
        ratio = math.nan if memory is None else memory["memory_ratio_geometric_mean"]
        row["Memory"] = NOT_MEASURED if math.isnan(ratio) else significant(ratio)
        rows.append(row)
    view = pd.DataFrame(rows, dtype="object")
    if view.empty:
        return view
    whole = view["Layers"] == "all"
    order = [index for suite in dict.fromkeys(view["Suite"]) for part in (False, True)
             for index in view.index[(view["Suite"] == suite) & (whole == part)]]  # fmt: skip
    return view.loc[order].reset_index(drop=True)


def host_cost_table(records: BenchRecords) -> pd.DataFrame:
    """One row a machine, kernel mode, source and side: median over processes, and the ratio to eager PyTorch."""
    keys = ["cpu", "gpu", "device", "kernel_mode", "torch", "triton", "source", "what"]
    rows = []
    for key, group in records.host_cost.groupby(keys, sort=False):
        eager = group.loc[group["side"] == "eager", "host_us_p50"].tolist()
        for side, mine in group.groupby("side", sort=False):
            ratio, interval = median_ratio(mine["host_us_p50"].tolist(), eager)
            row = dict(zip(keys, key, strict=True)) | {"side": side, "processes": len(mine)}
            row |= {name: mine[name].median() for name in ("host_us_p50", "host_us_p20", "host_us_p80")}
            if side != "eager":
                row |= {"ratio": ratio, "ratio_ci95_low": interval.low, "ratio_ci95_high": interval.high}
            rows.append(row)
    columns = [
        *keys, "side", "processes", "host_us_p50", "host_us_p20", "host_us_p80", "ratio", "ratio_ci95_low",
        "ratio_ci95_high",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


_HOST_SIDES = {
    "eager": "eager PyTorch",
    "triton": "this project, launches stubbed",
    "dynamo": "torch.compile, backend eager",
    "fuse cudnn": "fuse on cudnn",
    "fuse triton": "fuse on triton, launches stubbed",
}


def host_cost_view(table: pd.DataFrame) -> pd.DataFrame:
    """Host microseconds a step, forward and backward, of every side."""
    rows = [
        {
            "Compared": f"{row['what']}, {row['cpu']}, PyTorch {row['torch']}, Triton {row['triton']}",
            "Step": row["what"].removeprefix("forward and backward of "),
            "Side": _HOST_SIDES.get(row["side"], row["side"]),
            "Host us": significant(row["host_us_p50"]),
            "p20–p80 us": f"{significant(row['host_us_p20'])}–{significant(row['host_us_p80'])}",
            "Of eager [95 %]": "reference"
            if row["side"] == "eager"
            else interval_text(row["ratio"], row["ratio_ci95_low"], row["ratio_ci95_high"]),
            "Processes n": str(row["processes"]),
        }
        for _, row in table.iterrows()
    ]
    return pd.DataFrame(rows, dtype="object")


def prediction_table(records: BenchRecords) -> pd.DataFrame:
    """The predictions of the newest code in the file: one row a case, pass, dtype and card."""
    found = records.predictions
    return found.drop_duplicates(["suite", "case", "pass", "dtype", "device"], keep="last", ignore_index=True)


def prediction_view(table: pd.DataFrame) -> pd.DataFrame:
    """Bytes and bounds by case and pass: bounds at published rates, not measurements."""
    rows = [
        {
            "Compared": f"{row['suite']}, {pass_title(row['pass'])}, {row['device']}, {row['dtype']}",
            "Case": row["case"],
            "GFLOP": significant(row["flops"] / 1e9),
            "Fused MB": significant(row["fused_bytes"] / 1e6),
            "Eager MB": significant(row["eager_bytes"] / 1e6),
            "Bytes, of eager": significant(row["bytes_ratio"]),
            "Fused bound ms": significant(row["fused_roofline_ms"]),
            "Eager bound ms": significant(row["eager_roofline_ms"]),
            "Bound ratio": significant(row["bound_ratio"]),
        }
        for _, row in table.iterrows()
    ]
    view = pd.DataFrame(rows, dtype="object")
    # One table a pass, card and dtype, in the order of their first rows.
    order = {name: place for place, name in enumerate(dict.fromkeys(view["Compared"]))}
    return view.iloc[view["Compared"].map(order).argsort(kind="stable")].reset_index(drop=True)


def mean_cell(row: Any) -> str:
    """A geometric mean with its interval; how many cases are missing where it cannot be formed."""
    if row is None:
        return MISSING
    if math.isnan(row["ratio_geometric_mean"]):
        done = int(row["cases_measured"])
        return f"{NOT_MEASURED} ({done} of {int(row['cases'])})" if done else NOT_MEASURED
    return interval_text(row["ratio_geometric_mean"], row["ratio_ci95_low"], row["ratio_ci95_high"])


def worst_cell(row: Any) -> str:
    """The least ratio and whose it is."""
    worst = row["ratio_of_worst_case"]
    return MISSING if math.isnan(worst) else f"{significant(worst)} ({row['worst_case']})"


def _ratio_cell(row: Any) -> str:
    if row is None:
        return MISSING
    if row["status"] == MEASURED:
        return interval_text(row["ratio"], row["ratio_ci95_low"], row["ratio_ci95_high"])
    return MISSING if row["status"] == UNSUPPORTED else str(row["status"])
