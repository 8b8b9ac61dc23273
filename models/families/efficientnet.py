"""EfficientNet: M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019).

Table 1 is B0; the others scale its widths by a factor, rounded to a multiple of 8 that is at most a tenth smaller, and
its depths by another, rounded up.
"""

import functools
import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn

from tidepool.models.fused import conv_relu_pool, global_average_pool, squeeze_excite
from tidepool.models.registry import ModelInputs, above_zero, fraction, register
from tidepool.models.torchvision_names import ConvNorm, start_convolution


@dataclass(frozen=True)
class Scale:
    """One member of the family; norms of the three largest have other settings in the original code."""

    width: float
    depth: float
    dropout: float
    eps: float = 1e-5
    momentum: float = 0.1


SCALES = {
    "efficientnet_b0": Scale(width=1.0, depth=1.0, dropout=0.2),
    "efficientnet_b1": Scale(width=1.0, depth=1.1, dropout=0.2),
    "efficientnet_b2": Scale(width=1.1, depth=1.2, dropout=0.3),
    "efficientnet_b3": Scale(width=1.2, depth=1.4, dropout=0.3),
    "efficientnet_b4": Scale(width=1.4, depth=1.8, dropout=0.4),
    "efficientnet_b5": Scale(width=1.6, depth=2.2, dropout=0.4, eps=1e-3, momentum=0.01),
    "efficientnet_b6": Scale(width=1.8, depth=2.6, dropout=0.5, eps=1e-3, momentum=0.01),
    "efficientnet_b7": Scale(width=2.0, depth=3.1, dropout=0.5, eps=1e-3, momentum=0.01),
}


@dataclass(frozen=True)
class StageShape:
    """Blocks of one stage: the first one takes the stride and changes the channels."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    depth: int


STEM_CHANNELS = 32
STAGES = (
    StageShape(1, 3, 1, 16, 1),
    StageShape(6, 3, 2, 24, 2),
    StageShape(6, 5, 2, 40, 2),
    StageShape(6, 3, 2, 80, 3),
    StageShape(6, 5, 1, 112, 3),
    StageShape(6, 5, 2, 192, 4),
    StageShape(6, 3, 1, 320, 1),
)
HEAD_EXPANSION = 4
SQUEEZE = 4  # a squeeze has a quarter of the channels that enter the block


def scaled_channels(channels: int, factor: float) -> int:
    """`channels` times `factor` to the nearest multiple of 8, one higher if that is more than a tenth too small."""
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    scale: Scale,
    backend: str,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: str | None = "silu",
) -> ConvNorm:
    """Padded so that only the stride shrinks the image."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(out_channels, eps=scale.eps, momentum=scale.momentum)
    return ConvNorm(conv, norm, activation=activation, backend=backend)


class SqueezeExcite(nn.Module):
    """Every channel times a gate computed from the means of all: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, squeezed: int, backend: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.backend = backend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = global_average_pool(x, backend=self.backend)
        gate = conv_relu_pool(gate, self.fc1, activation="silu", backend=self.backend)
        gate = conv_relu_pool(gate, self.fc2, activation=None, backend=self.backend)
        return squeeze_excite(x, gate, backend=self.backend)


class InvertedBottleneck(nn.Module):
    """Expand, depthwise, squeeze and excite, project, and the shortcut past them where the size stays the same.

    (N, C, H, W) -> (N, K, H / stride, W / stride). In training each image's block is dropped with probability
    `drop`, and else scaled up by 1 / (1 - drop): drop path, or stochastic depth (G. Huang et al., 2016).
    """

    def __init__(
        self, in_channels: int, shape: StageShape, channels: int, stride: int, drop: float, scale: Scale, backend: str
    ) -> None:
        super().__init__()
        expanded = in_channels if shape.expansion == 1 else scaled_channels(in_channels, shape.expansion)
        parts: list[nn.Module] = []
        if shape.expansion > 1:
            parts.append(_conv_norm(in_channels, expanded, 1, scale, backend))
        parts.append(_conv_norm(expanded, expanded, shape.kernel, scale, backend, stride=stride, groups=expanded))
        parts.append(SqueezeExcite(expanded, max(1, in_channels // SQUEEZE), backend))
        parts.append(_conv_norm(expanded, channels, 1, scale, backend, activation=None))
        self.block = nn.ModuleList(parts)
        self.past = stride == 1 and in_channels == channels
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *parts, project = self.block
        y = x
        for part in parts:
            y = part(y)
        dropping = self.past and self.training and self.drop > 0
        residual = x if self.past and not dropping else None
        y = project(y, residual=residual)
        return x + kept_at_random(y, self.drop) if dropping else y


def kept_at_random(x: torch.Tensor, drop: float) -> torch.Tensor:
    """Each sample of x (N, ...) zero with probability `drop`, else divided by 1 - `drop`."""
    # Drawn in float32 whatever x is, so that one seed leaves out the same samples in every dtype.
    kept = torch.empty(x.shape[0], device=x.device, dtype=torch.float32).bernoulli_(1 - drop)
    return x * rearrange(kept / (1 - drop), "n -> n 1 1 1").to(x.dtype)


class EfficientNet(nn.Module):
    """Stem, seven stages of inverted bottlenecks, head, the mean over pixels: (N, C, H, W) -> (N, num_classes).

    Parameter names and shapes are torchvision's, and so are the starting values: convolutions from
    N(0, 2 / (K kernel^2)), the classifier uniform within 1 / sqrt(num_classes), biases zero.
    """

    def __init__(self, inputs: ModelInputs, scale: Scale, stochastic_depth: float) -> None:
        super().__init__()
        before = scaled_channels(STEM_CHANNELS, scale.width)
        parts: list[nn.Module] = [_conv_norm(inputs.in_channels, before, 3, scale, inputs.backend, stride=2)]
        depths = [math.ceil(stage.depth * scale.depth) for stage in STAGES]
        number = 0
        for shape, depth in zip(STAGES, depths, strict=True):
            blocks: list[nn.Module] = []
            for position in range(depth):
                channels, stride = scaled_channels(shape.channels, scale.width), shape.stride if position == 0 else 1
                drop = stochastic_depth * number / sum(depths)
                blocks.append(InvertedBottleneck(before, shape, channels, stride, drop, scale, inputs.backend))
                before, number = channels, number + 1
            parts.append(nn.Sequential(*blocks))
        parts.append(_conv_norm(before, HEAD_EXPANSION * before, 1, scale, inputs.backend))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(
            nn.Dropout(scale.dropout), nn.Linear(HEAD_EXPANSION * before, inputs.num_classes)
        )
        self.backend = inputs.backend
        bound = 1 / math.sqrt(inputs.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                start_convolution(module)
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -bound, bound)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        return self.classifier(global_average_pool(x, keepdim=False, backend=self.backend))


def _build(
    name: str,
    inputs: ModelInputs,
    *,
    width: float | None = None,
    depth: float | None = None,
    dropout: float | None = None,
    stochastic_depth: float = 0.2,
) -> EfficientNet:
    """`width`: factor of B0's channels; None for the member's own. `depth`: factor of B0's blocks, likewise.
    `dropout`: before the classifier, likewise. `stochastic_depth`: drop path, the probability that the last block is
    skipped, falling linearly to 0 at the first. Any size."""
    scale = SCALES[name]
    chosen = Scale(
        width=scale.width if width is None else above_zero("width", width),
        depth=scale.depth if depth is None else above_zero("depth", depth),
        dropout=scale.dropout if dropout is None else fraction("dropout", dropout),
        eps=scale.eps,
        momentum=scale.momentum,
    )
    return EfficientNet(inputs, chosen, fraction("stochastic_depth", stochastic_depth))


for _name in SCALES:
    register(_name, usual_input=(3, 224, 224))(functools.partial(_build, _name))
