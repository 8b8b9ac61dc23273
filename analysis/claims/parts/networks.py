"""The networks of the experiments: a stack of 3x3 convolutions with a choice of edges and of downsampling.

They are made of the project's layers, so that each runs on every backend.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import reduce
from torch import nn

from tidepool.kernels import AvgPool, MaxPool
from tidepool.models.antialiased import AdaptivePolyphase, BlurPool
from tidepool.models.layers import ConvActPool, fully_connected

Edges = Literal["circular", "zeros", "full"]
Downsampling = Literal["none", "max pool", "average pool", "stride 2", "BlurPool", "polyphase"]


class EdgedConv(nn.Module):
    """A 3x3 convolution, ReLU and downsampling by 2: (N, C, H, W) -> (N, K, H / 2, W / 2), or (…, H, W) without.

    `edges`: "circular" joins opposite ones, "zeros" keeps the size, "full" pads by two zeros all round.
    """

    def __init__(
        self, in_channels: int, channels: int, edges: Edges, down: Downsampling, backend: str, *, kernel: int = 3
    ) -> None:
        super().__init__()
        self.pad = kernel - 1 if edges == "full" else kernel // 2
        self.mode = "circular" if edges == "circular" else "constant"
        pools: dict[str, MaxPool | AvgPool] = {"max pool": MaxPool(2), "average pool": AvgPool(2)}
        pool = pools.get(down)
        self.conv = ConvActPool(
            in_channels, channels, kernel, stride=2 if down == "stride 2" else 1, pool=pool, backend=backend
        )
        self.blurred = BlurPool(circular=edges == "circular", backend=backend) if down == "BlurPool" else None
        self.polyphase = AdaptivePolyphase() if down == "polyphase" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(F.pad(x, (self.pad,) * 4, mode=self.mode))
        if self.blurred is not None:  # Zhang: the maximum at every place, then the low-pass filter
            x = self.blurred(F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="circular"), 2, stride=1))
        return x if self.polyphase is None else self.polyphase(x)


class Stack(nn.Module):
    """Convolutions of the given widths, the mean (or maximum) over pixels, one linear layer: (N, C, H, W) -> logits."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        edges: Edges = "zeros",
        down: Downsampling = "max pool",
        num_classes: int = 10,
        backend: str = "auto",
        over_pixels: Literal["mean", "max"] = "mean",
        kernel: int = 3,
    ) -> None:
        super().__init__()
        before = (in_channels, *widths[:-1])
        self.stages = nn.ModuleList(
            EdgedConv(a, b, edges, down, backend, kernel=kernel) for a, b in zip(before, widths, strict=True)
        )
        self.over_pixels = over_pixels
        self.head = fully_connected(widths[-1], num_classes, rectified=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(reduce(x, "n c h w -> n c", self.over_pixels))
