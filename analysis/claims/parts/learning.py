"""Training a small network the same way in every experiment: Adam, a cosine to zero, batches by seed."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from tidepool.data.batches import epoch_batches

BATCH = 32


def fit(
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: int,
    seed: int,
    lr: float = 3e-3,
    batch: int = BATCH,
    after: Callable[[int, float], bool] | None = None,
) -> list[float]:
    """Train for so many steps; returns the loss of each. `after(step, loss)` may end it early by returning True."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    losses = []
    for step, chosen in zip(range(1, steps + 1), _batches(len(inputs), batch, seed), strict=False):
        loss = F.cross_entropy(network(inputs[chosen]), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if after is not None and after(step, losses[-1]):
            break
    return losses


def _batches(count: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    epoch = 0
    while True:
        yield from epoch_batches(count, min(batch, count), seed=seed, epoch=epoch, drop_last=True)
        epoch += 1


@torch.no_grad()
def predictions(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The class (N,) that an evaluated network gives each input."""
    was_training = network.training
    network.eval()
    classes = torch.cat([network(part).argmax(1) for part in inputs.split(500)])
    network.train(was_training)
    return classes


def accuracy(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """The fraction of inputs whose class is their label."""
    return float((predictions(network, inputs) == labels).double().mean())


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
