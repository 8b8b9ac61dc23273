"""Small networks whose forward does more than call layers: reads and writes state, branches, enters contexts.

Each is a class and what is done to it: `after` to the plain and the fused network alike once the latter is fused, `run`
as a training step's call, `loss` of its result.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """conv -> norm -> ReLU, and a classifier behind it: what the others build on."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.fc = nn.Linear(channels, 4)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))

    def head(self, y: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv2(y)).mean((2, 3)))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


class AuxiliaryLoss(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        self.aux = y.abs().mean()
        return self.head(y)


class CenterInTraining(Block):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.training:
            self.center = 0.9 * self.center + 0.1 * y.detach().mean((0, 2, 3))
        return self.head(y - self.center[:, None, None])


class Counting(Block):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0
        self.register_buffer("rm", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        self.n += 1
        self.rm.mul_(0.9).add_(y.detach().mean((0, 2, 3)), alpha=0.1)
        return self.head(y * (1 + self.n)) + self.rm.sum()


class Standardised(Block):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("std", torch.full((3,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x / (self.std + 1e-6)[:, None, None]))


class SumOfBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        aux = torch.zeros(1)
        for block in self.blocks:
            x = block(x)
            aux += x.abs().mean()
        return x.mean((2, 3)) + aux


class Blended(Block):
    alpha = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(y * (1 - self.alpha) + self.alpha * y.tanh())


class Dropping(Block):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.generator.random() < 0.5:
            y = y * 2
        return self.head(y)


class OwnGenerator(Block):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(y * torch.rand(y.shape[:2], generator=self.generator)[:, :, None, None])


class ReadsStatistics(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(y) + self.bn.running_var.mean()


class ReadsStatisticsInBetween(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        scale = self.bn.running_mean.sum()
        return self.head(F.relu(y)) + scale


class OptionalArguments(Block):
    def forward(self, x: Tensor, size: int | None = None, mask: Tensor | None = None) -> Tensor:
        y = self.body(x)
        if size is not None:
            y = F.interpolate(y, size)
        return self.head(y if mask is None else y * mask)


class FullPrecisionRegion(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.body(x)
            with torch.autocast("cpu", enabled=False):
                z = F.relu(self.conv2(y.float()))
        return self.fc(z.mean((2, 3)))


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad


class Reversed(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(Reversal.apply(self.body(x)))


class FrozenNorm(Block):
    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        self.bn.eval()
        return self


class Embedding(Block):
    def embed(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


class InPlaceFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return (self.block(y) + y).mean((2, 3))


class OddResiduals(Block):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn(self.conv(x))
        a, b = F.relu(z + 1), F.relu(self.bn(self.conv(x)) + (z.detach() > 0))
        return self.head(a) + self.head(b) + self.head(F.relu(self.bn(self.conv(x)) + self.shift))


class SharedNorm(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x) + self.bn(x.mean(1, keepdim=True).expand(-1, 6, -1, -1)))


class Checkpointed(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False))


class SwappedPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.maxpool, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.maxpool(F.relu(self.conv(x))).mean((2, 3)))


class WritesInBetween(Block):
    """What a chain reads is written between its first node and its last."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y = self.conv(x)
        if not torch.is_grad_enabled():  # backward needs x as it was
            x.mul_(2)
        return self.head(F.relu(self.bn(y)) + F.relu(self.conv(x)))


class ViewsInBetween(Block):
    def forward(self, x: Tensor) -> Tensor:
        residual = torch.zeros(x.shape[0], 6, *x.shape[2:])
        z = self.bn(self.conv(x))
        residual[:, 0].add_(1)
        residual.view(-1)[:5] = 3
        return self.head(F.relu(z + residual))


class GradModes(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.body(x)
        return self.head(y if torch.is_grad_enabled() else y * 2)


class WeightStandardised(Block):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight - self.conv.weight.mean((1, 2, 3), keepdim=True)
        return self.head(F.relu(self.bn(F.conv2d(x, weight, self.conv.bias, padding=1))))


class Circular(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular")
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.max_pool2d(F.relu6(self.conv(x)), 2).mean((2, 3)))


class Excited(Block):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1))))


def nothing(network: nn.Module) -> None:
    """Leave it as it is."""


def _set_alpha(network: Any) -> None:
    network.alpha = 1.0


def _load(network: Any) -> None:
    network.load_state_dict({**network.state_dict(), "std": torch.full((3,), 0.5)})


def _to_double(network: nn.Module) -> None:
    network.to(torch.float64)


def _replace_pool(network: Any) -> None:
    network.maxpool = nn.Identity()


def _patch_forward(network: Any) -> None:
    conv = network.conv
    conv.forward = lambda x: F.conv2d(x, conv.weight * 2, conv.bias, padding=1)


def _patch_conv_forward(network: Any) -> None:
    conv = network.conv
    conv._conv_forward = lambda x, weight, bias: F.conv2d(x, weight * 3, bias, padding=1)


def _hook(network: Any) -> None:
    network.conv.register_forward_hook(lambda module, args, result: result * 2)


def _hook_block(network: Any) -> None:
    network.block.register_forward_hook(lambda module, args, result: result + args[0])


def _freeze(network: Any) -> None:
    network.bn.eval()
    network.conv.weight.requires_grad_(False)


def _instance_norm(network: Any) -> None:
    network.bn = nn.InstanceNorm2d(6, affine=True)


def _spectral(network: Any) -> None:
    torch.manual_seed(5)
    torch.nn.utils.parametrizations.spectral_norm(network.conv)


@dataclass(frozen=True)
class Program:
    """A network, what is done to it after fusing, how it is called, and what of its result is the loss."""

    build: Callable[[], nn.Module]
    after: Callable[[Any], None] = nothing
    run: Callable[[Any, Tensor], Tensor] = lambda network, x: network(x)
    loss: Callable[[Any, Tensor], Tensor] = lambda network, y: y.square().mean()
    fused: int = 1  # at least so many layers
    context: Callable[[], Any] = contextlib.nullcontext  # that fuse is called in


PROGRAMS: dict[str, Program] = {
    "plain": Program(Block, fused=2),
    "auxiliary_loss": Program(AuxiliaryLoss, loss=lambda network, y: y.square().mean() + network.aux),
    "center_in_training": Program(CenterInTraining, fused=2),
    "counting": Program(Counting, fused=2),
    "standardised_loaded": Program(Standardised, after=_load, fused=2),
    "standardised_double": Program(Standardised, after=_to_double, fused=2),
    "sum_of_blocks": Program(SumOfBlocks, fused=3),
    "alpha_changed": Program(Blended, after=_set_alpha, fused=2),
    "numpy_choice": Program(Dropping),
    "own_generator": Program(OwnGenerator),
    "statistics_read_behind": Program(ReadsStatistics, fused=2),
    "statistics_read_between": Program(ReadsStatisticsInBetween, fused=1),
    "without_arguments": Program(OptionalArguments, fused=2),
    "with_size": Program(OptionalArguments, run=lambda network, x: network(x, size=5), fused=2),
    "with_mask": Program(OptionalArguments, run=lambda network, x: network(x, mask=torch.ones(8, 8)), fused=2),
    "autocast_off_within": Program(FullPrecisionRegion),
    "fused_without_grad": Program(Reversed, fused=2, context=torch.no_grad),
    "frozen_norm": Program(FrozenNorm, fused=2),
    "second_method": Program(Embedding, run=lambda network, x: network(x).sum(1, keepdim=True) + network.embed(x)),
    "forward_replaced_after": Program(Block, after=_patch_forward),
    "conv_forward_replaced_after": Program(Block, after=_patch_conv_forward),
    "pool_replaced_after": Program(SwappedPool, after=_replace_pool),
    "hook_after": Program(Block, after=_hook),
    "hook_on_in_place_block": Program(InPlaceFirst, after=_hook_block),
    "in_place_first": Program(InPlaceFirst),
    "odd_residuals": Program(OddResiduals),
    "norm_used_twice": Program(SharedNorm, fused=2),
    "checkpointed": Program(Checkpointed, fused=2),
    "writes_in_between": Program(WritesInBetween),
    "views_in_between": Program(ViewsInBetween),
    "grad_modes": Program(GradModes),
    "weight_standardised": Program(WeightStandardised, fused=2),
    "circular": Program(Circular),
    "excited": Program(Excited),
    "frozen_after": Program(Block, after=_freeze, fused=2),
    "instance_norm_after": Program(Block, after=_instance_norm),
    "spectral_after": Program(Block, after=_spectral),
    "sequential": Program(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())),
    "two_dimensional_conv": Program(lambda: nn.Conv2d(3, 6, 3), fused=0),
}
