"""Measurements: analysis reads what is written; state, budget and jobs."""

from pathlib import Path

import pytest

from tests.benchmarking.fake_device import FakeClock
from tidepool.analysis.bench.records import COLUMNS
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.comparison import Comparison
from tidepool.benchmarking.host_cost import HOST_COST_COLUMNS
from tidepool.benchmarking.jobs import Job, job_from_text
from tidepool.benchmarking.predict import PREDICTION_COLUMNS
from tidepool.benchmarking.records import CASE_COLUMNS, CHECK_COLUMNS, TIMING_COLUMNS
from tidepool.benchmarking.state import State
from tidepool.records import RecordError

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


def test_a_state_file_that_is_not_ours_is_kept(tmp_path: Path) -> None:
    State(tmp_path).put("stage", {"at": 1})
    assert State(tmp_path).get("stage") == {"at": 1}
    for content in ("{", "[]", '{"schema_version": 7}'):
        (tmp_path / "state.json").write_text(content)
        with pytest.raises(RecordError, match=r"state\.json"):
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
