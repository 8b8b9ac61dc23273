"""ResNet for large images: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition" (2016),
table 1, with the stride of a bottleneck in its 3x3 convolution, as torchvision has it."""

import functools

import torch
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.fused import conv_norm_act, global_average_pool
from tidepool.models.registry import ModelInputs, at_least_one, register
from tidepool.models.torchvision_names import ConvNorm, start_convolution

# Kind of block, blocks in each of the four stages.
DEPTHS: dict[str, tuple[str, tuple[int, ...]]] = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
}


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int, backend: str) -> ConvNorm | None:
    """A 1x1 convolution and its norm where the block changes the size, None where it does not."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv, norm = _conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
    return ConvNorm(conv, norm, activation=None, backend=backend)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut past them: (N, C, H, W) -> (N, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, backend: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(in_channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride, backend)
        self.backend = backend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = x if self.downsample is None else self.downsample(x)
        y = conv_norm_act(x, self.conv1, self.bn1, backend=self.backend)
        return conv_norm_act(y, self.conv2, self.bn2, residual=past, backend=self.backend)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut past them: (N, C, H, W) -> (N, 4 width, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, backend: str) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1, self.bn1 = _conv(in_channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, out_channels, 1), nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride, backend)
        self.backend = backend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = x if self.downsample is None else self.downsample(x)
        y = conv_norm_act(x, self.conv1, self.bn1, backend=self.backend)
        y = conv_norm_act(y, self.conv2, self.bn2, backend=self.backend)
        return conv_norm_act(y, self.conv3, self.bn3, residual=past, backend=self.backend)


BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A stem that divides the size by 4, four stages of blocks, the mean over pixels: (N, C, H, W) -> (N, num_classes).

    Parameter names and shapes are torchvision's, and so are the starting values: convolutions from
    N(0, 2 / (K kernel^2)).
    """

    def __init__(self, inputs: ModelInputs, kind: str, depths: tuple[int, ...], width: int) -> None:
        super().__init__()
        block = BLOCKS[kind]
        self.conv1 = nn.Conv2d(inputs.in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        stages = []
        for stage, depth in enumerate(depths):
            blocks = []
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(block(before, width * 2**stage, stride, inputs.backend))
                before = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(before, inputs.num_classes)
        self.backend = inputs.backend
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                start_convolution(module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = conv_norm_act(x, self.conv1, self.bn1, pool=MaxPool(3, stride=2, padding=1), backend=self.backend)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(global_average_pool(x, keepdim=False, backend=self.backend))


def _build(name: str, inputs: ModelInputs, *, width: int = 64, depth: int | None = None) -> ResNet:
    """`width`: channels of the stem and the first stage's 3x3 convolutions, doubled at every stage. `depth`: blocks in
    each stage, where it is not to be the network's own. Any size."""
    kind, depths = DEPTHS[name]
    if depth is not None:
        depths = (at_least_one("depth", depth),) * len(depths)
    return ResNet(inputs, kind, depths, at_least_one("width", width))


for _name in DEPTHS:
    register(_name, usual_input=(3, 224, 224))(functools.partial(_build, _name))
