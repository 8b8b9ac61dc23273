"""A family whose depth, width, kernel size and skips are options, for sweeps over architectures."""

import torch
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.fused import global_average_pool
from tidepool.models.layers import ConvNormAct, fully_connected
from tidepool.models.registry import ModelInputs, at_least_one, check_smallest, register

STAGES = 3


class Stage(nn.Module):
    """`depth` convolutions with norm and ReLU; the first one changes the channels and pools 2x2.

    (N, C, H, W) -> (N, K, H / 2, W / 2). With `skips`, what enters each of the others is added to its norm's output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, kernel_size: int, skips: bool, backend: str
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.first = ConvNormAct(
            in_channels, out_channels, kernel_size, padding=padding, pool=MaxPool(2), backend=backend
        )
        self.others = nn.ModuleList(
            ConvNormAct(out_channels, out_channels, kernel_size, padding=padding, backend=backend)
            for _ in range(depth - 1)
        )
        self.skips = skips

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.others:
            x = layer(x, residual=x if self.skips else None)
        return x


class Searchable(nn.Module):
    """Three stages with `width`, 2 `width` and 4 `width` channels, the mean over pixels: (N, C, H, W) -> (N,
    num_classes)."""

    def __init__(self, inputs: ModelInputs, depth: int, width: int, kernel_size: int, skips: bool) -> None:
        super().__init__()
        stages, before = [], inputs.in_channels
        for stage in range(STAGES):
            channels = width * 2**stage
            stages.append(Stage(before, channels, depth, kernel_size, skips, inputs.backend))
            before = channels
        self.stages = nn.Sequential(*stages)
        self.head = fully_connected(before, inputs.num_classes, rectified=False)
        self.backend = inputs.backend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(global_average_pool(self.stages(x), keepdim=False, backend=self.backend))


@register("searchable")
def searchable(
    inputs: ModelInputs, *, depth: int = 2, width: int = 32, kernel_size: int = 3, skips: bool = True
) -> Searchable:
    """`depth`: convolutions in each of the three stages. `width`: channels of the first. `kernel_size`: odd, the same
    everywhere. `skips`: whether convolutions after a stage's first add what enters them."""
    if inputs.image_size is not None:
        check_smallest("searchable", inputs.image_size, 2**STAGES)
    at_least_one("depth", depth), at_least_one("width", width), at_least_one("kernel_size", kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size}; expected an odd number, so that sizes stay the same")
    if not isinstance(skips, bool):
        raise ValueError(f"skips={skips!r}; expected True or False")
    return Searchable(inputs, depth, width, kernel_size, skips)
