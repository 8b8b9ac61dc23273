"""One run from settings to records: prepare everything, train, and leave a folder that says what happened."""

import contextlib
import copy
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tidepool import kernels
from tidepool.data import LabelledData, load_data
from tidepool.data.augmentation import normalise
from tidepool.data.batches import num_batches
from tidepool.models import build_model, input_kind
from tidepool.records import keep_rows, write_json
from tidepool.training import media
from tidepool.training.checkpoint import Progress, Trainee, restore, save_checkpoint
from tidepool.training.checkpoint_files import LAST
from tidepool.training.config import Config, ConfigError
from tidepool.training.environment import environment_record
from tidepool.training.evaluation import Evaluation
from tidepool.training.loop import Job, fit, save
from tidepool.training.measurement import StepTimes, peak_memory_bytes
from tidepool.training.optimization import make_optimizer, make_schedule
from tidepool.training.precision import choose_device, make_scaler, set_numerics, simulating
from tidepool.training.recorder import Diverged, Recorder
from tidepool.training.run_folder import (
    CHECKPOINTS,
    LAST_CHECKPOINT,
    RunFolder,
    give_back_reserve,
    run_dir_of,
    run_id_given,
)
from tidepool.training.start import Start, find_start
from tidepool.training.stopping import Interrupted, StopRequest
from tidepool.training.tracking import Tracker, check_agents_values, check_available, start_tracker, tracking_mode

EXIT_FINISHED, EXIT_FAILED, EXIT_DIVERGED = 0, 1, 3
UNENDED = "did not end: it is still running, or was killed"


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its summary as in summary.json, and the exit code train.py ends with."""

    run_dir: Path
    summary: dict[str, Any]
    exit_code: int
    had_ended_before: bool = False


def train(config: Config, announce: Callable[[str], None]) -> Outcome:
    """Do the run that `config` describes, or what is left of it; `announce` gets lines for people to read.

    Raises:
        ConfigError, RunFolderError, data.DataError: settings, folder or data cannot be used. Nothing was created.
        Exception: whatever ended the training; summary.json then says status "failed" and why.
    """
    config.validate()
    with simulating(config):
        return _train(config, announce)


def _train(config: Config, announce: Callable[[str], None]) -> Outcome:
    device, mode = check_machine(config), tracking_mode(config)
    with RunFolder(run_dir_of(config)) as folder:
        start = find_start(folder, config)
        if start.ended is not None:
            code = EXIT_FINISHED if start.ended["status"] == "finished" else EXIT_DIVERGED
            return Outcome(folder.path, start.ended, code, had_ended_before=True)
        check_available(mode)
        check_agents_values(config)
        set_numerics(config)
        job = prepare(config, device, folder.path)
        progress = begin_progress(job, start)
        folder.create()
        environment = write_opening_records(job, start, progress)
        for note in (*start.notes, *notes_on(job)):
            announce(note)
        announce(opening_line(job, progress, mode))
        tracker = start_tracker(config, mode, folder.path, progress.run_id, {"environment": environment})
        return conduct(job, start, progress, tracker)


def check_machine(config: Config) -> torch.device:
    """The device to train on, after checking that the backend runs here. Raises ConfigError."""
    device = choose_device(config)
    if config.backend == "triton" and kernels.kernel_mode("triton", device) == "compiled" and device.type == "cpu":
        raise ConfigError(
            f"backend='triton' with device='cpu' needs Triton's interpreter, and TRITON_INTERPRET="
            f"{os.environ.get('TRITON_INTERPRET')} turns it off: unset it"
        )
    return device


def prepare(config: Config, device: torch.device, run_dir: Path) -> Job:
    """Load the data and build what trains on it; weights depend on the seed alone, not on device or backend.

    Raises:
        DataError, ConfigError: the data cannot be used, or not by this network, or an option is out of range.
    """
    data = load_data(
        config.data,
        data_dir=config.data_dir,
        kind=input_kind(config.model),
        device=device,
        **config.data_options(),
    )
    torch.manual_seed(config.seed)
    try:
        model = build_model(
            config.model,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            image_size=data.input_size,
            backend=config.backend,
            **config.network_options(),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    model.to(device)
    if min(config.batch_size, len(data.train)) == 1:
        _check_single_samples(model, data, config)
    steps_per_epoch = num_batches(len(data.train), config.batch_size, drop_last=True)
    total_steps = min(config.epochs * steps_per_epoch, config.max_steps or config.epochs * steps_per_epoch)
    optimizer = make_optimizer(model, config)
    trainee = Trainee(model, optimizer, make_schedule(optimizer, config, total_steps), make_scaler(config, device))
    return Job(config, data, device, trainee, run_dir, steps_per_epoch, total_steps)


def _check_single_samples(model: nn.Module, data: LabelledData, config: Config) -> None:
    """ConfigError if a batch of one sample leaves a batch normalisation a single value for each channel."""
    image = normalise(data.train.inputs[:1], data.mean, data.std, torch.float32)
    try:
        with torch.no_grad():
            copy.deepcopy(model)(image)  # a copy, since it counts what it has seen
    except ValueError as error:
        raise ConfigError(
            f"batch_size={config.batch_size}: {config.model} cannot learn from one sample a step "
            f"({len(data.train)} to train on): {error}; expected at least 2"
        ) from error


def begin_progress(job: Job, start: Start) -> Progress:
    """The run's progress: that of the checkpoint, whose state is put back into the trainee, or none yet."""
    run_id = run_id_given() or secrets.token_hex(4)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if start.checkpoint is None:
        return Progress(run_id=start.run_id or run_id, started_at=now)
    progress = restore(start.checkpoint, job.trainee)
    if start.run_id is None:  # a new run that takes up another's checkpoint
        progress.run_id, progress.started_at = run_id, now
    return progress


def write_opening_records(job: Job, start: Start, progress: Progress) -> dict[str, Any]:
    """Checkpoint, rows, environment.json and config.json to resume from, in this order, so that a kill in between
    leaves a folder that still says how to resume. Returns the environment.
    """
    if start.checkpoint is None:
        for stale in ("checkpoints", "media"):  # of a run that was killed before it saved anything of use
            shutil.rmtree(job.run_dir / stale)
            (job.run_dir / stale).mkdir()
    elif start.run_id is None:
        measurements = start.checkpoint["measurements"]
        save_checkpoint(job.run_dir / CHECKPOINTS, job.trainee, progress, job.config, measurements, names=[LAST])
    keep_rows(job.run_dir / "metrics.jsonl", start.rows)
    environment = environment_record(job.config, job.device)
    write_json(job.run_dir / "environment.json", environment)
    write_json(job.run_dir / "config.json", job.config.as_record())
    return environment


def conduct(job: Job, start: Start, progress: Progress, tracker: Tracker) -> Outcome:
    """Train, and record how it ended, however it ends."""
    times = StepTimes(job.device)
    recorder = Recorder(
        job.run_dir / "metrics.jsonl",
        job.config,
        progress,
        steps_per_epoch=job.steps_per_epoch,
        total_steps=job.total_steps,
        times=times,
        tracker=tracker,
    )
    if start.checkpoint is not None:
        recorder.restore(start.checkpoint["measurements"])
    status, reason, code = "failed", None, EXIT_FAILED
    samples: Sequence[int] = ()
    try:
        write_json(job.run_dir / "summary.json", summary_of(job, progress, times, End("interrupted", UNENDED, 0)))
        with StopRequest() as stop:
            try:
                write_media(job, fit(job, progress, recorder, stop), tracker)
                status, code = "finished", EXIT_FINISHED
            except Interrupted as interrupted:
                status, reason, code = "interrupted", str(interrupted), interrupted.exit_code
                save(job, progress, recorder)
    except Diverged as diverged:
        status, reason, code = "diverged", str(diverged), EXIT_DIVERGED
        samples = diverged.samples
    except OSError as error:  # the disk, or what the data lie on
        status, reason, code = "failed", in_one_line(error), EXIT_FAILED
    except KeyboardInterrupt:
        status, reason = "interrupted", "stopped at once by a second Ctrl-C, without a checkpoint of this moment"
        raise
    except BaseException as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise
    finally:
        summary, code = end(job, progress, times, recorder, End(status, reason, code, samples))
        tracker.finish(summary, code)
    return Outcome(job.run_dir, summary, code)


class End(NamedTuple):
    """How a run ended: `samples` are the places in the training split of those it diverged on."""

    status: str
    reason: str | None
    code: int
    samples: Sequence[int] = ()


def end(job: Job, progress: Progress, times: StepTimes, recorder: Recorder, how: End) -> tuple[dict[str, Any], int]:
    """Close the records and write the summary, on a full disk into the room kept for it; returns it and the exit code,
    of a failure where the rows could not be brought to the disk."""
    try:
        recorder.close()
    except OSError as error:
        if how.status in ("finished", "interrupted"):
            how = how._replace(status="failed", reason=in_one_line(error), code=EXIT_FAILED)
    with contextlib.suppress(OSError):
        give_back_reserve(job.run_dir)
    summary = summary_of(job, progress, times, how)
    try:
        write_json(job.run_dir / "summary.json", summary)
    except OSError as error:
        reason = f"{how.reason + '; ' if how.reason else ''}{in_one_line(error)}"
        return {**summary, "status": "failed", "exit_reason": reason}, EXIT_FAILED
    return summary, how.code


def in_one_line(error: OSError) -> str:
    """`path: No space left on device`: the file and what happened to it."""
    what = error.strerror or str(error) or type(error).__name__
    return " ".join(f"{error.filename}: {what}".split()) if error.filename else " ".join(what.split())


def summary_of(job: Job, progress: Progress, times: StepTimes, how: End) -> dict[str, Any]:
    """What summary.json says."""
    config, model = job.config, job.trainee.model
    library, mode = what_convolves(job)
    saved = (job.run_dir / LAST_CHECKPOINT).is_file()
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
        "test_accuracy": progress.test_accuracy,
        "test_factor_accuracy": progress.test_factor_accuracy,
        "test_loss": progress.test_loss,
        "train_seconds": progress.train_seconds,
        "step_ms_p50": times.median_ms(),
        "samples_per_second": times.samples_per_second(),
        "peak_memory_bytes": peak_memory_bytes(job.device),
        "checkpoint": str(LAST_CHECKPOINT) if saved else None,
        **({"diverged_samples": list(how.samples)} if how.samples else {}),
    }


def what_convolves(job: Job) -> tuple[str, str]:
    """(conv_library, kernel_mode) of this run: what `kernels` says of the backend, or ("none", "compiled") in a
    network without convolutions.
    """
    if not media.has_convolution(job.trainee.model):
        return "none", "compiled"
    return kernels.conv_library(job.config.backend, job.device), kernels.kernel_mode(job.config.backend, job.device)


def write_media(job: Job, result: Evaluation, tracker: Tracker) -> None:
    """Confusion table, first-layer filters and feature maps, into media/ and to the tracker."""
    folder, step = job.run_dir / "media", job.total_steps
    rows = media.confusion_rows(result.confusion, job.data.class_names)
    media.write_confusion(folder / "confusion.csv", rows)
    tracker.table("confusion", ("true", "predicted", "count"), rows, step)
    layer = media.first_convolution(job.trainee.model)
    if layer is None:
        return
    sample = normalise(job.data.test.inputs[:1], job.data.mean, job.data.std, torch.float32)[0]
    tiles = {
        "filters": media.filter_tiles(layer.weight),  # type: ignore[arg-type]
        "feature_maps": media.feature_tiles(job.trainee.model, layer, sample),
    }
    for name, images in tiles.items():
        if images is None:
            continue
        media.write_grid(folder / f"{name}.png", images)
        tracker.image(name, folder / f"{name}.png", step)


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
    return (
        f"training {config.model} on {config.data} ({len(job.data.train)} train, {len(job.data.test)} test) {begin} "
        f"{job.total_steps} steps of {batch}; {config.backend} ({library}, {kernel_mode}), {config.dtype} "
        f"on {place}; W&B {mode}; {job.run_dir}"
    )
