"""Tanh: y = tanh(z); y' = 1 - y^2 = 4 e / (1 + e)^2 with e = exp(-2 |z|)."""

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations import exponentials
from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def tanh(z, A: tl.constexpr):
    return exponentials.tanh(z)


@device_function
def tanh_slope(z, A: tl.constexpr):
    e = tl.exp(-2.0 * tl.abs(z))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


FORMULA = Formula(
    name="tanh",
    forward=tanh,
    slope=tanh_slope,
    reference=lambda z, _: torch.tanh(z),
    backward_needs="value",
    keeps_result=True,
    spelling=Spelling(modules=(nn.Tanh,), functions=(torch.tanh, torch.tanh_, F.tanh), methods=("tanh", "tanh_")),
)
