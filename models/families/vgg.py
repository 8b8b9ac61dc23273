"""VGG, with and without batch norm: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition" (2015), table 1, configurations A, B, D and E."""

import functools

import torch
from einops import rearrange
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.layers import AdaptiveAvgPool
from tidepool.models.registry import ModelInputs, at_least_one, check_smallest, fraction, register
from tidepool.models.torchvision_names import NumberedStack, Stage, start_convolution

# 3x3 convolutions of each of the five stages; every stage ends in a 2x2 max-pool.
DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
MULTIPLES = (1, 2, 4, 8, 8)
SMALLEST = 32  # five pools by 2 leave one pixel


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, then 7x7 pixels into two hidden layers: (N, C, H, W) -> (N, num_classes).

    Parameter names and shapes are torchvision's, and so are the starting values: convolutions from N(0, 2 / (9 K)),
    linear layers from N(0, 0.01^2), biases zero.
    """

    def __init__(
        self, inputs: ModelInputs, depths: tuple[int, ...], norm: bool, width: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        stages = [
            Stage(width * multiple, pool=MaxPool(2) if position == depth - 1 else None)
            for depth, multiple in zip(depths, MULTIPLES, strict=True)
            for position in range(depth)
        ]
        self.features = NumberedStack(inputs.in_channels, stages, norm=norm, backend=inputs.backend)
        self.avgpool = AdaptiveAvgPool((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(8 * width * 49, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, inputs.num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                start_convolution(module)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(rearrange(self.avgpool(self.features(x)), "n c h w -> n (c h w)"))


def _build(
    name: str,
    norm: bool,
    inputs: ModelInputs,
    *,
    width: int = 64,
    hidden: int = 4096,
    dropout: float = 0.5,
) -> VGG:
    """`width`: channels of the first stage; the others have 2, 4, 8 and 8 times as many. `hidden`: units of each
    hidden layer. `dropout`: after each of them."""
    if inputs.image_size is not None:
        check_smallest(f"{name}_bn" if norm else name, inputs.image_size, SMALLEST)
    width, hidden = at_least_one("width", width), at_least_one("hidden", hidden)
    return VGG(inputs, DEPTHS[name], norm, width, hidden, fraction("dropout", dropout))


for _name in DEPTHS:
    register(_name, usual_input=(3, 224, 224))(functools.partial(_build, _name, False))
    register(f"{_name}_bn", usual_input=(3, 224, 224))(functools.partial(_build, _name, True))
