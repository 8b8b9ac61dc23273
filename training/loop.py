"""The training loop."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from tidepool.data import LabelledData
from tidepool.data.augmentation import augment, normalise
from tidepool.data.batches import AUGMENTATION_STREAM, epoch_batches, epoch_generator
from tidepool.training.checkpoint import NotFiniteError, Progress, Trainee, save_checkpoint
from tidepool.training.checkpoint_files import BEST, LAST
from tidepool.training.config import Config
from tidepool.training.evaluation import Evaluation, evaluate
from tidepool.training.measurement import synchronise
from tidepool.training.precision import autocast
from tidepool.training.recorder import Diverged, Recorder, Taken
from tidepool.training.run_folder import CHECKPOINTS
from tidepool.training.stopping import StopRequest


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

    clock: Clock = field(default_factory=Clock)

    def checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint is due by steps or minutes; those by epochs are `close_epoch`'s."""
        every, minutes = self.config.checkpoint_every_steps, self.config.checkpoint_every_minutes
        return bool(every and step % every == 0) or bool(minutes and self.clock.minutes() >= minutes)

    def epoch_ends(self, step: int) -> bool:
        """Whether `step` is the last of an epoch, or of the run."""
        return step == self.total_steps or step % self.steps_per_epoch == 0


def fit(job: Job, progress: Progress, recorder: Recorder, stop: StopRequest) -> Evaluation:
    """Train from `progress` to the last step; return the evaluation after it.

    Raises:
        Diverged: a loss was not finite.
        Interrupted: a signal came; the step in hand was finished.
    """
    result = None
    if progress.step > progress.evaluated_step and job.epoch_ends(progress.step):
        result = close_epoch(job, progress, recorder, stop)  # the run was stopped before it got to it
    while progress.step < job.total_steps:
        started = time.perf_counter()
        try:
            for indices in batches_left_in_epoch(job, progress.step):
                lr = job.trainee.optimizer.param_groups[0]["lr"]
                with recorder.times.step(len(indices)):
                    taken = train_step(job, indices, progress.step)
                progress.step += 1
                recorder.step(taken, lr)
                if job.device.type == "cpu" and not taken.finite:
                    recorder.collect()  # raises; on a GPU the host would wait for every step to ask this
                stop.raise_if_received()
                if job.checkpoint_due(progress.step) and not job.epoch_ends(progress.step):
                    synchronise(job.device)
                    progress.train_seconds += time.perf_counter() - started
                    save(job, progress, recorder)
                    started = time.perf_counter()
        finally:
            synchronise(job.device)
            progress.train_seconds += time.perf_counter() - started
        result = close_epoch(job, progress, recorder, stop)
    return result or evaluate_now(job, stop)  # nothing left to train: the figures are in the record already


def train_step(job: Job, indices: Tensor, step: int) -> Taken:
    """One optimizer step on the samples at `indices`, left out where the loss or the gradient is not finite.

    On a GPU the host does not wait for that: the fused optimizers leave a step out on the device's word. Of fp16's
    scaled gradients the scaler decides, which takes an overflow for a scale that was too large.
    """
    config, trainee = job.config, job.trainee
    inputs, labels = augmented(job, job.data.train.inputs[indices], step), job.data.train.labels[indices]
    with autocast(config, job.device):
        logits = trainee.model(normalise(inputs, job.data.mean, job.data.std, torch.float32))
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
    trainee.optimizer.zero_grad(set_to_none=True)
    trainee.scaler.scale(loss).backward()
    norm = gradient_norm(trainee.optimizer)
    finite = loss.detach().isfinite() & (norm.isfinite() | trainee.scaler.is_enabled())
    taken = Taken(loss.detach(), (logits.detach().argmax(1) == labels).sum(), norm, finite, indices)
    if job.device.type == "cpu" and not finite:
        return taken
    if job.device.type != "cpu" and not trainee.scaler.is_enabled():
        vars(trainee.optimizer)["found_inf"] = (~finite).float()  # what GradScaler sets
    trainee.scaler.step(trainee.optimizer)
    trainee.scaler.update()
    if step + 1 < job.total_steps:
        trainee.schedule.step()
    return taken


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """The Euclidean norm of all gradients together, on their device."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return get_total_norm(gradients)


def batches_left_in_epoch(job: Job, step: int) -> Iterator[Tensor]:
    """Index tensors from `step` to the end of its epoch, or of the run; their order is a function of seed and epoch."""
    epoch, done = divmod(step, job.steps_per_epoch)
    batches = epoch_batches(
        len(job.data.train),
        job.config.batch_size,
        seed=job.config.seed,
        epoch=epoch,
        drop_last=True,
        device=job.device,
    )
    return islice(batches, done, min(job.steps_per_epoch, done + job.total_steps - step))


def augmented(job: Job, inputs: Tensor, step: int) -> Tensor:
    """(N, C, *spatial) -> the same, changed as the data allow when `augment` is on; random by seed and step alone."""
    if not job.config.augment:
        return inputs
    # A stream for each step, not for each epoch: a run resumed in mid-epoch draws what it would have drawn.
    generator = epoch_generator(seed=job.config.seed, epoch=step, stream=AUGMENTATION_STREAM)
    return augment(inputs, job.data.augmentation, generator)


def close_epoch(job: Job, progress: Progress, recorder: Recorder, stop: StopRequest) -> Evaluation | None:
    """Evaluate and save where that is due; the last epoch is always evaluated and saved."""
    recorder.collect()
    epoch, is_last = progress.step // job.steps_per_epoch, progress.step == job.total_steps
    result, names = None, []
    if is_last or epoch % job.config.eval_every == 0:
        result = evaluate_now(job, stop)
        progress.evaluated_step = progress.step
        progress.test_loss, progress.test_accuracy = result.loss, result.accuracy
        progress.test_factor_accuracy = result.factor_accuracy
        recorder.evaluation(result)
        if result.accuracy > progress.best_accuracy:
            progress.best_accuracy = result.accuracy
            names.append(BEST)
    if is_last or epoch % job.config.checkpoint_every == 0 or job.checkpoint_due(progress.step):
        names.append(LAST)
    if names:
        save(job, progress, recorder, names)
    return result


def evaluate_now(job: Job, stop: StopRequest) -> Evaluation:
    """The test split's figures; a signal breaks it off."""
    return evaluate(job.trainee.model, job.data.test, job.data, job.config, stop.raise_if_received)


def save(job: Job, progress: Progress, recorder: Recorder, names: Sequence[str] = (LAST,)) -> None:
    """Write a checkpoint of this moment. Raises Diverged rather than save what is not finite, or came of it."""
    recorder.collect()
    progress.elapsed_s = recorder.elapsed_s()
    folder, measurements = job.run_dir / CHECKPOINTS, recorder.as_record()
    try:
        save_checkpoint(folder, job.trainee, progress, job.config, measurements, names=names)
    except NotFiniteError as error:
        raise Diverged(str(error), progress.step) from None
    job.clock.begin()
