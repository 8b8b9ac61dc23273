"""Layers whose parameters carry the names that torchvision's checkpoints have: those of `nn.Sequential`'s numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.fused import conv_norm_act, conv_relu_pool


@dataclass(frozen=True)
class Stage:
    """One convolution of a stack, and whether a pool ends it."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: MaxPool | None = None


class NumberedStack(nn.ModuleDict):
    """Convolutions, each with ReLU and perhaps norm and pool, as one fused op each: (N, C, H, W) -> (N, K, H', W').

    The modules hold parameters and are named by the index they would have in an `nn.Sequential` that lists
    convolution, norm, ReLU and pool one by one, which is how torchvision writes AlexNet's and VGG's `features`.
    """

    def __init__(self, in_channels: int, stages: Sequence[Stage], *, norm: bool, backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.steps: list[tuple[str, str, MaxPool | None]] = []
        number, before = 0, in_channels
        for stage in stages:
            conv, following = str(number), str(number + 1)
            self[conv] = nn.Conv2d(before, stage.channels, stage.kernel, stage.stride, stage.padding)
            if norm:
                self[following] = nn.BatchNorm2d(stage.channels)
            self.steps.append((conv, following, stage.pool))
            number += 2 + norm + (stage.pool is not None)
            before = stage.channels
        self.out_channels = before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, H', W')."""
        for conv, norm, pool in self.steps:
            holder = cast(nn.Conv2d, self[conv])
            if norm in self:
                x = conv_norm_act(x, holder, cast(nn.BatchNorm2d, self[norm]), pool=pool, backend=self.backend)
            else:
                x = conv_relu_pool(x, holder, pool=pool, backend=self.backend)
        return x


class ConvNorm(nn.Module):
    """Convolution ("0"), norm ("1"), residual and activation as one op: (N, C, H, W) -> (N, K, H', W').

    The modules hold parameters and are not called themselves.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, activation: str | None, backend: str) -> None:
        super().__init__()
        self.add_module("0", conv)
        self.add_module("1", norm)
        self.activation, self.backend = activation, backend

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, H', W'); `residual`, of the result's size, is added before the activation."""
        conv, norm = cast(nn.Conv2d, self._modules["0"]), cast(nn.BatchNorm2d, self._modules["1"])
        return conv_norm_act(x, conv, norm, residual=residual, activation=self.activation, backend=self.backend)

    def extra_repr(self) -> str:
        return f"activation={self.activation}, backend={self.backend}"


def start_convolution(conv: nn.Conv2d) -> None:
    """Fill the weight in place from N(0, 2 / (K kernel^2)), He et al. (2015), equation 14, and the bias with zeros."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
