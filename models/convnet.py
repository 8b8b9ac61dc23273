"""VGG-like stacks of 3x3 conv-relu(-pool) for pictures of any size."""

import torch
from einops import reduce
from torch import nn

from kernels import MaxPool
from models.layers import ConvReLUPool, fully_connected
from models.registry import ModelInputs, at_least_one, check_smallest, register

STAGES = 3


class ConvNet(nn.Module):
    """Three stages of `depth` convolutions with `width`, 2 `width` and 4 `width` channels, then the mean over pixels.

    (N, C, H, W) -> (N, num_classes). The first convolution of a stage pools 2x2, as in airbench, so the others work
    on a quarter of the pixels. Each is followed by batch normalisation: the op holds convolution, ReLU and pool
    together, so the normalisation comes after them, and its shift makes up for the ReLU's sign.
    """

    def __init__(self, inputs: ModelInputs, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = inputs.in_channels
        for stage in range(STAGES):
            channels = width * 2**stage
            for position in range(depth):
                pool = MaxPool(2) if position == 0 else None
                layers.append(ConvReLUPool(before, channels, 3, padding=1, pool=pool, backend=inputs.backend))
                layers.append(nn.BatchNorm2d(channels))
                before = channels
        self.features = nn.Sequential(*layers)
        self.head = fully_connected(before, inputs.num_classes, rectified=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(reduce(self.features(x), "n c h w -> n c", "mean"))


@register("convnet")
def convnet(inputs: ModelInputs, *, width: int = 64, depth: int = 2) -> ConvNet:
    """`width`: channels of the first stage. `depth`: convolutions in each of the three stages."""
    if inputs.image_size is not None:
        check_smallest("convnet", inputs.image_size, 2**STAGES)
    return ConvNet(inputs, at_least_one("width", width), at_least_one("depth", depth))
