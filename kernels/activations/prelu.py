"""PReLU: y = z where z > 0, else a z, with a learned slope a, one for all filters or one each; y' = 1 or a, and a at 0
and of NaN; by the slope, 0 or z. As in PyTorch."""

import torch.nn.functional as F
import triton.language as tl

from tidepool.kernels.activations.record import Formula
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def prelu(z, slope, A: tl.constexpr):
    return tl.where(z > 0, z, z * slope)


@device_function
def prelu_slope(z, slope, A: tl.constexpr):
    return tl.where(z > 0, 1.0, slope)


@device_function
def prelu_by_slope(z, grad, A: tl.constexpr):
    return tl.where(z > 0, 0.0, grad * z)


FORMULA = Formula(
    name="prelu",
    forward=prelu,
    slope=prelu_slope,
    by_slope=prelu_by_slope,
    # Where autocast leaves F.prelu alone, as on a CPU, it would refuse a slope of another dtype.
    reference=lambda z, a: F.prelu(z, a.to(z.dtype)),
    backward_needs="value",
    kinks=(0.0,),
    steepest=lambda a: max(1.0, float(a.detach().abs().max())),
)
