"""Checks of the tensors of `conv_norm_act`, and of their sizes against its settings."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tidepool.kernels.layer.checks import check_channels, check_tensors
from tidepool.kernels.layer.dtypes import TAKEN
from tidepool.kernels.layer.norm_settings import NormSettings
from tidepool.kernels.layer.sizes import spatial_sizes
from tidepool.kernels.runtime.errors import ArgumentError


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
    if residual is not None and (residual.layout != torch.strided or residual.dtype not in TAKEN):
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
    x_size: Sequence[int],
    weight_size: Sequence[int],
    residual_size: Sequence[int] | None,
    training: bool,
    layer: NormSettings,
) -> tuple[int, ...]:
    """The size of z, what is normalised. Raises ArgumentError where a size does not work out."""
    _, pooled = spatial_sizes(tuple(x_size[2:]), tuple(weight_size[2:]), layer.convolution)
    z_size = (x_size[0], weight_size[0], *pooled)
    spatial_sizes(pooled, (1,) * len(pooled), layer.norm)
    if residual_size is not None and tuple(residual_size) != z_size:
        raise ArgumentError(
            f"expected residual to have the size of what is normalised, {list(z_size)}, but got {list(residual_size)}"
        )
    if training and x_size[0] * math.prod(pooled) == 1:
        raise ArgumentError(f"Expected more than 1 value per channel when training, got input size {list(z_size)}")
    return z_size
