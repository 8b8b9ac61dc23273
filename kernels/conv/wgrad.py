"""Weight and bias gradient, through pool and activation, split over pixels and summed in a fixed order.

    dweight[k, c, r] = sum_{n, p} g[n, k, p] * x[n, c, p * stride - padding + r * dilation]
    dbias[k]         = sum_{n, p} g[n, k, p]

g, the gradient at the convolution's output, is rebuilt in registers as in the input gradient. Filters are rows,
(tap, channel) pairs columns, pixels the reduction. Each of `splits` programs per tile sums its share of the pixels
into its own float32 slice of a workspace; a second kernel adds the slices in order. No atomics: the result repeats to
the bit. The bias gradient is one more workspace column, summed by the programs of the first column tile.
"""

import functools
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import (
    as_operand,
    channel_mask,
    inside,
    load_operand,
    multiply_accumulate,
    offset_of,
    quotient,
    quotient_up,
    remainder,
    round_to,
    split_index,
    split_tap,
    summed,
    widen,
)
from tidepool.kernels.device.choice import channels_in_range
from tidepool.kernels.device.windows import conv_gradient
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import (
    Layout,
    Prepared,
    accumulator,
    launch_prepared,
    offset_type,
    operand_kind,
    precision_of,
)
from tidepool.kernels.tiles.dense import WgradTile

_REDUCE_BLOCK = 256


@kernel
def conv_act_pool_wgrad_kernel(
    grad_ptr, code_ptr, saved_ptr, x_ptr, workspace_ptr,
    num_pixels, pixels_per_split, in_d, in_h, in_w, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, OFFSET: tl.constexpr,
    NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K filters x BLOCK_N (tap, channel) columns of one group, over one split's pixels.
    NUM_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    COLUMNS: tl.constexpr = G.taps * G.channels if NEEDS_WEIGHT else 0
    ROW: tl.constexpr = COLUMNS + 1 if NEEDS_BIAS else COLUMNS
    DTYPE: tl.constexpr = grad_ptr.dtype.element_ty
    tile_n = quotient(tl.program_id(0), NUM_K)
    split = tl.program_id(1).to(OFFSET)
    group = tl.program_id(2).to(OFFSET)
    offs_k = (remainder(tl.program_id(0), NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, G.filters)
    column = (tile_n * BLOCK_N + tl.arange(0, BLOCK_N)).to(OFFSET)
    mask_n = column < COLUMNS
    offs_c = remainder(column, G.channels).to(OFFSET)
    rd, rh, rw = split_tap(quotient(column, G.channels), G)
    tap_d = rd * G.dilation_d - G.padding_d
    tap_h = rh * G.dilation_h - G.padding_h
    tap_w = rw * G.dilation_w - G.padding_w
    from_n = offs_c * stride_xc + offset_of(tap_d, tap_h, tap_w, stride_xd, stride_xh, stride_xw, G)

    in_range = channels_in_range(column, G.channels).to(OFFSET) * stride_xc

    grad_ptr += group * G.filters * stride_gk
    code_ptr += group * G.code_channels * stride_ek
    saved_ptr += group * G.filters * stride_ek
    x_ptr += group * G.channels * stride_xc
    acc = tl.zeros([BLOCK_K, BLOCK_N], dtype=ACC)
    bias_acc = tl.zeros([BLOCK_K], dtype=ACC)
    start = split * pixels_per_split
    for step in range(quotient_up(pixels_per_split, BLOCK_P)):
        offs_p = start + step * BLOCK_P + tl.arange(0, BLOCK_P)
        mask_p = (offs_p < num_pixels) & (offs_p < start + pixels_per_split)
        n, pd, ph, pw = split_index(offs_p, conv_d, conv_h, conv_w, G)
        grad = conv_gradient(
            grad_ptr, code_ptr, saved_ptr,
            n[None, :], pd[None, :], ph[None, :], pw[None, :], mask_p[None, :],
            offs_k[:, None], mask_k[:, None], conv_d, conv_h, conv_w, out_d, out_h, out_w,
            stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
            stride_en, stride_ek, stride_ed, stride_eh, stride_ew, G, ACC,
        )  # fmt: skip  [BLOCK_K, BLOCK_P]
        if NEEDS_WEIGHT:
            from_d = pd * G.stride_d
            from_h = ph * G.stride_h
            from_w = pw * G.stride_w
            d = from_d[:, None] + tap_d[None, :]
            h = from_h[:, None] + tap_h[None, :]
            w = from_w[:, None] + tap_w[None, :]
            mask = (mask_p[:, None] & mask_n[None, :]) & inside(d, h, w, in_d, in_h, in_w, G)
            from_p = n * stride_xn + offset_of(from_d, from_h, from_w, stride_xd, stride_xh, stride_xw, G)
            # Masked offsets are brought into range as in `keep_channels`: contiguous along the channels.
            at = tl.where(mask, from_p[:, None] + from_n[None, :], in_range[None, :])
            x = load_operand(x_ptr, at, mask, ACC)  # [BLOCK_P, BLOCK_N]
            acc = multiply_accumulate(as_operand(grad, DTYPE, ACC), x, acc, PRECISION)
        if NEEDS_BIAS and tile_n == 0:
            bias_acc += summed(widen(grad, ACC), 1)

    row = (split * G.groups + group) * G.filters + offs_k
    if NEEDS_WEIGHT:
        mask = mask_k[:, None] & mask_n[None, :]
        at = row.to(tl.int64)[:, None] * ROW + column[None, :]
        tl.store(workspace_ptr + at, acc, mask=mask)
    if NEEDS_BIAS and tile_n == 0:
        tl.store(workspace_ptr + tl.where(mask_k, row.to(tl.int64) * ROW + COLUMNS, 0), bias_acc, mask=mask_k)


@kernel
def conv_act_pool_wgrad_reduce_kernel(
    workspace_ptr, dweight_ptr, dbias_ptr,
    num_elements, splits, stride_wk, stride_wc, stride_wd, stride_wh, stride_ww,
    G: tl.constexpr, NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK elements of the (filter, column) workspace, summed over splits in order.
    COLUMNS: tl.constexpr = G.taps * G.channels if NEEDS_WEIGHT else 0
    ROW: tl.constexpr = COLUMNS + 1 if NEEDS_BIAS else COLUMNS
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < num_elements
    total = tl.zeros([BLOCK], dtype=workspace_ptr.dtype.element_ty)
    for split in range(splits):
        total += tl.load(workspace_ptr + tl.where(mask, split * num_elements + offs, 0), mask=mask, other=0.0)
    k = quotient(offs, ROW)
    column = remainder(offs, ROW)
    if NEEDS_WEIGHT:
        is_weight = mask & (column < COLUMNS)
        rd, rh, rw = split_tap(quotient(column, G.channels), G)
        at = k * stride_wk + remainder(column, G.channels) * stride_wc
        at += offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)
        rounded = round_to(total, dweight_ptr.dtype.element_ty)
        tl.store(dweight_ptr + tl.where(is_weight, at, 0), rounded, mask=is_weight)
    if NEEDS_BIAS:
        is_bias = mask & (column == COLUMNS)
        tl.store(dbias_ptr + tl.where(is_bias, k, 0), round_to(total, dbias_ptr.dtype.element_ty), mask=is_bias)


def bind_portable_wgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    needs: tuple[bool, bool],
    geometry: Geometry,
    shapes: Shapes,
    tile: WgradTile,
) -> Callable[..., None]:
    """This file's split sums of (grad, code, saved, x) into a workspace, made ready for `choose.bind_wgrad`."""
    extra = code if code is not None else saved
    prepared = _prepare(
        geometry, shapes, grad.dtype, operand_kind(grad.dtype, grad.device), tile, needs, layout_of(grad),
        None if extra is None else layout_of(extra), layout_of(x),
    )  # fmt: skip

    def launch(grad: Tensor, code: Tensor | None, saved: Tensor | None, x: Tensor, workspace: Tensor) -> None:
        pointers = (grad, grad if code is None else code, grad if saved is None else saved, x, workspace)
        launch_prepared(conv_act_pool_wgrad_kernel, prepared, *pointers)

    return launch


def empty_workspace(grad: Tensor, elements: int) -> Tensor:
    """Unwritten partial sums in the accumulator's type."""
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    return torch.empty(elements, dtype=dtype, device=grad.device)


@functools.lru_cache(maxsize=4096)
def _prepare(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    kind: str,
    tile: WgradTile,
    needs: tuple[bool, bool],
    grad: Layout,
    extra: Layout | None,
    x: Layout,
) -> Prepared:
    columns = geometry.taps * geometry.channels if needs[0] else 0
    tiles = triton.cdiv(geometry.filters, tile.block_k) * max(triton.cdiv(columns, tile.block_n), 1)
    scalars = (
        shapes.conv_pixels, triton.cdiv(shapes.conv_pixels, tile.splits),
        *shapes.input, *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(extra or grad), *five_strides(x),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "PRECISION": precision_of(kind),
        "OFFSET": offset_type(grad, extra, x, pixels=shapes.conv_pixels),
        "NEEDS_WEIGHT": needs[0], "NEEDS_BIAS": needs[1],
        "BLOCK_K": tile.block_k, "BLOCK_N": tile.block_n, "BLOCK_P": tile.block_p,
        "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip
    return Prepared((tiles, tile.splits, geometry.groups), scalars, keywords)


@functools.lru_cache(maxsize=4096)
def prepare_reduce(
    geometry: Geometry,
    elements: int,
    splits: int,
    needs: tuple[bool, bool],
    dweight: Layout | None,
    interpreted: bool,
) -> Prepared:
    block = min(triton.next_power_of_2(elements), 2**16) if interpreted else _REDUCE_BLOCK
    strides = five_strides(dweight) if dweight is not None else (0,) * 5
    keywords = {"G": geometry, "NEEDS_WEIGHT": needs[0], "NEEDS_BIAS": needs[1], "BLOCK": block}
    return Prepared((triton.cdiv(elements, block),), (elements, splits, *strides), keywords)
