"""VGG-like stacks of 3x3 conv-relu(-pool) for images of any size."""

import torch
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.fused import global_average_pool
from tidepool.models.layers import ConvNormAct, fully_connected
from tidepool.models.registry import ModelInputs, at_least_one, check_smallest, register

STAGES = 3


class ConvNet(nn.Module):
    """Three stages of `depth` convolutions with `width`, 2 `width` and 4 `width` channels, then the mean over pixels.

    (N, C, H, W) -> (N, num_classes). Each convolution is followed by batch normalisation and ReLU, and the first one
    of a stage by a 2x2 max-pool, so that the others work on a quarter of the pixels.
    """

    def __init__(self, inputs: ModelInputs, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = inputs.in_channels
        for stage in range(STAGES):
            channels = width * 2**stage
            for position in range(depth):
                pool = MaxPool(2) if position == 0 else None
                layers.append(ConvNormAct(before, channels, 3, padding=1, pool=pool, backend=inputs.backend))
                before = channels
        self.features = nn.Sequential(*layers)
        self.head = fully_connected(before, inputs.num_classes, rectified=False)
        self.backend = inputs.backend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(global_average_pool(self.features(x), keepdim=False, backend=self.backend))


@register("convnet")
def convnet(inputs: ModelInputs, *, width: int = 64, depth: int = 2) -> ConvNet:
    """`width`: channels of the first stage. `depth`: convolutions in each of the three stages."""
    if inputs.image_size is not None:
        check_smallest("convnet", inputs.image_size, 2**STAGES)
    return ConvNet(inputs, at_least_one("width", width), at_least_one("depth", depth))
