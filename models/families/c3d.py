"""C3D for short videos: 3x3x3 convolutions over frames, height and width.

D. Tran, L. Bourdev, R. Fergus, L. Torresani, M. Paluri, "Learning Spatiotemporal Features with 3D Convolutional
Networks" (2015), figure 3.
"""

import torch
from einops import rearrange
from torch import nn

from tidepool.models.layers import ConvActPool, fully_connected, pool_where_it_fits
from tidepool.models.registry import ModelInputs, at_least_one, fraction, register, require_size

# Channels, in units of the width, of each stage's convolutions; a stage ends in its pool.
STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))


class C3D(nn.Module):
    """Eight convolutions, five pools and two hidden fully connected layers: (N, C, T, H, W) -> (N, num_classes).

    The first pool is 1x2x2, so that time is not merged too early, the others 2x2x2; the last one pads height and width
    by one pixel. A pool leaves alone what has already shrunk to one frame or one pixel, so that short and small videos
    go in as they are: at the paper's 16 frames of 112x112 pixels every pool is the paper's, and 64 channels wide so
    are the parameters.
    """

    def __init__(self, inputs: ModelInputs, size: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = inputs.in_channels
        for stage, multiples in enumerate(STAGES):
            for position, multiple in enumerate(multiples):
                pool = None
                if position == len(multiples) - 1:
                    window = (1, 2, 2) if stage == 0 else (2, 2, 2)
                    padding = (0, 1, 1) if stage == len(STAGES) - 1 else (0, 0, 0)
                    pool, size = pool_where_it_fits(size, window, padding)
                channels = width * multiple
                layers.append(ConvActPool(before, channels, 3, rank=3, padding=1, pool=pool, backend=inputs.backend))
                before = channels
        self.features = nn.Sequential(*layers)
        self.fc6 = fully_connected(before * size[0] * size[1] * size[2], 64 * width, rectified=True)
        self.fc7 = fully_connected(64 * width, 64 * width, rectified=True)
        self.dropout = nn.Dropout(dropout)
        self.head = fully_connected(64 * width, inputs.num_classes, rectified=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = rearrange(self.features(x), "n c t h w -> n (c t h w)")
        x = self.dropout(self.fc6(x).relu())
        return self.head(self.dropout(self.fc7(x).relu()))


@register("c3d", "video")
def c3d(inputs: ModelInputs, *, width: int = 16, dropout: float = 0.5) -> C3D:
    """`width`: channels of the first convolution; the paper's network has 64, four times the default, which is meant
    for videos of a few dozen pixels. The hidden layers have 64 units for each of them (the paper's 4,096).
    `dropout`: after each hidden layer."""
    size = require_size("c3d", inputs.image_size)
    return C3D(inputs, size, at_least_one("width", width), fraction("dropout", dropout))
