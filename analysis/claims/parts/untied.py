"""A small convolutional network for 8x8 digits, and the same with untied weights; images with permuted pixels."""

import torch
from einops.layers.torch import Rearrange
from torch import nn

from tidepool.analysis.claims.parts.images import Images
from tidepool.kernels import MaxPool
from tidepool.models.layers import ConvActPool, fully_connected
from tidepool.models.locally_connected import LocallyConnected

WIDTHS = (16, 32)
PERMUTATION_SEED = 2024


def tied_or_untied(*, tied: bool, backend: str = "auto") -> nn.Module:
    """(N, 1, 8, 8) -> (N, 10): two stages of 3x3 filters, ReLU and a 2x2 max pool, then a linear layer."""
    first, second = WIDTHS
    if tied:
        stages = [
            ConvActPool(1, first, 3, padding=1, pool=MaxPool(2), backend=backend),
            ConvActPool(first, second, 3, padding=1, pool=MaxPool(2), backend=backend),
        ]
        return nn.Sequential(*stages, *_head(second))
    return nn.Sequential(*_untied(1, first, 8), *_untied(first, second, 4), *_head(second))


def _untied(in_channels: int, channels: int, side: int) -> list[nn.Module]:
    return [LocallyConnected(in_channels, channels, 3, (side, side), padding=1), nn.ReLU(), nn.MaxPool2d(2)]


def _head(channels: int) -> list[nn.Module]:
    return [Rearrange("n c h w -> n (c h w)"), fully_connected(4 * channels, 10, rectified=False)]


def with_permuted_pixels(images: Images) -> Images:
    """The same images, all with one fixed permutation of their pixels."""
    size = images.train.shape[2:]
    order = torch.randperm(size.numel(), generator=torch.Generator().manual_seed(PERMUTATION_SEED))
    train, test = (x.flatten(2)[:, :, order].unflatten(2, size) for x in (images.train, images.test))
    return Images(train, images.train_labels, test, images.test_labels)
