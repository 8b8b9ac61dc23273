"""ResNet for small images: He et al. (2016), section 4.2: 6 n + 2 layers, shortcuts without parameters (option A)."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from tidepool.models.fused import global_average_pool
from tidepool.models.layers import ConvNormAct, fully_connected
from tidepool.models.registry import ModelInputs, at_least_one, register

LAYERS = (20, 32, 44, 56, 110)
STAGES = 3


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut past them: (N, C, H, W) -> (N, K, H / stride, W / stride).

    Where the size changes, the shortcut takes every `stride`-th pixel and fills the new channels with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, backend: str) -> None:
        super().__init__()
        self.first = ConvNormAct(in_channels, out_channels, 3, stride=stride, padding=1, backend=backend)
        self.second = ConvNormAct(out_channels, out_channels, 3, padding=1, backend=backend)
        self.stride, self.new_channels = stride, out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = x
        if self.stride > 1 or self.new_channels:
            past = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return self.second(self.first(x), residual=past)


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of n blocks, the mean over pixels: (N, C, H, W) -> (N, num_classes)."""

    def __init__(self, inputs: ModelInputs, blocks_per_stage: int, width: int) -> None:
        super().__init__()
        self.stem = ConvNormAct(inputs.in_channels, width, 3, padding=1, backend=inputs.backend)
        blocks, before = [], width
        for stage in range(STAGES):
            for position in range(blocks_per_stage):
                channels, stride = width * 2**stage, 2 if stage > 0 and position == 0 else 1
                blocks.append(Block(before, channels, stride, inputs.backend))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = fully_connected(before, inputs.num_classes, rectified=False)
        self.backend = inputs.backend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x))
        return self.head(global_average_pool(x, keepdim=False, backend=self.backend))


def _build(layers: int, inputs: ModelInputs, *, width: int = 16) -> CifarResNet:
    """`width`: channels of the first stage, doubled in each of the other two. Any size."""
    return CifarResNet(inputs, (layers - 2) // (2 * STAGES), at_least_one("width", width))


for _layers in LAYERS:
    register(f"resnet{_layers}")(functools.partial(_build, _layers))
