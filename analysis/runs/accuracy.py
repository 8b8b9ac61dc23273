"""Test accuracy beside the reference backend: spread, difference, equivalence; and whether the first losses agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import pandas as pd

from tidepool.analysis.conditions import CONDITION, REFERENCE, rows_by
from tidepool.analysis.runs.records import Records
from tidepool.analysis.statistics import Difference, describe, mean_interval, seed_difference, seeds_needed, tost

# Below this many seeds a side no verdict is given: at the usual spread even a margin of 0.3 points needs five.
MIN_SEEDS = 5
# Verdicts that stand without margin, p-value or a number of seeds.
NO_VERDICT_NEEDED = frozenset({"reference", "margin not declared"})
AGREEMENT_STEPS = 10
# Relative difference of the first losses that two right fp32 implementations stay within; none is set for other types.
AGREEMENT_LIMIT = {"fp32": 1e-4}


def accuracy_table(records: Records) -> pd.DataFrame:
    """One row a condition and backend. Finished runs make the mean; all others are counted beside it.

    The replicate is the seed: finished runs that repeat a seed are averaged first and count once in ``n_seeds``. An
    accuracy that is NaN makes the mean NaN. ``n_unfinished`` holds interrupted runs and runs without a summary.
    """
    frame, spans = records.ordered
    of = {name: frame[name].tolist() for name in ("backend", "margin_points", *_SCORED)}
    rows = []
    for condition, start, end in spans:
        by_backend = rows_by(of["backend"], start, end)
        scores = {name: _scores([of[n][i] for n in _SCORED] for i in mine) for name, mine in by_backend.items()}
        margin = _margin_of(of["margin_points"][start:end])
        for name, mine in by_backend.items():
            count = Counter(of["status"][i] for i in mine)
            sample = describe(list(scores[name].values()))
            interval = mean_interval(list(scores[name].values()))
            rows.append(
                {
                    **condition,
                    "backend": name,
                    "n_finished": count["finished"],
                    "n_seeds": sample.n,
                    "n_failed": count["failed"],
                    "n_diverged": count["diverged"],
                    "n_unfinished": count["unfinished"] + count["interrupted"],
                    "test_accuracy_mean_percent": sample.mean,
                    "test_accuracy_std_points": sample.std,
                    "test_accuracy_min_percent": sample.minimum,
                    "test_accuracy_max_percent": sample.maximum,
                    "test_accuracy_ci95_low_percent": interval.low,
                    "test_accuracy_ci95_high_percent": interval.high,
                    **_against_reference(name, scores, margin),
                }
            )
    return pd.DataFrame(rows)


_SCORED = ("status", "run", "seed", "test_accuracy")


def seed_scores(runs: pd.DataFrame) -> dict[Hashable, float]:
    """Seed -> test accuracy in percent of its finished runs (their mean where a seed was run more than once)."""
    return _scores(zip(*(runs[name].tolist() for name in _SCORED), strict=True))


def _scores(rows: Iterable[Sequence[Any]]) -> dict[Hashable, float]:
    by_seed: dict[Hashable, list[float]] = {}
    for status, run, seed, accuracy in rows:
        if status != "finished":
            continue
        key = ("no seed", run) if seed is None else seed
        by_seed.setdefault(key, []).append(100 * accuracy)
    return {seed: values[0] if len(values) == 1 else describe(values).mean for seed, values in by_seed.items()}


def _against_reference(name: str, scores: dict[str, dict[Hashable, float]], margin: float | str) -> dict[str, Any]:
    empty = {"reference": REFERENCE, "difference_points": math.nan, "difference_ci95_low_points": math.nan,
             "difference_ci95_high_points": math.nan, "difference_method": "", "margin_points": math.nan,
             "tost_p_value": math.nan, "seeds_needed": math.nan, "equivalence": "reference"}  # fmt: skip
    if isinstance(margin, float):
        empty["margin_points"] = margin
    if name == REFERENCE:
        return empty
    if not scores.get(REFERENCE) or not scores[name]:
        who = name if scores.get(REFERENCE) else REFERENCE
        return empty | {"equivalence": f"no finished {who} runs to compare"}
    difference = seed_difference(scores[name], scores[REFERENCE])
    interval = difference.interval(0.95)
    row = empty | {
        "difference_points": difference.mean,
        "difference_ci95_low_points": interval.low,
        "difference_ci95_high_points": interval.high,
        "difference_method": _method_text(difference),
    }
    return row | _equivalence(difference, margin)


def _equivalence(difference: Difference, margin: float | str) -> dict[str, Any]:
    """The verdict in words, the p-value of TOST, and the seeds a side this margin would need at the spread seen."""
    if isinstance(margin, str):
        return {"equivalence": margin}
    fewest = min(difference.n_a, difference.n_b)
    if math.isnan(difference.mean):
        return {"equivalence": "not computable: NaN among the results"}
    paired = difference.method == "paired"
    spread = difference.standard_error * math.sqrt(fewest / (1 if paired else 2))
    row: dict[str, Any] = {"seeds_needed": float(seeds_needed(spread, margin, paired=paired) or math.nan)}
    if row["seeds_needed"] < MIN_SEEDS:
        row["seeds_needed"] = float(MIN_SEEDS)
    if fewest < MIN_SEEDS:
        return row | {"equivalence": f"too few seeds: {fewest} of at least {MIN_SEEDS}"}
    test = tost(difference, margin)
    if test.shown is None:
        return row | {"equivalence": f"{_no_spread_text(difference)}, no spread to test by"}
    row["tost_p_value"] = test.p_value
    interval = difference.interval(0.95)
    if test.shown:
        return row | {"equivalence": "equivalent"}
    if interval.low > margin or interval.high < -margin:
        return row | {"equivalence": "different by more than the margin"}
    return row | {"equivalence": "equivalence not shown"}


def _no_spread_text(difference: Difference) -> str:
    if difference.method != "paired":
        return "every seed of a side gave the same accuracy"
    return "identical at every seed" if difference.mean == 0 else "the same difference at every seed"


def _method_text(difference: Difference) -> str:
    if difference.method == "paired":
        alone = ", ".join(str(seed) for seed in difference.unpaired)
        left_out = f"; seeds without a partner left out: {alone}" if alone else ""
        return f"paired by seed ({difference.n_a} pairs{left_out})"
    return f"Welch, unpaired ({difference.n_a} and {difference.n_b} seeds)"


def _margin_of(margins: list[float]) -> float | str:
    declared = sorted({margin for margin in margins if not math.isnan(margin)})
    if not declared:
        return "margin not declared"
    if len(declared) > 1:
        return "margins differ between sweeps: " + ", ".join(f"{value:g}" for value in declared)
    return float(declared[0])


def loss_differences(records: Records) -> pd.DataFrame:
    """|loss - reference loss| / |reference loss| at each of the first ten optimizer steps, same condition and seed.

    Columns: CONDITION, backend, seed, step, relative_difference. Both runs must have logged the step; where a seed
    was run twice the first run counts.
    """
    groups = records.compared
    compared = {run for _, group in groups for run in group["run"]}
    losses = records.metrics[records.metrics["metric"] == "train/loss"]
    losses = losses[losses["step"].between(1, AGREEMENT_STEPS) & losses["run"].isin(compared)]
    by_run = {run: frame.set_index("step")["value"] for run, frame in losses.groupby("run", observed=True)}
    rows = []
    for condition, group in groups:
        first = group[group["seed"].notna() & group["run"].isin(by_run.keys())].drop_duplicates(["backend", "seed"])
        references = {s: by_run[r] for r, s in first.loc[first["backend"] == REFERENCE, ["run", "seed"]].to_numpy()}
        for run, seed, backend in first[["run", "seed", "backend"]].to_numpy():
            if backend == REFERENCE or seed not in references:
                continue
            relative = ((by_run[run] - references[seed]).abs() / references[seed].abs()).loc[
                by_run[run].index.intersection(references[seed].index)
            ]
            for step, value in relative.items():
                rows.append({**condition, "backend": backend, "seed": seed, "step": step, "relative_difference": value})
    frame = pd.DataFrame(rows, columns=[*CONDITION, "backend", "seed", "step", "relative_difference"])
    return frame.astype({"relative_difference": "float64"})  # an empty frame would have no numbers in it


def agreement_table(records: Records) -> pd.DataFrame:
    """The largest relative difference of the first ten losses, one row a condition, backend and seed."""
    rows = []
    keys = [*CONDITION, "backend", "seed"]
    for key, frame in loss_differences(records).groupby(keys, sort=False):
        worst = frame["relative_difference"].max(skipna=False)
        limit = AGREEMENT_LIMIT.get(str(key[2]), math.nan)
        if math.isnan(worst):
            verdict = "not computable: NaN among the losses"
        elif math.isnan(limit):
            verdict = f"no limit set for {key[2]}"
        else:
            verdict = "agrees" if worst <= limit else "differs"
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"steps_compared": len(frame), "max_relative_difference": worst, "limit": limit, "agreement": verdict}
        )
    return pd.DataFrame(rows, columns=[*keys, "steps_compared", "max_relative_difference", "limit", "agreement"])
