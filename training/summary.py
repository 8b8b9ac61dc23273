"""What is said of a run: its summary.json, and the line it begins with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tidepool import kernels
from tidepool.training.checkpoint import Progress
from tidepool.training.checkpoint_files import BEST, LAST
from tidepool.training.job import Job, validation_of
from tidepool.training.loop import Session
from tidepool.training.measurement import peak_memory_bytes
from tidepool.training.media import has_convolution
from tidepool.training.run_folder import CHECKPOINTS


class End(NamedTuple):
    """How a run ended: `samples` are the places in the training split of those it diverged on."""

    status: str
    reason: str | None
    code: int
    samples: Sequence[int] = ()


def in_one_line(error: OSError) -> str:
    """`path: No space left on device`: the file and what happened to it."""
    what = error.strerror or str(error) or type(error).__name__
    return " ".join(f"{error.filename}: {what}".split()) if error.filename else " ".join(what.split())


def summary_of(session: Session, how: End) -> dict[str, Any]:
    """What summary.json says."""
    job, progress, times = session.job, session.progress, session.log.times
    config, model = job.config, job.trainee.model
    library, mode = what_convolves(job)
    tested = progress.test_accuracy is not None
    checkpoint = Path(CHECKPOINTS) / (BEST if tested else LAST)
    evaluated = progress.best_accuracy >= 0
    return {
        "status": how.status,
        "exit_reason": how.reason,
        "run_id": progress.run_id,
        "group": config.group,
        "started_at": progress.started_at,
        "data": config.data,
        "model": config.model,
        "backend": config.backend,
        "conv_library": library,
        "kernel_mode": mode,
        "dtype": config.dtype,
        "seed": config.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": progress.step / job.steps_per_epoch,
        "steps": progress.step,
        "val_accuracy": progress.best_accuracy if evaluated else None,
        "val_loss": progress.best_loss,
        "best_epoch": progress.best_step / job.steps_per_epoch if evaluated else None,
        "test_accuracy": progress.test_accuracy,
        "test_factor_accuracy": progress.test_factor_accuracy,
        "test_loss": progress.test_loss,
        "train_seconds": progress.train_seconds,
        "step_ms_p50": times.median_ms(),
        "samples_per_second": times.samples_per_second(),
        "peak_memory_bytes": peak_memory_bytes(job.device),
        "checkpoint": str(checkpoint) if (job.run_dir / checkpoint).is_file() else None,
        **({"diverged_samples": list(how.samples)} if how.samples else {}),
    }


def what_convolves(job: Job) -> tuple[str, str]:
    """(conv_library, kernel_mode) of this run: what `kernels` says of the backend, or ("none", "compiled") in a
    network without convolutions.
    """
    if not has_convolution(job.trainee.model):
        return "none", "compiled"
    return kernels.conv_library(job.config.backend, job.device), kernels.kernel_mode(job.config.backend, job.device)


def notes_on(job: Job) -> list[str]:
    """What people may not have meant."""
    samples = len(job.data.train)
    if job.config.batch_size <= samples:
        return []
    return [f"batch_size={job.config.batch_size} is more than the {samples} to train on: each step takes them all"]


def opening_line(job: Job, progress: Progress, mode: str) -> str:
    """What is about to happen, in one line."""
    config, (library, kernel_mode) = job.config, what_convolves(job)
    begin = f"from step {progress.step} of" if progress.step else "for"
    batch = min(config.batch_size, len(job.data.train))
    place = torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else "cpu"
    shared = f" on {job.ranks.size} processes" if job.ranks.size > 1 else ""
    samples = f"{len(job.data.train)} train, {len(validation_of(job.data))} validation, {len(job.data.test)} test"
    return (
        f"training {config.model} on {config.data} ({samples}) {begin} "
        f"{job.total_steps} steps of {batch}{shared}; {config.backend} ({library}, {kernel_mode}), {config.dtype} "
        f"on {place}; W&B {mode}; {job.run_dir}"
    )
