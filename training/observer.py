"""The one seam between a run and all that looks on: records on disk, W&B, images, what a person sees, the profiler.

The loop tells `Observers` what happens; whoever wants to know is an `Observer` in that list (`observing.py`), asked in
its order. An observer that makes something to look at (a table, an image, a histogram) tells it to the others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tidepool.training.checkpoint import Progress
from tidepool.training.evaluation import Evaluation
from tidepool.training.job import Job


class Observer:
    """What may be told, each with nothing done about it. What one of these raises ends the run."""

    def began(self, job: Job, progress: Progress) -> None:
        """Training is about to begin, or to go on where `progress` says."""

    def step_begins(self, step: int) -> None:
        """Step number `step`, from 1 on, is about to be taken."""

    def step_ended(self, step: int) -> None:
        """It was taken: its gradients are still there. On a GPU the host may be ahead of it."""

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics with its `step`, `epoch` and `time_s`."""

    def saved(self, files: Sequence[Path], step: int) -> None:
        """Checkpoints were written."""

    def tested(self, result: Evaluation, step: int) -> None:
        """The run is trained, and this is what the test split gave; the network has the weights that it was read by."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """A table under `name`."""

    def image(self, name: str, path: Path, step: int) -> None:
        """The image in a file, under `name`."""

    def histogram(self, name: str, counts: Tensor, edges: Tensor, step: int) -> None:
        """How many values lie in each bin between `edges`, one more than `counts`; both on the CPU."""

    def closing(self) -> None:
        """Nothing but `ended` follows; what is to be on the disk has to be there. Raises OSError where it is not."""

    def ended(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """The summary is written."""


class Observers(Observer):
    """Several as one, told in their order; `closing` and `ended` reach all of them whatever one raises."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.all = list(observers)

    def began(self, job: Job, progress: Progress) -> None:
        for observer in self.all:
            observer.began(job, progress)

    def step_begins(self, step: int) -> None:
        for observer in self.all:
            observer.step_begins(step)

    def step_ended(self, step: int) -> None:
        for observer in self.all:
            observer.step_ended(step)

    def row(self, row: Mapping[str, Any]) -> None:
        for observer in self.all:
            observer.row(row)

    def saved(self, files: Sequence[Path], step: int) -> None:
        for observer in self.all:
            observer.saved(files, step)

    def tested(self, result: Evaluation, step: int) -> None:
        for observer in self.all:
            observer.tested(result, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        for observer in self.all:
            observer.table(name, columns, rows, step)

    def image(self, name: str, path: Path, step: int) -> None:
        for observer in self.all:
            observer.image(name, path, step)

    def histogram(self, name: str, counts: Tensor, edges: Tensor, step: int) -> None:
        for observer in self.all:
            observer.histogram(name, counts, edges, step)

    def closing(self) -> None:
        problems: list[OSError] = []
        for observer in self.all:
            try:
                observer.closing()
            except OSError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def ended(self, summary: Mapping[str, Any], exit_code: int) -> None:
        for observer in self.all:
            observer.ended(summary, exit_code)
