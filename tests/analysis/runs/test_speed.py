"""The speed table: what is a measurement, what is not, and the ratio."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.runs.run_writer import write_run, write_sweep
from tidepool.analysis.runs.records import read_records
from tidepool.analysis.runs.speed import speed_table
from tidepool.analysis.text import INTERPRETED


def rows_of(folder: Path) -> dict[str, pd.Series]:
    return {row["backend"]: row for _, row in speed_table(read_records([folder])).iterrows()}


def test_interpreted_runs_have_no_time_and_no_ratio(quickstart: Path) -> None:
    row = rows_of(quickstart)["triton"]
    assert row["measurement"] == INTERPRETED == "interpreted: not a speed measurement"
    for name in ("step_ms_p50_median", "samples_per_second_median", "speedup_vs_cudnn", "speedup_ci95_low"):
        assert math.isnan(row[name])
    assert row["n_runs"] == 3


def test_interpreted_runs_leave_the_reference_as_it_is(quickstart: Path) -> None:
    row = rows_of(quickstart)["cudnn"]
    assert row["step_ms_p50_median"] == pytest.approx(4.1)
    assert row["conv_library"] == "onednn"
    assert math.isnan(row["speedup_vs_cudnn"])


def test_ratio_is_reference_over_backend_with_an_interval(runs: Path) -> None:
    write_sweep(runs, seeds=5, gpu=True)
    row = rows_of(runs)["triton"]
    assert row["speedup_vs_cudnn"] == pytest.approx(4.2 / 3.2)
    assert row["speedup_ci95_low"] <= row["speedup_vs_cudnn"] <= row["speedup_ci95_high"]
    assert (row["step_ms_p50_p20"], row["step_ms_p50_p80"]) == pytest.approx((3.08, 3.32))
    assert row["peak_memory_MiB_median"] == 200


def test_one_process_a_side_has_a_ratio_and_no_interval(runs: Path) -> None:
    write_sweep(runs, seeds=1, gpu=True)
    row = rows_of(runs)["triton"]
    assert row["speedup_vs_cudnn"] == pytest.approx(4 / 3)
    assert math.isnan(row["speedup_ci95_low"])


def test_machines_are_not_mixed(runs: Path) -> None:
    write_run(runs / "t", backend="triton", gpu=True, step_ms=1.0)
    write_run(runs / "c", backend="cudnn", step_ms=9.0)
    assert math.isnan(rows_of(runs)["triton"]["speedup_vs_cudnn"])


def test_runs_that_did_not_finish_are_not_timed(runs: Path) -> None:
    write_run(runs / "good", backend="cudnn", step_ms=4.0)
    write_run(runs / "bad", backend="cudnn", seed=1, status="diverged", step_ms=400.0)
    row = rows_of(runs)["cudnn"]
    assert (row["n_runs"], row["step_ms_p50_median"]) == (1, 4.0)


def test_unrecorded_kernel_mode_is_left_out(runs: Path) -> None:
    write_run(runs / "a", backend="compile", summary={"kernel_mode": None})
    row = rows_of(runs)["compile"]
    assert row["measurement"].startswith("kernel mode not recorded")
    assert math.isnan(row["step_ms_p50_median"])


def test_no_finished_run_gives_an_empty_table_with_its_columns(runs: Path) -> None:
    write_run(runs / "a", status=None)
    table = speed_table(read_records([runs]))
    assert table.empty
    assert "step_ms_p50_median" in table.columns
