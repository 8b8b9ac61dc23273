"""Forward: y = pool(activation(conv(x, weight) + bias)) and what backward needs of it, in one kernel.

    acc[k, (e, p)] = sum_{c, r} weight[k, c, r] * x[n, c, pixel(p, e) * stride - padding + r * dilation]

The convolution is an implicit matrix product with filters on its rows and pixels on its columns. A program owns BLOCK_P
pooled outputs whole: it computes the convolution at JOINT elements of their windows at a time (columns ordered element
by element, so that all elements of a window sit in one thread's registers) and folds them into the running maximum or
sum. The activation itself never reaches memory.
"""

import functools
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import (
    as_stored,
    inside,
    keep_in_range,
    load_operand,
    multiply_accumulate,
    offset_of,
    quotient,
    remainder,
    split_index,
    split_tap,
    widen,
)
from tidepool.kernels.device.norm import epilogue_rows, normalise_results, pooled_results, store_statistics
from tidepool.kernels.device.windows import (
    fold,
    joint_piece,
    load_slope,
    start_fold,
    store_bits,
    window_pixel,
    write_outputs,
)
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.learned_slope import number_of_slopes
from tidepool.kernels.layer.norm_epilogue import NO_NORM
from tidepool.kernels.runtime.interpreting import device_function, kernel
from tidepool.kernels.runtime.launch import (
    Layout,
    Prepared,
    accumulator,
    channels_are_neighbours,
    channels_innermost,
    launch_prepared,
    offset_type,
    operand_kind,
    precision_of,
)
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.tiles.dense import DepthwiseTile, ForwardTile, forward_tile
from tidepool.kernels.tiles.few_channels import (
    FewChannelsTile,
)
from tidepool.kernels.tiles.hopper import HopperTile

AnyForwardTile = ForwardTile | HopperTile | FewChannelsTile | DepthwiseTile


@kernel
def conv_act_pool_forward_kernel(
    x_ptr, weight_ptr, bias_ptr, slope_ptr, y_ptr, code_ptr, winner_ptr,
    num_outputs, in_d, in_h, in_w, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    stride_wk, stride_wc, stride_wd, stride_wh, stride_ww,
    stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SLOPES: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINT: tl.constexpr, FLAT: tl.constexpr,
    norm=None, NORM: tl.constexpr = NO_NORM,
):  # fmt: skip
    # One program: BLOCK_K filters of one group at BLOCK_P pooled outputs.
    NUM_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    Y_DTYPE: tl.constexpr = y_ptr.dtype.element_ty
    group = tl.program_id(1).to(OFFSET)
    tile_p = quotient(tl.program_id(0), NUM_K).to(OFFSET) * BLOCK_P
    offs_k = (remainder(tl.program_id(0), NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = offs_k < G.filters
    x_ptr += group * G.channels * stride_xc
    weight_ptr += group * G.filters * stride_wk

    # The tile's outputs once, [BLOCK_P], and once per window element computed together, [JOINT * BLOCK_P].
    offs_p = tile_p + tl.arange(0, BLOCK_P)
    mask_p = offs_p < num_outputs
    n, od, oh, ow = split_index(offs_p, out_d, out_h, out_w, G)
    column = tl.arange(0, JOINT * BLOCK_P)
    column_p = tile_p + remainder(column, BLOCK_P)
    column_n, column_od, column_oh, column_ow = split_index(column_p, out_d, out_h, out_w, G)

    if HAS_BIAS:
        bias = widen(load_operand(bias_ptr + group * G.filters, keep_in_range(offs_k, mask_k), mask_k, ACC), ACC)
    slope = None
    if SLOPES > 0:
        slope = load_slope(slope_ptr, group * G.filters + offs_k, mask_k, ACC, SLOPES)
    if NORM.normalises:
        mean, scale, shift = epilogue_rows(norm, group * G.filters + offs_k, mask_k, ACC, NORM)
    best, code, winner = start_fold(BLOCK_K, BLOCK_P, ACC, G)

    for first in range(0, G.window, JOINT):
        pd, ph, pw = window_pixel(column_od, column_oh, column_ow, first + quotient(column, BLOCK_P), G)
        exists = column_p < num_outputs
        if G.partial_windows:
            exists = exists & inside(pd, ph, pw, conv_d, conv_h, conv_w, G)
        acc = _convolve(
            x_ptr, weight_ptr, column_n, pd, ph, pw, exists, offs_k, mask_k, in_d, in_h, in_w,
            stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
            stride_wk, stride_wc, stride_wd, stride_wh, stride_ww,
            G, ACC, PRECISION, BLOCK_K, BLOCK_C, JOINT * BLOCK_P, FLAT,
        )  # fmt: skip
        if HAS_BIAS:
            acc += bias[:, None]
        # Rounded before windows are compared, so that ties fall where PyTorch's do.
        value = as_stored(acc, Y_DTYPE, ACC)  # [BLOCK_K, JOINT * BLOCK_P]
        if NORM.kind == "normalise":
            value = normalise_results(
                value, norm, mean, scale, shift, group * G.filters + offs_k, mask_k,
                column_n, pd, ph, pw, exists, Y_DTYPE, ACC, G, NORM,
            )  # fmt: skip
        if SAVE and G.saves_bits:
            at = column_n * stride_en + offset_of(pd, ph, pw, stride_ed, stride_eh, stride_ew, G)
            store_bits(code_ptr, value, at, exists, offs_k, group, stride_ek, G, BLOCK_K)
        if JOINT == 1:
            best, code, winner = fold(best, code, winner, value, first, exists, slope, Y_DTYPE, G)
        else:
            for piece in tl.static_range(JOINT):
                element = first + piece
                here = mask_p
                if G.partial_windows:
                    ed, eh, ew = window_pixel(od, oh, ow, element, G)
                    here = here & inside(ed, eh, ew, conv_d, conv_h, conv_w, G)
                part = joint_piece(value, piece, BLOCK_K, BLOCK_P, JOINT)
                best, code, winner = fold(best, code, winner, part, element, here, slope, Y_DTYPE, G)

    offs_k += group * G.filters
    STORED: tl.constexpr = NORM.layer if NORM.kind == "normalise_pooled" else G
    if NORM.kind == "statistics" or NORM.kind == "normalise_pooled":
        value = pooled_results(best, od, oh, ow, conv_d, conv_h, conv_w, Y_DTYPE, ACC, G)
        if NORM.kind == "statistics":
            part = quotient(tl.program_id(0), NUM_K)
            store_statistics(norm, value, part, G.filters * G.groups, offs_k, mask_k, mask_p, ACC)
        else:
            value = normalise_results(
                value, norm, mean, scale, shift, offs_k, mask_k, n, od, oh, ow, mask_p, Y_DTYPE, ACC, G, NORM
            )
            best, code, winner = fold(best, code, winner, value, 0, mask_p, slope, Y_DTYPE, STORED)
    write_outputs(
        y_ptr, code_ptr, winner_ptr, best, code, winner,
        offs_k, mask_k, n, od, oh, ow, mask_p, conv_d, conv_h, conv_w,
        stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
        stride_en, stride_ek, stride_ed, stride_eh, stride_ew, STORED, SAVE,
    )  # fmt: skip


@device_function
def _convolve(
    x_ptr, weight_ptr, n, pd, ph, pw, exists, offs_k, mask_k, in_d, in_h, in_w,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    stride_wk, stride_wc, stride_wd, stride_wh, stride_ww,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, COLUMNS: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """The convolution, without bias, of filters `offs_k` at pixels (n, pd, ph, pw): [BLOCK_K, COLUMNS].

    FLAT runs over taps and channels as one index (few channels); otherwise a tap's channels go block by block, and the
    tap, a scalar, costs no per-element arithmetic.
    """
    BLOCKS_C: tl.constexpr = (G.channels + BLOCK_C - 1) // BLOCK_C
    STEPS: tl.constexpr = (G.taps * G.channels + BLOCK_C - 1) // BLOCK_C if FLAT else G.taps * BLOCKS_C
    base_w = pw * G.stride_w - G.padding_w
    base_h = ph
    base_d = pd
    if G.rank >= 2:
        base_h = ph * G.stride_h - G.padding_h
    if G.rank == 3:
        base_d = pd * G.stride_d - G.padding_d
    base = n * stride_xn + offset_of(base_d, base_h, base_w, stride_xd, stride_xh, stride_xw, G)
    acc = tl.zeros([BLOCK_K, COLUMNS], dtype=ACC)
    wide = tl.zeros([], dtype=n.dtype)  # what is added to it is an offset of as many bits as the pixels'
    for step in range(STEPS):
        if FLAT:
            flat = step * BLOCK_C + tl.arange(0, BLOCK_C) + wide
            mask_c = flat < G.taps * G.channels
            offs_c = remainder(flat, G.channels)
            rd, rh, rw = split_tap(quotient(flat, G.channels), G)
            tap_d, tap_h, tap_w = _dilated(rd, rh, rw, G)
            d, h, w = _plus(base_d[None, :], base_h[None, :], base_w[None, :], tap_d, tap_h, tap_w, G)
            mask_x = exists[None, :] & inside(d, h, w, in_d, in_h, in_w, G)
            from_pixel = base[None, :] + offset_of(tap_d, tap_h, tap_w, stride_xd, stride_xh, stride_xw, G)[:, None]
        else:
            offs_c = remainder(step, BLOCKS_C) * BLOCK_C + tl.arange(0, BLOCK_C) + wide
            mask_c = offs_c < G.channels
            rd, rh, rw = split_tap(quotient(step, BLOCKS_C) + wide, G)
            tap_d, tap_h, tap_w = _dilated(rd, rh, rw, G)
            mask_x = (exists & inside(base_d + tap_d, base_h + tap_h, base_w + tap_w, in_d, in_h, in_w, G))[None, :]
            from_pixel = (base + offset_of(tap_d, tap_h, tap_w, stride_xd, stride_xh, stride_xw, G))[None, :]
        from_x = offs_c * stride_xc
        from_w = offs_c * stride_wc + offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)
        if FLAT or G.channels % BLOCK_C != 0:
            from_x = keep_in_range(from_x, mask_c)
            from_w = keep_in_range(from_w, mask_c)
        at = keep_in_range(from_pixel, mask_x) + from_x[:, None]
        x = load_operand(x_ptr, at, mask_c[:, None] & mask_x, ACC)  # [BLOCK_C, COLUMNS]
        at = keep_in_range(offs_k * stride_wk, mask_k)[:, None] + from_w[None, :]
        weight = load_operand(weight_ptr, at, mask_k[:, None] & mask_c[None, :], ACC)  # [BLOCK_K, BLOCK_C]
        acc = multiply_accumulate(weight, x, acc, PRECISION)
    return acc


@device_function
def _dilated(rd, rh, rw, G: tl.constexpr):
    return rd * G.dilation_d, rh * G.dilation_h, rw * G.dilation_w


@device_function
def _plus(base_d, base_h, base_w, tap_d, tap_h, tap_w, G: tl.constexpr):
    """Base coordinates [1, COLUMNS] plus tap offsets [BLOCK_C]; dimensions the layer lacks stay as they are."""
    w = base_w + tap_w[:, None]
    h = base_h
    d = base_d
    if G.rank >= 2:
        h = base_h + tap_h[:, None]
    if G.rank == 3:
        d = base_d + tap_d[:, None]
    return d, h, w


def bind_portable_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None,
    slope: Tensor | None,
) -> Callable[..., None]:
    """This file's kernel made ready: `choose.bind_forward` for layers that it carries."""
    saved = code if code is not None else winner
    prepared = prepare_portable(x, channels_innermost(weight), bias, y, saved, geometry, shapes, tile, None, slope)

    def launch_portable(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        code: Tensor | None,
        winner: Tensor | None,
        slope: Tensor | None,
    ) -> None:
        given = pointers(x, channels_innermost(weight), bias, y, code, winner, slope)
        launch_prepared(conv_act_pool_forward_kernel, prepared, *given)

    return launch_portable


def pointers(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    slope: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """The kernel's pointers, others standing in for those that it will not look at."""
    return (
        x, weight, x if bias is None else bias.contiguous(), slope if slope is None else slope.contiguous(), y,
        y if code is None else code, y if winner is None else winner,
    )  # fmt: skip


def prepare_portable(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    saved: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None,
    residual: Layout | None,
    slope: Tensor | None = None,
) -> Prepared:
    kind = operand_kind(x.dtype, x.device)
    if tile is None or isinstance(tile, HopperTile | FewChannelsTile):
        tile = forward_tile(geometry, shapes.num_outputs, mode_of(x.device).target, kind, channels_are_neighbours(x))
    if not isinstance(tile, ForwardTile):
        raise ValueError(f"tile: a {type(tile).__name__} does not fit a dense layer, expected a ForwardTile")
    return _prepare(
        geometry, shapes, x.dtype, kind, tile, bias is not None, layout_of(x), layout_of(weight), layout_of(y),
        None if saved is None else layout_of(saved), residual, number_of_slopes(slope),
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    kind: str,
    tile: ForwardTile,
    has_bias: bool,
    x: Layout,
    weight: Layout,
    y: Layout,
    saved: Layout | None,
    residual: Layout | None,
    slopes: int,
) -> Prepared:
    tiles_k, tiles_p = triton.cdiv(geometry.filters, tile.block_k), triton.cdiv(shapes.num_outputs, tile.block_p)
    scalars = (
        shapes.num_outputs, *shapes.input, *shapes.conv, *shapes.output,
        *five_strides(x), *five_strides(weight), *five_strides(y), *five_strides(saved or y),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "PRECISION": precision_of(kind),
        "OFFSET": offset_type(x, weight, y, saved, residual),
        "HAS_BIAS": has_bias, "SLOPES": slopes, "SAVE": saved is not None,
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "BLOCK_C": tile.block_c, "JOINT": tile.joint,
        "FLAT": tile.flat, "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip
    return Prepared((tiles_k * tiles_p, geometry.groups), scalars, keywords)
