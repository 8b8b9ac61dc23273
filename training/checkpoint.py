"""Checkpoints: everything a run needs to resume as if it had never stopped, in tensors and plain types only."""

import io
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tidepool.records import SCHEMA_VERSION, checksum_path, checksum_state
from tidepool.training.average import WeightAverage
from tidepool.training.checkpoint_files import store
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
    train_samples: int = 0
    """How many there are to train on."""
    evaluated_step: int = 0
    """The step of the latest evaluation on the validation split."""
    val_loss: float | None = None
    val_accuracy: float | None = None
    """What the latest evaluation gave."""
    best_step: int = 0
    best_loss: float | None = None
    best_accuracy: float = -1.0
    """Of the evaluation with the highest validation accuracy, the earliest of equals; -1 before the first."""
    evaluations_since_best: int = 0
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_factor_accuracy: dict[str, float] = field(default_factory=dict)
    """Of each part of labels made of several. The test split is read once, when the run is trained."""
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
    average: WeightAverage | None = None
    """Of the weights, where it is evaluated and saved in their stead."""
    wrapped: nn.Module | None = None
    """The network as training calls it, where that is not the network itself."""

    @property
    def evaluated(self) -> nn.Module:
        """The network whose weights are evaluated and saved as the run's."""
        return self.model if self.average is None else self.average.model

    @property
    def network(self) -> nn.Module:
        """What training calls."""
        return self.model if self.wrapped is None else self.wrapped


class UnreadableError(RunFolderError):
    """A checkpoint file that is damaged, or none."""


class NotFiniteError(ValueError):
    """What would be saved is not finite; the message says which tensor."""


def save_checkpoint(
    folder: Path,
    trainee: Trainee,
    progress: Progress,
    config: Config,
    measurements: dict[str, Any],
    *,
    names: Collection[str],
) -> None:
    """Write a checkpoint that `torch.load(path, weights_only=True)` reads, under `names` (`checkpoint_files.store`).

    `measurements` are the step times and the rows not yet written, plain types. Raises NotFiniteError, before anything
    is written, for a parameter or a state of its optimizer that is not finite; OSError that names the file.
    """
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "config": config.as_record(),
        "progress": asdict(progress),
        "measurements": measurements,
        "model": trainee.evaluated.state_dict(),
        "trained": {} if trainee.average is None else trainee.model.state_dict(),
        "optimizer": trainee.optimizer.state_dict(),
        "schedule": trainee.schedule.state_dict(),
        "scaler": trainee.scaler.state_dict(),
        "rng_cpu": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    check_finite(trainee)
    file = io.BytesIO()  # PyTorch's own writing to a path says nothing of a full disk but that it failed
    torch.save(content, file)
    store(folder, progress.step, file.getvalue(), names=names, keep=config.keep_checkpoints)


def check_finite(trainee: Trainee) -> None:
    """Raise NotFiniteError for a parameter or a state of its optimizer that is not finite."""
    averaged = [] if trainee.average is None else trainee.average.model.named_parameters()
    states = _tensors(trainee.optimizer.state_dict()["state"], "optimizer")
    for name, tensor in (*trainee.model.named_parameters(), *averaged, *states):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NotFiniteError(f"{name} is not finite")


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _tensors(one, f"{name}.{key}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint's content to the CPU.

    Raises:
        UnreadableError: the file is missing, damaged, other than its SHA-256 beside it says, or not a checkpoint of
            this schema.
    """
    try:
        if checksum_state(path) == "damaged":
            raise UnreadableError(f"{path} is damaged: it is not what {checksum_path(path).name} beside it says")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnreadableError:
        raise
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever PyTorch's unpickler or zip reader meets, with advice that is none here
        kind = type(error).__name__
        raise UnreadableError(f"{path} cannot be read as a checkpoint: it is damaged, or none ({kind})") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise UnreadableError(f"{path} is not a checkpoint of train.py with schema_version {SCHEMA_VERSION}")
    wrong = [name for name, kind in CONTENT.items() if not isinstance(content.get(name), kind)]
    if wrong:
        raise UnreadableError(f"{path} is not a whole checkpoint of train.py: missing or damaged: {', '.join(wrong)}")
    return content


def restore(content: dict[str, Any], trainee: Trainee) -> Progress:
    """Put a checkpoint's weights, optimizer, schedule and random states back; return how far it had come.

    Raises:
        RunFolderError: the weights are not those of this network, or the rest is not what trains it.
    """
    try:
        trainee.evaluated.load_state_dict(content["model"])
        if trainee.average is not None:
            trainee.model.load_state_dict(content["trained"])
    except (RuntimeError, LookupError) as error:
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
