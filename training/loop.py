"""The training loop."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tidepool.data import LabelledData
from tidepool.data.augmentation import augment, normalise
from tidepool.data.batches import AUGMENTATION_STREAM, epoch_batches, epoch_generator
from tidepool.training.checkpoint import Progress, Trainee, save_checkpoint
from tidepool.training.config import Config
from tidepool.training.evaluation import Evaluation, evaluate
from tidepool.training.measurement import synchronise
from tidepool.training.precision import autocast
from tidepool.training.recorder import Recorder
from tidepool.training.run_folder import BEST_CHECKPOINT, LAST_CHECKPOINT
from tidepool.training.stopping import StopRequest


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
                    loss, correct = train_step(job, indices, progress.step)
                progress.step += 1
                recorder.step(loss, correct, len(indices), lr)
                stop.raise_if_received()
        finally:
            synchronise(job.device)
            progress.train_seconds += time.perf_counter() - started
        result = close_epoch(job, progress, recorder, stop)
    return result or evaluate_now(job, stop)  # nothing left to train: the figures are in the record already


def train_step(job: Job, indices: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """One optimizer step on the samples at `indices`; return mean loss and number of right answers, on the device."""
    config, trainee = job.config, job.trainee
    inputs, labels = augmented(job, job.data.train.inputs[indices], step), job.data.train.labels[indices]
    with autocast(config, job.device):
        logits = trainee.model(normalise(inputs, job.data.mean, job.data.std, torch.float32))
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
    trainee.optimizer.zero_grad(set_to_none=True)
    trainee.scaler.scale(loss).backward()
    trainee.scaler.step(trainee.optimizer)
    trainee.scaler.update()
    if step + 1 < job.total_steps:
        trainee.schedule.step()
    return loss.detach(), (logits.detach().argmax(1) == labels).sum()


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
    result = None
    if is_last or epoch % job.config.eval_every == 0:
        result = evaluate_now(job, stop)
        progress.evaluated_step = progress.step
        progress.test_loss, progress.test_accuracy = result.loss, result.accuracy
        progress.test_factor_accuracy = result.factor_accuracy
        recorder.evaluation(result)
        if result.accuracy > progress.best_accuracy:
            progress.best_accuracy = result.accuracy
            save(job, progress, recorder, job.run_dir / BEST_CHECKPOINT)
    if is_last or epoch % job.config.checkpoint_every == 0:
        save(job, progress, recorder, job.run_dir / LAST_CHECKPOINT)
    return result


def evaluate_now(job: Job, stop: StopRequest) -> Evaluation:
    """The test split's figures; a signal breaks it off."""
    return evaluate(job.trainee.model, job.data.test, job.data, job.config, stop.raise_if_received)


def save(job: Job, progress: Progress, recorder: Recorder, path: Path) -> None:
    """Write a checkpoint of this moment. Raises Diverged rather than save weights that a non-finite loss touched."""
    recorder.collect()
    progress.elapsed_s = recorder.elapsed_s()
    save_checkpoint(path, job.trainee, progress, job.config, recorder.as_record())
