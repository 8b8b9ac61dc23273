"""ReLU: y = z where z > 0, else 0; NaN stays NaN, and its gradient passes, as in PyTorch."""

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def relu(z, A: tl.constexpr):
    return tl.where(z <= 0, 0.0, z).to(z.dtype)  # not tl.maximum: that turns NaN into 0 on sm_90


@device_function
def relu_off(z, A: tl.constexpr):
    return z <= 0


FORMULA = Formula(
    name="relu",
    forward=relu,
    off=relu_off,
    reference=lambda z, _: torch.relu(z),
    backward_needs="side",
    clips=True,
    keeps_result=True,
    kinks=(0.0,),
    spelling=Spelling(
        modules=(nn.ReLU,), functions=(torch.relu, torch.relu_, F.relu, F.relu_), methods=("relu", "relu_")
    ),
)
