"""LeakyReLU: y = z where z > 0, else a z; y' = 1 or a, and a at 0 and of NaN, as in PyTorch."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.record import Formula, Parameter, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def leaky_relu(z, A: tl.constexpr):
    return tl.where(z > 0, z, z * A.parameter)


@device_function
def leaky_relu_off(z, A: tl.constexpr):
    return (z > 0) == 0


FORMULA = Formula(
    name="leaky_relu",
    forward=leaky_relu,
    off=leaky_relu_off,
    slopes=lambda a: (1.0, a),
    reference=lambda z, a: F.leaky_relu(z, a),
    backward_needs="side",
    kinks=(0.0,),
    steepest=lambda a: max(1.0, abs(a)),
    parameter=Parameter(name="negative_slope", default=0.01),
    spelling=Spelling(modules=(nn.LeakyReLU,), functions=(F.leaky_relu, F.leaky_relu_)),
)
