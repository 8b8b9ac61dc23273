"""`--profile`: what the host and the GPU do in a few steps, as a trace for chrome://tracing or Perfetto."""

import torch
from torch.profiler import ProfilerActivity, profile

from tidepool.training.checkpoint import Progress
from tidepool.training.job import Job
from tidepool.training.observer import Observer

SKIPPED, STEPS = 3, 5
"""Steps of this process before the trace, which compile and fill caches, and steps in it."""


class Profiler(Observer):
    """Writes media/trace.json of the fourth to the eighth step of this process; of a shorter run, of what is left."""

    def __init__(self) -> None:
        self._profile: profile | None = None
        self._job: Job | None = None
        self._done = 0

    def began(self, job: Job, progress: Progress) -> None:
        """Remember where the trace goes."""
        self._job = job

    def step_begins(self, step: int) -> None:
        """Begin the trace where it is due."""
        if self._done == SKIPPED:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._profile = profile(activities=activities, record_shapes=True)
            self._profile.start()

    def step_ended(self, step: int) -> None:
        """End it after its steps."""
        self._done += 1
        if self._done == SKIPPED + STEPS:
            self._write()

    def closing(self) -> None:
        """End it with the run."""
        self._write()

    def _write(self) -> None:
        if self._profile is None or self._job is None:
            return
        running, self._profile = self._profile, None
        running.stop()
        running.export_chrome_trace(str(self._job.run_dir / "media" / "trace.json"))
