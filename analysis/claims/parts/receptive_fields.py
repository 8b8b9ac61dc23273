"""Effective receptive fields (Luo et al. 2016): how strongly each input pixel moves one unit in the middle.

The field is the mean absolute gradient over inputs and channels, cut to the theoretical receptive field.
"""

import math

import torch
from torch import nn

from tidepool.analysis.claims.parts.images import roomy_digits
from tidepool.analysis.claims.parts.learning import fit
from tidepool.analysis.claims.parts.networks import Stack
from tidepool.models.layers import ConvActPool

CHANNELS, DRAWS = 8, 8


def effective_field(layers: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(H, W): |d(sum of the channels of the middle unit) / dx|, mean over images and channels of x (N, C, H, W)."""
    x = x.clone().requires_grad_()
    y = layers(x)
    middle = y[:, :, y.shape[2] // 2, y.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle, x, torch.randn_like(middle))
    return gradient.abs().mean((0, 1)).detach()


def diameter(field: torch.Tensor) -> float:
    """Four standard deviations of the field taken as a distribution over pixels, mean of the two dimensions."""
    share = (field / field.sum()).double()
    widths = []
    for profile in (share.sum(1), share.sum(0)):
        places = torch.arange(len(profile)).double()
        middle = (profile * places).sum()
        widths.append(4 * math.sqrt((profile * (places - middle).square()).sum()))
    return sum(widths) / 2


def random_field(depth: int, *, relu: bool) -> torch.Tensor:
    """The field of `depth` 3x3 layers with random weights, (2 depth + 1)² pixels, mean over eight draws of weights."""
    side = 2 * depth + 1
    fields = []
    for _ in range(DRAWS):
        activation = "relu" if relu else None
        layers = nn.Sequential(*(ConvActPool(CHANNELS, CHANNELS, 3, activation=activation) for _ in range(depth)))
        fields.append(effective_field(layers, torch.randn(1, CHANNELS, side, side)))
    return torch.stack(fields).mean(0)


def digits_field(depth: int, seed: int, *, steps: int) -> torch.Tensor:
    """The field of a stack of `depth` 3x3 layers after so many steps of training on digits, on test digits."""
    images = roomy_digits()
    network = Stack(1, (16,) * depth, down="none")
    if steps:
        fit(network, images.train, images.train_labels, steps=steps, seed=seed, lr=1e-3)
    field = effective_field(nn.Sequential(*network.stages), images.test[:64])
    middle, reach = field.shape[0] // 2, depth
    return field[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
