"""Who looks on at a run: the one list of observers, in the order in which they are told."""

from typing import Any

from tidepool.training.checkpoint import Progress
from tidepool.training.display import Display
from tidepool.training.histograms import Histograms
from tidepool.training.job import Job
from tidepool.training.media import Media
from tidepool.training.observer import Observers
from tidepool.training.profiling import Profiler
from tidepool.training.recorder import Recorder
from tidepool.training.tracking import start_tracker


def observers_of(job: Job, progress: Progress, mode: str, environment: dict[str, Any]) -> Observers:
    """The observers that the job's settings ask for, none in processes that do not write; `mode` is what
    `tracking_mode` says."""
    observers = Observers()
    if not job.ranks.writes:
        return observers
    observers.all += [
        Recorder(job.run_dir / "metrics.jsonl"),
        Display(bar=job.config.progress, total_steps=job.total_steps, done=progress.step),
        start_tracker(job.config, mode, job.run_dir, progress.run_id, {"environment": environment}),
        Media(observers),
    ]
    if job.config.histogram_every is not None:
        observers.all.append(Histograms(observers, job.config.histogram_every))
    if job.config.profile:
        observers.all.append(Profiler())
    return observers
