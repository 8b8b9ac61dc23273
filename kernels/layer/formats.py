"""Sizes and strides of tensors, and which memory format results take: PyTorch's own rule, read off strides."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tidepool.kernels.runtime.launch import Layout


def is_channels_last(tensor: Tensor) -> bool:
    """PyTorch's `suggest_memory_format`: whether a 4-D or 5-D tensor's strides rise in the order channels, width,
    height, (depth,) batch. Where both formats would be true (one pixel, one channel) the strides of size-1 dimensions
    decide.
    """
    if tensor.dim() not in (4, 5):
        return False
    sizes, strides = tensor.shape, tensor.stride()
    if strides[1] == 0:
        return False
    least = 0
    for dim in (1, *range(tensor.dim() - 1, 1, -1), 0):
        if sizes[dim] == 0 or strides[dim] < least:
            return False
        if dim == 0 and least == strides[1]:
            return False
        least = strides[dim] * max(sizes[dim], 1)
    return True


def output_format(*tensors: Tensor) -> bool:
    """Whether a result computed from these tensors is channels_last: if any of them is, and none is empty."""
    return any(is_channels_last(t) for t in tensors) and not any(size == 0 for t in tensors for size in t.shape)


def empty_in_format(size: Sequence[int], like: Tensor, channels_last: bool, dtype: torch.dtype | None = None) -> Tensor:
    """Unwritten tensor of `size` on the device of `like`, of its dtype unless told, contiguous or channels_last."""
    dtype = dtype or like.dtype
    if not channels_last:
        return torch.empty(size, dtype=dtype, device=like.device)
    memory_format = torch.channels_last if len(size) == 4 else torch.channels_last_3d
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=memory_format)


def strides(tensor: Tensor | None) -> tuple[int, ...] | None:
    """The tensor's strides; None for None."""
    return None if tensor is None else tensor.stride()


def in_strides_of(code: Tensor | None, saved: Tensor | None) -> Tensor | None:
    """`saved`, in the strides of `code` where both are given: kernels read both by the same. Forward leaves them so,
    but a hook on saved tensors (`save_on_cpu`) may bring one of them back in others."""
    if code is None or saved is None or saved.stride() == code.stride():
        return saved
    return torch.empty_strided(saved.shape, code.stride(), dtype=saved.dtype, device=saved.device).copy_(saved)


def layout_of(tensor: Tensor) -> Layout:
    """The tensor's size and strides."""
    return tensor.shape, tensor.stride()


def five_strides(layout: Layout) -> tuple[int, int, int, int, int]:
    """Element strides of the first two dimensions, then of depth, height and width, 0 for those it lacks."""
    first, second, *spatial = layout[1]
    depth, height, width = (0,) * (3 - len(spatial)) + tuple(spatial)
    return first, second, depth, height, width
