"""Layers whose activation has a learned slope: the slope's checks, and what their backward is made of.

Backward is one pass over the values z that forward kept, a winner's for each output of a max pool, else the whole
convolution's, which gives the slope's gradient and the gradient at z; what is left is the backward of a layer without
activation:

    max      that of the same pool, whose codes forward kept as well: the pass runs over outputs
    average  that of the convolution alone: the pass takes the gradient back through the average on its way
    none     that of the convolution alone
"""

import functools
from dataclasses import replace

import torch
from torch import Tensor

from tidepool.kernels.activations import NO_ACTIVATION, Activation, NamedActivation
from tidepool.kernels.layer.checks import autocast_dtype
from tidepool.kernels.layer.settings import Layer, without_activation_and_pool
from tidepool.kernels.runtime.errors import ArgumentError


def learned_slope(activation: NamedActivation) -> Tensor | None:
    """The slope that a caller's activation holds."""
    return activation.learned_slope if isinstance(activation, Activation) else None


def number_of_slopes(slope: Tensor | None) -> int:
    """How many learned slopes there are: none, one for all filters, or one each."""
    return 0 if slope is None else slope.numel()


def check_slope(x: Tensor, weight: Tensor, slope: Tensor | None, activation: Activation) -> None:
    """Check the learned slope of `activation`, None where there is none, against checked tensors x and weight.

    Raises ArgumentError.
    """
    name, filters = activation.name, weight.shape[0]
    if slope is None:
        if activation.learned:
            raise ArgumentError(f'expected activation {name} with its slope, Activation("{name}", slope), but got none')
        return
    if not activation.learned:
        raise ArgumentError(f"expected no slope for activation {name}, but got one of size {list(slope.shape)}")
    if slope.layout != torch.strided:
        raise ArgumentError(f"expected slope to be a dense (strided) tensor, but its layout is {slope.layout}")
    if slope.dim() > 1 or slope.numel() not in (1, filters):
        raise ArgumentError(
            f"expected slope of activation {name} to hold 1 element or {filters}, one for each filter of weight, "
            f"but got slope of size {list(slope.shape)}"
        )
    if slope.dtype != x.dtype and autocast_dtype(slope) != autocast_dtype(x):
        raise ArgumentError(f"Input type ({x.dtype}) and slope type ({slope.dtype}) should be the same")
    if slope.device != x.device:
        raise ArgumentError(
            f"expected x and slope to be on the same device, but x is on {x.device} and slope on {slope.device}"
        )


@functools.cache
def behind_slope(layer: Layer) -> Layer:
    """The layer whose gradients are those of `layer` once its incoming gradient was multiplied by the learned slope at
    every value that forward kept: the winners of a max pool, else the convolution's outputs."""
    if layer.pool == "max":
        return replace(layer, activation=NO_ACTIVATION)
    return without_activation_and_pool(layer)


@functools.cache
def before_slope(layer: Layer) -> Layer:
    """What a gradient passes on its way back from the results of `layer` to the values that forward kept, as the layer
    of a 1-wide convolution: an average pool, or nothing."""
    if layer.pool != "avg":
        layer = without_activation_and_pool(layer)
    rank = len(layer.stride)
    ones, zeros = (1,) * rank, (0,) * rank
    return replace(layer, stride=ones, padding=zeros * 2, dilation=ones, groups=1, activation=NO_ACTIVATION)
