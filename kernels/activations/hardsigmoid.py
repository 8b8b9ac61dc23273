"""Hardsigmoid: y = (z + 3) / 6 between -3 and 3, else 0 or 1; y' = 1/6 strictly between them, else 0, of NaN too."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.division import quotient_rounded_once
from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def hardsigmoid(z, A: tl.constexpr):
    raised = z + 3.0
    return quotient_rounded_once(tl.where(raised <= 0, 0.0, tl.where(raised >= 6, 6.0, raised)).to(z.dtype), 6.0)


@device_function
def hardsigmoid_off(z, A: tl.constexpr):
    return ((z > -3) & (z < 3)) == 0


FORMULA = Formula(
    name="hardsigmoid",
    forward=hardsigmoid,
    off=hardsigmoid_off,
    slopes=lambda _: (0.1666666716337204, 0.0),  # 1/6 in float32: PyTorch has it so in float64, too
    reference=lambda z, _: F.hardsigmoid(z),
    backward_needs="side",
    kinks=(-3.0, 3.0),
    spelling=Spelling(modules=(nn.Hardsigmoid,), functions=(F.hardsigmoid,)),
)
