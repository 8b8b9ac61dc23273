"""Exact GELU: y = z Phi(z); y' = Phi(z) + z phi(z), at most 1.1290."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def gelu(z, A: tl.constexpr):
    return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))


@device_function
def gelu_slope(z, A: tl.constexpr):
    return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)


FORMULA = Formula(
    name="gelu",
    forward=gelu,
    slope=gelu_slope,
    reference=lambda z, _: F.gelu(z),
    backward_needs="value",
    steepest=lambda _: 1.13,
    spelling=Spelling(modules=(nn.GELU,), functions=(F.gelu,), settings={"approximate": "none"}),
)
