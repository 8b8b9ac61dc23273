"""Which rows are written, and what they say."""

import math
from typing import Any

import pytest
import torch

from tidepool.records import read_rows
from tidepool.training.checkpoint import Progress
from tidepool.training.config import Config
from tidepool.training.evaluation import Evaluation
from tidepool.training.job import Job
from tidepool.training.measurement import StepTimes
from tidepool.training.observer import Observer, Observers
from tidepool.training.recorder import Recorder, rows_until
from tidepool.training.steps import Diverged, StepLog, Taken


class Memory(Observer):
    def __init__(self) -> None:
        self.rows: list[dict] = []

    def row(self, row) -> None:
        self.rows.append(dict(row))


class Closing(StepLog):
    """A log whose rows go to metrics.jsonl."""

    def __init__(self, job: Job, progress: Progress, observers: Observers) -> None:
        super().__init__(job, progress, StepTimes(torch.device("cpu")), observers)
        self.close = observers.closing


def make_recorder(path, progress: Progress, observer=None, total_steps: int = 1000, **fields) -> Closing:
    config: Any = Config(progress=False, **fields)
    job = Job(config, *[None] * 3, path, steps_per_epoch=50, total_steps=total_steps)  # type: ignore[arg-type]
    return Closing(job, progress, Observers([Recorder(path / "metrics.jsonl"), *([observer] if observer else [])]))


def take_steps(recorder: StepLog, progress: Progress, losses: list[float]) -> None:
    for loss in losses:
        progress.step += 1
        value, finite = torch.tensor(loss), torch.tensor(math.isfinite(loss))
        recorder.step(Taken(value, torch.tensor(6), torch.tensor(1.0), finite, torch.arange(8)), 0.1)


@pytest.fixture
def progress() -> Progress:
    return Progress(run_id="a", started_at="2000-01-01T00:00:00+00:00")


def test_every_step_of_the_first_hundred_then_every_nth_and_the_last(tmp_path, progress):
    recorder = make_recorder(tmp_path, progress, log_every=7, total_steps=120)
    take_steps(recorder, progress, [1.0] * 120)
    recorder.close()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [*range(1, 101), 105, 112, 119, 120]
    assert set(rows[0]) == {"schema_version", "step", "epoch", "time_s", "train/loss", "train/accuracy", "train/lr"}
    assert (rows[24]["epoch"], rows[24]["train/accuracy"], rows[24]["train/lr"]) == (0.5, 0.75, 0.1)


def test_a_row_is_the_mean_over_the_steps_since_the_row_before(tmp_path, progress):
    progress.step = 100
    recorder = make_recorder(tmp_path, progress, log_every=4)
    take_steps(recorder, progress, [1.0, 2.0, 3.0, 6.0, 5.0])
    recorder.close()
    assert [(row["step"], row["train/loss"]) for row in read_rows(tmp_path / "metrics.jsonl")] == [(104, 3.0)]


def test_steps_not_yet_in_a_row_go_with_the_checkpoint(tmp_path, progress):
    progress.step = 100
    first = make_recorder(tmp_path, progress, log_every=4)
    take_steps(first, progress, [1.0, 2.0])
    first.collect()
    record = first.as_record()
    first.close()
    second = make_recorder(tmp_path, progress, log_every=4)
    second.restore(record)
    take_steps(second, progress, [3.0, 6.0])
    second.close()
    assert [row["train/loss"] for row in read_rows(tmp_path / "metrics.jsonl")] == [3.0]


@pytest.mark.parametrize(("loss", "text"), [(float("nan"), "NaN"), (float("inf"), "Infinity")])
def test_a_loss_that_is_not_finite_ends_the_run_at_the_step_it_came(tmp_path, progress, loss, text):
    progress.step = 100
    recorder = make_recorder(tmp_path, progress, log_every=10)
    with pytest.raises(Diverged, match=f"the loss was {loss} at step 103") as diverged:
        take_steps(recorder, progress, [1.0, 1.0, loss] + [1.0] * 10)
    recorder.close()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert (row["step"], row["train/loss"]) == (103, text)
    assert progress.step == 103
    assert diverged.value.samples == list(range(8))


def test_all_observers_see_the_rows_that_are_written(tmp_path, progress):
    tracker = Memory()
    recorder = make_recorder(tmp_path, progress, tracker)
    take_steps(recorder, progress, [1.0, 2.0])
    recorder.evaluation("val", Evaluation(loss=0.5, accuracy=0.75, confusion=torch.zeros(2, 2), factor_accuracy={}))
    recorder.close()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert tracker.rows == [{name: value for name, value in row.items() if name != "schema_version"} for row in rows]
    assert (rows[2]["step"], rows[2]["val/loss"], rows[2]["val/accuracy"]) == (2, 0.5, 0.75)


def test_time_goes_on_where_an_earlier_process_left_it(tmp_path, progress):
    progress.elapsed_s = 1000.0
    recorder = make_recorder(tmp_path, progress)
    take_steps(recorder, progress, [1.0])
    recorder.close()
    assert read_rows(tmp_path / "metrics.jsonl")[0]["time_s"] >= 1000


def test_rows_that_a_checkpoint_does_not_stand_behind_are_dropped(progress):
    progress.step, progress.evaluated_step = 4, 2
    training = [{"step": step, "train/loss": 1.0} for step in range(1, 7)]
    evaluations = [{"step": step, "val/loss": 1.0} for step in (2, 4, 6)]
    at_the_end = {"step": 2, "test/loss": 1.0}
    assert rows_until([*training, *evaluations, at_the_end], progress) == [*training[:4], evaluations[0]]
