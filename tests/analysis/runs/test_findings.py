"""The sentences of the first screen."""

from __future__ import annotations

import math
from pathlib import Path

from tests.analysis.runs.run_writer import write_run, write_sweep
from tidepool.analysis.runs import findings
from tidepool.analysis.runs.records import Records, read_records
from tidepool.analysis.runs.tables import all_tables


def left_out(records: Records) -> str:
    return "\n".join(findings.not_measured(records, all_tables(records)))


def result(records: Records) -> list[str]:
    return findings.results(all_tables(records)["accuracy"])


def test_result_states_n_spread_difference_and_interval(runs: Path) -> None:
    (line,) = result(read_records([write_sweep(runs, seeds=6)]))
    assert line.startswith("Test accuracy: triton 97.82 % (n = 6, sd 0.41); cudnn 97.69 % (n = 6, sd 0.45). Difference")
    assert "95 % interval −0.02 to +0.30, paired by seed (6 pairs)" in line
    assert line.endswith("Equivalent (margin ±0.5 points, TOST p = 0.001).")


def test_result_of_identical_accuracies_claims_no_interval(runs: Path) -> None:
    for seed in range(5):
        for backend in ("triton", "cudnn"):
            write_run(runs / f"{backend}{seed}", backend=backend, seed=seed, accuracy=0.95 + seed / 100)
    (line,) = result(read_records([runs]))
    assert "Difference 0.00 points, no spread and so no interval" in line


def test_result_of_one_seed_claims_no_interval(runs: Path) -> None:
    (line,) = result(read_records([write_sweep(runs, seeds=1)]))
    assert "too few values for an interval" in line
    assert "(n = 1)" in line


def test_result_without_the_reference(runs: Path) -> None:
    write_run(runs / "a", backend="triton", accuracy=0.9)
    assert result(read_records([runs])) == ["Test accuracy: triton 90.00 % (n = 1). No cudnn runs to compare."]


def test_result_keeps_nan(runs: Path) -> None:
    write_run(runs / "a", backend="triton", accuracy=math.nan)
    write_run(runs / "b", backend="cudnn", accuracy=0.9)
    (line,) = result(read_records([runs]))
    assert "triton NaN (n = 1)" in line


def test_several_conditions_are_named_and_cut_with_a_count(runs: Path) -> None:
    for index in range(8):
        write_run(runs / f"a{index}", config={"lr": index / 100})
    lines = result(read_records([runs]))
    assert len(lines) == 7
    assert lines[0].startswith("lenet5 on digits, fp32; lr=0.0: triton")
    assert lines[-1] == "2 more in the accuracy table."


def test_not_measured_names_interpreted_backends_seeds_and_missing_gpu(quickstart: Path) -> None:
    text = left_out(read_records([quickstart]))
    assert "Speed of triton: interpreted: not a speed measurement." in text
    assert "Nothing here ran on a GPU." in text
    assert "too few seeds for a verdict in the one comparison" in text


def test_not_measured_counts_runs_in_no_mean(runs: Path) -> None:
    write_sweep(runs, seeds=5, gpu=True)
    write_run(runs / "bad", seed=9, status="diverged", gpu=True)
    text = left_out(read_records([runs]))
    assert "1 diverged of 11 runs: counted in the tables, in no mean." in text
    assert "interpreted" not in text


def test_questions_are_the_sweeps_descriptions(quickstart: Path) -> None:
    (line,) = findings.questions(read_records([quickstart]))
    assert line.startswith("Does lenet5 reach the same accuracy")


def test_uncommitted_changes_are_stated(runs: Path) -> None:
    write_run(runs / "a", environment={"dirty": True})
    assert "Commit 0123456789ab, with uncommitted changes." in findings.machines(read_records([runs]))
