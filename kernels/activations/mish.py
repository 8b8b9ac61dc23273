"""Mish: y = z t with t = tanh(log(1 + exp(z))); y' = t + z (1 - t^2) sigmoid(z), at most 1.0885.

With e = exp(-|z|), so that nothing overflows and no close numbers are subtracted:

    z >= 0    t = (1 + 2e) / (1 + 2e + 2e^2)      (1 - t^2) sigmoid(z) = 4 e^2 (1 + e) / (1 + 2e + 2e^2)^2
    z < 0     t = e (e + 2) / (e (e + 2) + 2)     (1 - t^2) sigmoid(z) = 4 e (1 + e) / (e (e + 2) + 2)^2
"""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def mish(z, A: tl.constexpr):
    e = tl.exp(-tl.abs(z))
    above = (1.0 + 2.0 * e) / (1.0 + 2.0 * e + 2.0 * e * e)
    below = e * (e + 2.0) / (e * (e + 2.0) + 2.0)
    return z * tl.where(z < 0, below, above)


@device_function
def mish_slope(z, A: tl.constexpr):
    e = tl.exp(-tl.abs(z))
    divisor = tl.where(z < 0, e * (e + 2.0) + 2.0, 1.0 + 2.0 * e + 2.0 * e * e)
    t = tl.where(z < 0, e * (e + 2.0), 1.0 + 2.0 * e) / divisor
    bend = 4.0 * e * (1.0 + e) / (divisor * divisor)
    return t + z * tl.where(z < 0, bend, bend * e)


FORMULA = Formula(
    name="mish",
    forward=mish,
    slope=mish_slope,
    reference=lambda z, _: F.mish(z),
    backward_needs="value",
    steepest=lambda _: 1.1,
    spelling=Spelling(modules=(nn.Mish,), functions=(F.mish,)),
)
