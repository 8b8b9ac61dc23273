"""The record of modelled cycles: one version of the model, and nothing after a change that was not there before it."""

from pathlib import Path

import pytest

from tidepool.benchmarking.modelled import COLUMNS, main
from tidepool.records import Table

RECORD = Path(__file__).resolve().parents[2] / "results" / "modelled" / "modelled.csv"


def test_before_and_after_are_of_one_model_and_the_same_kernels() -> None:
    rows, damaged = Table(RECORD, COLUMNS).read()
    keys = {when: {(r["case"], r["pass"]) for r in rows if r["when"] == when} for when in ("before", "after")}
    assert damaged == 0
    assert len({row["model_version"] for row in rows}) == 1
    assert len(rows) == len({(row["case"], row["pass"], row["when"]) for row in rows})
    assert keys["after"] <= keys["before"]
    assert all(0 <= float(row["tensor_use"]) <= 1 and row["spills"] == "0" for row in rows if row["cycles"])


def test_an_unknown_case_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--when", "after", "--cases", "nothing"])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
