"""What a run is made of, before its first step: data, network, optimizer, and the records that it begins with."""

import copy
import os
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tidepool import kernels
from tidepool.data import LabelledData, load_data, with_validation
from tidepool.data.augmentation import normalise
from tidepool.data.batches import num_batches
from tidepool.models import build_model, input_kind, synchronise_norms
from tidepool.records import keep_rows, write_json
from tidepool.training.average import WeightAverage
from tidepool.training.checkpoint import Progress, Trainee, restore, save_checkpoint
from tidepool.training.checkpoint_files import BEST, LAST, store
from tidepool.training.config import Config, ConfigError
from tidepool.training.cuda_graph import capture
from tidepool.training.distributed import ONE_PROCESS, Ranks, launched_by_torchrun
from tidepool.training.environment import environment_record
from tidepool.training.fine_tuning import start_from
from tidepool.training.job import Job
from tidepool.training.optimization import make_optimizer, make_schedule
from tidepool.training.precision import MEMORY_FORMATS, choose_device, make_scaler
from tidepool.training.run_folder import CHECKPOINTS, RunFolderError, run_id_given
from tidepool.training.start import Start


def check_machine(config: Config) -> torch.device:
    """The device to train on, after checking that the backend runs here. Raises ConfigError."""
    device = choose_device(config)
    if config.cuda_graph and device.type != "cuda":
        raise ConfigError("cuda_graph=True needs a CUDA GPU, and there is none here; expected False")
    if config.cuda_graph and config.backend == "compile":
        raise ConfigError("cuda_graph=True with backend='compile': expected another backend, or cuda_graph=False")
    if config.cuda_graph and launched_by_torchrun():
        raise ConfigError("cuda_graph=True under torchrun: expected one process, or cuda_graph=False")
    if config.cuda_graph and config.batch_size % config.accumulate:
        raise ConfigError(
            f"cuda_graph=True with batch_size={config.batch_size} in {config.accumulate} parts: expected parts of one "
            "size"
        )
    if config.backend == "triton" and kernels.kernel_mode("triton", device) == "compiled" and device.type == "cpu":
        raise ConfigError(
            f"backend='triton' with device='cpu' needs Triton's interpreter, and TRITON_INTERPRET="
            f"{os.environ.get('TRITON_INTERPRET')} turns it off: unset it"
        )
    return device


def prepare(
    config: Config,
    device: torch.device,
    run_dir: Path,
    *,
    ranks: Ranks = ONE_PROCESS,
    say: Callable[[str], None] = lambda line: None,
    resumes: bool = False,
) -> Job:
    """Load the data and build what trains on it; weights depend on the seed alone, not on device or backend.

    `say` gets a line on the weights that the network starts from; a run that `resumes` will take those of its
    checkpoint.

    Raises:
        DataError, ConfigError: the data cannot be used, or not by this network, or an option is out of range.
    """
    data = with_validation(
        load_data(
            config.data,
            data_dir=config.data_dir,
            kind=input_kind(config.model),
            device=device,
            **config.data_options(),
        )
    )
    samples = min(config.batch_size, len(data.train))
    if samples < config.accumulate * ranks.size:
        raise ConfigError(
            f"batch_size={config.batch_size}: {samples} samples a step; expected at least accumulate x processes = "
            f"{config.accumulate * ranks.size}"
        )
    model = build_network(config, data)
    if config.init_from is not None and not resumes:
        say(start_from(model, config.init_from, config))
    if ranks.size > 1:
        synchronise_norms(model)
    model.to(device)
    if config.channels_last:
        _channels_last(model, data, config)
    if samples == 1:
        _check_single_samples(model, data, config)
    steps_per_epoch = num_batches(len(data.train), config.batch_size, drop_last=True)
    total_steps = min(config.epochs * steps_per_epoch, config.max_steps or config.epochs * steps_per_epoch)
    optimizer = make_optimizer(model, config)
    schedule = make_schedule(optimizer, config, total_steps)
    average = WeightAverage(model, config.ema_decay) if config.ema else None
    if config.backend == "compile":
        model.compile()
    if config.cuda_graph:
        capture(model, data, config, -(-samples // config.accumulate))
    wrapped = None
    if ranks.size > 1:
        wrapped = DistributedDataParallel(model)
    trainee = Trainee(model, optimizer, schedule, make_scaler(config, device), average, wrapped)
    return Job(config, data, device, trainee, run_dir, steps_per_epoch, total_steps, ranks)


def build_network(config: Config, data: LabelledData) -> nn.Module:
    """The network on the CPU, its weights drawn by the seed. Raises ConfigError for options it does not have."""
    torch.manual_seed(config.seed)
    try:
        return build_model(
            config.model,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            image_size=data.input_size,
            backend="cudnn" if config.backend == "compile" else config.backend,
            **config.network_options(),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _channels_last(model: nn.Module, data: LabelledData, config: Config) -> None:
    """Put filters in channels_last. Raises ConfigError for waveforms."""
    memory_format = MEMORY_FORMATS.get(data.train.inputs.dim())
    if memory_format is None:
        raise ConfigError(f"channels_last=True: {config.model} takes waveforms; expected a network on images or videos")
    for parameter in model.parameters():
        if parameter.dim() == data.train.inputs.dim():
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


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
    """The run's progress: that of the checkpoint, whose state is put back into the trainee, or none yet.

    Raises:
        RunFolderError: the checkpoint does not fit, or is of a run on another number of samples.
    """
    run_id = run_id_given() or secrets.token_hex(4)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if start.checkpoint is None:
        return Progress(run_id=start.run_id or run_id, started_at=now, train_samples=len(job.data.train))
    progress = restore(start.checkpoint, job.trainee)
    if progress.train_samples != len(job.data.train):
        raise RunFolderError(
            f"run_dir {job.run_dir}: the checkpoint is of a run on {progress.train_samples or 'other'} samples, and "
            f"there are {len(job.data.train)} to train on here; give a new run_dir"
        )
    if start.best is None:  # what was best is lost: the next evaluation is
        progress.best_accuracy, progress.best_loss, progress.best_step = -1.0, None, 0
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
        if start.best is not None:
            store(job.run_dir / CHECKPOINTS, progress.best_step, start.best, names=[BEST], keep=0)
        save_checkpoint(job.run_dir / CHECKPOINTS, job.trainee, progress, job.config, measurements, names=[LAST])
    keep_rows(job.run_dir / "metrics.jsonl", start.rows)
    environment = environment_record(job.config, job.device)
    write_json(job.run_dir / "environment.json", environment)
    write_json(job.run_dir / "config.json", job.config.as_record())
    return environment
