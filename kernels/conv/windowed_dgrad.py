"""Input gradient of layers with a max pool or none, one position in the pooling window at a time.

    dx[n, c, h] = sum_{k, r} g[n, k, p] * weight[k, c, r],   p = (h + padding - r * dilation) / stride exact

Input pixels that lie `stride * pool_stride` apart share everything but their place on the pooled map: with
h = stride * pool_stride * i + phase, tap r meets the convolution pixel p = pool_stride * i + q, which is element
(q + pool_padding) mod pool_stride of pooled output i + (q + pool_padding) div pool_stride. q depends on phase and tap
alone. So a program takes one phase, and for each tap the window element is one number, g is

    g[pixels, filters] = where(code[pixels + shift] == element, grad[pixels + shift], 0)

and the pixels' offsets are worked out once. Overlapping windows add the windows before it, element + pool_stride, ...
(BACKWARD.md derives this, and has what the compiler makes of it.)
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import (
    as_operand,
    channel_mask,
    exact_quotient,
    first_tap,
    inside,
    keep_in_range,
    load_operand,
    multiply_accumulate,
    offset_of,
    phase_tap,
    quotient,
    quotient_up,
    remainder,
    round_to,
    split_index,
    split_phase_tap,
)
from tidepool.kernels.device.choice import chosen_gradient, keep_channels
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import Layout, Prepared, accumulator, offset_type, operand_kind, precision_of
from tidepool.kernels.tiles.windowed import WindowedDgradTile, fits_dgrad, most_registers, phase_pixels


@kernel
def conv_act_pool_windowed_dgrad_kernel(
    grad_ptr, code_ptr, weight_ptr, dx_ptr,
    batch, in_d, in_h, in_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_wk, stride_wc, stride_wd, stride_wh, stride_ww,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, OFFSET: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_P input pixels of one phase, BLOCK_C input channels of one group. Channels, then phases vary
    # fastest: programs that run at the same time share the pooled gradient in L2.
    NUM_C: tl.constexpr = (G.channels + BLOCK_C - 1) // BLOCK_C
    BLOCKS_K: tl.constexpr = G.filters // BLOCK_K
    TAPS: tl.constexpr = G.phase_taps_d * G.phase_taps_h * G.phase_taps_w
    DTYPE: tl.constexpr = weight_ptr.dtype.element_ty
    PERIOD_D: tl.constexpr = G.stride_d * G.pool_stride_d
    PERIOD_H: tl.constexpr = G.stride_h * G.pool_stride_h
    PERIOD_W: tl.constexpr = G.stride_w * G.pool_stride_w
    PHASES: tl.constexpr = PERIOD_D * PERIOD_H * PERIOD_W
    tile = tl.program_id(0)
    phase = remainder(quotient(tile, NUM_C), PHASES)
    phase_w = remainder(phase, PERIOD_W)
    phase_h = remainder(quotient(phase, PERIOD_W), PERIOD_H)
    phase_d = quotient(phase, PERIOD_W * PERIOD_H)
    group = tl.program_id(1).to(OFFSET)

    offs_c = (remainder(tile, NUM_C) * BLOCK_C + tl.arange(0, BLOCK_C)).to(OFFSET)
    mask_c = channel_mask(offs_c, BLOCK_C, G.channels)
    offs_p = quotient(tile, NUM_C * PHASES).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    n, i_d, i_h, i_w = split_index(
        offs_p, quotient_up(in_d, PERIOD_D), quotient_up(in_h, PERIOD_H), quotient_up(in_w, PERIOD_W), G
    )
    mask_n = n < batch
    from_g = n * stride_gn + offset_of(i_d, i_h, i_w, stride_gd, stride_gh, stride_gw, G)
    from_e = n * stride_en + offset_of(i_d, i_h, i_w, stride_ed, stride_eh, stride_ew, G)

    # The phase's first tap in each dimension, and q for it.
    first_d = first_tap(remainder(phase_d, G.stride_d), G.kernel_d, G.stride_d, G.padding_d, G.dilation_d, G.tap_step_d)
    first_h = first_tap(remainder(phase_h, G.stride_h), G.kernel_h, G.stride_h, G.padding_h, G.dilation_h, G.tap_step_h)
    first_w = first_tap(remainder(phase_w, G.stride_w), G.kernel_w, G.stride_w, G.padding_w, G.dilation_w, G.tap_step_w)
    base_d = exact_quotient(phase_d + G.padding_d - first_d * G.dilation_d, G.stride_d)
    base_h = exact_quotient(phase_h + G.padding_h - first_h * G.dilation_h, G.stride_h)
    base_w = exact_quotient(phase_w + G.padding_w - first_w * G.dilation_w, G.stride_w)

    grad_ptr += group * G.filters * stride_gk
    code_ptr += group * G.filters * stride_ek
    weight_ptr += group * G.filters * stride_wk
    acc = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for step in range(TAPS * BLOCKS_K):
        offs_k = (remainder(step, BLOCKS_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
        md, mh, mw = split_phase_tap(quotient(step, BLOCKS_K), G)
        rd, rh, rw = phase_tap(first_d, first_h, first_w, md, mh, mw, G)
        exists = (rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)
        qd = base_d - md * (G.tap_step_d * G.dilation_d // G.stride_d)
        qh = base_h - mh * (G.tap_step_h * G.dilation_h // G.stride_h)
        qw = base_w - mw * (G.tap_step_w * G.dilation_w // G.stride_w)
        grad = chosen_gradient(
            grad_ptr, code_ptr, i_d, i_h, i_w, mask_n & exists, from_g, from_e, qd, qh, qw, offs_k, out_d, out_h, out_w,
            stride_gk, stride_gd, stride_gh, stride_gw, stride_ek, stride_ed, stride_eh, stride_ew,
            G, ACC, OFFSET, BLOCK_P, BLOCK_K,
        )  # fmt: skip  [BLOCK_P, BLOCK_K]
        from_k = offs_k * stride_wk + offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)
        from_c = keep_channels(offs_c, mask_c, G.channels) * stride_wc
        at = keep_in_range(from_k, exists)[:, None] + from_c[None, :]
        weight = load_operand(weight_ptr, at, mask_c[None, :] & exists, ACC)  # [BLOCK_K, BLOCK_C]
        acc = multiply_accumulate(as_operand(grad, DTYPE, ACC), weight, acc, PRECISION)

    # The pixels again, divided by sizes written another way: else the compiler works them out before the loop, and
    # keeps them in registers all through it.
    n, i_d, i_h, i_w = split_index(
        offs_p, quotient(in_d - 1, PERIOD_D) + 1, quotient(in_h - 1, PERIOD_H) + 1, quotient(in_w - 1, PERIOD_W) + 1, G
    )
    d = i_d * PERIOD_D + phase_d
    h = i_h * PERIOD_H + phase_h
    w = i_w * PERIOD_W + phase_w
    mask_p = (n < batch) & inside(d, h, w, in_d, in_h, in_w, G)
    from_p = n * stride_xn + offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G)
    at = from_p[:, None] + ((group * G.channels + offs_c) * stride_xc)[None, :]
    tl.store(dx_ptr + at, round_to(acc, DTYPE), mask=mask_p[:, None] & mask_c[None, :])


def prepare_windowed_dgrad(
    grad: Tensor,
    code: Tensor | None,
    weight: Tensor,
    dx: Tensor,
    geometry: Geometry,
    shapes: Shapes,
    tile: WindowedDgradTile,
) -> Prepared:
    """The kernel's launch on (grad, code or grad, weight, dx), for a layer that `tiles.windowed.fits_dgrad`.

    grad (N, K, *output) in any strides; `code` as forward saved it, None where nothing was; `weight` as the launcher
    of `conv_act_pool_dgrad` has it, channels innermost on a GPU; dx (N, C, *spatial). Raises ValueError for other
    layers, and for a tile whose block_k does not divide the filters of a group.
    """
    return _prepare(
        geometry, shapes, grad.dtype, operand_kind(grad.dtype, grad.device), tile, layout_of(grad),
        None if code is None else layout_of(code), layout_of(weight), layout_of(dx),
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    kind: str,
    tile: WindowedDgradTile,
    grad: Layout,
    code: Layout | None,
    weight: Layout,
    dx: Layout,
) -> Prepared:
    if not fits_dgrad(geometry) or geometry.filters % tile.block_k != 0:
        raise ValueError(f"tile: {tile} does not fit {geometry}")
    phases, pixels = phase_pixels(geometry, shapes)
    tiles = triton.cdiv(pixels, tile.block_p) * triton.cdiv(geometry.channels, tile.block_c)
    scalars = (
        shapes.batch, *shapes.input, *shapes.output,
        *five_strides(grad), *five_strides(code or grad), *five_strides(weight), *five_strides(dx),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "PRECISION": precision_of(kind),
        "OFFSET": offset_type(grad, code, weight, dx),
        "BLOCK_P": tile.block_p, "BLOCK_C": tile.block_c, "BLOCK_K": tile.block_k,
        "num_warps": tile.warps, "num_stages": tile.stages, **most_registers(tile.block_p * tile.block_c, tile.warps),
    }  # fmt: skip
    return Prepared((tiles * phases, geometry.groups), scalars, keywords)
