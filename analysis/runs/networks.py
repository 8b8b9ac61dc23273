"""What each network has and reaches: parameters, test accuracy, and accuracy on each part of labels made of several."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from tidepool.analysis.conditions import backends
from tidepool.analysis.runs.records import Records
from tidepool.analysis.statistics import describe

# train.py writes test/<part>_accuracy beside test/accuracy, for moving_digits of digit and of direction.
_PART = re.compile(r"test/(?P<part>\w+)_accuracy")


def networks_table(records: Records) -> pd.DataFrame:
    """One row a condition and backend, over its finished runs: parameters, n, mean and spread of the test accuracy.

    A column pair ``<part>_accuracy_mean_percent``, ``<part>_accuracy_std_points`` for each part of the labels that any
    run reports, at the step of its last evaluation; NaN for runs whose labels have no such part. Runs of one row differ
    in the seed only, so that their parameters are one number; NaN where the records disagree or hold none.
    """
    parts = _last_parts(records)
    rows = []
    for condition, group in records.groups:
        for name, runs in backends(group):
            finished = runs[runs["status"] == "finished"]
            accuracy = describe(list(100 * finished["test_accuracy"]))
            parameters = finished["parameters"].unique()
            row: dict[str, Any] = {
                **condition,
                "backend": name,
                "parameters": parameters[0] if len(parameters) == 1 else float("nan"),
                "n_finished": accuracy.n,
                "n_not_finished": len(runs) - len(finished),
                "test_accuracy_mean_percent": accuracy.mean,
                "test_accuracy_std_points": accuracy.std,
            }
            for part in parts.columns:
                sample = describe(list(100 * parts[part].reindex(finished["run"])))
                row[f"{part}_accuracy_mean_percent"] = sample.mean
                row[f"{part}_accuracy_std_points"] = sample.std
            rows.append(row)
    return pd.DataFrame(rows)


def _last_parts(records: Records) -> pd.DataFrame:
    """Run by part of the labels: the fraction that was right at the run's last evaluation."""
    named = records.metrics.assign(part=records.metrics["metric"].str.extract(_PART, expand=False))
    last = (
        named.dropna(subset=["part"]).sort_values("step", kind="stable").drop_duplicates(["run", "part"], keep="last")
    )
    return last.pivot(index="run", columns="part", values="value")
