"""`torch.library.opcheck`, all four of its tests, on all four registered operators.

Schema (nothing mutated, no aliases), autograd registration, fake tensors (shape, dtype and strides without running),
and AOT dispatch with dynamic shapes (values and gradients the same through torch.compile's machinery as without).
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.activations.listed import every_activation, every_pool
from tests.kernels.exact import DEVICE, integers
from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.operators.conv_registration import ops

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


def text(options: dict[str, Any]) -> str:
    """The layer as the operators take it."""
    return parse_layer((3, 2), **options).text()


def opcheck(operator: Any, arguments: tuple[Any, ...]) -> None:
    assert set(torch.library.opcheck(operator.default, arguments, test_utils=TESTS).values()) == {"SUCCESS"}


@every_format
@every_layer
def test_conv_relu_pool(name: str, channels_last: bool) -> None:
    x, weight, bias = (t.requires_grad_() for t in tensors(channels_last))
    opcheck(ops.conv_act_pool, (x, weight, bias, text(LAYERS[name])))


@pytest.mark.full
@every_pool
@every_activation
def test_every_activation(activation: Activation, pool: Pool) -> None:
    x, weight, bias = (t.requires_grad_() for t in tensors(channels_last=False))
    opcheck(ops.conv_act_pool, (x, weight, bias, text({"activation": activation, "pool": pool})))


@pytest.mark.full
def test_conv_relu_pool_with_less_to_differentiate() -> None:
    x, weight, bias = tensors(channels_last=False)
    opcheck(ops.conv_act_pool, (x, weight, bias, text({})))
    opcheck(ops.conv_act_pool, (x, weight.requires_grad_(), None, text({})))


@pytest.mark.full
@every_format
@every_layer
def test_forward_and_gradient_operators(name: str, channels_last: bool) -> None:
    x, weight, bias = tensors(channels_last)
    layer = text(LAYERS[name])
    opcheck(ops.conv_act_pool_forward, (x, weight, bias, layer))
    y, code, saved = ops.conv_act_pool_forward(x, weight, bias, layer)
    if name == "gelu average":
        saved = ops.conv_act_pool(x, weight, bias, text({"activation": None, "pool": None}))
    grad = torch.ones_like(y)
    opcheck(ops.conv_act_pool_dgrad, (grad, code, saved, weight, list(x.shape), channels_last, layer))
    for wanted in ((True, True), (True, False), (False, True)):
        opcheck(ops.conv_act_pool_wgrad, (grad, code, saved, x, weight, *wanted, layer))
