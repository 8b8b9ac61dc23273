"""GELU by its tanh approximation: y = z (1 + tanh(u)) / 2 = z s with u = sqrt(2 / pi) (z + 0.044715 z^3) and
s = sigmoid(2 u), which keeps its accuracy far below 0; y' = s + 2 z s sigmoid(-2 u) u'."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.exponentials import sigmoid
from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def gelu_tanh(z, A: tl.constexpr):
    return z * sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))


@device_function
def gelu_tanh_slope(z, A: tl.constexpr):
    twice = 1.5957691216057308 * (z + 0.044715 * z * z * z)
    s = sigmoid(twice)
    # Not 1 - s: the factors after it make 20 of its rounding at z = 4.
    return s + z * s * sigmoid(-twice) * (1.5957691216057308 * (1.0 + 0.134145 * z * z))


FORMULA = Formula(
    name="gelu_tanh",
    forward=gelu_tanh,
    slope=gelu_tanh_slope,
    reference=lambda z, _: F.gelu(z, approximate="tanh"),
    backward_needs="value",
    steepest=lambda _: 1.13,
    spelling=Spelling(modules=(nn.GELU,), functions=(F.gelu,), settings={"approximate": "tanh"}),
)
