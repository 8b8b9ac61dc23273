"""One optimizer step: forward and backward over a batch, and whether what came of it may reach the weights."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from tidepool.training.batch import Batch, Part
from tidepool.training.config import Config
from tidepool.training.job import Job
from tidepool.training.precision import autocast
from tidepool.training.steps import Taken


def train_step(job: Job, indices: Tensor, step: int) -> Taken:
    """One optimizer step on the samples at `indices`, left out where the loss or the gradient is not finite.

    On a GPU the host does not wait for that: the fused optimizers leave a step out on the device's word; for the others
    it does wait. Of fp16's scaled gradients the scaler decides, which takes an overflow for a scale that was too large.
    """
    config, trainee, scaler = job.config, job.trainee, job.trainee.scaler
    trainee.optimizer.zero_grad(set_to_none=True)
    job.ranks.draw_apart(config.seed, step)
    loss, correct = forward_and_backward(job, Batch(job, indices, step), len(indices))
    if scaler.is_enabled():
        scaler.unscale_(trainee.optimizer)
    norm = gradient_norm(trainee.optimizer)
    finite = loss.isfinite() & (norm.isfinite() | scaler.is_enabled())
    taken = Taken(loss, correct, norm, finite, indices)
    waits = job.device.type == "cpu" or not trainee.optimizer.defaults.get("fused")
    if waits and not finite:
        return taken
    if not waits and not scaler.is_enabled():
        vars(trainee.optimizer)["found_inf"] = (~finite).float()  # what GradScaler sets
    if config.clip_norm is not None:
        clip_grads_with_norm_(_parameters(trainee.optimizer), config.clip_norm, norm)
    scaler.step(trainee.optimizer)
    scaler.update()
    if trainee.average is not None:
        trainee.average.update(trainee.model, step)
    if step + 1 < job.total_steps:
        trainee.schedule.step()
    return taken


def forward_and_backward(job: Job, batch: Batch, samples: int) -> tuple[Tensor, Tensor]:
    """(mean loss, right answers) of the whole batch, its gradients left in the parameters: over its parts, one after
    another, and over all processes."""
    trainee, parts = job.trainee, list(batch.parts())
    losses, corrects = [], []
    for number, part in enumerate(parts, 1):
        with job.ranks.together_if(trainee.network, number == len(parts)):
            with autocast(job.config, job.device):
                logits = trainee.network(part.inputs)
            part_loss = loss_of(job.config, logits.float(), part)
            share = len(part.labels) / samples
            trainee.scaler.scale(part_loss * (share * job.ranks.size)).backward()
        losses.append(part_loss.detach() * share)
        corrects.append((logits.detach().argmax(1) == part.labels).sum())
    loss, correct = job.ranks.summed(torch.stack(losses).sum(), torch.stack(corrects).sum())
    return loss, correct


def loss_of(config: Config, logits: Tensor, part: Part) -> Tensor:
    """Mean cross-entropy, of mixed inputs that of both labels by their shares."""
    own = F.cross_entropy(logits, part.labels, label_smoothing=config.label_smoothing)
    if part.partners is None:
        return own
    theirs = F.cross_entropy(logits, part.partners, label_smoothing=config.label_smoothing)
    return part.share * own + (1 - part.share) * theirs


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """The Euclidean norm of all gradients together, on their device."""
    return get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
