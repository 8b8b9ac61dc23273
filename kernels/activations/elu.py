"""ELU: y = z where z > 0, else a (exp(z) - 1); y' = 1 or a exp(z), the second at 0; 1 of NaN (PyTorch's on a GPU; its
vectorised CPU loop says NaN there, its scalar one 1)."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.exponentials import expm1
from tidepool.kernels.activations.record import Formula, Parameter, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def elu(z, A: tl.constexpr):
    return tl.where(z <= 0, A.parameter * expm1(tl.where(z <= 0, z, 0.0)), z)


@device_function
def elu_slope(z, A: tl.constexpr):
    return tl.where(z <= 0, A.parameter * tl.exp(z), 1.0)


FORMULA = Formula(
    name="elu",
    forward=elu,
    slope=elu_slope,
    reference=lambda z, a: F.elu(z, a),
    backward_needs="value",
    kinks=(0.0,),
    steepest=lambda a: max(1.0, abs(a)),
    parameter=Parameter(name="alpha", default=1.0),
    spelling=Spelling(modules=(nn.ELU,), functions=(F.elu, F.elu_)),
)
