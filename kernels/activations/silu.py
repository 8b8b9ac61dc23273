"""SiLU: y = z s with s = sigmoid(z); y' = s (1 + z (1 - s)), at most 1.0998."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def silu(z, A: tl.constexpr):
    return z / (1.0 + tl.exp(-z))


@device_function
def silu_slope(z, A: tl.constexpr):
    s = 1.0 / (1.0 + tl.exp(-z))
    return s * (1.0 + z * (1.0 - s))


FORMULA = Formula(
    name="silu",
    forward=silu,
    slope=silu_slope,
    reference=lambda z, _: F.silu(z),
    backward_needs="value",
    steepest=lambda _: 1.13,
    spelling=Spelling(modules=(nn.SiLU,), functions=(F.silu,)),
)
