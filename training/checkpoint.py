"""Checkpoints: everything a run needs to resume as if it had never stopped, in tensors and plain types only."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tidepool.records import SCHEMA_VERSION, replacing
from tidepool.training.config import Config
from tidepool.training.run_folder import RunFolderError


@dataclass
class Progress:
    """How far a run has come, over all the processes that worked on it."""

    run_id: str
    started_at: str
    """ISO 8601 with UTC offset."""
    step: int = 0
    """Optimizer steps done."""
    evaluated_step: int = 0
    """The step of the latest evaluation."""
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_factor_accuracy: dict[str, float] = field(default_factory=dict)
    """Of each part of labels made of several."""
    best_accuracy: float = -1.0
    elapsed_s: float = 0.0
    """Seconds worked on the run up to this checkpoint, evaluation included."""
    train_seconds: float = 0.0
    """Seconds in the training loop, without evaluation and checkpoints."""


CONTENT = {
    "config": dict,
    "progress": dict,
    "measurements": dict,
    "model": dict,
    "optimizer": dict,
    "schedule": dict,
    "scaler": dict,
    "rng_cpu": torch.Tensor,
    "rng_cuda": list,
}
"""What a checkpoint holds besides schema_version."""


@dataclass(frozen=True)
class Trainee:
    """What is trained and what trains it."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler


def save_checkpoint(
    path: Path, trainee: Trainee, progress: Progress, config: Config, measurements: dict[str, Any]
) -> None:
    """Write a checkpoint that `torch.load(path, weights_only=True)` reads; a kill leaves the previous one whole.

    `measurements` are the step times and the rows not yet written, plain types.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "config": config.as_record(),
        "progress": asdict(progress),
        "measurements": measurements,
        "model": trainee.model.state_dict(),
        "optimizer": trainee.optimizer.state_dict(),
        "schedule": trainee.schedule.state_dict(),
        "scaler": trainee.scaler.state_dict(),
        "rng_cpu": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint's content to the CPU.

    Raises:
        RunFolderError: the file is missing, damaged, or not a checkpoint of this schema.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler or zip reader meets
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFolderError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError(f"{path} is not a checkpoint of train.py with schema_version {SCHEMA_VERSION}")
    wrong = [name for name, kind in CONTENT.items() if not isinstance(content.get(name), kind)]
    if wrong:
        raise RunFolderError(f"{path} is not a whole checkpoint of train.py: missing or damaged: {', '.join(wrong)}")
    return content


def restore(content: dict[str, Any], trainee: Trainee) -> Progress:
    """Put a checkpoint's weights, optimizer, schedule and random states back; return how far it had come.

    Raises:
        RunFolderError: the weights are not those of this network, or the rest is not what trains it.
    """
    try:
        trainee.model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise RunFolderError(f"the checkpoint's weights do not fit: {error}") from error
    try:
        trainee.optimizer.load_state_dict(content["optimizer"])
        trainee.schedule.load_state_dict({name: content["schedule"][name] for name in trainee.schedule.state_dict()})
        trainee.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["rng_cpu"])
        if content["rng_cuda"] and len(content["rng_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(content["rng_cuda"])
        known = {known_field.name for known_field in fields(Progress)}
        return Progress(**{name: value for name, value in content["progress"].items() if name in known})
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:  # whatever a state lacks
        reason = f"{type(error).__name__}: {error}"
        raise RunFolderError(f"the checkpoint's optimizer, schedule or random state does not fit: {reason}") from error
