"""Sigmoid: y = 1 / (1 + exp(-z)); y' = y (1 - y) = e / (1 + e)^2 with e = exp(-|z|)."""

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import nn

from tidepool.kernels.activations import exponentials
from tidepool.kernels.activations.record import Formula, Spelling
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def sigmoid(z, A: tl.constexpr):
    return exponentials.sigmoid(z)


@device_function
def sigmoid_slope(z, A: tl.constexpr):
    e = tl.exp(-tl.abs(z))
    return e / ((1.0 + e) * (1.0 + e))


FORMULA = Formula(
    name="sigmoid",
    forward=sigmoid,
    slope=sigmoid_slope,
    reference=lambda z, _: torch.sigmoid(z),
    backward_needs="value",
    keeps_result=True,
    spelling=Spelling(
        modules=(nn.Sigmoid,),
        functions=(torch.sigmoid, torch.sigmoid_, F.sigmoid, torch.special.expit),
        methods=("sigmoid", "sigmoid_"),
    ),
)
