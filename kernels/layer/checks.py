"""Checks of a caller's tensors by themselves and against each other: types, ranks, dtypes, devices, channels."""

import torch
from torch import Tensor

from tidepool.kernels.layer.dtypes import TAKEN
from tidepool.kernels.runtime.errors import ArgumentError


def check_tensors(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check ranks, dtypes and devices of the tensors. Raises ArgumentError, or TypeError for a non-tensor."""
    for name, value in (("x", x), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and not (name == "bias" and value is None):
            raise TypeError(f"expected {name} to be a Tensor, but got {type(value).__name__}")
    for name, value in (("x", x), ("weight", weight), ("bias", bias)):
        if value is not None and value.layout != torch.strided:
            raise ArgumentError(f"expected {name} to be a dense (strided) tensor, but its layout is {value.layout}")
    if weight.dim() not in (3, 4, 5):
        raise ArgumentError(
            f"expected weight to have 3, 4 or 5 dimensions (K, C/groups, *kernel), but got {weight.dim()}"
        )
    rank = weight.dim() - 2
    if x.dim() not in (rank + 1, rank + 2):
        raise ArgumentError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to conv{rank}d, "
            f"but got input of size: {list(x.shape)}"
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value is None:
            continue
        if value.dtype != x.dtype and autocast_dtype(value) != autocast_dtype(x):
            raise ArgumentError(f"Input type ({x.dtype}) and {name} type ({value.dtype}) should be the same")
        if value.device != x.device:
            raise ArgumentError(
                f"expected x and {name} to be on the same device, but x is on {x.device} and {name} on {value.device}"
            )
    if x.dtype not in TAKEN:
        raise ArgumentError(f"expected x to be float16, bfloat16, float32 or float64, but got {x.dtype}")


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype autocast, if it is on, will turn the tensor into before the operator runs."""
    device = tensor.device.type
    if not tensor.is_floating_point() or tensor.dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return tensor.dtype
    if not torch.is_autocast_enabled(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device)


def check_channels(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """Check channels, filters and bias length of checked tensors against `groups` >= 1. Raises ArgumentError."""
    channels = x.shape[1 - weight.dim()]
    filters, per_group = weight.shape[:2]
    size = list(weight.shape)
    if filters < groups:
        raise ArgumentError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, "
            f"but got weight of size {size} instead"
        )
    if filters % groups != 0:
        raise ArgumentError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {size} instead"
        )
    if per_group < 1:
        raise ArgumentError(f"expected weight to have at least 1 input channel, but got weight of size {size}")
    if channels != per_group * groups:
        raise ArgumentError(
            f"Given groups={groups}, weight of size {size}, expected input to have {per_group * groups} channels, "
            f"but got {channels} channels instead"
        )
    if any(k < 1 for k in weight.shape[2:]):
        raise ArgumentError(f"expected weight's kernel size to be at least 1 everywhere, but got weight of size {size}")
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != filters):
        raise ArgumentError(
            f"Given weight of size {size}, expected bias to be 1-dimensional with {filters} elements, "
            f"but got bias of size {list(bias.shape)} instead"
        )
