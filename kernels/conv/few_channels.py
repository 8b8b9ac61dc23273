"""Forward of layers with few input channels, pictures above all: taps and channels as one short reduction index.

    acc[k, (h, w)] = sum_f weight[k, f] * x[n, c(f), h(f), w(f)],    h(f) = h * stride - padding + r(f) * dilation

f counts (tap, channel) pairs, channels fastest: 27 for a 3x3 filter over RGB, filled up to 32. A program owns a box of
pixels and a lane one or two of them: a pixel's address and its taps' masks are worked out once, and each f is one load
at an offset from there. What was loaded is joined in registers. Programs stay, with their weights, and walk over boxes.
"""

import functools
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.conv.forward import pointers
from tidepool.kernels.device.arithmetic import (
    keep_in_range,
    load_operand,
    multiply_accumulate,
    quotient,
    quotient_up,
    remainder,
)
from tidepool.kernels.device.boxes import finish_box
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.learned_slope import number_of_slopes
from tidepool.kernels.runtime.interpreting import INTERPRETING, device_function, kernel
from tidepool.kernels.runtime.launch import (
    Layout,
    Prepared,
    accumulator,
    channels_innermost,
    launch_prepared,
    offset_type,
    programs_in_flight,
)
from tidepool.kernels.tiles.few_channels import FewChannelsTile


@kernel
def conv_act_pool_few_channels_kernel(
    x_ptr, weight_ptr, bias_ptr, slope_ptr, y_ptr, code_ptr, winner_ptr,
    num_boxes, in_h, in_w, conv_h, conv_w, out_h, out_w,
    stride_xn, stride_xc, stride_xh, stride_wk, stride_wc, stride_wh, stride_ww,
    stride_yn, stride_yk, stride_yh, stride_yw, stride_en, stride_ek, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SLOPES: tl.constexpr, SAVE: tl.constexpr, STRIDE_XW: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K filters at every num_programs-th box of BLOCK_H x BLOCK_W pixels.
    PIXELS: tl.constexpr = BLOCK_H * BLOCK_W
    tile_k = tl.program_id(1) * BLOCK_K
    weight = _weights(weight_ptr, tile_k, stride_wk, stride_wc, stride_wh, stride_ww, BLOCK_K, BLOCK_C, G, ACC, OFFSET)
    tiles_w = quotient_up(conv_w, BLOCK_W)
    tiles_h = quotient_up(conv_h, BLOCK_H)
    for box in range(tl.program_id(0), num_boxes, tl.num_programs(0)):
        w0 = (box % tiles_w) * BLOCK_W
        h0 = (box // tiles_w % tiles_h) * BLOCK_H
        n = box // (tiles_w * tiles_h)
        offs_p = tl.arange(0, PIXELS)
        h = (h0 + quotient(offs_p, BLOCK_W)) * G.stride_h - G.padding_h
        w = (w0 + remainder(offs_p, BLOCK_W)) * G.stride_w - G.padding_w
        from_p = n.to(OFFSET) * stride_xn + h.to(OFFSET) * stride_xh + w.to(OFFSET) * STRIDE_XW
        x = _taps(x_ptr, h, w, from_p, in_h, in_w, stride_xc, stride_xh, STRIDE_XW, 0, 1, BLOCK_C, PIXELS, G, ACC)
        x = _as_operand(tl.trans(x), x_ptr.dtype.element_ty)  # [BLOCK_C, PIXELS]
        acc = multiply_accumulate(weight, x, tl.zeros([BLOCK_K, PIXELS], dtype=ACC), "ieee")
        finish_box(
            acc, y_ptr, code_ptr, winner_ptr, bias_ptr, slope_ptr, tile_k, n, h0, w0, n + 1,
            conv_h, conv_w, out_h, out_w,
            stride_yn, stride_yk, stride_yh, stride_yw, stride_en, stride_ek, stride_eh, stride_ew,
            G, ACC, OFFSET, HAS_BIAS, SLOPES, SAVE, BLOCK_K, 1, BLOCK_H, BLOCK_W,
        )  # fmt: skip


@device_function
def _weights(
    weight_ptr, tile_k, stride_wk, stride_wc, stride_wh, stride_ww,
    BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Filters from tile_k at all (tap, channel) pairs: [BLOCK_K, BLOCK_C]."""
    offs_k = (tile_k + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = offs_k < G.filters
    f = tl.arange(0, BLOCK_C).to(OFFSET)
    mask_f = f < G.taps * G.channels
    tap = quotient(f, G.channels)
    from_f = remainder(f, G.channels) * stride_wc
    from_f += quotient(tap, G.kernel_w) * stride_wh + remainder(tap, G.kernel_w) * stride_ww
    at = keep_in_range(offs_k * stride_wk, mask_k)[:, None] + keep_in_range(from_f, mask_f)[None, :]
    return load_operand(weight_ptr, at, mask_k[:, None] & mask_f[None, :], ACC)


@device_function
def _taps(
    x_ptr, h, w, from_p, in_h, in_w, stride_xc, stride_xh, STRIDE_XW,
    FIRST: tl.constexpr, EVERY: tl.constexpr, COUNT: tl.constexpr, PIXELS: tl.constexpr,
    G: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """x at (tap, channel) pairs FIRST, FIRST + EVERY, ... of each pixel whose first tap is (h, w): [PIXELS, COUNT].

    Evens and odds are built apart and joined, which interleaves them: the pairs end up in order, a pixel's in one lane.
    """
    if COUNT == 1:
        TAP: tl.constexpr = FIRST // G.channels
        if TAP < G.taps:
            tap_h = TAP // G.kernel_w * G.dilation_h
            tap_w = TAP % G.kernel_w * G.dilation_w
            # As unsigned numbers, negative coordinates are too large: one comparison each.
            mask = ((h + tap_h).to(tl.uint32) < in_h) & ((w + tap_w).to(tl.uint32) < in_w)
            wide = tl.zeros([], dtype=from_p.dtype)
            from_tap = (wide + FIRST % G.channels) * stride_xc + (wide + tap_h) * stride_xh + (wide + tap_w) * STRIDE_XW
            at = from_p + from_tap
            return _bits(load_operand(x_ptr, at, mask, ACC))
        else:
            return _bits(load_operand(x_ptr, from_p, from_p != from_p, ACC))  # beyond the last pair: zeros
    else:
        even = _taps(
            x_ptr, h, w, from_p, in_h, in_w, stride_xc, stride_xh, STRIDE_XW,
            FIRST, 2 * EVERY, COUNT // 2, PIXELS, G, ACC,
        )  # fmt: skip
        odd = _taps(
            x_ptr, h, w, from_p, in_h, in_w, stride_xc, stride_xh, STRIDE_XW,
            FIRST + EVERY, 2 * EVERY, COUNT // 2, PIXELS, G, ACC,
        )  # fmt: skip
        return tl.reshape(tl.join(even, odd), [PIXELS, COUNT])


@device_function
def _bits(value):
    """16-bit values as integers until they are joined: the compiler would take the reshape of joined floats, operand of
    a product, for one of shared memory and find its layout illegal (Triton 3.7). A change of type in between keeps it
    from that."""
    if INTERPRETING:
        return value
    else:
        return value.to(tl.int16, bitcast=True)


@device_function
def _as_operand(bits, DTYPE: tl.constexpr):
    if INTERPRETING:
        return bits
    else:
        return bits.to(DTYPE, bitcast=True)


def bind_few_channels(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: FewChannelsTile,
    slope: Tensor | None,
) -> Callable[..., None]:
    """The kernel's launch for tensors laid out as these; arguments as `bind_forward`'s, for layers that
    `fits_few_channels` accepts."""
    saved = code if code is not None else winner
    prepared = _prepare(
        geometry, shapes, x.dtype, tile, bias is not None, programs_in_flight(x.device), layout_of(x),
        layout_of(channels_innermost(weight)), layout_of(y), None if saved is None else layout_of(saved),
        number_of_slopes(slope),
    )  # fmt: skip

    def launch(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        code: Tensor | None,
        winner: Tensor | None,
        slope: Tensor | None,
    ) -> None:
        launch_prepared(
            conv_act_pool_few_channels_kernel, prepared,
            *pointers(x, channels_innermost(weight), bias, y, code, winner, slope),
        )  # fmt: skip

    return launch


@functools.lru_cache(maxsize=4096)
def _prepare(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: FewChannelsTile,
    has_bias: bool,
    programs_wanted: int,
    x: Layout,
    weight: Layout,
    y: Layout,
    saved: Layout | None,
    slopes: int,
) -> Prepared:
    _, conv_h, conv_w = shapes.conv
    boxes = shapes.batch * triton.cdiv(conv_h, tile.block_h) * triton.cdiv(conv_w, tile.block_w)
    x_n, x_c, x_h, x_w = _four_strides(x)
    scalars = (
        boxes, *shapes.input[1:], conv_h, conv_w, *shapes.output[1:],
        x_n, x_c, x_h, *_four_strides(weight), *_four_strides(y), *_four_strides(saved or y),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "OFFSET": offset_type(x, weight, y, saved),
        "HAS_BIAS": has_bias, "SLOPES": slopes, "SAVE": saved is not None, "STRIDE_XW": x_w,
        "BLOCK_K": tile.block_k, "BLOCK_H": tile.block_h, "BLOCK_W": tile.block_w,
        "BLOCK_C": 16 if geometry.taps * geometry.channels <= 16 else 32, "num_warps": tile.warps, "num_stages": 1,
    }  # fmt: skip
    return Prepared((min(boxes, programs_wanted), triton.cdiv(geometry.filters, tile.block_k)), scalars, keywords)


def _four_strides(layout: Layout) -> tuple[int, int, int, int]:
    first, second, _, height, width = five_strides(layout)
    return first, second, height, width
