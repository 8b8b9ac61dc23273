"""A small network for fast training on CIFAR-10, of the kind of K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
GPU" (2024): pooling comes before norm and activation, which then work on a quarter of the pixels."""

import torch
from einops import reduce
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.fused import conv_relu_pool
from tidepool.models.layers import ConvNormAct
from tidepool.models.registry import ModelInputs, at_least_one, check_smallest, register

STEM_KERNEL = 2
MULTIPLES = (1, 4, 4)
SMALLEST = 9  # the stem takes a pixel, three pools by 2 leave one of 8
HEAD_SCALE = 1 / 9


class SpeedNet(nn.Module):
    """A 2x2 stem and three stages of conv-pool-norm-act and conv-norm-act: (N, C, H, W) -> (N, num_classes).

    Then the largest value over the pixels of each channel and a linear layer without bias, scaled by 1/9. Convolutions
    start as the identity on as many channels as enter them, norms have shifts but no scales to learn. What differs from
    the paper: the stem's 8 C filters start at random and learn, where the paper's are the eigenvectors of patches of
    the training images; norms keep PyTorch's eps and momentum.
    """

    def __init__(self, inputs: ModelInputs, width: int) -> None:
        super().__init__()
        self.backend = inputs.backend
        before = 2 * STEM_KERNEL**2 * inputs.in_channels
        self.stem = nn.Conv2d(inputs.in_channels, before, STEM_KERNEL)
        layers: list[nn.Module] = []
        for multiple in MULTIPLES:
            channels = width * multiple
            layers.append(_layer(before, channels, MaxPool(2), inputs.backend))
            layers.append(_layer(channels, channels, None, inputs.backend))
            before = channels
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(before, inputs.num_classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = conv_relu_pool(x, self.stem, activation="gelu", backend=self.backend)
        return self.head(reduce(self.layers(x), "n c h w -> n c", "max")) * HEAD_SCALE


def _layer(in_channels: int, out_channels: int, pool: MaxPool | None, backend: str) -> ConvNormAct:
    layer = ConvNormAct(
        in_channels,
        out_channels,
        3,
        padding=1,
        activation="gelu",
        pool=pool,
        pool_first=pool is not None,
        backend=backend,
    )
    layer.norm.weight.requires_grad_(False)
    if out_channels >= in_channels:
        nn.init.dirac_(layer.conv.weight[:in_channels].data)
    return layer


@register("speednet")
def speednet(inputs: ModelInputs, *, width: int = 64) -> SpeedNet:
    """`width`: channels of the first stage; the other two have 4 times as many."""
    if inputs.image_size is not None:
        check_smallest("speednet", inputs.image_size, SMALLEST)
    return SpeedNet(inputs, at_least_one("width", width))
