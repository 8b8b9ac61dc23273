"""Stacks of 6 n + 2 layers after He et al. (2015), section 4.2, with the additions or without."""

import torch
import torch.nn.functional as F
from torch import nn

from tidepool.analysis.claims.parts.images import digits
from tidepool.analysis.claims.parts.learning import accuracy, fit
from tidepool.models.families.cifar_resnet import STAGES, Block, CifarResNet
from tidepool.models.registry import ModelInputs

WIDTH, BATCH = 8, 64


class PlainBlock(Block):
    """The two convolutions of a residual block, one after the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def deep_network(layers: int, *, residual: bool, backend: str = "auto") -> CifarResNet:
    """(N, 1, H, W) -> (N, 10). Both kinds draw the same weights from the same seed."""
    inputs = ModelInputs(num_classes=10, in_channels=1, image_size=None, backend=backend)
    network = CifarResNet(inputs, (layers - 2) // (2 * STAGES), WIDTH)
    if not residual:
        for block in network.blocks:
            block.__class__ = PlainBlock
    return network


def gradient_norms(layers: int, *, residual: bool, seed: int, backend: str = "auto") -> list[float]:
    """The norm of the loss's gradient by each convolution's filters at the random start, from the input on."""
    torch.manual_seed(seed)
    network = deep_network(layers, residual=residual, backend=backend)
    images = digits()
    F.cross_entropy(network(images.train[:BATCH]), images.train_labels[:BATCH]).backward()
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    return [float(weight.grad.norm()) for weight in weights if weight.grad is not None]


def train_deep(layers: int, *, residual: bool, seed: int, steps: int) -> tuple[list[float], float]:
    """The loss of every step, and the accuracy on the test digits."""
    torch.manual_seed(seed)
    network, images = deep_network(layers, residual=residual), digits()
    losses = fit(network, images.train, images.train_labels, steps=steps, seed=seed, lr=2e-3, batch=BATCH)
    return losses, accuracy(network, images.test, images.test_labels)
