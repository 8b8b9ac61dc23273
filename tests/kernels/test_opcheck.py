"""`torch.library.opcheck`, all four of its tests, on all four registered operators.

Schema (nothing mutated, no aliases), autograd registration, fake tensors (shape, dtype and strides without running),
and AOT dispatch with dynamic shapes (values and gradients the same through torch.compile's machinery as without).
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import AvgPool, MaxPool
from kernels.arguments import parse_layer
from kernels.operator_registration import ops
from tests.kernels.exact import DEVICE, integers

TESTS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
LAYERS: dict[str, dict[str, Any]] = {
    "relu max": {},
    "overlap": {"stride": 2, "padding": 1, "pool": MaxPool(3, 2, 1, ceil_mode=True)},
    "relu average": {"padding": "same", "pool": AvgPool(2)},
    "silu max": {"activation": "silu"},
    "gelu average": {"activation": "gelu", "pool": AvgPool(2)},
    "neither": {"activation": None, "pool": None},
}
every_layer = pytest.mark.parametrize("name", LAYERS)
every_format = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])


def tensors(channels_last: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 3, 9, 8), (4, 3, 3, 2), (4,))
    x, weight, bias = (integers(size, torch.float32, generator).to(DEVICE) for size in sizes)
    return (x.to(memory_format=torch.channels_last) if channels_last else x), weight, bias


def text(name: str) -> str:
    """The layer as the operators take it."""
    defaults: dict[str, Any] = {
        "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": "relu", "pool": MaxPool(2)
    }  # fmt: skip
    return parse_layer((3, 2), **{**defaults, **LAYERS[name]}).text()


def opcheck(operator: Any, arguments: tuple[Any, ...]) -> None:
    assert set(torch.library.opcheck(operator.default, arguments, test_utils=TESTS).values()) == {"SUCCESS"}


@every_format
@every_layer
def test_conv_relu_pool(name: str, channels_last: bool) -> None:
    x, weight, bias = (t.requires_grad_() for t in tensors(channels_last))
    opcheck(ops.conv_relu_pool, (x, weight, bias, text(name)))


def test_conv_relu_pool_with_less_to_differentiate() -> None:
    x, weight, bias = tensors(channels_last=False)
    opcheck(ops.conv_relu_pool, (x, weight, bias, text("relu max")))
    opcheck(ops.conv_relu_pool, (x, weight.requires_grad_(), None, text("relu max")))


@every_format
@every_layer
def test_forward_and_gradient_operators(name: str, channels_last: bool) -> None:
    x, weight, bias = tensors(channels_last)
    layer = text(name)
    opcheck(ops.conv_relu_pool_forward, (x, weight, bias, layer))
    y, code, saved = ops.conv_relu_pool_forward(x, weight, bias, layer)
    if name == "gelu average":
        plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": None, "pool": None}
        saved = ops.conv_relu_pool(x, weight, bias, parse_layer((3, 2), **plain).text())  # type: ignore[arg-type]
    grad = torch.ones_like(y)
    opcheck(ops.conv_relu_pool_dgrad, (grad, code, saved, weight, list(x.shape), channels_last, layer))
    for wanted in ((True, True), (True, False), (False, True)):
        opcheck(ops.conv_relu_pool_wgrad, (grad, code, saved, x, weight, *wanted, layer))
