"""PReLU behind a norm: `conv_norm_act` with a learned slope gives PyTorch's values and gradients, the slope's too."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE, assert_equal, integers, placed
from tests.kernels.norm_layers import NormLayer, call, device_of, exact_tensors, norm_tensors, results
from tidepool.kernels import AvgPool, MaxPool, conv_norm_act
from tidepool.kernels.activations import Activation
from tidepool.kernels.runtime.errors import ArgumentError

every_backend = pytest.mark.parametrize("backend", ["triton", "cudnn", "auto"])
LAYERS = (
    NormLayer("residual", (2, 3, 6, 5), (4, 3, 3, 3), {"padding": 1}, residual=True, conv_bias=True),
    NormLayer("overlapping_max", (2, 3, 9, 8), (4, 3, 3, 3), {"pool": MaxPool(3, 2, 1)}, residual=True),
    NormLayer("average", (1, 3, 6, 7), (5, 3, 3, 2), {"pool": AvgPool(2, 1)}, channels_last=True),
    NormLayer("pool_first", (2, 3, 8, 7), (4, 3, 2, 3), {"pool": MaxPool(2, 1), "pool_first": True}),
    NormLayer("one_channel", (2, 3, 6, 6), (1, 3, 3, 3), {"pool": MaxPool(2)}),
    NormLayer("waveform", (2, 3, 15), (4, 3, 3), {"stride": 2, "pool": MaxPool(2)}),
    NormLayer("video", (1, 2, 3, 5, 4), (3, 2, 2, 2, 2)),
)
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
every_slope = pytest.mark.parametrize("shared", [False, True], ids=["one_a_filter", "one_for_all"])


def slope_of(layer: NormLayer, dtype: torch.dtype, *, shared: bool) -> Tensor:
    """Slopes whose products with small integers are exact."""
    return torch.tensor([0.25, -0.5, 2.0, -0.25, 0.5], dtype=dtype)[: 1 if shared else layer.weight[0]]


def outcome(
    layer: NormLayer, tensors: dict[str, Tensor | None], slope: Tensor, grad: Tensor, backend: str, **others: Any
) -> dict[str, Tensor]:
    """`norm_layers.results` with the slope's gradient."""
    learned = placed(slope, device_of(backend)).requires_grad_()
    layer = replace(layer, options={**layer.options, "activation": Activation("prelu", learned)})
    found = results(layer, tensors, grad, backend, **others)
    assert learned.grad is not None
    return {**found, "dslope": learned.grad.cpu()}


@every_slope
@every_layer
def test_frozen_norm_of_integers_equals_pytorch_to_the_bit(layer: NormLayer, shared: bool) -> None:
    dtype = (torch.float16, torch.float32)[LAYERS.index(layer) % 2]
    tensors, slope = exact_tensors(layer, dtype), slope_of(layer, dtype, shared=shared)
    frozen: dict[str, Any] = {"training": False, "eps": 0.0}
    with torch.no_grad():
        y = call(replace(layer, options={**layer.options, "activation": None}), tensors, "cudnn", **frozen)
    grad = integers(tuple(y.shape), dtype, torch.Generator().manual_seed(1))
    wide = {name: None if t is None else t.float() for name, t in tensors.items()}
    expected = outcome(layer, wide, slope.float(), grad.float(), "cudnn", **frozen)
    for name, found in outcome(layer, tensors, slope, grad, "triton", **frozen).items():
        assert found.dtype == dtype, name
        assert_equal(found, expected[name].to(dtype), name, strides=False)


@every_slope
@every_layer
def test_training_in_float64_is_pytorchs(layer: NormLayer, shared: bool) -> None:
    """Sums of float64 taken in another order, divided by deviations: to 1e-10."""
    tensors, slope = norm_tensors(layer, torch.float64, torch.float64, 0), slope_of(layer, torch.float64, shared=shared)
    with torch.no_grad():
        drawn = norm_tensors(layer, torch.float64, torch.float64, 0)
        y = call(replace(layer, options={**layer.options, "activation": None}), drawn, "cudnn")
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    copies = {name: None if t is None else t.clone() for name, t in tensors.items()}
    expected = outcome(layer, copies, slope, grad, "cudnn")
    for name, found in outcome(layer, tensors, slope, grad, "triton").items():
        torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-10, msg=name)


@every_backend
def test_autocast_lowers_what_pytorchs_prelu_lowers(backend: str) -> None:
    """A 16-bit convolution, promoted by a float32 residual and lowered again by PReLU; float32 gradients."""
    x, weight, residual = (torch.randn(size, device=DEVICE) for size in ((2, 3, 6, 6), (4, 3, 3, 3), (2, 4, 4, 4)))
    slope = torch.full((4,), 0.25, device=DEVICE, requires_grad=True)
    with torch.autocast(x.device.type, torch.bfloat16):
        y = conv_norm_act(
            x, weight, None, None, None, None, training=True, residual=residual,
            activation=Activation("prelu", slope), backend=backend,
        )  # fmt: skip
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert slope.grad is not None
    assert slope.grad.dtype == torch.float32


def test_no_pytorch_convolution_pool_or_norm_is_called(no_pytorch_norms: None) -> None:
    for layer in LAYERS[:2]:
        tensors = norm_tensors(layer, torch.float32, torch.float32, 0)
        slope = slope_of(layer, torch.float32, shared=False).to(DEVICE).requires_grad_()
        learned = replace(layer, options={**layer.options, "activation": Activation("prelu", slope)})
        call(learned, tensors, "triton").sum().backward()
        assert slope.grad is not None


@every_backend
@pytest.mark.parametrize(
    ("slope", "message"),
    [
        (torch.ones(3), "expected slope of activation prelu to hold 1 element or 4"),
        (torch.ones(4).double(), "Input type .torch.float32. and slope type .torch.float64. should be the same"),
        (torch.ones(4, device="meta"), "expected x and slope to be on the same device"),
        (None, 'expected activation prelu with its slope, Activation."prelu", slope., but got none'),
    ],
    ids=["size", "dtype", "device", "missing"],
)
def test_refusals_name_the_slope(slope: Tensor | None, message: str, backend: str) -> None:
    x, weight = torch.randn(2, 2, 6, 6), torch.randn(4, 2, 3, 3)
    running_mean = torch.zeros(4)
    with pytest.raises(ArgumentError, match=message):
        conv_norm_act(
            x, weight, None, None, running_mean, torch.ones(4), training=True, activation=Activation("prelu", slope),
            backend=backend,
        )  # fmt: skip
    assert not running_mean.any()


@pytest.mark.full
def test_torch_compile_takes_it_whole() -> None:
    x, weight = torch.randn(2, 3, 6, 6, device=DEVICE), torch.randn(4, 3, 3, 3, device=DEVICE)
    slope = torch.full((4,), 0.25, device=DEVICE, requires_grad=True)

    def layer(x: Tensor, slope: Tensor) -> Tensor:
        return conv_norm_act(
            x, weight, None, None, None, None, training=True, activation=Activation("prelu", slope),
            pool=MaxPool(2), backend="triton",
        )  # fmt: skip

    y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, slope)
    assert_equal(y.detach(), layer(x, slope).detach(), "y")
    (dslope,) = torch.autograd.grad(y.sum(), slope)
    (expected,) = torch.autograd.grad(layer(x, slope).sum(), slope)
    assert_equal(dslope, expected, "dslope")
