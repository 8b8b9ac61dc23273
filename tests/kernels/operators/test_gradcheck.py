"""Every backward against finite differences, in float64 through the interpreter.

x is a scaled permutation, so that no two convolution outputs of a window lie close, and every probe stays on its side
of each tie and of an activation's kinks: the function is smooth where it is probed.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.kernels.activations.listed import every_activation, every_pool
from tests.kernels.error_rule import convolution, windows
from tests.kernels.exact import INTERPRETED
from tests.kernels.shapes import Case
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.activations import Activation, as_activation
from tidepool.kernels.layer.pooling import Pool

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="float64 products are compiled for no GPU's tensor cores")

LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "relu max": ((2, 1, 4, 5), (2, 1, 2, 2), {}),
    "overlap": ((1, 1, 5, 5), (2, 1, 2, 2), {"padding": 1, "pool": MaxPool(3, 2, 1)}),
    "max alone": ((1, 2, 4, 4), (1, 2, 1, 3), {"activation": None, "padding": (0, 1), "pool": MaxPool(2, 1)}),
    "relu average": ((1, 2, 4, 5), (3, 2, 2, 2), {"pool": AvgPool(2, 2, 1, ceil_mode=True, count_include_pad=False)}),
    "average alone": ((1, 1, 5, 4), (2, 1, 2, 2), {"activation": None, "pool": AvgPool((2, 3), 1, 1)}),
    "relu alone": ((1, 2, 3, 4), (2, 2, 2, 2), {"pool": None, "padding": 1}),
    "neither": ((1, 2, 3, 4), (2, 2, 2, 2), {"activation": None, "pool": None}),
    "silu max": ((1, 2, 4, 5), (2, 2, 2, 2), {"activation": "silu"}),
    "silu average": ((1, 1, 4, 5), (2, 1, 2, 2), {"activation": "silu", "pool": AvgPool(2, 1)}),
    "gelu alone": ((1, 2, 3, 4), (2, 2, 2, 2), {"activation": "gelu", "pool": None}),
    "gelu max": ((1, 1, 5, 5), (2, 1, 2, 2), {"activation": "gelu", "pool": MaxPool(3, 1)}),
    "strided": ((1, 1, 6, 7), (2, 1, 3, 2), {"stride": (2, 3), "padding": 1, "pool": None}),
    "dilated": ((1, 1, 5, 6), (2, 1, 2, 2), {"dilation": (2, 3), "padding": 1, "pool": MaxPool(2, 1)}),
    "groups": ((1, 4, 3, 4), (4, 2, 2, 2), {"groups": 2}),
    "depthwise": ((1, 2, 4, 4), (4, 1, 2, 2), {"groups": 2, "padding": 1}),
    "same": ((1, 1, 4, 5), (1, 1, 2, 4), {"padding": "same", "pool": MaxPool(2)}),
    "waveform": ((2, 2, 9), (2, 2, 3), {"pool": MaxPool(3, 2)}),
    "video": ((1, 1, 3, 4, 3), (2, 1, 2, 2, 2), {"pool": MaxPool((1, 2, 2), 1)}),
}


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """x a scaled permutation, weights and bias at random; the first seed that separates all candidates is taken."""
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        size = torch.Size(case.x)
        x = (torch.randperm(size.numel(), generator=generator).double() - size.numel() / 2).view(size) / 4
        weight, bias = (
            torch.randn(s, generator=generator, dtype=torch.float64) for s in (case.weight, case.weight[:1])
        )
        if _separated(case, convolution(case, x, weight, bias)):
            return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()
    raise AssertionError(f"no seed separates the candidates of {case.name}")


def _separated(case: Case, z: Tensor) -> bool:
    """Whether activated candidates differ, and z from a kink, by far more than a probe can move them.

    Winners that are equal, and stay so when they move, pass no gradient on."""
    pool, activation = case.options.get("pool", MaxPool(2)), as_activation(case.options.get("activation", "relu"))
    if any(float((z - kink).abs().min()) < 1e-3 for kink in (0.0, *activation.formula.kinks)):
        return False
    if not isinstance(pool, MaxPool):
        return True
    at, either_side = activation.reference(z), [activation.reference(z + step) for step in (-1e-4, 1e-4)]
    best, place = windows(at, pool, case.rank).topk(2, dim=-1)
    constant = windows(((either_side[0] == at) & (either_side[1] == at)).double(), pool, case.rank)
    settled = (constant.gather(-1, place) == 1).all(-1)
    return bool(((best[..., 0] - best[..., 1] > 1e-4) | settled).all())


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_finite_differences(name: str) -> None:
    assert check(Case(name, *LAYERS[name]), fast_mode=name not in EVERY_ELEMENT)


@pytest.mark.full
@pytest.mark.parametrize(
    "sizes", [((1, 2, 4, 5), (3, 2, 2, 2)), ((1, 2, 5, 4), (4, 1, 2, 2))], ids=["dense", "depthwise"]
)
@every_pool
@every_activation
def test_gradients_of_every_activation_are_finite_differences(
    activation: Activation, pool: Pool, sizes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    groups = 2 // sizes[1][1]
    assert check(Case(str(activation), *sizes, {"activation": activation, "pool": pool, "groups": groups}))


def check(case: Case, *, fast_mode: bool = True) -> bool:
    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv_relu_pool(x, weight, bias, **case.options, backend="triton")

    return gradcheck(function, inputs(case), eps=1e-6, atol=1e-6, rtol=1e-6, fast_mode=fast_mode)


EVERY_ELEMENT = ("relu max", "relu average")
"""Checked element by element; the others along random directions, which costs two calls instead of two per element."""


def test_float64_is_computed_in_float64() -> None:
    """Against PyTorch's float64, to float64's rounding."""
    case = Case("relu max", *LAYERS["relu max"])
    x, weight, bias = inputs(case)
    ours, theirs = (conv_relu_pool(x, weight, bias, backend=backend) for backend in ("triton", "cudnn"))
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)
