"""A network beside its fused copy, and what makes the two alike."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tidepool.models import FuseReport, fuse


def pair(build: Callable[[], nn.Module], backend: str = "cudnn") -> tuple[nn.Module, nn.Module, FuseReport]:
    """A network, and a copy of it fused."""
    torch.manual_seed(0)
    plain = build()
    for module in plain.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    fused, report = fuse(copy.deepcopy(plain), backend)
    return plain, fused, report


def assert_alike(plain: nn.Module, fused: nn.Module, *size: int, steps: int = 2, exact: bool = True) -> None:
    """Results, gradients and buffers after some training steps and in evaluation; bit by bit, if `exact`."""
    close: dict[str, float] = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 2e-4, "atol": 2e-5}
    for step in range(steps + 1):
        x = torch.randn(*size, generator=torch.Generator().manual_seed(step))
        results = []
        for network in (plain, fused):
            network.train(step < steps)
            torch.manual_seed(step)
            given = x.to(next(network.parameters()).device, copy=True).requires_grad_()
            y = network(given * 1)  # not a leaf, which in-place layers may not write into
            gradients = torch.autograd.grad(y.square().mean(), [given, *network.parameters()], allow_unused=True)
            results.append((y.detach(), *gradients, *(buffer.clone() for buffer in network.buffers())))
        for expected, ours in zip(*results, strict=True):
            assert (expected is None) == (ours is None)
            if expected is not None:
                torch.testing.assert_close(ours, expected, **close)


class Net(nn.Module):
    """A network from layers by name and a forward that is given them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def small_conv(channels: int = 3, filters: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, 3, padding=1, **settings)
