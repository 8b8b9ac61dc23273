"""The training loop."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor, nn

from tidepool.data import Split
from tidepool.data.batches import epoch_batches
from tidepool.training.checkpoint import NotFiniteError, Progress, check_finite, read_checkpoint, save_checkpoint
from tidepool.training.checkpoint_files import BEST, LAST
from tidepool.training.evaluation import Evaluation, evaluate
from tidepool.training.job import Job, validation_of
from tidepool.training.measurement import synchronise
from tidepool.training.observer import Observer
from tidepool.training.run_folder import CHECKPOINTS
from tidepool.training.step import train_step
from tidepool.training.steps import Diverged, StepLog
from tidepool.training.stopping import Interrupted, StopRequest


@dataclass(frozen=True)
class Session:
    """A job under way in this process: how far it is, what it has recorded, who looks on, and whether to stop."""

    job: Job
    progress: Progress
    log: StepLog
    observers: Observer
    stop: StopRequest


def fit(session: Session) -> None:
    """Train to the last step, or to where validation says that it is enough; then read the test split, once.

    Raises:
        Diverged: a loss was not finite.
        Interrupted: a signal came; the step in hand was finished.
    """
    job, progress = session.job, session.progress
    if progress.step > progress.evaluated_step and job.epoch_ends(progress.step):
        close_epoch(session)  # the run was stopped before it got to it
    while progress.step < job.total_steps and not stops_early(session):
        train_epoch(session)
        close_epoch(session)
    if not progress.best_step:  # best.pt was lost since
        validate(session)
        save(session, [BEST])
    test(session)


def train_epoch(session: Session) -> None:
    """The steps that are left of an epoch."""
    job, progress, log = session.job, session.progress, session.log
    started = time.perf_counter()
    try:
        for indices in batches_left_in_epoch(job, progress.step):
            lr = job.trainee.optimizer.param_groups[0]["lr"]
            session.observers.step_begins(progress.step + 1)
            with log.times.step(len(indices)):
                taken = train_step(job, indices, progress.step)
            progress.step += 1
            session.observers.step_ended(progress.step)
            log.step(taken, lr)
            if job.device.type == "cpu" and not taken.finite:
                log.collect()  # raises; on a GPU the host would wait for every step to ask this
            due = agreed(session)
            if due and not job.epoch_ends(progress.step):
                synchronise(job.device)
                progress.train_seconds += time.perf_counter() - started
                save(session)
                started = time.perf_counter()
    finally:
        synchronise(job.device)
        progress.train_seconds += time.perf_counter() - started


def agreed(session: Session) -> bool:
    """Whether a checkpoint is due, by steps or minutes. Raises Interrupted where a signal came; both in any process."""
    job = session.job
    due = job.checkpoint_due(session.progress.step)
    number, is_due = job.ranks.highest(session.stop.received or 0, int(due))
    if number:
        raise Interrupted(number)
    return bool(is_due)


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


def close_epoch(session: Session) -> None:
    """Evaluate and save where that is due; the last epoch is always evaluated and saved."""
    job, progress = session.job, session.progress
    session.log.collect()
    epoch, is_last = progress.step // job.steps_per_epoch, progress.step == job.total_steps
    names = []
    if is_last or epoch % job.config.eval_every == 0:
        validate(session)
        if progress.best_step == progress.step:
            names.append(BEST)
    if is_last or stops_early(session) or epoch % job.config.checkpoint_every == 0 or job.checkpoint_due(progress.step):
        names.append(LAST)
    if names:
        save(session, names)


def validate(session: Session) -> None:
    """Evaluate on the validation split, which says whether this is the best so far."""
    progress = session.progress
    result = evaluate_on(session, validation_of(session.job.data))
    progress.evaluated_step = progress.step
    progress.val_loss, progress.val_accuracy = result.loss, result.accuracy
    session.log.evaluation("val", result)
    progress.evaluations_since_best += 1
    if result.accuracy > progress.best_accuracy:
        progress.best_step, progress.evaluations_since_best = progress.step, 0
        progress.best_loss, progress.best_accuracy = result.loss, result.accuracy


def stops_early(session: Session) -> bool:
    """Whether validation accuracy has not risen for `patience` evaluations."""
    patience = session.job.config.patience
    return patience is not None and session.progress.evaluations_since_best >= patience


def test(session: Session) -> None:
    """Read the test split by the weights that validation chose, those of best.pt."""
    job, progress = session.job, session.progress
    content = job.ranks.first_says(lambda: read_checkpoint(job.run_dir / CHECKPOINTS / BEST))
    chosen = content["progress"]
    progress.best_step = chosen["step"]
    progress.best_loss, progress.best_accuracy = chosen["val_loss"], chosen["val_accuracy"]
    with weights(job.trainee.evaluated, content["model"]):
        result = evaluate_on(session, job.data.test)
        progress.test_loss, progress.test_accuracy = result.loss, result.accuracy
        progress.test_factor_accuracy = result.factor_accuracy
        session.log.evaluation("test", result)
        session.observers.tested(result, progress.step)


@contextlib.contextmanager
def weights(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """`model` with a state dict's weights while the block lasts."""
    own = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(own)


def evaluate_on(session: Session, split: Split) -> Evaluation:
    """A split's figures; a signal breaks it off, unless other processes wait for this one's share."""
    job = session.job
    between = session.stop.raise_if_received if job.ranks.size == 1 else lambda: None
    return evaluate(job.trainee.evaluated, split, job.data, job.config, between, job.ranks)


def save(session: Session, names: Sequence[str] = (LAST,)) -> None:
    """Write a checkpoint of this moment. Raises Diverged rather than save what is not finite, or came of it."""
    job, progress, log = session.job, session.progress, session.log
    log.collect()
    progress.elapsed_s = log.elapsed_s()
    folder = job.run_dir / CHECKPOINTS
    job.clock.begin()
    try:
        if not job.ranks.writes:
            check_finite(job.trainee)
            return
        save_checkpoint(folder, job.trainee, progress, job.config, log.as_record(), names=names)
    except NotFiniteError as error:
        raise Diverged(str(error), progress.step) from None
    job.clock.begin()
    session.observers.saved([folder / name for name in names], progress.step)
