"""Input gradient, through pool, activation and convolution in one kernel.

    dx[n, c, h] = sum_{k, r} g[n, k, (h + padding - r * dilation) / stride] * weight[k, c, r]

over the taps r for which the division is exact. g, the gradient at the convolution's output, is rebuilt in registers
from the pooled gradient and the saved codes (`device.windows.conv_gradient`), and is the left operand of the product.

A strided layer splits into stride_d * stride_h * stride_w independent phases: input pixels h with h % stride = a meet
only every STEP-th tap, STEP = stride / gcd(stride, dilation), from a first one on. Each phase is a stride-1 problem,
so no tap is tested for parity inside the loop.
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
from tidepool.kernels.device.choice import keep_channels
from tidepool.kernels.device.windows import conv_gradient
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import (
    Layout,
    Prepared,
    accumulator,
    channels_innermost,
    launch_prepared,
    offset_type,
    operand_kind,
    precision_of,
)
from tidepool.kernels.tiles.dense import DgradTile


@kernel
def conv_act_pool_dgrad_kernel(
    grad_ptr, code_ptr, saved_ptr, weight_ptr, dx_ptr,
    batch, in_d, in_h, in_w, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_wk, stride_wc, stride_wd, stride_wh, stride_ww,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, OFFSET: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_P input pixels of one stride phase, BLOCK_C input channels of one group.
    NUM_C: tl.constexpr = (G.channels + BLOCK_C - 1) // BLOCK_C
    BLOCKS_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    TAPS: tl.constexpr = G.phase_taps_d * G.phase_taps_h * G.phase_taps_w
    STEPS: tl.constexpr = (TAPS * G.filters + BLOCK_K - 1) // BLOCK_K if FLAT else TAPS * BLOCKS_K
    DTYPE: tl.constexpr = weight_ptr.dtype.element_ty
    PHASES: tl.constexpr = G.stride_d * G.stride_h * G.stride_w
    phase = remainder(tl.program_id(1), PHASES)
    group = quotient(tl.program_id(1), PHASES).to(OFFSET)
    phase_w = remainder(phase, G.stride_w)
    phase_h = remainder(quotient(phase, G.stride_w), G.stride_h)
    phase_d = quotient(phase, G.stride_w * G.stride_h)

    offs_c = (remainder(tl.program_id(0), NUM_C) * BLOCK_C + tl.arange(0, BLOCK_C)).to(OFFSET)
    mask_c = channel_mask(offs_c, BLOCK_C, G.channels)
    offs_p = quotient(tl.program_id(0), NUM_C).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    n, d, h, w = split_index(
        offs_p, quotient_up(in_d, G.stride_d), quotient_up(in_h, G.stride_h), quotient_up(in_w, G.stride_w), G
    )
    d = d * G.stride_d + phase_d
    h = h * G.stride_h + phase_h
    w = w * G.stride_w + phase_w
    mask_p = (n < batch) & inside(d, h, w, in_d, in_h, in_w, G)

    # The phase's first tap in each dimension, and the convolution pixel it connects to.
    first_d = first_tap(phase_d, G.kernel_d, G.stride_d, G.padding_d, G.dilation_d, G.tap_step_d)
    first_h = first_tap(phase_h, G.kernel_h, G.stride_h, G.padding_h, G.dilation_h, G.tap_step_h)
    first_w = first_tap(phase_w, G.kernel_w, G.stride_w, G.padding_w, G.dilation_w, G.tap_step_w)
    base_d = exact_quotient(d + G.padding_d - first_d * G.dilation_d, G.stride_d)
    base_h = exact_quotient(h + G.padding_h - first_h * G.dilation_h, G.stride_h)
    base_w = exact_quotient(w + G.padding_w - first_w * G.dilation_w, G.stride_w)

    grad_ptr += group * G.filters * stride_gk
    code_ptr += group * G.code_channels * stride_ek
    saved_ptr += group * G.filters * stride_ek
    weight_ptr += group * G.filters * stride_wk
    acc = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for step in range(STEPS):
        if FLAT:
            flat = step * BLOCK_K + tl.arange(0, BLOCK_K)
            offs_k = remainder(flat, G.filters).to(OFFSET)
            md, mh, mw = split_phase_tap(quotient(flat, G.filters), G)
            rd, rh, rw = phase_tap(first_d, first_h, first_w, md, mh, mw, G)
            exists = (flat < TAPS * G.filters) & (rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)
            mask_k = exists
            ok_p = mask_p
            pd = base_d[:, None] - (md * (G.tap_step_d * G.dilation_d // G.stride_d))[None, :]
            ph = base_h[:, None] - (mh * (G.tap_step_h * G.dilation_h // G.stride_h))[None, :]
            pw = base_w[:, None] - (mw * (G.tap_step_w * G.dilation_w // G.stride_w))[None, :]
        else:
            offs_k = (remainder(step, BLOCKS_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
            md, mh, mw = split_phase_tap(quotient(step, BLOCKS_K), G)
            rd, rh, rw = phase_tap(first_d, first_h, first_w, md, mh, mw, G)
            exists = (rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)
            mask_k = channel_mask(offs_k, BLOCK_K, G.filters)
            ok_p = mask_p & exists
            pd = (base_d - md * (G.tap_step_d * G.dilation_d // G.stride_d))[:, None]
            ph = (base_h - mh * (G.tap_step_h * G.dilation_h // G.stride_h))[:, None]
            pw = (base_w - mw * (G.tap_step_w * G.dilation_w // G.stride_w))[:, None]
        grad = conv_gradient(
            grad_ptr, code_ptr, saved_ptr,
            n[:, None], pd, ph, pw, ok_p[:, None] & inside(pd, ph, pw, conv_d, conv_h, conv_w, G),
            offs_k[None, :], mask_k[None, :], conv_d, conv_h, conv_w, out_d, out_h, out_w,
            stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
            stride_en, stride_ek, stride_ed, stride_eh, stride_ew, G, ACC,
        )  # fmt: skip  [BLOCK_P, BLOCK_K]
        from_k = offs_k * stride_wk + offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)
        from_c = keep_channels(offs_c, mask_c, G.channels) * stride_wc
        at = keep_in_range(from_k, mask_k & exists)[:, None] + from_c[None, :]
        weight = load_operand(weight_ptr, at, (mask_k & exists)[:, None] & mask_c[None, :], ACC)  # [BLOCK_K, BLOCK_C]
        acc = multiply_accumulate(as_operand(grad, DTYPE, ACC), weight, acc, PRECISION)

    mask = mask_p[:, None] & mask_c[None, :]
    from_p = n * stride_xn + offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G)
    at = from_p[:, None] + ((group * G.channels + offs_c) * stride_xc)[None, :]
    tl.store(dx_ptr + at, round_to(acc, DTYPE), mask=mask)


def bind_portable_dgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
    geometry: Geometry,
    shapes: Shapes,
    tile: DgradTile,
) -> Callable[..., None]:
    """This file's kernel made ready: `choose.bind_dgrad` for layers that it carries; weight with channels innermost."""
    extra = code if code is not None else saved
    prepared = _prepare(
        geometry, shapes, grad.dtype, operand_kind(grad.dtype, grad.device), tile, layout_of(grad),
        None if extra is None else layout_of(extra), layout_of(weight), layout_of(dx),
    )  # fmt: skip

    def launch(grad: Tensor, code: Tensor | None, saved: Tensor | None, weight: Tensor, dx: Tensor) -> None:
        launch_prepared(
            conv_act_pool_dgrad_kernel, prepared,
            grad, grad if code is None else code, grad if saved is None else saved, channels_innermost(weight), dx,
        )  # fmt: skip

    return launch


@functools.lru_cache(maxsize=4096)
def _prepare(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    kind: str,
    tile: DgradTile,
    grad: Layout,
    extra: Layout | None,
    weight: Layout,
    dx: Layout,
) -> Prepared:
    tiles_c = triton.cdiv(geometry.channels, tile.block_c)
    tiles_p = triton.cdiv(shapes.phase_pixels(geometry), tile.block_p)
    phases = geometry.stride_d * geometry.stride_h * geometry.stride_w
    scalars = (
        shapes.batch, *shapes.input, *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(extra or grad), *five_strides(weight), *five_strides(dx),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "PRECISION": precision_of(kind),
        "OFFSET": offset_type(grad, extra, weight, dx),
        "BLOCK_P": tile.block_p, "BLOCK_C": tile.block_c, "BLOCK_K": tile.block_k, "FLAT": tile.flat,
        "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip
    return Prepared((tiles_c * tiles_p, geometry.groups * phases), scalars, keywords)
