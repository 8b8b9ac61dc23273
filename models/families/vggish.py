"""VGGish for spectrograms: VGG's configuration A without its last stage.

S. Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (2017), and the released VGGish, whose
embedding of 128 numbers is here followed by a classifier.
"""

import torch
from einops import rearrange
from torch import nn

from tidepool.models.layers import ConvActPool, fully_connected, pool_where_it_fits
from tidepool.models.registry import ModelInputs, at_least_one, fraction, register, require_size

# Channels, in units of the width, of each stage's 3x3 convolutions; a stage ends in a 2x2 max-pool.
STAGES = ((1,), (2,), (4, 4), (8, 8))


class VGGish(nn.Module):
    """Six convolutions, four pools, three hidden fully connected layers: (N, C, mels, frames) -> (N, num_classes).

    A pool leaves alone what has already shrunk to one band or one frame. At the release's 64 bands by 96 frames and
    64 channels wide, sizes and parameters are the release's (which puts frames before bands).
    """

    def __init__(self, inputs: ModelInputs, size: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = inputs.in_channels
        for multiples in STAGES:
            for position, multiple in enumerate(multiples):
                pool = None
                if position == len(multiples) - 1:
                    pool, size = pool_where_it_fits(size, (2, 2))
                channels = width * multiple
                layers.append(ConvActPool(before, channels, 3, padding=1, pool=pool, backend=inputs.backend))
                before = channels
        self.features = nn.Sequential(*layers)
        self.fc1 = fully_connected(before * size[0] * size[1], 64 * width, rectified=True)
        self.fc2 = fully_connected(64 * width, 64 * width, rectified=True)
        self.embedding = fully_connected(64 * width, 2 * width, rectified=True)
        self.dropout = nn.Dropout(dropout)
        self.head = fully_connected(2 * width, inputs.num_classes, rectified=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = rearrange(self.features(x), "n c mels frames -> n (c mels frames)")
        x = self.dropout(self.fc1(x).relu())
        x = self.dropout(self.fc2(x).relu())
        return self.head(self.embedding(x).relu())


@register("vggish", usual_input=(1, 64, 96))
def vggish(inputs: ModelInputs, *, width: int = 16, dropout: float = 0.0) -> VGGish:
    """`width`: channels of the first convolution; the release has 64, four times the default, which is meant for
    single words. The hidden layers have 64 units for each of them and the embedding 2 (the release's 4,096 and 128).
    `dropout`: after the first two hidden layers; the release has none."""
    size = require_size("vggish", inputs.image_size)
    return VGGish(inputs, size, at_least_one("width", width), fraction("dropout", dropout))
