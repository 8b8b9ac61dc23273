"""Small networks as others write them: no layer of this project, every spelling that `fuse` has to know."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TextbookLeNet(nn.Module):
    """Functions for everything without parameters, pool before ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 3 * 3, 20)
        self.fc2 = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), (2, 2))
        x = torch.flatten(x, 1)
        return self.fc2(F.relu(self.fc1(x)))


class AlexNetStyle(nn.Module):
    """One long `nn.Sequential`, ReLU in place, overlapping pools."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(8 * 2 * 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).view(x.size(0), -1))


def vgg_style(norm: bool) -> nn.Module:
    """A list of layers from a list of numbers."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in (4, "pool", 8, 8, "pool"):
        if entry == "pool":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            continue
        width = int(entry)
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(channels * 4, 4))


class Inception(nn.Module):
    """Four branches side by side, as in GoogLeNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
        self.five = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 5, padding=2), nn.ReLU())
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(channels, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], dim=1)


class GoogLeNetStyle(nn.Module):
    """A stem, an inception block and a classifier beside the main one in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.block = Inception(6)
        self.side = nn.Conv2d(16, 4, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.pool(self.stem(x).relu()))
        y = self.head(x.mean((2, 3)))
        if self.training:
            return y + torch.relu(self.side(x)).mean((2, 3))
        return y


class Fire(nn.Module):
    """Squeeze, then two expansions side by side, as in SqueezeNet."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        ones = self.expand1x1_activation(self.expand1x1(x))
        return torch.cat([ones, self.expand3x3_activation(self.expand3x3(x))], 1)


class SqueezeNetStyle(nn.Module):
    """No linear layer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(6, 2, 4)
        )
        self.classifier = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(F.relu(self.classifier(self.features(x)), inplace=True), 1).flatten(1)


class ResidualBlock(nn.Module):
    """One ReLU module called twice; the sum in place."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return self.relu(out)


class ResNetStyle(nn.Module):
    """A stem with norm and pool, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.Sequential(ResidualBlock(4, 4, 1), ResidualBlock(4, 6, 2))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(self.stem(x)).mean(dim=(-2, -1)))


class MobileNetStyle(nn.Module):
    """Inverted bottleneck with ReLU6, depthwise in the middle, linear at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(inplace=True))
        depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(6), nn.ReLU6(inplace=True))
        self.project = nn.Sequential(nn.Conv2d(6, 3, 1, bias=False), nn.BatchNorm2d(3))
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.project(self.depthwise(self.expand(x)))).mean((2, 3)))


class EfficientNetStyle(nn.Module):
    """Inverted bottleneck with SiLU, squeeze and excite, and drop-path in training."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.bn0 = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6, eps=1e-3)
        self.depthwise = nn.Conv2d(6, 6, 5, padding="same", groups=6, bias=False)
        self.bn1 = nn.BatchNorm2d(6, eps=1e-3, momentum=0.01)
        self.reduce, self.restore = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.project, self.bn2 = nn.Conv2d(6, 3, 1, bias=False), nn.BatchNorm2d(3, momentum=None)
        self.act = nn.SiLU()
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn0(self.expand(x)))
        y = F.silu(self.bn1(self.depthwise(y)))
        gate = self.restore(self.act(self.reduce(y.mean((2, 3), keepdim=True))))
        y = self.bn2(self.project(y * torch.sigmoid(gate)))
        if self.training:
            y = F.dropout(y, 0.2, training=self.training)
        return self.head((y + x).mean((2, 3)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "lenet": (TextbookLeNet, (3, 1, 20, 20), 2),
    "alexnet": (AlexNetStyle, (3, 3, 22, 22), 3),
    "vgg": (lambda: vgg_style(norm=False), (3, 3, 10, 12), 3),
    "vgg with norm": (lambda: vgg_style(norm=True), (3, 3, 10, 12), 3),
    "googlenet": (GoogLeNetStyle, (3, 3, 9, 9), 8),
    "squeezenet": (SqueezeNetStyle, (3, 3, 13, 13), 5),
    "resnet": (ResNetStyle, (3, 3, 8, 8), 6),
    "mobilenet": (MobileNetStyle, (3, 3, 7, 7), 3),
    "efficientnet": (EfficientNetStyle, (3, 3, 7, 7), 5),
}
"""What builds each, the size of its input, and how many fused layers a reader would count: for GoogLeNet the side
classifier is one of them, for EfficientNet the squeeze with its SiLU."""
