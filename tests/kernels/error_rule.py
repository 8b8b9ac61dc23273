"""The error rule of `kernels.error_rule`, asserted of backend="triton" on the layers of the tests."""

import functools

import torch

from kernels import conv_relu_pool
from kernels.error_rule import (
    ACCUMULATOR_UNIT,
    Inputs,
    Truth,
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
from tests.kernels.shapes import Case

__all__ = [
    "ACCUMULATOR_UNIT",
    "Inputs",
    "Truth",
    "check",
    "convolution",
    "draw",
    "error_rule",
    "in_pytorch",
    "measured",
    "results",
    "routed",
    "truth",
    "undecided",
    "windows",
]


def check(case: Case, dtype: torch.dtype, *, seed: int = 0, device: str = "cpu", most_undecided: float = 0.01) -> None:
    """Hold backend="triton" to the rule on one draw of a layer: y, dx, dweight, dbias. Raises AssertionError."""
    inputs, undecided_share = draw(case, dtype, seed)
    assert undecided_share <= most_undecided, f"{undecided_share:.1%} of outputs have no clear winner"
    placed = Inputs(*(None if t is None else t.to(device) for t in (inputs.x, inputs.weight, inputs.bias, inputs.grad)))  # type: ignore[arg-type]
    ours = results(lambda x, w, b: conv_relu_pool(x, w, b, **case.options, backend="triton"), placed)
    twin = results(functools.partial(in_pytorch, case), placed)
    exact = truth(case, inputs)
    assert ours.keys() == twin.keys() == exact.keys()
    for name, tensor in ours.items():
        error_rule(f"{case.name}, {dtype}, {name}", tensor, twin[name], exact[name])
