"""Weight and bias gradient of layers with a max pool or none, summed over pooled outputs and window elements.

    dweight[k, c, r] = sum_{n, o, e} [code[n, k, o] = e] grad[n, k, o] * x[n, c, p * stride - padding + r * dilation]
    dbias[k]         = sum_{n, o} [code[n, k, o] is an element] grad[n, k, o],
    p = o * pool_stride - pool_padding + e * pool_dilation

The pooled gradient is read once for a row of window elements and the taps of a filter row; the choice for each element
is the product's right operand, written to shared memory once for all taps. Elements and taps that meet the same input
pixel share its copy: of a 2x2 pool under a 3x3 filter 4 copies of x serve 6 products. Split over pooled outputs and
summed by `conv_act_pool_wgrad_reduce_kernel`, as in `conv_act_pool_wgrad`; the bias has programs of its own.
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
    inside,
    keep_in_range,
    load_operand,
    multiply_accumulate,
    offset_of,
    quotient,
    quotient_up,
    remainder,
    split_index,
    split_tap,
    summed,
    widen,
)
from tidepool.kernels.device.choice import keep_channels
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.runtime.interpreting import device_function, kernel
from tidepool.kernels.runtime.launch import Layout, Prepared, accumulator, offset_type, operand_kind, precision_of
from tidepool.kernels.tiles.windowed import WindowedWgradTile, fits_wgrad, most_registers


@kernel
def conv_act_pool_windowed_wgrad_kernel(
    grad_ptr, code_ptr, x_ptr, workspace_ptr,
    num_outputs, outputs_per_split, in_d, in_h, in_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, OFFSET: tl.constexpr,
    NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    # One program: TAPS neighbouring taps of one filter row, BLOCK_C channels x BLOCK_K filters of one group, over one
    # split's pooled outputs; or, from number TILES on, the bias of BLOCK_K filters.
    NUM_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    NUM_C: tl.constexpr = (G.channels + BLOCK_C - 1) // BLOCK_C
    NUM_W: tl.constexpr = (G.kernel_w + TAPS - 1) // TAPS
    TILES: tl.constexpr = G.kernel_d * G.kernel_h * NUM_W * NUM_C * NUM_K if NEEDS_WEIGHT else 0
    COLUMNS: tl.constexpr = G.taps * G.channels if NEEDS_WEIGHT else 0
    ROW: tl.constexpr = COLUMNS + 1 if NEEDS_BIAS else COLUMNS
    # Tiles of all splits come first, then the bias of all: short programs beside the last long ones.
    number = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    past = number - TILES * tl.num_programs(1)
    LAID: tl.constexpr = TILES if NEEDS_WEIGHT else 1
    tile = tl.where(past >= 0, TILES + remainder(past, NUM_K), remainder(number, LAID))
    split = tl.where(past >= 0, quotient(past, NUM_K), quotient(number, LAID)).to(OFFSET)
    group = tl.program_id(2).to(OFFSET)
    offs_k = (remainder(tile, NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, G.filters)
    # Filters and channels that do not exist read others instead: what comes of it is not stored.
    kept_k = keep_channels(offs_k, mask_k, G.filters)
    start = split * outputs_per_split
    grad_ptr += group * G.filters * stride_gk
    code_ptr += group * G.filters * stride_ek
    if NEEDS_WEIGHT and tile < TILES:
        tile_c = remainder(quotient(tile, NUM_K), NUM_C)
        tap_w = remainder(quotient(tile, NUM_K * NUM_C), NUM_W) * TAPS
        tap_d, tap_h, _ = split_tap(quotient(tile, NUM_K * NUM_C * NUM_W) * G.kernel_w, G)
        offs_c = (tile_c * BLOCK_C + tl.arange(0, BLOCK_C)).to(OFFSET)
        mask_c = channel_mask(offs_c, BLOCK_C, G.channels)
        from_c = keep_channels(offs_c, mask_c, G.channels) * stride_xc
        x_ptr += group * G.channels * stride_xc
        accs = (tl.zeros([BLOCK_C, BLOCK_K], dtype=ACC),) * TAPS
        ROWS: tl.constexpr = G.window_d * G.window_h
        for step in range(quotient_up(outputs_per_split, BLOCK_P) * ROWS):
            offs_p = start + quotient(step, ROWS) * BLOCK_P + tl.arange(0, BLOCK_P)
            mask_p = offs_p < num_outputs
            n, od, oh, ow = split_index(offs_p, out_d, out_h, out_w, G)
            grad, code = _pooled(
                grad_ptr, code_ptr, n, od, oh, ow, mask_p, kept_k,
                stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
                stride_en, stride_ek, stride_ed, stride_eh, stride_ew, G, ACC,
            )  # fmt: skip  [BLOCK_P, BLOCK_K] each
            row_d = quotient(remainder(step, ROWS), G.window_h)
            row_h = remainder(remainder(step, ROWS), G.window_h)
            d, h, w = _input_pixel(od, oh, ow, row_d, row_h, tap_d, tap_h, tap_w, G)
            from_x = n * stride_xn + offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G)
            accs = _add_row(
                accs, grad, code, x_ptr, from_x, from_c, d, h, w, mask_p, remainder(step, ROWS),
                in_d, in_h, in_w, stride_xw, G, ACC, PRECISION, TAPS,
            )  # fmt: skip
        row = ((split * G.groups + group) * G.filters + offs_k).to(tl.int64) * ROW
        first = ((tap_d * G.kernel_h + tap_h) * G.kernel_w + tap_w) * G.channels
        for tap in tl.static_range(TAPS):
            at = row[None, :] + (first + tap * G.channels + offs_c)[:, None]
            mask = mask_c[:, None] & mask_k[None, :] & (tap_w + tap < G.kernel_w)
            tl.store(workspace_ptr + at, accs[tap], mask=mask)
    if NEEDS_BIAS and tile >= TILES:
        total = tl.zeros([BLOCK_P, BLOCK_K], dtype=ACC)
        for step in range(quotient_up(outputs_per_split, BLOCK_P)):
            offs_p = start + step * BLOCK_P + tl.arange(0, BLOCK_P)
            n, od, oh, ow = split_index(offs_p, out_d, out_h, out_w, G)
            grad, code = _pooled(
                grad_ptr, code_ptr, n, od, oh, ow, offs_p < num_outputs, kept_k,
                stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
                stride_en, stride_ek, stride_ed, stride_eh, stride_ew, G, ACC,
            )  # fmt: skip
            if G.saves_code:
                grad = tl.where(code == G.code_off, 0.0, grad).to(grad.dtype)
            total += widen(grad, ACC)
        row = ((split * G.groups + group) * G.filters + offs_k).to(tl.int64) * ROW
        tl.store(workspace_ptr + (row + COLUMNS), summed(total, 0), mask=mask_k)


@device_function
def _pooled(
    grad_ptr, code_ptr, n, od, oh, ow, mask_p, kept_k,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient and code of pooled outputs (rows) and filters (columns); gradient 0 where masked. No code: 0."""
    at = keep_in_range(n * stride_gn + offset_of(od, oh, ow, stride_gd, stride_gh, stride_gw, G), mask_p)
    grad = load_operand(grad_ptr, at[:, None] + (kept_k * stride_gk)[None, :], mask_p[:, None], ACC)
    code = 0
    if G.saves_code:
        at = keep_in_range(n * stride_en + offset_of(od, oh, ow, stride_ed, stride_eh, stride_ew, G), mask_p)
        code = tl.load(code_ptr + (at[:, None] + (kept_k * stride_ek)[None, :]), mask=mask_p[:, None], other=0)
    return grad, code


@device_function
def _input_pixel(od, oh, ow, row_d, row_h, tap_d, tap_h, tap_w, G: tl.constexpr):
    """Input pixel that tap (tap_d, tap_h, tap_w) of element (row_d, row_h, 0) of those windows reads."""
    w = (ow * G.pool_stride_w - G.pool_padding_w) * G.stride_w - G.padding_w + tap_w * G.dilation_w
    h = w * 0
    d = w * 0
    if G.rank >= 2:
        p = oh * G.pool_stride_h - G.pool_padding_h + row_h * G.pool_dilation_h
        h = p * G.stride_h - G.padding_h + tap_h * G.dilation_h
    if G.rank == 3:
        p = od * G.pool_stride_d - G.pool_padding_d + row_d * G.pool_dilation_d
        d = p * G.stride_d - G.padding_d + tap_d * G.dilation_d
    return d, h, w


@device_function
def _add_row(
    accs, grad, code, x_ptr, from_x, from_c, d, h, w, mask_p, row, in_d, in_h, in_w, stride_xw,
    G: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """accs of the taps, with the products of one row of window elements added; x read at w, w + 1, ... as needed."""
    DTYPE: tl.constexpr = x_ptr.dtype.element_ty
    WINDOW: tl.constexpr = G.window_w
    STEP: tl.constexpr = G.pool_dilation_w * G.stride_w  # input pixels from one window element to the next
    APART: tl.constexpr = G.dilation_w  # and from one tap to the next
    for u in tl.static_range((WINDOW - 1) * STEP + (TAPS - 1) * APART + 1):
        # Where no tap of any element reads, this load has no use and is left out by the compiler.
        ok = mask_p & inside(d, h, w + u, in_d, in_h, in_w, G)
        x = load_operand(x_ptr, keep_in_range(from_x + u * stride_xw, ok)[:, None] + from_c[None, :], ok[:, None], ACC)
        for tap in tl.static_range(TAPS):
            if u >= tap * APART and (u - tap * APART) % STEP == 0 and (u - tap * APART) // STEP < WINDOW:
                chosen = grad
                if G.saves_code:
                    element = row * WINDOW + (u - tap * APART) // STEP
                    won = code == tl.full([1, 1], element, dtype=code.dtype)
                    chosen = tl.where(won, grad, 0.0).to(grad.dtype)
                product = multiply_accumulate(tl.trans(x), as_operand(chosen, DTYPE, ACC), accs[tap], PRECISION)
                accs = accs[:tap] + (product,) + accs[tap + 1 :]  # noqa: RUF005  Triton has no unpacking
    return accs


def prepare_windowed_wgrad(
    grad: Tensor,
    code: Tensor | None,
    x: Tensor,
    needs: tuple[bool, bool],
    geometry: Geometry,
    shapes: Shapes,
    tile: WindowedWgradTile,
) -> Prepared:
    """The kernel's launch on (grad, code or grad, x, workspace), for a layer that `tiles.windowed.fits_wgrad`.

    The workspace is flat (splits, K, taps * C/groups [+ 1]). `needs`: weight gradient, bias gradient; other arguments
    as for `conv_act_pool_wgrad`.
    """
    return _prepare(
        geometry, shapes, grad.dtype, operand_kind(grad.dtype, grad.device), tile, needs, layout_of(grad),
        None if code is None else layout_of(code), layout_of(x),
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    kind: str,
    tile: WindowedWgradTile,
    needs: tuple[bool, bool],
    grad: Layout,
    code: Layout | None,
    x: Layout,
) -> Prepared:
    if not fits_wgrad(geometry):
        raise ValueError(f"tile: {tile} does not fit {geometry}")
    tiles_k = triton.cdiv(geometry.filters, tile.block_k)
    rows = geometry.kernel_d * geometry.kernel_h * triton.cdiv(geometry.kernel_w, tile.taps)
    tiles = rows * triton.cdiv(geometry.channels, tile.block_c) * tiles_k if needs[0] else 0
    blocks = triton.cdiv(shapes.num_outputs, tile.block_p)
    scalars = (
        shapes.num_outputs, triton.cdiv(blocks, tile.splits) * tile.block_p, *shapes.input, *shapes.output,
        *five_strides(grad), *five_strides(code or grad), *five_strides(x),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "PRECISION": precision_of(kind),
        "OFFSET": offset_type(grad, code, x, pixels=shapes.conv_pixels),
        "NEEDS_WEIGHT": needs[0], "NEEDS_BIAS": needs[1],
        "BLOCK_C": tile.block_c, "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "TAPS": tile.taps,
        "num_warps": tile.warps, "num_stages": tile.stages,
        # Held to 128 registers, a layer of one output an image spills 16 bytes (vgg16_cifar_5_b512 on sm_90, 3.7.1).
        **(most_registers(tile.block_c * tile.block_k * tile.taps, tile.warps) if max(shapes.output) > 1 else {}),
    }  # fmt: skip
    return Prepared((tiles + (tiles_k if needs[1] else 0), tile.splits, geometry.groups), scalars, keywords)
