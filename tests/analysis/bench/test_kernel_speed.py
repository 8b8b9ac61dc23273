"""Ratios, intervals and geometric means from bench.py's timings, against numbers worked out by hand."""

import math
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.bench.bench_writer import timing, write_cases, write_csv, write_timings
from tidepool.analysis.bench.kernel_speed import ALL, BEST, mean_table, ratio_table, select
from tidepool.analysis.bench.records import BenchRecords, read_bench_records
from tidepool.records import RecordError


@pytest.fixture
def records(tmp_path: Path) -> BenchRecords:
    write_cases(tmp_path)
    write_timings(tmp_path)
    return read_bench_records([tmp_path])


def _row(table: pd.DataFrame, **wanted: str) -> pd.Series:
    found = table[(table[list(wanted)] == list(wanted.values())).all(axis=1)]
    assert len(found) == 1, f"{len(found)} rows for {wanted}"
    return found.iloc[0]


def test_a_ratio_is_the_opponents_time_over_ours(records: BenchRecords) -> None:
    ratios = ratio_table(records)
    wanted = {"pass": "train", "backend": "auto", "opponent": "cudnn_channels_last"}
    row = _row(ratios, case="first_b64", **wanted)
    assert row["ratio"] == pytest.approx(2.0)
    assert (row["processes"], row["status"]) == (3, "measured")
    assert row["time_ms"] == pytest.approx(1.0)
    # Both times of a ratio are of one process: what a process slows down alike leaves no spread.
    assert (row["ratio_ci95_low"], row["ratio_ci95_high"]) == pytest.approx((2.0, 2.0))
    assert row["memory_ratio"] == pytest.approx((1e9 + 1e9) / (1e9 + 3e9))
    assert row["roofline_share"] == pytest.approx(0.6)
    assert _row(ratios, case="third_b8", **wanted)["ratio"] == pytest.approx(2.0 / 1.5)
    best = _row(ratios, case="third_b8", **{**wanted, "opponent": BEST})
    assert best["ratio"] == pytest.approx(1.25 / 1.5)


def test_geometric_means_hold_every_case_and_name_the_worst(records: BenchRecords) -> None:
    means = mean_table(ratio_table(records), records)
    row = _row(means, family=ALL, **{"pass": "train", "backend": "auto", "opponent": BEST})
    assert row["ratio_geometric_mean"] == pytest.approx((1.25 * 1.25 * 1.25 / 1.5) ** (1 / 3))
    assert (row["cases"], row["cases_measured"], row["worst_case"]) == (3, 3, "third_b8")
    assert row["ratio_of_worst_case"] == pytest.approx(1.25 / 1.5)
    assert row["ratio_ci95_low"] <= row["ratio_geometric_mean"] <= row["ratio_ci95_high"]
    family = _row(means, family="one", **{"pass": "train", "backend": "auto", "opponent": BEST})
    assert family["ratio_geometric_mean"] == pytest.approx(1.25)
    # The second case does not support the fused cuDNN call: it is no part of that list.
    fused = _row(means, family=ALL, **{"pass": "forward", "backend": "auto", "opponent": "cudnn_conv_relu"})
    assert (fused["cases"], fused["cases_measured"]) == (2, 2)


def test_a_case_that_was_not_measured_keeps_the_mean_from_being_formed(tmp_path: Path) -> None:
    write_cases(tmp_path)
    rows = [timing("first_b64", "train", backend, ms) for backend, ms in (("auto", 1.0), ("cudnn", 2.0))]
    rows += [timing("second_b64", "train", "cudnn", 2.0)]
    rows += [timing("second_b64", "train", "auto", None, status="wrong", reason="y: largest error 1")]
    write_csv(tmp_path / "timings.csv", rows)
    records = read_bench_records([tmp_path])
    ratios = ratio_table(records)
    wanted = {"pass": "train", "backend": "auto", "opponent": "cudnn"}
    assert _row(ratios, case="second_b64", **wanted)["status"] == "wrong: auto"
    assert _row(ratios, case="third_b8", **wanted)["status"] == "not measured"
    row = _row(mean_table(ratios, records), family=ALL, **wanted)
    assert (row["cases"], row["cases_measured"]) == (3, 1)
    assert math.isnan(row["ratio_geometric_mean"])


def test_nothing_timed_lists_every_case_as_not_measured(tmp_path: Path) -> None:
    write_cases(tmp_path)
    ratios = ratio_table(read_bench_records([tmp_path]))
    assert set(ratios["status"]) == {"not measured"}
    assert set(ratios["case"]) == {"first_b64", "second_b64", "third_b8"}


def test_interpreted_times_and_earlier_code_enter_no_ratio(tmp_path: Path) -> None:
    write_cases(tmp_path)
    old = {"source": "0ld", "measured_at": "2025-01-01T00:00:00+00:00"}
    rows = [timing("first_b64", "train", backend, ms, **old) for backend, ms in (("auto", 1.0), ("cudnn", 9.0))]
    rows += [timing("first_b64", "train", backend, ms) for backend, ms in (("auto", 1.0), ("cudnn", 2.0))]
    rows += [timing("first_b64", "train", "triton", 0.001, kernel_mode="interpreted")]
    write_csv(tmp_path / "timings.csv", rows)
    records = read_bench_records([tmp_path])
    selected = select(records)
    assert (len(selected.rows), selected.older, selected.interpreted) == (2, 2, 1)
    ratios = ratio_table(records)
    row = _row(ratios, case="first_b64", **{"pass": "train", "backend": "auto", "opponent": "cudnn"})
    assert (row["ratio"], row["processes"]) == (2.0, 1)
    assert math.isnan(row["ratio_ci95_low"])
    assert set(ratios.loc[ratios["backend"] == "triton", "status"]) == {"not measured"}


def test_a_plan_that_auto_has_given_up_enters_no_ratio(tmp_path: Path) -> None:
    write_cases(tmp_path)
    old = {"plan": "assumed: fused", "measured_at": "2025-01-01T00:00:00+00:00"}
    rows = [timing("first_b64", "train", "auto", 9.0, **old), timing("first_b64", "train", "cudnn", 2.0)]
    new = {"plan": "measured: cudnn", "process": "later"}
    rows += [timing("first_b64", "train", "auto", 1.0, **new)]
    rows += [timing("first_b64", "train", "cudnn", 2.0, process="later")]
    write_csv(tmp_path / "timings.csv", rows)
    records = read_bench_records([tmp_path])
    row = _row(ratio_table(records), case="first_b64", **{"pass": "train", "backend": "auto", "opponent": "cudnn"})
    assert (row["ratio"], row["processes"]) == (2.0, 1)
    assert select(records).older == 1


def test_damaged_rows_are_counted_and_foreign_files_refused_or_named(tmp_path: Path) -> None:
    write_timings(tmp_path / "a", processes=1)
    path = tmp_path / "a" / "timings.csv"
    whole = len(read_bench_records([tmp_path]).timings)
    path.write_bytes(path.read_bytes()[:-20])
    records = read_bench_records([tmp_path])
    assert len(records.timings) == whole - 1
    assert records.warnings == (f"{path}: 1 unreadable rows skipped",)
    (tmp_path / "timings.csv").write_text("lap,seconds\n1,59\n")
    assert any("not a record of bench.py" in line for line in read_bench_records([tmp_path]).warnings)
    (tmp_path / "timings.csv").write_text("schema_version,case\n1,first\n")
    with pytest.raises(RecordError, match="lacks the column suite"):
        read_bench_records([tmp_path])
