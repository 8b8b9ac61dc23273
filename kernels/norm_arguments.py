"""Checks of `conv_norm_act`: refusals in PyTorch's vocabulary, one line each, and its settings as one string.

A checked call's settings travel as one string, the convolution's layer and the norm's:

    z = conv(x, weight) + conv_bias, pooled where the pool comes first    the convolution's layer, without activation
    y = pool(activation(norm(z) + residual))                              the norm's layer, a 1-wide convolution
"""

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.arguments import (
    DTYPES,
    ArgumentError,
    Sizes,
    check_channels,
    check_tensors,
    layer_from_text,
    parse_layer,
    spatial_sizes,
)
from kernels.pooling import Pool, Size

_SEPARATOR = " | "


def parse_norm_layer(
    kernel: Sizes,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
    activation: str | None,
    pool: Pool,
    pool_first: bool,
) -> str:
    """The settings as text, checked as far as no tensor is needed. Raises ArgumentError."""
    if not isinstance(pool_first, bool):
        raise ArgumentError(f"expected pool_first to be True or False, but got {pool_first!r}")
    if pool_first and pool is None:
        raise ArgumentError("pool_first=True says that pooling comes before the norm, but pool is None")
    convolution = parse_layer(kernel, stride, padding, dilation, groups, None, pool if pool_first else None)
    norm = parse_layer((1,) * len(kernel), 1, 0, 1, 1, activation, None if pool_first else pool)
    return convolution.text() + _SEPARATOR + norm.text()


def split_layer(layer: str) -> tuple[str, str]:
    """The convolution's and the norm's part of a text that `parse_norm_layer` made. Raises ArgumentError."""
    convolution, separator, norm = layer.partition(_SEPARATOR)
    if not separator:
        raise ArgumentError(f"expected layer to be two settings joined by {_SEPARATOR!r}, but got {layer!r}")
    return convolution, norm


def check_norm_numbers(training: bool, momentum: float, eps: float) -> None:
    """Check the settings that no shape depends on. Raises ArgumentError."""
    if not isinstance(training, bool):
        raise ArgumentError(f"expected training to be True or False, but got {training!r}")
    for name, value in (("momentum", momentum), ("eps", eps)):
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or value != value:
            hint = " (for a cumulative average pass 1 / number of batches)" if name == "momentum" else ""
            raise ArgumentError(f"expected {name} to be a number{hint}, but got {value!r}")
    if training and eps <= 0:
        raise ArgumentError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0:
        raise ArgumentError(f"batch_norm eps must be non-negative, but got {eps}")


def check_norm_tensors(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    groups: int,
    training: bool,
) -> None:
    """Check types, ranks, dtypes, devices and channels of all tensors. Raises ArgumentError, TypeError."""
    check_tensors(x, weight, conv_bias)
    if x.dim() != weight.dim():
        raise ArgumentError(
            f"expected x to be batched, {weight.dim()}-dimensional (a norm's statistics need the batch dimension), "
            f"but got input of size: {list(x.shape)}"
        )
    check_channels(x, weight, conv_bias, groups)
    if (running_mean is None) != (running_var is None):
        raise ArgumentError("running_mean and running_var must either both be None or neither be None")
    if not training and running_mean is None:
        raise ArgumentError("running_mean and running_var must be defined in evaluation mode, but got None")
    per_channel = {
        "norm_weight": norm_weight, "norm_bias": norm_bias, "running_mean": running_mean, "running_var": running_var
    }  # fmt: skip
    for name, value in per_channel.items():
        _check_per_channel(name, value, x, weight.shape[0])
    dtypes = {value.dtype for value in per_channel.values() if value is not None}
    if len(dtypes) > 1:
        raise ArgumentError(f"expected the norm's tensors to have one dtype, but got {_listed(per_channel)}")
    if residual is not None and not isinstance(residual, Tensor):
        raise TypeError(f"expected residual to be a Tensor, but got {type(residual).__name__}")
    if residual is not None and (residual.layout != torch.strided or residual.dtype not in DTYPES):
        raise ArgumentError(
            f"expected residual to be a dense (strided) floating-point tensor, but got {residual.dtype} "
            f"of layout {residual.layout}"
        )
    if residual is not None and (residual.dtype == torch.float64) != (x.dtype == torch.float64):
        raise ArgumentError(
            f"expected residual to be {convolved_dtype(x)} as the convolution's output, but got {residual.dtype}"
        )
    if residual is not None and residual.device != x.device:
        raise ArgumentError(
            f"expected x and residual to be on the same device, but x is on {x.device} and residual on "
            f"{residual.device}"
        )


def _listed(tensors: dict[str, Tensor | None]) -> str:
    return ", ".join(f"{name} {value.dtype}" for name, value in tensors.items() if value is not None)


def _check_per_channel(name: str, value: Tensor | None, x: Tensor, channels: int) -> None:
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"expected {name} to be a Tensor, but got {type(value).__name__}")
    if value.layout != torch.strided:
        raise ArgumentError(f"expected {name} to be a dense (strided) tensor, but its layout is {value.layout}")
    if value.dim() != 1 or value.shape[0] != channels:
        raise ArgumentError(f"{name} should contain {channels} elements, but got size {list(value.shape)}")
    if value.device != x.device:
        raise ArgumentError(
            f"expected x and {name} to be on the same device, but x is on {x.device} and {name} on {value.device}"
        )
    z_dtype = convolved_dtype(x)
    if value.dtype != z_dtype and not (value.dtype == torch.float32 and z_dtype.itemsize == 2):
        raise ArgumentError(
            f"expected {name} to be {z_dtype} as the convolution's output"
            f"{' or torch.float32' if z_dtype.itemsize == 2 else ''}, but got {value.dtype}"
        )


def convolved_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the convolution's output: x's, or what autocast, if it is on, will make of it."""
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast and x.dtype != torch.float64 else x.dtype


def check_norm_sizes(
    x_size: Sequence[int], weight_size: Sequence[int], residual_size: Sequence[int] | None, training: bool, layer: str
) -> tuple[int, ...]:
    """The size of z, what is normalised. Raises ArgumentError where a size does not work out."""
    convolution, norm = (layer_from_text(text) for text in split_layer(layer))
    _, pooled = spatial_sizes(tuple(x_size[2:]), tuple(weight_size[2:]), convolution)
    z_size = (x_size[0], weight_size[0], *pooled)
    spatial_sizes(pooled, (1,) * len(pooled), norm)
    if residual_size is not None and tuple(residual_size) != z_size:
        raise ArgumentError(
            f"expected residual to have the size of what is normalised, {list(z_size)}, but got {list(residual_size)}"
        )
    if training and x_size[0] * math.prod(pooled) == 1:
        raise ArgumentError(f"Expected more than 1 value per channel when training, got input size {list(z_size)}")
    return z_size
