"""FlopCounterMode counts the operators' products as PyTorch counts its convolutions'."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.kernels.exact import DEVICE
from tidepool.kernels import AvgPool, MaxPool, conv_norm_act, conv_relu_pool
from tidepool.kernels.auto.plan import Choice, LayerPlan, use

X, WEIGHT = (2, 4, 9, 8), (6, 4, 3, 3)


def counted(step: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def leaves(x_size: tuple[int, ...], weight_size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    x, weight = (torch.randn(size, device=DEVICE, requires_grad=True) for size in (x_size, weight_size))
    return x, weight


@pytest.mark.parametrize(
    ("x_size", "weight_size", "settings"),
    [
        (X, WEIGHT, {"padding": 1, "pool": MaxPool(2)}),
        (X, WEIGHT, {"stride": 2, "dilation": 2, "pool": AvgPool(2)}),
        ((2, 3, 20), (4, 3, 5), {"activation": None}),
        ((1, 2, 5, 6, 7), (3, 2, 3, 3, 3), {"pool": MaxPool(2)}),
    ],
)
def test_a_step_counts_what_pytorch_counts(
    x_size: tuple[int, ...], weight_size: tuple[int, ...], settings: dict[str, Any]
) -> None:
    def step(backend: str) -> Callable[[], None]:
        x, weight = leaves(x_size, weight_size)
        return lambda: conv_relu_pool(x, weight, **settings, backend=backend).sum().backward()

    assert counted(step("triton")) == counted(step("cudnn")) > 0


def test_each_gradient_counts_as_forward_does() -> None:
    x, weight = leaves(X, WEIGHT)
    y = 2 * 2 * 9 * 8 * 6 * 4 * 3 * 3
    assert counted(lambda: conv_relu_pool(x, weight, padding=1, backend="triton")) == y
    assert counted(lambda: conv_relu_pool(x.detach(), weight, padding=1, backend="triton").sum().backward()) == 2 * y
    assert counted(lambda: conv_relu_pool(x, weight, padding=1, backend="triton").sum().backward()) == 3 * y
    with torch.no_grad():
        assert counted(lambda: conv_relu_pool(x, weight, padding=1, backend="triton")) == y
    bias = torch.zeros(6, device=DEVICE, requires_grad=True)
    inputs = x.detach(), weight.detach(), bias
    assert counted(lambda: conv_relu_pool(*inputs, padding=1, backend="triton").sum().backward()) == y


def test_a_convolution_that_backward_runs_again_is_counted_again() -> None:
    """Of a smooth activation the values before it are not kept."""
    x, weight = leaves(X, WEIGHT)

    def step() -> None:
        conv_relu_pool(x, weight, padding=1, activation="silu", pool=AvgPool(2), backend="triton").sum().backward()

    assert counted(step) == 4 * 2 * 2 * 9 * 8 * 6 * 4 * 3 * 3


def test_groups_share_the_channels_among_them() -> None:
    """PyTorch's formula counts the weight's gradient `groups` times."""
    x, weight = leaves((2, 4, 9, 8), (4, 1, 3, 3))
    y = 2 * 2 * 9 * 8 * 4 * 1 * 3 * 3
    assert counted(lambda: conv_relu_pool(x, weight, padding=1, groups=4, backend="triton").sum().backward()) == 3 * y


@pytest.mark.parametrize("training", [False, True])
def test_a_layer_with_a_norm_counts_its_convolution(training: bool) -> None:
    def step(backend: str) -> Callable[[], None]:
        x, weight = leaves(X, WEIGHT)
        norm = [torch.ones(6, device=DEVICE, requires_grad=True), torch.zeros(6, device=DEVICE, requires_grad=True)]
        running = [torch.zeros(6, device=DEVICE), torch.ones(6, device=DEVICE)]
        return lambda: (
            conv_norm_act(x, weight, *norm, *running, padding=1, training=training, backend=backend).sum().backward()
        )

    assert counted(step("triton")) == counted(step("cudnn")) > 0


@pytest.mark.parametrize("gradient", ["fused", "cudnn"])
@pytest.mark.parametrize("forward", ["fused", "epilogue"])
def test_by_a_plan_too(forward: str, gradient: str) -> None:
    x, weight = leaves(X, WEIGHT)
    plan = LayerPlan(forward=Choice(forward), dgrad=Choice(gradient), wgrad=Choice(gradient))

    def step() -> None:
        conv_relu_pool(x, weight, padding=1, pool=MaxPool(2), backend="auto").sum().backward()

    with use(plan):
        assert counted(step) == 3 * 2 * 2 * 9 * 8 * 6 * 4 * 3 * 3
