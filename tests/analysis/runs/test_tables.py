"""Tables on disk and the comparison for a terminal."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.runs.run_writer import write_run, write_sweep
from tidepool.analysis.report import comparison_text
from tidepool.analysis.runs.records import read_records
from tidepool.analysis.runs.tables import all_tables, runs_table, write_tables
from tidepool.records import RecordError


def test_csv_holds_numbers_as_numbers_with_units_in_the_names(quickstart: Path, tmp_path: Path) -> None:
    write_tables(all_tables(read_records([quickstart])), tmp_path / "tables")
    accuracy = pd.read_csv(tmp_path / "tables" / "accuracy.csv")
    speed = pd.read_csv(tmp_path / "tables" / "speed.csv")
    assert accuracy["test_accuracy_mean_percent"].dtype == float
    assert accuracy["difference_ci95_low_points"].dtype == float
    assert speed["step_ms_p50_median"].dtype == float
    interpreted = speed[speed["measurement"] == "interpreted: not a speed measurement"]
    assert interpreted["step_ms_p50_median"].isna().all()
    assert len(interpreted) == 1


def test_each_table_is_csv_and_markdown(quickstart: Path, tmp_path: Path) -> None:
    write_tables(all_tables(read_records([quickstart])), tmp_path / "tables")
    names = sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert names == sorted(f"{n}.{e}" for n in ("accuracy", "speed", "agreement", "runs") for e in ("csv", "md"))
    assert "| not measured |" in (tmp_path / "tables" / "speed.md").read_text()


def test_runs_table_lists_every_run_with_its_reason(quickstart: Path) -> None:
    write_run(quickstart / "d", seed=8, status="diverged", accuracy=math.nan, summary={"exit_reason": "loss is NaN"})
    write_run(quickstart / "f", seed=9, status="failed", summary={"exit_reason": None})
    write_run(quickstart / "u", seed=10, status=None)
    table = runs_table(read_records([quickstart])).set_index("run")
    assert len(table) == 9
    assert table.loc["runs/quickstart/d", "reason"] == "loss is NaN"
    assert table.loc["runs/quickstart/f", "reason"] == "no reason recorded"
    assert table.loc["runs/quickstart/u", "reason"] == "no summary: still running, or killed"
    assert table.loc["runs/quickstart/t000", "reason"] == ""


def test_comparison_text_says_what_on_what_result_and_what_not(quickstart: Path) -> None:
    text = comparison_text([quickstart])
    assert text.startswith("triton beside cudnn: lenet5 on digits\n")
    assert "6 runs (6 finished) of lenet5 on digits, fp32, seeds 0–2." in text
    assert "Test CPU 3000; no GPU." in text
    assert "paired by seed (3 pairs)" in text
    assert "too few seeds: 3 of at least 5" in text
    assert "interpreted: not a speed measurement" in text
    assert "not measured" in text
    assert "250" not in text, "the interpreter's step time must not be printed"


def test_comparison_text_of_compiled_runs_gives_the_ratio(runs: Path) -> None:
    text = comparison_text([write_sweep(runs, seeds=5, gpu=True)])
    assert "1.31 [" in text
    assert "interpreted" not in text
    assert "no GPU" not in text


def test_comparison_text_of_nothing_is_one_line(runs: Path) -> None:
    with pytest.raises(RecordError, match="no run records found") as error:
        comparison_text([runs])
    assert "\n" not in str(error.value)


def test_comparison_text_of_one_unfinished_run(runs: Path) -> None:
    write_run(runs / "a", status=None)
    text = comparison_text([runs])
    assert "1 run (1 unfinished)" in text
    assert "no finished run" in text


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "＝1"])
def test_no_text_in_a_csv_is_a_formula(runs: Path, name: str) -> None:
    write_run(runs / "a", config={"model": name}, summary={"exit_reason": name}, accuracy=0.5)
    write_tables(all_tables(read_records([runs])), runs / "tables")
    for path in sorted((runs / "tables").glob("*.csv")):
        for row in csv.reader(path.read_text().splitlines()[1:]):
            for cell in row:
                assert not cell.lstrip(" ").startswith(("=", "+", "@", "\t", "＝")), (path.name, cell)
                assert not cell.startswith("-") or math.isfinite(float(cell)), (path.name, cell)


def test_no_text_in_a_markdown_table_is_html_or_a_link(runs: Path) -> None:
    hostile = "<script>alert(1)</script> ![x](http://a.example) <img src=x> `code`"
    write_run(runs / "a", config={"model": hostile}, status="failed", summary={"exit_reason": hostile})
    write_tables(all_tables(read_records([runs])), runs / "tables")
    for path in (runs / "tables").glob("*.md"):
        assert "<" not in path.read_text(), path.name
        assert "](" not in path.read_text(), path.name
