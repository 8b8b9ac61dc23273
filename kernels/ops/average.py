"""`global_average_pool`: the mean of every channel of every image, and its backward.

    y = sum over pixels of x / P        dx = grad / P at every pixel

Forward is one pass whose programs' sums a small kernel adds up in a fixed order. Backward writes N * C numbers: dx is
those expanded over the pixels, with strides of 0 there, which every kernel here reads as it is.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction

from tidepool.kernels.device.arithmetic import load_operand, offset_of, quotient_up, split_index, summed, widen
from tidepool.kernels.dispatch.differentiate import apply, recorded_outside
from tidepool.kernels.dispatch.register import register
from tidepool.kernels.layer.arguments import check_backend
from tidepool.kernels.layer.dtypes import TAKEN
from tidepool.kernels.operators.conv_implementations import check_device
from tidepool.kernels.ops.images import (
    empty_sums,
    image_grid,
    image_keywords,
    image_rows,
    image_scalars,
    image_strides,
    image_tile,
    reduce_image_sums,
)
from tidepool.kernels.oracle.reference import global_average_pool_reference
from tidepool.kernels.runtime.errors import ArgumentError
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import launch

_OP = "global_average_pool"


@kernel
def global_average_pool_kernel(
    x_ptr, workspace_ptr,
    channels, pixels, pixels_per_split, size_d, size_h, size_w, num_rows,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: the sums of BLOCK_C channels of one image over one share of its pixels.
    n, offs_c, mask_c = image_rows(channels, BLOCK_C)
    row = n * channels + offs_c
    from_c = (offs_c.to(OFFSET) * stride_xc)[:, None]
    total = tl.zeros([BLOCK_C, BLOCK_P], dtype=ACC)
    start = tl.program_id(1) * pixels_per_split
    for step in range(quotient_up(pixels_per_split, BLOCK_P)):
        offs_p = (start + step * BLOCK_P + tl.arange(0, BLOCK_P)).to(OFFSET)
        mask_p = (offs_p < pixels) & (offs_p < start + pixels_per_split)
        _, d, h, w = split_index(offs_p, size_d, size_h, size_w, G)
        at = offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G)[None, :] + from_c
        total += widen(load_operand(x_ptr + n * stride_xn, at, mask_c[:, None] & mask_p[None, :], ACC), ACC)
    tl.store(workspace_ptr + tl.program_id(1) * num_rows + row, summed(total, 1), mask=mask_c)


def _forward(x: Tensor) -> Tensor:
    check_device(x)
    return average(x)


def average(x: Tensor) -> Tensor:
    """Launch forward: (N, C, 1, ...)."""
    y = _fake_forward(x)
    if y.numel() == 0:
        return y
    tile = image_tile(x)
    sums = empty_sums(x, tile, x.dtype == torch.float64)
    launch(
        global_average_pool_kernel, image_grid(x, tile),
        x, sums, *image_scalars(x, tile), y.numel(), *image_strides(x), **image_keywords(x, tile),
    )  # fmt: skip
    reduce_image_sums(y, sums, math.prod(x.shape[2:]), None)
    return y


def _fake_forward(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], *[1] * (x.dim() - 2))


class _GlobalAveragePool(_SingleLevelFunction):
    """Saves nothing but x's size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x_size = x.shape
        ctx.set_materialize_grads(False)
        with recorded_outside():
            return ops.global_average_pool(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Tensor | None:
        return None if grad is None else ops.global_average_pool_backward(grad, ctx.x_size)


def _backward(grad: Tensor, x_size: Sequence[int]) -> Tensor:
    """Every pixel's share, all of an image's at one place in memory. An operator of its own: where sizes were symbolic,
    Inductor of PyTorch 2.13 was seen to divide a residual network's gradient by four times their product."""
    return (grad / math.prod(x_size[2:])).expand(*x_size)


register(
    "global_average_pool(Tensor x) -> Tensor",
    op=_OP, real=_forward, fake=_fake_forward, record=lambda x: apply(_GlobalAveragePool, x, op=_OP),
)  # fmt: skip
register(
    "global_average_pool_backward(Tensor grad, SymInt[] x_size) -> Tensor", op=_OP, real=_backward, fake=_backward
)
ops = torch.ops.tidepool


def global_average_pool(x: Tensor, *, keepdim: bool = True, backend: str = "auto") -> Tensor:
    """Mean over the spatial dimensions of x (N, C, *spatial), in its dtype: (N, C, 1, ...), without `keepdim` (N, C).

    One to three spatial dimensions. `backend` as for `conv_norm_act`. Raises ArgumentError that names the argument.
    """
    check_backend(backend)
    _check(x, keepdim)
    if backend == "triton":
        y = ops.global_average_pool(x)
        return y if keepdim else y.flatten(1)
    return (_compiled_reference() if backend == "compile" else global_average_pool_reference)(x, keepdim=keepdim)


def _check(x: Tensor, keepdim: bool) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"expected x to be a Tensor, but got {type(x).__name__}")
    if not isinstance(keepdim, bool):
        raise ArgumentError(f"expected keepdim to be True or False, but got {keepdim!r}")
    if x.dtype not in TAKEN or x.layout != torch.strided:
        raise ArgumentError(
            f"expected x to be a dense tensor of float16, bfloat16, float32 or float64, but got {x.dtype} of layout "
            f"{x.layout}"
        )
    if x.dim() not in (3, 4, 5):
        raise ArgumentError(f"expected x to be (N, C, *spatial) with 3, 4 or 5 dimensions, but got {list(x.shape)}")
    if any(size == 0 for size in x.shape[1:]):
        raise ArgumentError(f"Expected input to have non-zero size for non-batch dimensions, but got {list(x.shape)}")


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(global_average_pool_reference)
