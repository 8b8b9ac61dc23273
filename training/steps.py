"""What steps and evaluations give, turned into rows for the observers; and the end of a run that diverges."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tidepool.records import Row
from tidepool.training.checkpoint import Progress
from tidepool.training.evaluation import Evaluation
from tidepool.training.job import Job
from tidepool.training.measurement import StepTimes
from tidepool.training.observer import Observer

EVERY_STEP_UNTIL = 100


class Diverged(Exception):  # noqa: N818  how a run may end, no error of the program
    """Something was not finite after `step` whole steps and the one that is named; `samples` are its places in the
    training split."""

    def __init__(self, what: str, step: int, samples: Sequence[int] = ()) -> None:
        super().__init__(f"{what} at step {step}")
        self.step, self.samples = step, list(samples)


class Taken(NamedTuple):
    """What a step gave, on the device: mean loss, number of right answers, the gradient's norm, and whether the two
    that have to be were finite; and its samples' places in the training split."""

    loss: Tensor
    correct: Tensor
    norm: Tensor
    finite: Tensor
    indices: Tensor


class StepLog:
    """Rows for every one of the first hundred steps, then for every `log_every`th: means over the steps since the row
    before. Losses stay on the device until a row is due, so that the host does not wait for the GPU at each step.
    """

    def __init__(self, job: Job, progress: Progress, times: StepTimes, observers: Observer) -> None:
        self._job, self._progress, self._observers, self.times = job, progress, observers, times
        self._elapsed_before = progress.elapsed_s
        self._begin = time.monotonic()
        self._on_device: list[Taken] = []  # of the latest steps
        self._window: list[tuple[float, int, int]] = []  # the same on the host, since the last row

    def step(self, taken: Taken, lr: float) -> None:
        """Take in step number `progress.step`.

        Raises:
            Diverged: a loss or gradient since the last row is not finite. The row of that step is written.
        """
        self._on_device.append(taken)
        step = self._progress.step
        if step <= EVERY_STEP_UNTIL or step % self._job.config.log_every == 0 or step == self._job.total_steps:
            self.collect()
            self._write_training_row(lr)

    def collect(self) -> None:
        """Bring the losses of the latest steps to the host. Raises Diverged as `step` does."""
        if not self._on_device:
            return
        steps = self._on_device[:]
        self._on_device.clear()
        losses, corrects, finite = (
            torch.stack([getattr(one, name) for one in steps]).tolist() for name in ("loss", "correct", "finite")
        )
        first = self._progress.step - len(steps) + 1
        self.times.collect()
        values = zip(steps, losses, corrects, finite, strict=True)
        for number, (taken, loss, correct, right) in enumerate(values, first):
            self._window.append((loss, correct, len(taken.indices)))
            if not right:
                self._progress.step = number
                self._write_training_row(None)
                what = f"the gradient's norm was {taken.norm.item()}" if math.isfinite(loss) else f"the loss was {loss}"
                raise Diverged(what, number, taken.indices.tolist())

    def evaluation(self, split: str, result: Evaluation) -> None:
        """Write a row with what a split gave after `progress.step` steps. Raises Diverged for a loss that is not
        finite."""
        factors = {f"{split}/{name}_accuracy": accuracy for name, accuracy in result.factor_accuracy.items()}
        self._write({f"{split}/loss": result.loss, f"{split}/accuracy": result.accuracy, **factors})
        if not math.isfinite(result.loss):
            name = {"val": "validation"}.get(split, split)
            raise Diverged(f"the loss on the {name} split was {result.loss}", self._progress.step)

    def elapsed_s(self) -> float:
        """Seconds worked on the run, by this process and those before it."""
        return self._elapsed_before + time.monotonic() - self._begin

    def as_record(self) -> dict[str, Any]:
        """Plain types for a checkpoint: step times and the steps no row has covered yet."""
        return {"window": [list(entry) for entry in self._window], "times": self.times.as_record()}

    def restore(self, record: dict[str, Any]) -> None:
        """Resume from `as_record`'s result."""
        self._window = [(loss, correct, samples) for loss, correct, samples in record["window"]]
        self.times.restore(record["times"])

    def _write_training_row(self, lr: float | None) -> None:
        samples = sum(count for _, _, count in self._window)
        loss = sum(loss * count for loss, _, count in self._window) / samples
        accuracy = sum(correct for _, correct, _ in self._window) / samples
        self._window.clear()
        row = {"train/loss": loss, "train/accuracy": accuracy, **({} if lr is None else {"train/lr": lr})}
        self._write(row | self.times.since_last())

    def _write(self, metrics: Mapping[str, Any]) -> None:
        step = self._progress.step
        row: Row = {
            "step": step,
            "epoch": step / self._job.steps_per_epoch,
            "time_s": round(self.elapsed_s(), 6),
            **metrics,
        }
        self._observers.row(row)


def check_measurements(record: dict[str, Any]) -> None:
    """Raise ValueError unless `StepLog.restore` can take `record`."""
    window, times = record.get("window"), record.get("times")
    if not isinstance(window, list) or any(not isinstance(entry, list) or len(entry) != 3 for entry in window):
        raise ValueError("measurements: window; expected a list of loss, right answers and samples")
    expected = {"milliseconds": list, "steady_samples": int, "steady_seconds": float}
    if not isinstance(times, dict) or any(not isinstance(times.get(name), kind) for name, kind in expected.items()):
        raise ValueError(f"measurements: times; expected {', '.join(expected)}")
