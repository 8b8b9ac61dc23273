"""Loss, accuracy and confusion of a network on a whole split."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tidepool.data import LabelledData, Split
from tidepool.data.dataset import Factor
from tidepool.training.config import Config
from tidepool.training.distributed import ONE_PROCESS, Ranks
from tidepool.training.precision import autocast, normalised


@dataclass(frozen=True)
class Evaluation:
    """`loss` is the mean cross-entropy without label smoothing, `accuracy` a fraction, `confusion` int64
    (classes, classes) on the CPU: rows are true classes, columns predicted ones. `factor_accuracy` is the fraction of
    predictions that are right in each part of the labels, where these are made of several.
    """

    loss: float
    accuracy: float
    confusion: Tensor
    factor_accuracy: dict[str, float]
    losses: Tensor | None = None
    """(N,) each sample's, on the CPU."""
    predicted: Tensor | None = None
    """(N,) int64 classes, on the CPU."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    data: LabelledData,
    config: Config,
    between_batches: Callable[[], None],
    ranks: Ranks = ONE_PROCESS,
) -> Evaluation:
    """Run `model` in eval mode over `split`, in order, and leave it in the mode it was in.

    `between_batches` is called after each batch and may raise to break off. Of several processes each takes its share
    of the batches, and all get the whole result.
    """
    device = split.inputs.device
    was_training = model.training
    confusion = torch.zeros(data.num_classes**2, dtype=torch.int64, device=device)
    losses = torch.zeros(len(split), device=device)
    predicted = torch.zeros(len(split), dtype=torch.int64, device=device)
    total_loss = torch.zeros((), dtype=torch.float64, device=device)
    model.eval()
    try:
        size = 2 * config.batch_size
        batches = zip(range(0, len(split), size), split.inputs.split(size), split.labels.split(size), strict=True)
        for place, inputs, labels in islice(batches, ranks.rank, None, ranks.size):
            with autocast(config, device):
                logits = model(normalised(data, config, inputs))
            answers = logits.argmax(1)
            losses[place : place + len(labels)] = F.cross_entropy(logits.float(), labels, reduction="none")
            predicted[place : place + len(labels)] = answers
            total_loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            confusion += torch.bincount(labels * data.num_classes + answers, minlength=data.num_classes**2)
            between_batches()
    finally:
        model.train(was_training)
    for summed in (total_loss, confusion, losses, predicted):
        ranks.added(summed)
    table = confusion.view(data.num_classes, data.num_classes).cpu()
    return Evaluation(
        loss=total_loss.item() / len(split),
        accuracy=table.diagonal().sum().item() / len(split),
        confusion=table,
        factor_accuracy={factor.name: _agreement(table, factor) for factor in data.factors},
        losses=losses.cpu(),
        predicted=predicted.cpu(),
    )


def _agreement(confusion: Tensor, factor: Factor) -> float:
    """The fraction of predictions whose class agrees with the true class in `factor`."""
    value = torch.tensor(factor.of_class)
    return confusion[value[:, None] == value].sum().item() / confusion.sum().item()
