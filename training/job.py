"""What a run works on, from its first step to its last."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tidepool.data import LabelledData, Split
from tidepool.training.checkpoint import Trainee
from tidepool.training.config import Config
from tidepool.training.distributed import ONE_PROCESS, Ranks


class Clock:
    """Time since the last checkpoint."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._began = time.monotonic()

    def minutes(self) -> float:
        return (time.monotonic() - self._began) / 60


@dataclass(frozen=True)
class Job:
    """What is to be trained, on what, for how long, and where it is kept."""

    config: Config
    data: LabelledData
    device: torch.device
    trainee: Trainee
    run_dir: Path
    steps_per_epoch: int
    total_steps: int

    ranks: Ranks = ONE_PROCESS
    clock: Clock = field(default_factory=Clock)

    def checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint is due by steps or minutes; those by epochs are `close_epoch`'s."""
        every, minutes = self.config.checkpoint_every_steps, self.config.checkpoint_every_minutes
        return bool(every and step % every == 0) or bool(minutes and self.clock.minutes() >= minutes)

    def epoch_ends(self, step: int) -> bool:
        """Whether `step` is the last of an epoch, or of the run."""
        return step == self.total_steps or step % self.steps_per_epoch == 0


def validation_of(data: LabelledData) -> Split:
    """The validation split of data that were prepared for training."""
    assert data.validation is not None
    return data.validation
