"""Numbers and tables as their readers see them."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.runs.run_writer import write_run, write_sweep
from tidepool.analysis.runs.accuracy import accuracy_table
from tidepool.analysis.runs.records import read_records
from tidepool.analysis.runs.speed import speed_table
from tidepool.analysis.runs.views import shown
from tidepool.analysis.text import interval_text, joined, markdown, number, plain, significant


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(1.235, False, "1.24"), (-0.5, True, "−0.50"), (0.5, True, "+0.50"), (-0.001, True, "0.00"), (0.0, True, "0.00"),
     (math.nan, False, "–"), (None, False, "–"), (math.inf, False, "∞"), (-math.inf, False, "−∞")],
)  # fmt: skip
def test_number(value: float | None, signed: bool, text: str) -> None:
    assert number(value, 2, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (4.0, "4.00"), (15238.2, "15,238"), (1e-7, "1.00e-07"), (0.0, "0"),
                        (math.nan, "–"), (2.5e6, "2.50e+06")],
)  # fmt: skip
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


def test_interval_text() -> None:
    assert interval_text(0.1, -0.05, 0.25, signed=True) == "+0.10 [−0.05, +0.25]"
    assert interval_text(0.1, math.nan, math.nan) == "0.10 [–]"
    assert interval_text(0.0, 0.0, 0.0, signed=True) == "0.00 [no spread]"
    assert interval_text(math.nan, math.nan, math.nan) == "–"


def test_interpreted_step_time_says_not_measured(quickstart: Path) -> None:
    view = shown("speed", speed_table(read_records([quickstart])))
    row = view[view["Backend"] == "triton"].iloc[0]
    assert row["Step ms"] == "not measured"
    assert row["Measurement"] == "interpreted: not a speed measurement"
    assert row["Speed-up over cudnn [95 %]"] == "–"


def test_recorded_nan_is_shown_as_nan_and_too_few_values_as_a_dash(runs: Path) -> None:
    write_run(runs / "a", backend="triton", accuracy=math.nan)
    write_run(runs / "b", backend="cudnn", accuracy=0.9)
    view = shown("accuracy", accuracy_table(read_records([runs]))).set_index("Backend")
    assert view.loc["triton", "Mean %"] == "NaN"
    assert view.loc["cudnn", ["Mean %", "Std points"]].tolist() == ["90.00", "–"]


def test_verdict_is_shown_with_margin_and_seeds_needed(runs: Path) -> None:
    view = shown("accuracy", accuracy_table(read_records([write_sweep(runs, seeds=3)])))
    verdict = view.loc[view["Backend"] == "triton", "Equivalence"].iloc[0]
    assert verdict.startswith("too few seeds: 3 of at least 5 (margin ±0.5 points, about ")


def test_markdown_escapes_and_aligns(runs: Path) -> None:
    write_run(runs / "a", config={"model": "a|b"})
    lines = markdown(shown("accuracy", accuracy_table(read_records([runs])))).splitlines()
    assert lines[1].startswith("| --- | --- | ---: |")
    assert "a\\|b on digits" in lines[2]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_plain_lines_up() -> None:
    view = pd.DataFrame({"Backend": ["a", "longer"], "Mean %": ["1.00", "10.00"]}, dtype="object")
    assert plain(view, indent="") == "Backend  Mean %\na          1.00\nlonger    10.00"


def test_joined_puts_columns_below_and_leaves_out_dashes() -> None:
    view = pd.DataFrame({"A": ["1", "2"], "B": ["x", "–"]}, dtype="object")
    assert joined(view, "A", "B", heading="AB").to_dict("list") == {"AB": ["1\nx", "2"]}
