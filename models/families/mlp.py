"""Fully connected baseline: what the convolutional networks are compared with."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from einops import rearrange
from torch import nn

from tidepool.models.layers import fully_connected
from tidepool.models.registry import ModelInputs, at_least_one, register, require_size


class MLP(nn.Module):
    """Every pixel to every unit: (N, C, H, W) -> (N, num_classes), with ReLU between the layers."""

    def __init__(self, in_features: int, hidden: Sequence[int], num_classes: int) -> None:
        super().__init__()
        sizes = [in_features, *hidden]
        self.hidden = nn.ModuleList(fully_connected(before, after, rectified=True) for before, after in pairwise(sizes))
        self.head = fully_connected(sizes[-1], num_classes, rectified=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = rearrange(x, "n c h w -> n (c h w)")
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)


@register("mlp")
def mlp(inputs: ModelInputs, *, hidden: Sequence[int] = (256, 128)) -> MLP:
    """`hidden`: units of each hidden layer; an empty sequence is a linear classifier. No convolution: no backend."""
    size = require_size("mlp", inputs.image_size)
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise ValueError(f"hidden={hidden!r}; expected a sequence of layer sizes such as (256, 128)")
    units = [at_least_one("hidden", size) for size in hidden]
    return MLP(inputs.in_channels * math.prod(size), units, inputs.num_classes)
