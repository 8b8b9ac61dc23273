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

from kernels.conv_relu_pool_depthwise import conv_relu_pool_depthwise_forward
from kernels.conv_relu_pool_few_channels import bind_few_channels
from kernels.conv_relu_pool_hopper import bind_hopper, readable_by_tma
from kernels.device_functions import (
    as_stored,
    inside,
    keep_in_range,
    load_operand,
    multiply_accumulate,
    offset_of,
    split_index,
    split_tap,
    widen,
)
from kernels.few_channels_tiles import (
    FEW_CHANNELS_TARGETS,
    FewChannelsTile,
    few_channels_candidates,
    fits_few_channels,
)
from kernels.geometry import MAX_BYTE_WINDOW, MAX_INT16_WINDOW, Geometry, Shapes
from kernels.hopper_tiles import HOPPER_TARGET, HopperTile, fits_hopper, hopper_tile, wastes_boxes
from kernels.launch import (
    Layout,
    Prepared,
    accumulator,
    channels_are_neighbours,
    channels_innermost,
    current_target,
    five_strides,
    launch,
    launch_nothing,
    launch_prepared,
    layout_of,
    offset_type,
    operand_kind,
    precision_of,
)
from kernels.memory_format import empty_in_format, is_channels_last
from kernels.norm_functions import epilogue_rows, normalise_results, pooled_results, store_statistics
from kernels.norm_geometry import NO_NORM, NormOperand
from kernels.runtime import device_function
from kernels.tiles import DepthwiseTile, ForwardTile, forward_tile
from kernels.window_functions import fold, joint_piece, start_fold, store_bits, window_pixel, write_outputs

AnyForwardTile = ForwardTile | HopperTile | FewChannelsTile | DepthwiseTile


@triton.jit
def conv_relu_pool_forward_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, code_ptr, winner_ptr,
    num_outputs, in_d, in_h, in_w, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    stride_wk, stride_wc, stride_wd, stride_wh, stride_ww,
    stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, JOINT: tl.constexpr, FLAT: tl.constexpr,
    norm=None, NORM: tl.constexpr = NO_NORM,
):  # fmt: skip
    # One program: BLOCK_K filters of one group at BLOCK_P pooled outputs.
    NUM_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    Y_DTYPE: tl.constexpr = y_ptr.dtype.element_ty
    group = tl.program_id(1).to(OFFSET)
    tile_p = (tl.program_id(0) // NUM_K).to(OFFSET) * BLOCK_P
    offs_k = ((tl.program_id(0) % NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = offs_k < G.filters
    x_ptr += group * G.channels * stride_xc
    weight_ptr += group * G.filters * stride_wk

    # The tile's outputs once, [BLOCK_P], and once per window element computed together, [JOINT * BLOCK_P].
    offs_p = tile_p + tl.arange(0, BLOCK_P)
    mask_p = offs_p < num_outputs
    n, od, oh, ow = split_index(offs_p, out_d, out_h, out_w, G)
    column = tl.arange(0, JOINT * BLOCK_P)
    column_p = tile_p + column % BLOCK_P
    column_n, column_od, column_oh, column_ow = split_index(column_p, out_d, out_h, out_w, G)

    if HAS_BIAS:
        bias = widen(load_operand(bias_ptr + group * G.filters, keep_in_range(offs_k, mask_k), mask_k, ACC), ACC)
    if NORM.normalises:
        mean, scale, shift = epilogue_rows(norm, group * G.filters + offs_k, mask_k, ACC, NORM)
    best, code, winner = start_fold(BLOCK_K, BLOCK_P, ACC, G)

    for first in range(0, G.window, JOINT):
        pd, ph, pw = window_pixel(column_od, column_oh, column_ow, first + column // BLOCK_P, G)
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
            best, code, winner = fold(best, code, winner, value, first, exists, Y_DTYPE, G)
        else:
            for piece in tl.static_range(JOINT):
                element = first + piece
                here = mask_p
                if G.partial_windows:
                    ed, eh, ew = window_pixel(od, oh, ow, element, G)
                    here = here & inside(ed, eh, ew, conv_d, conv_h, conv_w, G)
                part = joint_piece(value, piece, BLOCK_K, BLOCK_P, JOINT)
                best, code, winner = fold(best, code, winner, part, element, here, Y_DTYPE, G)

    offs_k += group * G.filters
    STORED: tl.constexpr = NORM.layer if NORM.kind == "normalise_pooled" else G
    if NORM.kind == "statistics" or NORM.kind == "normalise_pooled":
        value = pooled_results(best, od, oh, ow, conv_d, conv_h, conv_w, Y_DTYPE, ACC, G)
        if NORM.kind == "statistics":
            part = tl.program_id(0) // NUM_K
            store_statistics(norm, value, part, G.filters * G.groups, offs_k, mask_k, mask_p, ACC)
        else:
            value = normalise_results(
                value, norm, mean, scale, shift, offs_k, mask_k, n, od, oh, ow, mask_p, Y_DTYPE, ACC, G, NORM
            )
            best, code, winner = fold(best, code, winner, value, 0, mask_p, Y_DTYPE, STORED)
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
            offs_c = flat % G.channels
            rd, rh, rw = split_tap(flat // G.channels, G)
            tap_d, tap_h, tap_w = _dilated(rd, rh, rw, G)
            d, h, w = _plus(base_d[None, :], base_h[None, :], base_w[None, :], tap_d, tap_h, tap_w, G)
            mask_x = exists[None, :] & inside(d, h, w, in_d, in_h, in_w, G)
            from_pixel = base[None, :] + offset_of(tap_d, tap_h, tap_w, stride_xd, stride_xh, stride_xw, G)[:, None]
        else:
            offs_c = (step % BLOCKS_C) * BLOCK_C + tl.arange(0, BLOCK_C) + wide
            mask_c = offs_c < G.channels
            rd, rh, rw = split_tap(step // BLOCKS_C + wide, G)
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


def conv_relu_pool_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None = None,
    norm: NormOperand | None = None,
) -> None:
    """Launch the forward kernel into `y` (N, K, *output), `code` and `winner` (None: not saved).

    x (N, C, *spatial) and weight (K, C/groups, *kernel) in any strides. `code` is what `Geometry` says backward needs:
    winner codes shaped as y, or packed bits (N, groups * ceil(K/groups / 8), *conv). `tile` overrides the rule's;
    a gradient's raises ValueError, and one whose kernel layer or tensors do not fit gives way to the rule's.
    `norm`: what a norm behind the convolution wants (`norm_geometry`).
    """
    if norm is None:
        launch_forward = bind_forward(x, weight, bias, y, code, winner, geometry, shapes, tile)
        launch_forward(x, weight, bias, y, code, winner)
    elif shapes.num_outputs == 0:
        return
    elif geometry.depthwise:
        depthwise = tile if isinstance(tile, DepthwiseTile) else None
        conv_relu_pool_depthwise_forward(x, weight, bias, y, code, winner, geometry, shapes, depthwise, norm)
    else:
        weight = channels_innermost(weight)
        saved = code if code is not None else winner
        launched = _prepare_portable(x, weight, bias, y, saved, geometry, shapes, tile, norm.residual)
        launch(
            conv_relu_pool_forward_kernel, launched.grid, *_pointers(x, weight, bias, y, code, winner),
            *launched.scalars, **launched.keywords, norm=norm.operands, NORM=norm.epilogue,
        )  # fmt: skip


def bind_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None = None,
) -> Callable[..., None]:
    """`conv_relu_pool_forward` made ready for tensors of these layouts, dtypes and alignment of x to 16 bytes: a
    function of (x, weight, bias, y, code, winner) that launches and decides nothing."""
    if shapes.num_outputs == 0:
        return launch_nothing
    if geometry.depthwise:
        depthwise = tile if isinstance(tile, DepthwiseTile) else None
        return functools.partial(
            conv_relu_pool_depthwise_forward, geometry=geometry, shapes=shapes, tile=depthwise, norm=None
        )
    if isinstance(tile, HopperTile) or (tile is None and current_target() == HOPPER_TARGET):
        fits = fits_hopper(geometry, shapes, operand_kind(x.dtype)) and readable_by_tma(x, geometry)
        if fits and (isinstance(tile, HopperTile) or not wastes_boxes(geometry, shapes)):
            chosen = tile if isinstance(tile, HopperTile) else hopper_tile(geometry, shapes)
            return bind_hopper(x, weight, bias, y, code, winner, geometry, shapes, chosen)
        tile = None
    if isinstance(tile, FewChannelsTile) or (tile is None and current_target() in FEW_CHANNELS_TARGETS):
        if fits_few_channels(geometry, operand_kind(x.dtype)):
            few = tile if isinstance(tile, FewChannelsTile) else few_channels_candidates(geometry)[0]
            return bind_few_channels(x, weight, bias, y, code, winner, geometry, shapes, few)
        tile = None
    saved = code if code is not None else winner
    prepared = _prepare_portable(x, channels_innermost(weight), bias, y, saved, geometry, shapes, tile, None)

    def launch_portable(
        x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, code: Tensor | None, winner: Tensor | None
    ) -> None:
        pointers = _pointers(x, channels_innermost(weight), bias, y, code, winner)
        launch_prepared(conv_relu_pool_forward_kernel, prepared, *pointers)

    return launch_portable


def _pointers(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, code: Tensor | None, winner: Tensor | None
) -> tuple[Tensor, ...]:
    """The kernel's pointers, others standing in for those that it will not look at."""
    return (
        x, weight, x if bias is None else bias.contiguous(), y,
        y if code is None else code, y if winner is None else winner,
    )  # fmt: skip


def _prepare_portable(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    saved: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None,
    residual: Layout | None,
) -> Prepared:
    kind = operand_kind(x.dtype)
    if tile is None or isinstance(tile, HopperTile | FewChannelsTile):
        tile = forward_tile(geometry, shapes.num_outputs, current_target(), kind, channels_are_neighbours(x))
    if not isinstance(tile, ForwardTile):
        raise ValueError(f"tile: a {type(tile).__name__} does not fit a dense layer, expected a ForwardTile")
    return _prepare(
        geometry, shapes, x.dtype, kind, tile, bias is not None, layout_of(x), layout_of(weight), layout_of(y),
        None if saved is None else layout_of(saved), residual,
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
) -> Prepared:
    tiles_k, tiles_p = triton.cdiv(geometry.filters, tile.block_k), triton.cdiv(shapes.num_outputs, tile.block_p)
    scalars = (
        shapes.num_outputs, *shapes.input, *shapes.conv, *shapes.output,
        *five_strides(x), *five_strides(weight), *five_strides(y), *five_strides(saved or y),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "PRECISION": precision_of(kind),
        "OFFSET": offset_type(x, weight, y, saved, residual),
        "HAS_BIAS": has_bias, "SAVE": saved is not None,
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "BLOCK_C": tile.block_c, "JOINT": tile.joint,
        "FLAT": tile.flat, "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip
    return Prepared((tiles_k * tiles_p, geometry.groups), scalars, keywords)


def _code_dtype(geometry: Geometry) -> torch.dtype:
    if geometry.window <= MAX_BYTE_WINDOW:
        return torch.uint8
    return torch.int16 if geometry.window <= MAX_INT16_WINDOW else torch.int32


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
