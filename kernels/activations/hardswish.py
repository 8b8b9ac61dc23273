"""Hardswish: y = z min(max(z + 3, 0), 6) / 6; y' = 0 up to -3, z / 3 + 1/2 up to 3, and 1 from there, and of NaN
(PyTorch's on a GPU; its vectorised CPU loop says NaN there, its scalar one 1)."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.division import quotient_rounded_once
from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def hardswish(z, A: tl.constexpr):
    raised = z + 3.0
    clipped = tl.where(raised <= 0, 0.0, tl.where(raised >= 6, 6.0, raised)).to(z.dtype)
    return quotient_rounded_once(z * clipped, 6.0)


@device_function
def hardswish_slope(z, A: tl.constexpr):
    return tl.where(z <= -3, 0.0, tl.where(z < 3, quotient_rounded_once(z, 3.0) + 0.5, 1.0)).to(z.dtype)


FORMULA = Formula(
    name="hardswish",
    forward=hardswish,
    slope=hardswish_slope,
    reference=lambda z, _: F.hardswish(z),
    backward_needs="value",
    kinks=(-3.0, 3.0),
    steepest=lambda _: 1.5,
    spelling=Spelling(modules=(nn.Hardswish,), functions=(F.hardswish,)),
)
