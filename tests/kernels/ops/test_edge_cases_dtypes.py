"""Edge cases 35-37: dtypes, devices and autocast."""

from typing import Any

import pytest
import torch

from tests.kernels.activations.listed import every_activation, every_pool
from tests.kernels.exact import DEVICE, INTERPRETED
from tests.kernels.ops.edge_cases import every_layer, ours, tensors
from tidepool.kernels import conv_relu_pool
from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.runtime.errors import ArgumentError


@pytest.mark.parametrize("which", ["weight", "bias"])
@pytest.mark.parametrize("other", [torch.float64, torch.bfloat16], ids=str)
def test_35_different_dtypes_refused(which: str, other: torch.dtype) -> None:
    given = dict(zip(("x", "weight", "bias"), tensors(), strict=True))
    given[which] = given[which].to(other)
    with pytest.raises(ArgumentError) as refusal:
        conv_relu_pool(**given, backend="triton")
    assert str(refusal.value) == f"Input type (torch.float32) and {which} type ({other}) should be the same"


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool], ids=str)
def test_35_dtypes_that_are_no_floats_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ArgumentError, match=f"expected x to be float16, bfloat16, float32 or float64, but got {dtype}"):
        ours(*(t.to(dtype) for t in tensors()))


@pytest.mark.parametrize("which", ["weight", "bias"])
@pytest.mark.parametrize("other", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_35_autocast_turns_nothing_else_into_floats(which: str, other: torch.dtype) -> None:
    given = dict(zip(("x", "weight", "bias"), tensors(), strict=True))
    given[which] = given[which].to(other)
    refusal = rf"Input type \(torch.float32\) and {which} type \({other}\) should be the same"
    with torch.autocast(DEVICE, torch.bfloat16), pytest.raises(ArgumentError, match=refusal):
        conv_relu_pool(**given, backend="triton")


@pytest.mark.parametrize("which", ["x", "weight", "bias"])
@pytest.mark.parametrize("backend", ["triton", "cudnn"])
def test_36_different_devices_refused(which: str, backend: str) -> None:
    given = dict(zip(("x", "weight", "bias"), tensors(), strict=True))
    given[which] = given[which].to("meta")
    with pytest.raises(ArgumentError, match="to be on the same device, but x is on "):
        conv_relu_pool(**given, backend=backend)


def test_36_meta_tensors_give_the_shape() -> None:
    x, weight, bias = (t.to("meta") for t in tensors())
    y = ours(x, weight, bias)
    assert y.is_meta
    assert y.shape == (2, 4, 2, 3)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@every_layer
def test_37_autocast_computes_low_and_gives_parameters_full_gradients(layer: dict[str, Any], low: torch.dtype) -> None:
    autocast_as_lowered(layer, low)


@pytest.mark.full
@every_pool
@every_activation
def test_37_autocast_of_every_activation(activation: Activation, pool: Pool) -> None:
    autocast_as_lowered({"activation": activation, "pool": pool}, torch.bfloat16)


def autocast_as_lowered(layer: dict[str, Any], low: torch.dtype) -> None:
    """Autocast's values and gradients are those of tensors cast before the call, in the parameters' dtype."""
    leaves = [t.requires_grad_() for t in tensors()]
    with torch.autocast(DEVICE, low):
        y = ours(*leaves, **layer)
    assert y.dtype == low
    y.float().sum().backward()
    assert [t.grad.dtype for t in leaves] == [torch.float32] * 3  # type: ignore[union-attr]
    lowered = [t.detach().to(low).requires_grad_() for t in leaves]
    expected = ours(*lowered, **layer)
    assert torch.equal(y, expected)
    expected.float().sum().backward()
    for found, low_leaf in zip(leaves, lowered, strict=True):
        assert torch.equal(found.grad, low_leaf.grad.float())  # type: ignore[arg-type, union-attr]


def test_37_autocast_takes_mixed_dtypes_and_leaves_float64_alone() -> None:
    x, weight, bias = tensors()
    with torch.autocast(DEVICE, torch.bfloat16):
        assert ours(x.bfloat16(), weight, bias).dtype == torch.bfloat16
        if INTERPRETED:  # float64 is the interpreter's
            assert ours(x.double(), weight.double(), bias.double()).dtype == torch.float64
        with torch.autocast(DEVICE, enabled=False):
            assert ours(x, weight, bias).dtype == torch.float32
        with pytest.raises(ArgumentError, match="should be the same"):
            ours(x.double(), weight, bias)
    with pytest.raises(ArgumentError, match="should be the same"):
        ours(x.bfloat16(), weight, bias)


@every_layer
def test_37_backward_under_autocast_computes_as_forward_did(layer: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(t.shape, generator=generator).to(DEVICE) for t in tensors()]
    outcomes = []
    for under_autocast in (False, True):
        leaves = [t.clone().requires_grad_() for t in given]
        y = ours(*leaves, **layer)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=under_autocast):
            y.sum().backward()
        outcomes.append([leaf.grad for leaf in leaves])
    for plain, autocast in zip(*outcomes, strict=True):
        assert plain is not None
        assert autocast is not None
        assert torch.equal(plain, autocast)
