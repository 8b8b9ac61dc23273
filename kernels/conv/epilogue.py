"""What follows a convolution that another library computed, in one pass over its output; and the way back.

    epilogue    y = pool(activation(v + bias)), with the codes, bits or winners that the fused forward saves
    unpool      g = dL/dv from dL/dy and what was saved, every element written once

v (N, K, *conv) is the convolution's output in its own dtype and any strides. Both are bound by memory. Windows, ties,
NaN and codes are those of the fused kernels (`device.windows`), so that either forward goes with either backward.

The fused forward adds the bias in the accumulator and rounds once. Here v is rounded already, and v + bias is rounded
again before windows are compared: to the bit what PyTorch's eager passes leave behind cuDNN, where the bias is a pass
of its own (`adds_bias` says where). A library that adds it inside, as on a CPU, is left to do so, and bias is None.

The bias gradient needs no pass over g: `conv_act_pool_wgrad` sums it from y's gradient and the codes, a fraction of
the bytes, in a fixed order.
"""

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import (
    channel_mask,
    inside,
    load_operand,
    offset_of,
    quotient,
    remainder,
    round_to,
    split_index,
    widen,
)
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
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import Layout, Prepared, accumulator, launch_prepared, offset_type
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.runtime.targets import INTERPRETER, Target


@kernel
def conv_act_pool_epilogue_kernel(
    conv_ptr, bias_ptr, slope_ptr, y_ptr, code_ptr, winner_ptr,
    num_outputs, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_vn, stride_vk, stride_vd, stride_vh, stride_vw,
    stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SLOPES: tl.constexpr, SAVE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K filters of one group of ROWS at BLOCK_P pooled outputs.
    NUM_K: tl.constexpr = (ROWS + BLOCK_K - 1) // BLOCK_K
    DTYPE: tl.constexpr = y_ptr.dtype.element_ty
    group = tl.program_id(1).to(OFFSET)
    offs_k = (remainder(tl.program_id(0), NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, ROWS)
    filters = group * ROWS + offs_k
    offs_p = quotient(tl.program_id(0), NUM_K).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_p = offs_p < num_outputs
    n, od, oh, ow = split_index(offs_p, out_d, out_h, out_w, G)
    if HAS_BIAS:
        bias = widen(load_operand(bias_ptr, filters, mask_k, ACC), ACC)
    slope = None
    if SLOPES > 0:
        slope = load_slope(slope_ptr, filters, mask_k, ACC, SLOPES)
    best, code, winner = start_fold(BLOCK_K, BLOCK_P, ACC, G)
    for first in range(0, G.window, UNROLL):
        for piece in tl.static_range(UNROLL):  # unrolled, so that the loads of a window are under way together
            element = first + piece
            pd, ph, pw = window_pixel(od, oh, ow, element, G)
            exists = mask_p
            if G.partial_windows:
                exists = exists & inside(pd, ph, pw, conv_d, conv_h, conv_w, G)
            if G.window % UNROLL != 0:
                exists = exists & (element < G.window)
            # No product's loop pipelines these loads, so their masks hold, and offsets stay contiguous: 16 bytes each.
            at = n * stride_vn + offset_of(pd, ph, pw, stride_vd, stride_vh, stride_vw, G)
            at = at[None, :] + (filters * stride_vk)[:, None]
            value = widen(load_operand(conv_ptr, at, mask_k[:, None] & exists[None, :], ACC), ACC)
            if HAS_BIAS:
                value = widen(round_to(value + bias[:, None], DTYPE), ACC)
            if SAVE and G.saves_bits:
                at = n * stride_en + offset_of(pd, ph, pw, stride_ed, stride_eh, stride_ew, G)
                store_bits(code_ptr, value, at, exists, offs_k, group, stride_ek, G, BLOCK_K)
            best, code, winner = fold(best, code, winner, value, element, exists, slope, DTYPE, G)
    write_outputs(
        y_ptr, code_ptr, winner_ptr, best, code, winner,
        filters, mask_k, n, od, oh, ow, mask_p, conv_d, conv_h, conv_w,
        stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
        stride_en, stride_ek, stride_ed, stride_eh, stride_ew, G, SAVE,
    )  # fmt: skip


@kernel
def conv_act_pool_unpool_kernel(
    grad_ptr, code_ptr, saved_ptr, g_ptr,
    num_pixels, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_vn, stride_vk, stride_vd, stride_vh, stride_vw,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K filters of one group of ROWS at BLOCK_P pixels of the convolution's output.
    NUM_K: tl.constexpr = (ROWS + BLOCK_K - 1) // BLOCK_K
    group = tl.program_id(1).to(OFFSET)
    offs_k = (remainder(tl.program_id(0), NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, ROWS)
    offs_p = quotient(tl.program_id(0), NUM_K).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_p = offs_p < num_pixels
    n, pd, ph, pw = split_index(offs_p, conv_d, conv_h, conv_w, G)
    grad_ptr += group * ROWS * stride_gk
    code_ptr += group * G.code_channels * stride_ek
    saved_ptr += group * ROWS * stride_ek
    grad = conv_gradient(
        grad_ptr, code_ptr, saved_ptr,
        n[None, :], pd[None, :], ph[None, :], pw[None, :], mask_p[None, :],
        offs_k[:, None], mask_k[:, None], conv_d, conv_h, conv_w, out_d, out_h, out_w,
        stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
        stride_en, stride_ek, stride_ed, stride_eh, stride_ew, G, ACC,
    )  # fmt: skip  [BLOCK_K, BLOCK_P]
    mask = mask_k[:, None] & mask_p[None, :]
    from_p = n * stride_vn + offset_of(pd, ph, pw, stride_vd, stride_vh, stride_vw, G)
    at = ((group * ROWS + offs_k) * stride_vk)[:, None] + from_p[None, :]
    tl.store(g_ptr + at, round_to(widen(grad, ACC), g_ptr.dtype.element_ty), mask=mask)


@dataclass(frozen=True)
class PassTile:
    """BLOCK_K filters x BLOCK_P pixels of a pass over memory."""

    block_k: int
    block_p: int
    warps: int = 4


CHANNELS_LAST_TILES = (PassTile(64, 16), PassTile(32, 32), PassTile(16, 64), PassTile(8, 128))
CONTIGUOUS_TILE = PassTile(8, 128)
_INTERPRETER_PIXELS = 2**12


@functools.lru_cache(maxsize=4096)
def pass_tile(rows: int, num_pixels: int, channels_fastest: bool, target: Target) -> PassTile:
    """The tile a pass runs with: long along whichever of channels and pixels lie next to each other in memory, and
    with as little beyond the last channel as can be; where blocks divide the channels nothing is masked."""
    if target is INTERPRETER:
        block_p = 1 << (max(num_pixels, 1) - 1).bit_length()
        return PassTile(min(max(1 << (rows - 1).bit_length(), 8), 64), min(block_p, _INTERPRETER_PIXELS))
    if not channels_fastest:
        return CONTIGUOUS_TILE
    return min(CHANNELS_LAST_TILES, key=lambda tile: -(-rows // tile.block_k) * tile.block_k)


def adds_bias(device: torch.device, geometry: Geometry) -> bool:
    """Whether PyTorch's convolution adds the bias to its rounded output: behind cuDNN it does, in a pass of its own,
    and the epilogue does the same; oneDNN, MIOpen and CUDA's depthwise kernels add it inside."""
    return device.type == "cuda" and torch.version.hip is None and not geometry.depthwise


def conv_act_pool_epilogue(
    conv: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: PassTile | None = None,
    slope: Tensor | None = None,
) -> None:
    """Launch bias, activation and pool over `conv` (N, K, *conv) into `y` (N, K, *output), `code` and `winner`.

    `bias` (K,) is None where the convolution has added it. The others are as for `conv_act_pool_forward`: `code` and
    `winner` of `empty_saved`, or None to save nothing; all in any strides, of one dtype.
    """
    if shapes.num_outputs == 0:
        return
    saved = code if code is not None else winner
    tile = tile or pass_tile(_rows(geometry)[0], shapes.num_outputs, conv.stride(1) == 1, mode_of(conv.device).target)
    launched = _prepare_epilogue(
        geometry, shapes, conv.dtype, tile, bias is not None, layout_of(conv), layout_of(y),
        None if saved is None else layout_of(saved), number_of_slopes(slope),
    )  # fmt: skip
    launch_prepared(
        conv_act_pool_epilogue_kernel, launched,
        conv, bias.contiguous() if bias is not None else conv, slope if slope is None else slope.contiguous(), y,
        code if code is not None else y, winner if winner is not None else y,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare_epilogue(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: PassTile,
    has_bias: bool,
    conv: Layout,
    y: Layout,
    saved: Layout | None,
    slopes: int,
) -> Prepared:
    rows, groups = _rows(geometry)
    tiles = triton.cdiv(rows, tile.block_k) * triton.cdiv(shapes.num_outputs, tile.block_p)
    scalars = (
        shapes.num_outputs, *shapes.conv, *shapes.output,
        *five_strides(conv), *five_strides(y), *five_strides(saved or y),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "OFFSET": offset_type(conv, y, saved),
        "HAS_BIAS": has_bias, "SLOPES": slopes, "SAVE": saved is not None, "ROWS": rows,
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "UNROLL": _unrolled(geometry),
        "num_warps": tile.warps,
    }  # fmt: skip
    return Prepared((tiles, groups), scalars, keywords)


def conv_act_pool_unpool(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    g: Tensor,
    geometry: Geometry,
    shapes: Shapes,
    tile: PassTile | None = None,
) -> None:
    """Launch the gradient at the convolution's output into `g` (N, K, *conv), in any strides.

    grad (N, K, *output), code and saved as for `conv_act_pool_dgrad`. g is rounded to its dtype, as PyTorch's is.
    """
    if g.numel() == 0:
        return
    extra = code if code is not None else saved
    tile = tile or pass_tile(_rows(geometry)[0], shapes.conv_pixels, g.stride(1) == 1, mode_of(g.device).target)
    launched = _prepare_unpool(
        geometry, shapes, grad.dtype, tile, layout_of(grad), None if extra is None else layout_of(extra), layout_of(g)
    )
    launch_prepared(
        conv_act_pool_unpool_kernel, launched,
        grad, code if code is not None else grad, saved if saved is not None else grad, g,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _prepare_unpool(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: PassTile,
    grad: Layout,
    extra: Layout | None,
    g: Layout,
) -> Prepared:
    rows, groups = _rows(geometry)
    tiles = triton.cdiv(rows, tile.block_k) * triton.cdiv(shapes.conv_pixels, tile.block_p)
    scalars = (
        shapes.conv_pixels, *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(extra or grad), *five_strides(g),
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "OFFSET": offset_type(grad, extra, g), "ROWS": rows,
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "num_warps": tile.warps,
    }  # fmt: skip
    return Prepared((tiles, groups), scalars, keywords)


def _rows(geometry: Geometry) -> tuple[int, int]:
    """Filters a row index runs over, and how many times: all at once, unless bits are packed group by group."""
    if geometry.saves_bits:
        return geometry.rows, geometry.row_groups
    return geometry.groups * geometry.filters, 1


def _unrolled(geometry: Geometry) -> int:
    """Window elements loaded together: a small window's all, else three or four; one at a time where coordinates have
    three dimensions (nine spill in 16 bits on sm_90, two and four of a 3-D window in TF32 on sm_100 and sm_80), two
    where an activation is computed of each (four tanh spill 8 bytes on sm_100)."""
    if geometry.rank == 3:
        return 1
    if geometry.smooth:
        return min(geometry.window, 2)
    if geometry.window <= 4:
        return geometry.window
    return 3 if geometry.window % 3 == 0 else 4
