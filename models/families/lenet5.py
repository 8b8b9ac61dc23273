"""LeNet-5 in its present-day form: ReLU and max-pool where LeCun et al. (1998) had tanh and subsampling."""

import torch
from einops import rearrange
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.layers import ConvActPool, fully_connected
from tidepool.models.registry import ModelInputs, check_smallest, register, require_size


class LeNet5(nn.Module):
    """Two convolution stages (6 and 16 channels), then 120 - 84 - classes: (N, C, H, W) -> (N, num_classes).

    The 5x5 filters are padded by 2, so only the pools shrink the image and 8x8 digits go in as they are.
    """

    def __init__(self, inputs: ModelInputs, image_size: tuple[int, ...]) -> None:
        super().__init__()
        pixels = (image_size[0] // 4) * (image_size[1] // 4)
        self.conv1 = ConvActPool(inputs.in_channels, 6, 5, padding=2, pool=MaxPool(2), backend=inputs.backend)
        self.conv2 = ConvActPool(6, 16, 5, padding=2, pool=MaxPool(2), backend=inputs.backend)
        self.fc1 = fully_connected(16 * pixels, 120, rectified=True)
        self.fc2 = fully_connected(120, 84, rectified=True)
        self.head = fully_connected(84, inputs.num_classes, rectified=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = rearrange(self.conv2(self.conv1(x)), "n c h w -> n (c h w)")
        return self.head(self.fc2(self.fc1(x).relu()).relu())


@register("lenet5")
def lenet5(inputs: ModelInputs) -> LeNet5:
    """No options."""
    image_size = require_size("lenet5", inputs.image_size)
    check_smallest("lenet5", image_size, 4)
    return LeNet5(inputs, image_size)
