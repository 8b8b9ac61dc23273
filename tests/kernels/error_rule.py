"""The error rule of `kernels.oracle.error_rule`, asserted of backend="triton" on the layers of the tests."""

import functools

import torch
from torch import Tensor

from tests.kernels.shapes import Case
from tidepool.kernels import conv_relu_pool
from tidepool.kernels.oracle.error_rule import (
    ACCUMULATOR_UNIT,
    Inputs,
    Truth,
    activation_of,
    convolution,
    draw,
    error_rule,
    in_pytorch,
    measured,
    results,
    routed,
    truth,
    undecided,
    windows,
)

__all__ = [
    "ACCUMULATOR_UNIT",
    "Inputs",
    "Truth",
    "activation_of",
    "check",
    "convolution",
    "draw",
    "error_rule",
    "in_pytorch",
    "in_triton",
    "measured",
    "results",
    "routed",
    "truth",
    "undecided",
    "windows",
]


def in_triton(
    case: Case, x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None = None, *, backend: str = "triton"
) -> Tensor:
    """The layer by this project's kernels."""
    return conv_relu_pool(
        x, weight, bias, **{**case.options, "activation": activation_of(case, slope)}, backend=backend
    )


def check(case: Case, dtype: torch.dtype, *, seed: int = 0, device: str = "cpu", most_undecided: float = 0.01) -> None:
    """Hold backend="triton" to the rule on one draw of a layer: y and every gradient. Raises AssertionError."""
    inputs, undecided_share = draw(case, dtype, seed)
    assert undecided_share <= most_undecided, f"{undecided_share:.1%} of outputs have no clear winner"
    given = (inputs.x, inputs.weight, inputs.bias, inputs.grad, inputs.slope)
    placed = Inputs(*(None if t is None else t.to(device) for t in given))  # type: ignore[arg-type]
    ours = results(functools.partial(in_triton, case), placed)
    twin = results(functools.partial(in_pytorch, case), placed)
    exact = truth(case, inputs)
    assert ours.keys() == twin.keys() == exact.keys()
    for name, tensor in ours.items():
        error_rule(f"{case.name}, {dtype}, {name}", tensor, twin[name], exact[name])
