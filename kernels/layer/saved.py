"""What forward saves for backward: how many tensors, of which sizes and dtypes."""

import torch
from torch import Tensor

from tidepool.kernels.layer.formats import empty_in_format, is_channels_last
from tidepool.kernels.layer.geometry import MAX_BYTE_CODES, MAX_INT16_CODES, Geometry, Shapes


def _code_dtype(geometry: Geometry) -> torch.dtype:
    if geometry.codes <= MAX_BYTE_CODES:
        return torch.uint8
    return torch.int16 if geometry.codes <= MAX_INT16_CODES else torch.int32


def empty_saved(y: Tensor, geometry: Geometry, shapes: Shapes) -> tuple[Tensor | None, Tensor | None]:
    """Unwritten `code` and `winner` tensors of the shapes and dtypes `geometry` asks for, in y's memory format."""
    code = winner = None
    if geometry.saves_code:
        code = torch.empty_like(y, dtype=_code_dtype(geometry))
    elif geometry.saves_bits:
        channels = geometry.row_groups * geometry.code_channels
        size = (shapes.batch, channels, *shapes.conv[3 - geometry.rank :])
        code = empty_in_format(size, y, is_channels_last(y), torch.uint8)
        if not windows_cover(geometry, shapes):
            code.zero_()  # bits of pixels in no window: they change no result, and are the same in every call
    if geometry.saves_winner:
        winner = torch.empty_like(y)
    return code, winner


def windows_cover(geometry: Geometry, shapes: Shapes) -> bool:
    """Whether every convolution pixel lies in some pooling window."""
    windows = (geometry.window_d, geometry.window_h, geometry.window_w)
    strides = (geometry.pool_stride_d, geometry.pool_stride_h, geometry.pool_stride_w)
    paddings = (geometry.pool_padding_d, geometry.pool_padding_h, geometry.pool_padding_w)
    return all(
        stride <= window and (count - 1) * stride - padding + window >= size
        for window, stride, padding, count, size in zip(
            windows, strides, paddings, shapes.output, shapes.conv, strict=True
        )
    )
