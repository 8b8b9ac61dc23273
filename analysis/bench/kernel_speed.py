"""Speed and memory of the op beside its opponents, from bench.py's timings: per case, and over each suite's whole list.

A ratio is opponent's time over ours, so above 1 we are faster. Both times of a ratio come from one process, where the
two took turns; the process is the replicate, and the interval is a bootstrap over processes. What was not measured, or
was wrong, stays in the tables and says so. Interpreted kernels are never timed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tidepool.analysis.bench.records import BenchRecords
from tidepool.analysis.statistics import Interval, median_interval

OURS = ("auto", "triton")
OPPONENTS = ("cudnn", "cudnn_channels_last", "compile", "compile_max_autotune", "cudnn_conv_relu")
BEST = "best of these"
PASSES = ("forward", "forward_training", "backward", "train")
MEASURED, NOT_MEASURED = "measured", "not measured"
UNSUPPORTED = "unsupported"
CONDITION = ["gpu", "dtype", "cuda_graph"]
_TIMED = "timed"
_TRAINING_ONLY = frozenset({"models"})
_FORWARD_ONLY = frozenset({"cudnn_conv_relu"})
_CODE = ["source", "torch", "triton"]

RATIO_COLUMNS = [
    *CONDITION, "suite", "case", "family", "pass", "backend", "opponent", "status", "processes", "time_ms",
    "opponent_time_ms", "ratio", "ratio_ci95_low", "ratio_ci95_high", "roofline_share", "memory_ratio",
]  # fmt: skip
MEAN_COLUMNS = [
    *CONDITION, "suite", "family", "pass", "backend", "opponent", "cases", "cases_measured", "ratio_geometric_mean",
    "ratio_ci95_low", "ratio_ci95_high", "ratio_of_worst_case", "worst_case", "memory_ratio_geometric_mean",
]  # fmt: skip
ALL = "all"
"""The family of a row over a suite's whole list."""


@dataclass(frozen=True)
class Selected:
    """The timings that count: per card, dtype, graphs and suite those of the newest code and versions; ``older`` rows
    were left out, ``interpreted`` were no times at all."""

    rows: pd.DataFrame
    older: int
    interpreted: int


def select(records: BenchRecords) -> Selected:
    """Leave out rows of earlier code or versions, of `auto` by a plan it has given up, and interpreted or simulated
    ones; the latest row of a process stands."""
    rows = records.timings
    interpreted = rows["kernel_mode"] != "compiled"
    rows = rows[~interpreted]
    keys = [*CONDITION, "suite"]
    newest = rows.sort_values("measured_at", kind="stable").groupby(keys, sort=False)[_CODE].last()
    current = rows.merge(newest.reset_index(), on=[*keys, *_CODE], how="inner")
    planned = current[current["plan"] != ""].sort_values("measured_at", kind="stable")
    plans = planned.groupby([*keys, "case", "backend"], sort=False)["plan"].last().rename("latest").reset_index()
    current = current.merge(plans, on=[*keys, "case", "backend"], how="left")
    current = current[(current["plan"] == "") | (current["plan"] == current["latest"])].drop(columns="latest")
    current = current.drop_duplicates([*keys, "process", "case", "pass", "backend"], keep="last", ignore_index=True)
    return Selected(current, len(rows) - len(current), int(interpreted.sum()))


def ratio_table(records: BenchRecords) -> pd.DataFrame:
    """One row a card, dtype, case, pass, own backend and opponent (BEST: whichever was fastest); RATIO_COLUMNS.

    Every case of ``cases.csv`` is there for each card and dtype; where nothing was timed at all, for none of them.
    """
    selected = select(records).rows
    found_conditions = selected[CONDITION].drop_duplicates().sort_values(CONDITION)
    conditions = [[str(value) for value in row] for row in found_conditions.to_numpy()] or [["", "", ""]]
    rows = []
    for condition in conditions:
        mine = selected[(selected[CONDITION] == condition).all(axis=1)]
        named = dict(zip(CONDITION, condition, strict=True))
        by_case: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for timing in mine.to_dict("records"):
            key = (timing["suite"], timing["case"], timing["pass"])
            by_case.setdefault(key, []).append({str(name): value for name, value in timing.items()})
        for case in _cases(records, mine):
            for pass_ in ("train",) if case["suite"] in _TRAINING_ONLY else PASSES:
                found = by_case.get((case["suite"], case["case"], pass_), [])
                rows += [named | case | row for row in _ratios(found, pass_)]
    return pd.DataFrame(rows, columns=RATIO_COLUMNS)


def mean_table(ratios: pd.DataFrame, records: BenchRecords) -> pd.DataFrame:
    """Geometric means of `ratio_table` over each suite (family ALL) and each of its families; MEAN_COLUMNS.

    A mean is over every case of the list but those its opponent does not support, and NaN while one is missing. The
    interval resamples processes, the same ones for every case.
    """
    selected = select(records).rows
    outer, inner = [*CONDITION, "suite", "pass"], ["backend", "opponent"]
    rows = []
    for key, of_pass in ratios.groupby(outer, sort=False):
        named = dict(zip(outer, key, strict=True))
        times = _times(selected, named)
        for sides, group in of_pass.groupby(inner, sort=False):
            named |= dict(zip(inner, sides, strict=True))
            listed = group[group["status"] != UNSUPPORTED]
            families = [(ALL, listed), *((str(name), part) for name, part in listed.groupby("family", sort=False))]
            logs = _log_ratios(times, str(named["backend"]), str(named["opponent"]))
            rows += [named | {"family": family} | _mean(part, logs) for family, part in families if len(part)]
    return pd.DataFrame(rows, columns=MEAN_COLUMNS)


def _cases(records: BenchRecords, timed: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Suite, name and family of every case of the lists, then of those that are only in the timings."""
    listed = records.cases[["suite", "case", "family"]]
    both = pd.concat([listed, timed[["suite", "case", "family"]]], ignore_index=True)
    for row in both.drop_duplicates(["suite", "case"]).to_dict("records"):
        yield {str(name): str(value) for name, value in row.items()}


def _ratios(rows: list[dict[str, Any]], pass_: str) -> Iterator[dict[str, object]]:
    """Rows of one case and pass under one condition."""
    timed = [row for row in rows if row["status"] == _TIMED]
    times: dict[str, dict[str, float]] = {}  # by backend and process
    for row in timed:
        times.setdefault(row["backend"], {})[row["process"]] = row["time_ms_p50"]
    memory = {name: _middle(r["inputs_bytes"] + r["peak_above_inputs_bytes"] for r in timed if r["backend"] == name)
              for name in times}  # fmt: skip
    there = [times[name] for name in OPPONENTS if name in times]
    processes = list(dict.fromkeys(row["process"] for row in timed))
    least = {p: min(of[p] for of in there if p in of) for p in processes if any(p in of for of in there)}
    for ours in OURS:
        share = _middle(row["roofline_share"] for row in timed if row["backend"] == ours)
        for opponent in (*OPPONENTS, BEST):
            if opponent in _FORWARD_ONLY and pass_ != "forward":
                continue
            row = {"pass": pass_, "backend": ours, "opponent": opponent, "processes": 0}
            theirs = least if opponent == BEST else times.get(opponent, {})
            both = [(times[ours][p], theirs[p]) for p in times.get(ours, {}) if p in theirs]
            if not both:
                yield row | {"status": _status(rows, ours, opponent)}
                continue
            ratio, interval = median_interval([b / a for a, b in both], resamples=2_000)
            yield row | {
                "status": MEASURED,
                "processes": len(both),
                "time_ms": _middle(a for a, _ in both),
                "opponent_time_ms": _middle(b for _, b in both),
                "ratio": ratio,
                "ratio_ci95_low": interval.low,
                "ratio_ci95_high": interval.high,
                "roofline_share": share,
                "memory_ratio": memory.get(ours, math.nan) / memory.get(opponent, math.nan),
            }


def _middle(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.median(found)) if found else math.nan


def _status(rows: list[dict[str, Any]], ours: str, opponent: str) -> str:
    """What became of the side that was not timed: NOT_MEASURED, UNSUPPORTED, or `wrong: auto`."""
    for side in (ours, opponent):
        statuses = [row["status"] for row in rows if row["backend"] == side]
        if side == BEST or not statuses:
            continue
        if _TIMED not in statuses:
            return UNSUPPORTED if set(statuses) == {UNSUPPORTED} else f"{statuses[-1]}: {side}"
    return NOT_MEASURED


def _times(selected: pd.DataFrame, named: dict[str, object]) -> pd.DataFrame:
    """Milliseconds by (case, replicate) and backend for one condition, suite and pass."""
    mine = selected[(selected[list(named)] == list(named.values())).all(axis=1) & (selected["status"] == _TIMED)]
    return mine.pivot_table(index=["case", "replicate"], columns="backend", values="time_ms_p50", aggfunc="last")


def _log_ratios(times: pd.DataFrame, ours: str, opponent: str) -> pd.DataFrame:
    """log(theirs / ours), a row a case and a column a replicate; empty where a side is missing."""
    theirs = _opponent_times(times, opponent)
    if theirs is None or ours not in times.columns:
        return pd.DataFrame()
    logs = (theirs / times[ours]).map(math.log, na_action="ignore")
    return logs.dropna().unstack("replicate")


def _opponent_times(table: pd.DataFrame, opponent: str) -> pd.Series | None:
    """One opponent's column of times by backend, or the least of all opponents' for BEST; None where there is none."""
    there = [name for name in OPPONENTS if name in table.columns]
    if opponent == BEST:
        return table[there].min(axis=1) if there else None
    return table[opponent] if opponent in there else None


def _mean(part: pd.DataFrame, logs: pd.DataFrame) -> dict[str, object]:
    measured = part[part["status"] == MEASURED]
    row: dict[str, object] = {"cases": len(part), "cases_measured": len(measured)}
    if len(measured):
        worst = measured.iloc[int(measured["ratio"].astype("float64").argmin())]
        row |= {"ratio_of_worst_case": worst["ratio"], "worst_case": worst["case"]}
    if len(measured) < len(part):
        return row
    interval = _resampled(logs.reindex(part["case"]))
    memory = np.log(measured["memory_ratio"].to_numpy(dtype=np.float64))
    return row | {
        "ratio_geometric_mean": float(np.exp(np.log(measured["ratio"].to_numpy(dtype=np.float64)).mean())),
        "ratio_ci95_low": interval.low,
        "ratio_ci95_high": interval.high,
        "memory_ratio_geometric_mean": float(np.exp(memory.mean())),
    }


def _resampled(logs: pd.DataFrame, *, level: float = 0.95, resamples: int = 2_000, seed: int = 0) -> Interval:
    """Percentile bootstrap of the geometric mean of per-case medians: processes are drawn with replacement, the same
    ones for every case. Undefined with fewer than two processes or where a case lacks one."""
    undefined = Interval(math.nan, math.nan, level)
    complete = logs.dropna(axis="columns")
    if complete.shape[1] < 2:
        return undefined
    drawn = np.random.default_rng(seed).integers(complete.shape[1], size=(resamples, complete.shape[1]))
    medians = np.median(complete.to_numpy()[:, drawn], axis=2)
    low, high = np.quantile(np.exp(medians.mean(axis=0)), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)
