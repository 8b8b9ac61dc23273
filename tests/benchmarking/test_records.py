"""Files of measurements: appended, never rewritten; and analysis reads what is written."""

from pathlib import Path

import pytest

from analysis.bench_records import COLUMNS
from benchmarking.budget import Budget
from benchmarking.comparison import Comparison
from benchmarking.host_cost import HOST_COST_COLUMNS
from benchmarking.jobs import Job, job_from_text
from benchmarking.predict import PREDICTION_COLUMNS
from benchmarking.records import CASE_COLUMNS, CHECK_COLUMNS, TIMING_COLUMNS, RecordFileError, Table
from benchmarking.state import State
from tests.benchmarking.fake_device import FakeClock

WRITTEN = {
    "timings.csv": TIMING_COLUMNS,
    "cases.csv": CASE_COLUMNS,
    "correctness.csv": CHECK_COLUMNS,
    "predictions.csv": PREDICTION_COLUMNS,
    "host_cost.csv": HOST_COST_COLUMNS,
}


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_analysis_finds_every_column_it_needs(name: str) -> None:
    assert set(COLUMNS[name]) <= set(WRITTEN[name])
    assert WRITTEN[name][0] == "schema_version"


def test_rows_are_appended_on_one_line_each(tmp_path: Path) -> None:
    table = Table(tmp_path / "a" / "t.csv", ("schema_version", "reason", "ms", "ok"))
    table.append([{"schema_version": 1, "reason": 'two\nlines, "quoted"', "ms": 0.123456789, "ok": True}])
    first = table.path.read_text()
    table.append([{"schema_version": 1, "reason": None}])
    assert table.path.read_text() == first + "1,,,\n"
    rows, damaged = table.read()
    assert rows[0] == {"schema_version": "1", "reason": 'two lines, "quoted"', "ms": "0.1234568", "ok": "True"}
    assert damaged == 0
    with pytest.raises(ValueError, match="lap"):
        table.append([{"lap": 1}])


def test_another_header_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("schema_version,other\n1,2\n")
    with pytest.raises(RecordFileError, match="another header"):
        Table(path, ("schema_version", "ms")).append([{"schema_version": 1, "ms": 2.0}])
    assert path.read_text() == "schema_version,other\n1,2\n"


def test_a_state_file_that_is_not_ours_is_kept(tmp_path: Path) -> None:
    State(tmp_path).put("stage", {"at": 1})
    assert State(tmp_path).get("stage") == {"at": 1}
    for content in ("{", "[]", '{"schema_version": 7}'):
        (tmp_path / "state.json").write_text(content)
        with pytest.raises(RecordFileError, match=r"state\.json"):
            State(tmp_path)
        assert (tmp_path / "state.json").read_text() == content


def test_a_budget_does_not_begin_what_would_not_end() -> None:
    clock = FakeClock()
    budget = Budget(100.0, clock)
    assert budget.allows("case")
    clock.seconds = 45.0
    budget.took("case", 45.0)
    assert budget.allows("case")
    clock.seconds = 60.0
    assert not budget.allows("case")
    assert budget.allows("check")
    assert (budget.spent(), budget.left()) == (60.0, 40.0)
    assert Budget(None, clock).allows("case")


def test_a_job_that_nobody_wrote_is_refused() -> None:
    text = Job("time", Comparison(Path("out"), "smoke", (), (), "bf16", ("train",)), 5.0).text()
    assert job_from_text(text).comparison.passes == ("train",)
    for bad in ("{}", text.replace('"time"', '"race"'), text.replace('"seed"', '"seeds"')):
        with pytest.raises(ValueError, match="not a job"):
            job_from_text(bad)
