"""Depthwise layers: every input channel has filters of its own, so there is no sum over channels and no matrix product.

    v[k, p]       = sum_r weight[k, r] * x[n, k // M, p * stride - padding + r * dilation]      (M filters a channel)
    dx[c, h]      = sum_{m, r} g[c M + m, (h + padding - r * dilation) / stride] * weight[c M + m, r]
    dweight[k, r] = sum_{n, p} g[k, p] * x[n, k // M, p * stride - padding + r * dilation]

Each is a few multiplications per element loaded, bound by memory. Channels are rows and run over all groups at once, so
that a program's loads are whole cache lines of a channels_last tensor. Windows, codes and the split sums are those of
the dense kernels (`device.windows`, `conv_act_pool_wgrad`).
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.conv.forward import pointers
from tidepool.kernels.device.arithmetic import (
    as_operand,
    exact_quotient,
    first_tap,
    inside,
    keep_in_range,
    load_operand,
    offset_of,
    phase_tap,
    quotient,
    quotient_up,
    remainder,
    round_to,
    split_index,
    split_phase_tap,
    split_tap,
    summed,
    widen,
)
from tidepool.kernels.device.norm import epilogue_rows, normalise_results, pooled_results, store_statistics
from tidepool.kernels.device.windows import (
    conv_gradient,
    fold,
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
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import (
    Layout,
    Prepared,
    accumulator,
    launch_prepared,
    offset_type,
    programs_in_flight,
)
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.tiles.dense import DepthwiseTile, depthwise_tile


@kernel
def conv_act_pool_depthwise_forward_kernel(
    x_ptr, weight_ptr, bias_ptr, slope_ptr, y_ptr, code_ptr, winner_ptr,
    num_outputs, in_d, in_h, in_w, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    stride_wk, stride_wd, stride_wh, stride_ww,
    stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SLOPES: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, norm=None, NORM: tl.constexpr = NO_NORM,
):  # fmt: skip
    # One program: BLOCK_K filters at BLOCK_P pooled outputs.
    NUM_K: tl.constexpr = (G.rows + BLOCK_K - 1) // BLOCK_K
    Y_DTYPE: tl.constexpr = y_ptr.dtype.element_ty
    offs_k = (remainder(tl.program_id(0), NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = offs_k < G.rows
    safe_k = keep_in_range(offs_k, mask_k)
    offs_p = quotient(tl.program_id(0), NUM_K).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_p = offs_p < num_outputs
    n, od, oh, ow = split_index(offs_p, out_d, out_h, out_w, G)
    if HAS_BIAS:
        bias = widen(load_operand(bias_ptr, safe_k, mask_k, ACC), ACC)
    slope = None
    if SLOPES > 0:
        slope = load_slope(slope_ptr, offs_k, mask_k, ACC, SLOPES)
    if NORM.normalises:
        mean, scale, shift = epilogue_rows(norm, offs_k, mask_k, ACC, NORM)
    best, code, winner = start_fold(BLOCK_K, BLOCK_P, ACC, G)
    for element in range(G.window):
        pd, ph, pw = window_pixel(od, oh, ow, element, G)
        exists = mask_p
        if G.partial_windows:
            exists = exists & inside(pd, ph, pw, conv_d, conv_h, conv_w, G)
        acc = tl.zeros([BLOCK_K, BLOCK_P], dtype=ACC)
        for tap in range(G.taps):
            rd, rh, rw = split_tap(tap, G)
            d = pd * G.stride_d + (rd * G.dilation_d - G.padding_d)
            h = ph * G.stride_h + (rh * G.dilation_h - G.padding_h)
            w = pw * G.stride_w + (rw * G.dilation_w - G.padding_w)
            mask_x = exists & inside(d, h, w, in_d, in_h, in_w, G)
            at = keep_in_range(n * stride_xn + offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G), mask_x)
            at = (quotient(safe_k, G.filters) * stride_xc)[:, None] + at[None, :]
            x = load_operand(x_ptr, at, mask_k[:, None] & mask_x[None, :], ACC)
            at = safe_k * stride_wk + offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)
            weight = load_operand(weight_ptr, at, mask_k, ACC)
            acc += widen(weight, ACC)[:, None] * widen(x, ACC)
        if HAS_BIAS:
            acc += bias[:, None]
        value = widen(round_to(acc, Y_DTYPE), ACC)
        if NORM.kind == "normalise":
            value = normalise_results(
                value, norm, mean, scale, shift, offs_k, mask_k, n, pd, ph, pw, exists, Y_DTYPE, ACC, G, NORM
            )
        if SAVE and G.saves_bits:
            at = n * stride_en + offset_of(pd, ph, pw, stride_ed, stride_eh, stride_ew, G)
            store_bits(code_ptr, value, at, exists, offs_k, 0, stride_ek, G, BLOCK_K)
        best, code, winner = fold(best, code, winner, value, element, exists, slope, Y_DTYPE, G)
    STORED: tl.constexpr = NORM.layer if NORM.kind == "normalise_pooled" else G
    if NORM.kind == "statistics" or NORM.kind == "normalise_pooled":
        value = pooled_results(best, od, oh, ow, conv_d, conv_h, conv_w, Y_DTYPE, ACC, G)
        if NORM.kind == "statistics":
            store_statistics(norm, value, quotient(tl.program_id(0), NUM_K), G.rows, offs_k, mask_k, mask_p, ACC)
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


@kernel
def conv_act_pool_depthwise_dgrad_kernel(
    grad_ptr, code_ptr, saved_ptr, weight_ptr, dx_ptr,
    batch, in_d, in_h, in_w, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_wk, stride_wd, stride_wh, stride_ww,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_C input channels at BLOCK_P input pixels of one stride phase.
    NUM_C: tl.constexpr = (G.groups + BLOCK_C - 1) // BLOCK_C
    TAPS: tl.constexpr = G.phase_taps_d * G.phase_taps_h * G.phase_taps_w
    DTYPE: tl.constexpr = weight_ptr.dtype.element_ty
    phase = tl.program_id(1)
    phase_w = remainder(phase, G.stride_w)
    phase_h = remainder(quotient(phase, G.stride_w), G.stride_h)
    phase_d = quotient(phase, G.stride_w * G.stride_h)
    offs_c = (remainder(tl.program_id(0), NUM_C) * BLOCK_C + tl.arange(0, BLOCK_C)).to(OFFSET)
    mask_c = offs_c < G.groups
    safe_c = keep_in_range(offs_c, mask_c)
    offs_p = quotient(tl.program_id(0), NUM_C).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    n, d, h, w = split_index(
        offs_p, quotient_up(in_d, G.stride_d), quotient_up(in_h, G.stride_h), quotient_up(in_w, G.stride_w), G
    )
    d = d * G.stride_d + phase_d
    h = h * G.stride_h + phase_h
    w = w * G.stride_w + phase_w
    mask_p = (n < batch) & inside(d, h, w, in_d, in_h, in_w, G)
    first_d = first_tap(phase_d, G.kernel_d, G.stride_d, G.padding_d, G.dilation_d, G.tap_step_d)
    first_h = first_tap(phase_h, G.kernel_h, G.stride_h, G.padding_h, G.dilation_h, G.tap_step_h)
    first_w = first_tap(phase_w, G.kernel_w, G.stride_w, G.padding_w, G.dilation_w, G.tap_step_w)
    base_d = exact_quotient(d + G.padding_d - first_d * G.dilation_d, G.stride_d)
    base_h = exact_quotient(h + G.padding_h - first_h * G.dilation_h, G.stride_h)
    base_w = exact_quotient(w + G.padding_w - first_w * G.dilation_w, G.stride_w)

    acc = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for step in range(TAPS * G.filters):
        md, mh, mw = split_phase_tap(quotient(step, G.filters), G)
        rd, rh, rw = phase_tap(first_d, first_h, first_w, md, mh, mw, G)
        offs_k = safe_c * G.filters + remainder(step, G.filters)
        mask_k = mask_c & (rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)
        pd = base_d - md * (G.tap_step_d * G.dilation_d // G.stride_d)
        ph = base_h - mh * (G.tap_step_h * G.dilation_h // G.stride_h)
        pw = base_w - mw * (G.tap_step_w * G.dilation_w // G.stride_w)
        grad = conv_gradient(
            grad_ptr, code_ptr, saved_ptr,
            n[:, None], pd[:, None], ph[:, None], pw[:, None],
            (mask_p & inside(pd, ph, pw, conv_d, conv_h, conv_w, G))[:, None],
            offs_k[None, :], mask_k[None, :], conv_d, conv_h, conv_w, out_d, out_h, out_w,
            stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
            stride_en, stride_ek, stride_ed, stride_eh, stride_ew, G, ACC,
        )  # fmt: skip  [BLOCK_P, BLOCK_C]
        at = offs_k * stride_wk + offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)
        weight = load_operand(weight_ptr, keep_in_range(at, mask_k), mask_k, ACC)
        acc += widen(as_operand(grad, DTYPE, ACC), ACC) * widen(weight, ACC)[None, :]

    mask = mask_p[:, None] & mask_c[None, :]
    from_p = n * stride_xn + offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G)
    at = from_p[:, None] + (offs_c * stride_xc)[None, :]
    tl.store(dx_ptr + tl.where(mask, at, 0), round_to(acc, DTYPE), mask=mask)


@kernel
def conv_act_pool_depthwise_wgrad_kernel(
    grad_ptr, code_ptr, saved_ptr, x_ptr, workspace_ptr,
    num_pixels, pixels_per_split, in_d, in_h, in_w, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr, NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K filters, all their taps (BLOCK_T of them with padding), over one split's pixels.
    COLUMNS: tl.constexpr = G.taps if NEEDS_WEIGHT else 0
    ROW: tl.constexpr = COLUMNS + 1 if NEEDS_BIAS else COLUMNS
    DTYPE: tl.constexpr = grad_ptr.dtype.element_ty
    offs_k = (tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = offs_k < G.rows
    safe_k = keep_in_range(offs_k, mask_k)
    split = tl.program_id(1).to(OFFSET)
    column = tl.arange(0, BLOCK_T)
    acc = tl.zeros([BLOCK_K, BLOCK_T], dtype=ACC)
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
        if NEEDS_BIAS:
            bias_acc += summed(widen(grad, ACC), 1)
        if NEEDS_WEIGHT:
            grad = widen(as_operand(grad, DTYPE, ACC), ACC)
            for tap in range(G.taps):
                rd, rh, rw = split_tap(tap, G)
                d = pd * G.stride_d + (rd * G.dilation_d - G.padding_d)
                h = ph * G.stride_h + (rh * G.dilation_h - G.padding_h)
                w = pw * G.stride_w + (rw * G.dilation_w - G.padding_w)
                mask_x = mask_p & inside(d, h, w, in_d, in_h, in_w, G)
                at = keep_in_range(n * stride_xn + offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G), mask_x)
                at = (quotient(safe_k, G.filters) * stride_xc)[:, None] + at[None, :]
                x = load_operand(x_ptr, at, mask_k[:, None] & mask_x[None, :], ACC)
                product = summed(grad * widen(x, ACC), 1)
                acc += tl.where((column == tap)[None, :], product[:, None], 0.0)

    row = (split * G.rows + offs_k).to(tl.int64) * ROW
    if NEEDS_WEIGHT:
        mask = mask_k[:, None] & (column < COLUMNS)[None, :]
        tl.store(workspace_ptr + tl.where(mask, row[:, None] + column[None, :], 0), acc, mask=mask)
    if NEEDS_BIAS:
        tl.store(workspace_ptr + tl.where(mask_k, row + COLUMNS, 0), bias_acc, mask=mask_k)


def conv_act_pool_depthwise_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    slope: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: DepthwiseTile | None = None,
) -> None:
    """Launch forward of a depthwise layer; arguments as `conv_act_pool_forward`'s, weight (K, 1, *kernel)."""
    saved = code if code is not None else winner
    prepared = prepare_depthwise(x, weight, bias, y, saved, geometry, shapes, tile, None, slope)
    given = pointers(x, weight, bias, y, code, winner, slope)
    launch_prepared(conv_act_pool_depthwise_forward_kernel, prepared, *given)


def prepare_depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    saved: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: DepthwiseTile | None,
    residual: Layout | None,
    slope: Tensor | None = None,
) -> Prepared:
    tile = tile or depthwise_tile(geometry, geometry.rows, shapes.num_outputs, mode_of(x.device).target)
    return _prepare_forward(
        geometry, shapes, x.dtype, tile, bias is not None, layout_of(x), layout_of(weight), layout_of(y),
        None if saved is None else layout_of(saved), residual, number_of_slopes(slope),
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare_forward(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: DepthwiseTile,
    has_bias: bool,
    x: Layout,
    weight: Layout,
    y: Layout,
    saved: Layout | None,
    residual: Layout | None,
    slopes: int,
) -> Prepared:
    tiles = triton.cdiv(geometry.rows, tile.block_k) * triton.cdiv(shapes.num_outputs, tile.block_p)
    weight_k, _, *weight_taps = five_strides(weight)
    scalars = (
        shapes.num_outputs, *shapes.input, *shapes.conv, *shapes.output,
        *five_strides(x), weight_k, *weight_taps, *five_strides(y), *five_strides(saved or y),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "OFFSET": offset_type(x, weight, y, saved, residual),
        "HAS_BIAS": has_bias, "SLOPES": slopes, "SAVE": saved is not None,
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "num_warps": tile.warps,
    }  # fmt: skip
    return Prepared((tiles,), scalars, keywords)


def conv_act_pool_depthwise_dgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
    geometry: Geometry,
    shapes: Shapes,
    tile: DepthwiseTile | None = None,
) -> None:
    """Launch the input gradient of a depthwise layer; arguments as `conv_act_pool_dgrad`'s."""
    tile = tile or depthwise_tile(geometry, geometry.groups, shapes.phase_pixels(geometry), mode_of(grad.device).target)
    extra = code if code is not None else saved
    launched = _prepare_dgrad(
        geometry, shapes, grad.dtype, tile, layout_of(grad), None if extra is None else layout_of(extra),
        layout_of(weight), layout_of(dx),
    )  # fmt: skip
    launch_prepared(
        conv_act_pool_depthwise_dgrad_kernel, launched,
        grad, code if code is not None else grad, saved if saved is not None else grad, weight, dx,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare_dgrad(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: DepthwiseTile,
    grad: Layout,
    extra: Layout | None,
    weight: Layout,
    dx: Layout,
) -> Prepared:
    tiles = triton.cdiv(geometry.groups, tile.block_k) * triton.cdiv(shapes.phase_pixels(geometry), tile.block_p)
    phases = geometry.stride_d * geometry.stride_h * geometry.stride_w
    weight_k, _, *weight_taps = five_strides(weight)
    scalars = (
        shapes.batch, *shapes.input, *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(extra or grad), weight_k, *weight_taps, *five_strides(dx),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "OFFSET": offset_type(grad, extra, weight, dx),
        "BLOCK_C": tile.block_k, "BLOCK_P": tile.block_p, "num_warps": tile.warps,
    }  # fmt: skip
    return Prepared((tiles, phases), scalars, keywords)


def conv_act_pool_depthwise_wgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    workspace: Tensor,
    needs: tuple[bool, bool],
    geometry: Geometry,
    shapes: Shapes,
    tile: DepthwiseTile,
) -> None:
    """Launch the split sums of a depthwise layer's weight and bias gradient into `workspace` (splits, K, row).

    `needs` says whether the weight's and the bias's are wanted.
    """
    extra = code if code is not None else saved
    launched = _prepare_wgrad(
        geometry, shapes, grad.dtype, tile, needs, layout_of(grad), None if extra is None else layout_of(extra),
        layout_of(x),
    )  # fmt: skip
    launch_prepared(
        conv_act_pool_depthwise_wgrad_kernel, launched,
        grad, code if code is not None else grad, saved if saved is not None else grad, x, workspace,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare_wgrad(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: DepthwiseTile,
    needs: tuple[bool, bool],
    grad: Layout,
    extra: Layout | None,
    x: Layout,
) -> Prepared:
    scalars = (
        shapes.conv_pixels, triton.cdiv(shapes.conv_pixels, tile.splits),
        *shapes.input, *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(extra or grad), *five_strides(x),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "OFFSET": offset_type(grad, extra, x, pixels=shapes.conv_pixels),
        "NEEDS_WEIGHT": needs[0], "NEEDS_BIAS": needs[1],
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "BLOCK_T": triton.next_power_of_2(geometry.taps),
        "num_warps": tile.warps,
    }  # fmt: skip
    return Prepared((triton.cdiv(geometry.rows, tile.block_k), tile.splits), scalars, keywords)


def depthwise_wgrad_tile(geometry: Geometry, num_pixels: int, grad: Tensor) -> DepthwiseTile:
    """The tile, splits included, of the weight gradient on grad's device."""
    target = mode_of(grad.device).target
    return depthwise_tile(geometry, geometry.rows, num_pixels, target, programs_in_flight(grad.device))
