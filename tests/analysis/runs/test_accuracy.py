"""The accuracy table's counts, difference and verdict, and the agreement of first losses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from tests.analysis.runs.run_writer import write_json, write_run
from tidepool.analysis.runs.accuracy import accuracy_table, agreement_table, loss_differences
from tidepool.analysis.runs.records import read_records

TRITON = [97.2, 98.1, 98.3, 97.8, 98.0, 97.5]
CUDNN = [97.0, 98.2, 98.1, 97.5, 97.9, 97.6]


def sweep(folder: Path, triton: list[float], cudnn: list[float], *, margin: float | None = 0.5, shift: int = 0) -> Path:
    """Runs of both backends with these accuracies in percent; cudnn's seeds start at ``shift``."""
    for seed, value in enumerate(triton):
        write_run(folder / f"t{seed}", backend="triton", seed=seed, accuracy=value / 100, steps=3)
    for seed, value in enumerate(cudnn):
        write_run(folder / f"c{seed}", backend="cudnn", seed=seed + shift, accuracy=value / 100, steps=3)
    write_json(folder / "sweep.json", {"name": "s", "margin_points": margin})
    return folder


def row_of(folder: Path, backend: str = "triton") -> pd.Series:
    table = accuracy_table(read_records([folder]))
    return table[table["backend"] == backend].iloc[0]


def test_mean_spread_and_paired_interval(runs: Path) -> None:
    row = row_of(sweep(runs, TRITON, CUDNN))
    low, high = stats.ttest_rel(TRITON, CUDNN).confidence_interval(0.95)
    assert row["test_accuracy_mean_percent"] == pytest.approx(sum(TRITON) / 6)
    assert (row["test_accuracy_min_percent"], row["test_accuracy_max_percent"]) == pytest.approx((97.2, 98.3))
    assert row["difference_ci95_low_points"] == pytest.approx(low)
    assert row["difference_ci95_high_points"] == pytest.approx(high)
    assert row["difference_method"] == "paired by seed (6 pairs)"
    assert row["equivalence"] == "equivalent"


def test_seeds_that_do_not_match_are_compared_unpaired(runs: Path) -> None:
    row = row_of(sweep(runs, TRITON, CUDNN, shift=100))
    low, _ = stats.ttest_ind(TRITON, CUDNN, equal_var=False).confidence_interval(0.95)
    assert row["difference_method"] == "Welch, unpaired (6 and 6 seeds)"
    assert row["difference_ci95_low_points"] == pytest.approx(low)


def test_seeds_without_partner_are_named(runs: Path) -> None:
    row = row_of(sweep(runs, TRITON, CUDNN, shift=1))
    assert row["difference_method"] == "paired by seed (5 pairs; seeds without a partner left out: 0, 6)"


@pytest.mark.parametrize(
    ("triton", "cudnn", "margin", "verdict"),
    [
        (TRITON, CUDNN, None, "margin not declared"),
        (TRITON[:3], CUDNN[:3], 0.5, "too few seeds: 3 of at least 5"),
        (TRITON[:1], CUDNN[:1], 0.5, "too few seeds: 1 of at least 5"),
        (TRITON, CUDNN, 0.05, "equivalence not shown"),
        ([x - 3 for x in TRITON], CUDNN, 0.5, "different by more than the margin"),
        (CUDNN, CUDNN, 0.5, "identical at every seed, no spread to test by"),
        ([*TRITON[:5], math.nan], CUDNN, 0.5, "not computable: NaN among the results"),
        (TRITON, [], 0.5, "no finished cudnn runs to compare"),
    ],
)
def test_verdict(runs: Path, triton: list[float], cudnn: list[float], margin: float | None, verdict: str) -> None:
    assert row_of(sweep(runs, triton, cudnn, margin=margin))["equivalence"] == verdict


def test_no_spread_unpaired_is_said(runs: Path) -> None:
    row = row_of(sweep(runs, [97.0] * 5, [97.0] * 5, shift=50))
    assert row["equivalence"] == "every seed of a side gave the same accuracy, no spread to test by"


def test_one_seed_has_a_mean_and_no_interval(runs: Path) -> None:
    row = row_of(sweep(runs, [97.0], [96.0]))
    assert row["test_accuracy_mean_percent"] == pytest.approx(97.0)
    assert row["difference_points"] == pytest.approx(1.0)
    for name in ("test_accuracy_std_points", "difference_ci95_low_points", "test_accuracy_ci95_low_percent"):
        assert math.isnan(row[name])


def test_failed_diverged_and_unfinished_runs_are_counted_and_in_no_mean(runs: Path) -> None:
    sweep(runs, TRITON, CUDNN)
    for index, status in enumerate(["diverged", "failed", "interrupted", None, None]):
        write_run(runs / f"x{index}", backend="triton", seed=50 + index, status=status, accuracy=0.1, steps=3)
    row = row_of(runs)
    counts = [row[f"n_{name}"] for name in ("finished", "seeds", "diverged", "failed", "unfinished")]
    assert counts == [6, 6, 1, 1, 3]
    assert row["test_accuracy_mean_percent"] == pytest.approx(sum(TRITON) / 6)


def test_nan_of_a_finished_run_stays_nan(runs: Path) -> None:
    row = row_of(sweep(runs, [97.0, math.nan, 98.0], CUDNN[:3]))
    assert row["n_finished"] == 3
    assert math.isnan(row["test_accuracy_mean_percent"])
    assert math.isnan(row["difference_points"])


def test_a_seed_run_twice_counts_once(runs: Path) -> None:
    sweep(runs, [97.0, 98.0], [97.0, 98.0])
    write_run(runs / "again", backend="triton", seed=1, accuracy=0.99, steps=3)
    row = row_of(runs)
    assert (row["n_finished"], row["n_seeds"]) == (3, 2)
    assert row["test_accuracy_mean_percent"] == pytest.approx((97.0 + 98.5) / 2)


def test_margins_that_differ_between_sweeps_give_no_verdict(runs: Path) -> None:
    sweep(runs / "a", TRITON, CUDNN, margin=0.3)
    sweep(runs / "b", TRITON, CUDNN, margin=0.5)
    assert row_of(runs)["equivalence"] == "margins differ between sweeps: 0.3, 0.5"


def test_seeds_needed_is_stated_where_the_margin_was_not_reached(runs: Path) -> None:
    row = row_of(sweep(runs, TRITON, CUDNN, margin=0.05))
    assert row["seeds_needed"] > 6


def test_first_losses_within_rounding_agree(runs: Path) -> None:
    write_run(runs / "t", backend="triton", seed=3)
    write_run(runs / "c", backend="cudnn", seed=3)
    (row,) = agreement_table(read_records([runs])).to_dict("records")
    assert (row["seed"], row["steps_compared"], row["limit"], row["agreement"]) == (3, 10, 1e-4, "agrees")
    assert 0 < row["max_relative_difference"] < 1e-6


def test_largest_relative_difference_is_that_of_the_worst_step(runs: Path) -> None:
    for backend, loss in (("triton", [1.0, 2.02, 3.0]), ("cudnn", [1.0, 2.0, 3.03])):
        folder = write_run(runs / backend, backend=backend)
        rows = [{"schema_version": 1, "step": step + 1, "train/loss": value} for step, value in enumerate(loss)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = read_records([runs])
    assert loss_differences(records)["relative_difference"].tolist() == pytest.approx([0, 0.01, 0.03 / 3.03])
    (row,) = agreement_table(records).to_dict("records")
    assert row["max_relative_difference"] == pytest.approx(0.01)
    assert (row["steps_compared"], row["agreement"]) == (3, "differs")


def test_nan_loss_is_not_agreement(runs: Path) -> None:
    write_run(runs / "t", backend="triton", rounding=math.nan)
    write_run(runs / "c", backend="cudnn")
    (row,) = agreement_table(read_records([runs])).to_dict("records")
    assert row["agreement"] == "not computable: NaN among the losses"


def test_no_limit_is_set_for_bf16(runs: Path) -> None:
    for backend in ("triton", "cudnn"):
        write_run(runs / backend, backend=backend, config={"dtype": "bf16"})
    (row,) = agreement_table(read_records([runs])).to_dict("records")
    assert row["agreement"] == "no limit set for bf16"


def test_without_a_shared_seed_nothing_is_compared(runs: Path) -> None:
    write_run(runs / "t", backend="triton", seed=0)
    write_run(runs / "c", backend="cudnn", seed=1)
    assert agreement_table(read_records([runs])).empty
