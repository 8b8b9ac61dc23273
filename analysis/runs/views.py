"""The tables of a report on runs as their reader sees them: columns chosen and joined, units in the headings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from tidepool.analysis.conditions import CONDITION, REFERENCE, condition_title
from tidepool.analysis.runs.accuracy import NO_VERDICT_NEEDED
from tidepool.analysis.runs.speed import MEASURED
from tidepool.analysis.text import MISSING, NOT_MEASURED, UNTIMED, interval_text, number, significant


def shown(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table called ``name`` (accuracy, speed, agreement, runs) as its reader sees it: text, units in headings.

    The first column, ``Compared``, says which network, data, dtype and settings a row belongs to.
    """
    view = _VIEWS[name](table)
    titles = [condition_title(dict(zip(CONDITION, row, strict=True))) for row in table[CONDITION].to_numpy()]
    view.insert(0, "Compared", titles)
    return view


def not_finished_text(row: Any) -> str:
    """``1 diverged, 2 unfinished`` from the counts of an accuracy row; ``0`` where every run finished."""
    counts = [(int(row[f"n_{word}"]), word) for word in ("failed", "diverged", "unfinished")]
    return ", ".join(f"{count} {word}" for count, word in counts if count) or "0"


def equivalence_text(row: Any) -> str:
    """The verdict with its margin, p-value and, where it was not reached, the seeds it would take."""
    verdict = str(row["equivalence"])
    if verdict in NO_VERDICT_NEEDED or math.isnan(row["margin_points"]) or verdict.startswith("no finished"):
        return verdict
    notes = [f"margin ±{row['margin_points']:g} points"]
    if not math.isnan(row["tost_p_value"]):
        p_value = row["tost_p_value"]
        notes.append("TOST p < 0.001" if p_value < 0.001 else f"TOST p = {p_value:.3f}")
    if not math.isnan(row["seeds_needed"]) and verdict.startswith(("too few", "equivalence not shown")):
        notes.append(f"about {row['seeds_needed']:.0f} seeds a side needed at this spread")
    return f"{verdict} ({', '.join(notes)})"


def _finished_text(row: Any) -> str:
    finished, seeds = int(row["n_finished"]), int(row["n_seeds"])
    return str(finished) if finished == seeds else f"{finished} ({seeds} seeds)"


def _accuracy_view(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in table.to_dict("records"):
        # A NaN that was recorded is shown as one; a quantity that has too few seeds to exist is a dash.
        mean_undefined = "NaN" if row["n_seeds"] > 0 else MISSING
        std_undefined = "NaN" if row["n_seeds"] > 1 else MISSING

        def cell(value: float, undefined: str) -> str:
            return undefined if math.isnan(value) else number(value, 2)

        low, high = row["test_accuracy_min_percent"], row["test_accuracy_max_percent"]
        rows.append(
            {
                "Backend": row["backend"],
                "Finished n": _finished_text(row),
                "Not finished": not_finished_text(row),
                "Mean %": cell(row["test_accuracy_mean_percent"], mean_undefined),
                "Std points": cell(row["test_accuracy_std_points"], std_undefined),
                "Min–max %": mean_undefined if math.isnan(low) else f"{number(low, 2)}–{number(high, 2)}",
                f"Difference to {REFERENCE}, points [95 %]": interval_text(
                    row["difference_points"],
                    row["difference_ci95_low_points"],
                    row["difference_ci95_high_points"],
                    signed=True,
                ),
                "Method": row["difference_method"] or MISSING,
                "Equivalence": equivalence_text(row),
            }
        )
    return pd.DataFrame(rows, dtype="object")


def _speed_view(table: pd.DataFrame) -> pd.DataFrame:
    headings = ["Machine", "Backend", "Library", "Kernels", "Runs n", "Step ms", "p20–p80 ms", "Samples/s",
                "Peak memory MiB", f"Speed-up over {REFERENCE} [95 %]", "Measurement"]  # fmt: skip
    rows = []
    for row in table.to_dict("records"):
        timed = row["measurement"] == MEASURED
        spread = f"{significant(row['step_ms_p50_p20'])}–{significant(row['step_ms_p50_p80'])}"
        ratio = interval_text(row["speedup_vs_cudnn"], row["speedup_ci95_low"], row["speedup_ci95_high"])
        cells = [
            significant(row["step_ms_p50_median"]),
            MISSING if math.isnan(row["step_ms_p50_p20"]) else spread,
            significant(row["samples_per_second_median"]),
            significant(row["peak_memory_MiB_median"]),
            "reference" if row["backend"] == REFERENCE else ratio,
        ]
        if not timed:
            cells = [NOT_MEASURED if row["measurement"] in UNTIMED.values() else MISSING] + [MISSING] * 4
        names = [row["device"], row["backend"], row["conv_library"], row["kernel_mode"], str(row["n_runs"])]
        rows.append([*names, *cells, row["measurement"]])
    return pd.DataFrame(rows, columns=headings, dtype="object")


def _agreement_view(table: pd.DataFrame) -> pd.DataFrame:
    headings = ["Backend", "Seed", "Steps compared", "Largest relative difference", "Limit", "Agreement"]
    rows = [
        [row["backend"], str(row["seed"]), str(row["steps_compared"]), significant(row["max_relative_difference"], 2),
         MISSING if math.isnan(row["limit"]) else f"{row['limit']:g}", row["agreement"]]
        for row in table.to_dict("records")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=headings, dtype="object")


def _runs_view(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in table.to_dict("records"):
        undefined = "NaN" if row["status"] == "finished" else MISSING
        accuracy = row["test_accuracy_percent"]
        damaged = f"{row['damaged_metric_lines']} metric lines damaged" if row["damaged_metric_lines"] else ""
        rows.append(
            {
                "Run": row["run"],
                "Backend": str(row["backend"]),
                "Seed": MISSING if row["seed"] is None else str(row["seed"]),
                "Status": row["status"],
                "Test accuracy %": undefined if math.isnan(accuracy) else number(accuracy, 2),
                "Training s": significant(row["train_seconds"])
                + (f" ({row['kernel_mode']})" if row["kernel_mode"] in UNTIMED else ""),
                "Steps": number(row["steps"], 0),
                "Reason": "; ".join(part for part in (row["reason"], damaged) if part),
            }
        )
    return pd.DataFrame(rows, dtype="object")


_VIEWS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "accuracy": _accuracy_view,
    "speed": _speed_view,
    "agreement": _agreement_view,
    "runs": _runs_view,
}
