"""ReLU6: y = z between 0 and 6, else the nearer of the two; y' = 1 strictly between them, and of NaN (PyTorch's on a
GPU; its vectorised CPU loop says 0 there, its scalar one 1)."""

import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def relu6(z, A: tl.constexpr):
    return tl.where(z <= 0, 0.0, tl.where(z >= 6, 6.0, z)).to(z.dtype)


@device_function
def relu6_off(z, A: tl.constexpr):
    return (z <= 0) | (z >= 6)


FORMULA = Formula(
    name="relu6",
    forward=relu6,
    off=relu6_off,
    reference=lambda z, _: F.relu6(z),
    backward_needs="side",
    clips=True,
    kinks=(0.0, 6.0),
    spelling=Spelling(modules=(nn.ReLU6,), functions=(F.relu6,)),
)
