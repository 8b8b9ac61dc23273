"""Backward through an activation with a learned slope a, at the values z that forward kept, in one pass over them.

    dz[z]     = g[z] * f'(z; a[k])                                       to wherever z came from
    dslope[k] = sum over z of filter k, or of all, of g[z] * df/da(z)

z (N, K, *size) are the winners of a max pool, and g is y's gradient; or z is the whole convolution's output, and g what
an average sends back to it, or y's gradient itself. dz is then all that the gradients of x, weight and bias need
(`layer.learned_slope`).

Each of `splits` programs per block of filters sums its share of the values into its own column of a workspace, which a
second kernel adds up, a slope a program. No atomics: the result repeats to the bit.
"""

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.activations import Activation
from tidepool.kernels.conv.epilogue import pass_tile
from tidepool.kernels.conv.wgrad import empty_workspace
from tidepool.kernels.device.arithmetic import (
    channel_mask,
    load_operand,
    offset_of,
    quotient_up,
    round_to,
    split_index,
    summed,
    widen,
)
from tidepool.kernels.device.windows import conv_gradient, load_slope
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
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

_REDUCE_BLOCK = 1024


@kernel
def conv_act_pool_slope_kernel(
    grad_ptr, saved_ptr, slope_ptr, dz_ptr, workspace_ptr,
    num_values, values_per_split, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_zn, stride_zk, stride_zd, stride_zh, stride_zw,
    G: tl.constexpr, A: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    SLOPES: tl.constexpr, NEEDS_Z: tl.constexpr, NEEDS_SLOPE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K filters at one split's values, BLOCK_P at a time.
    offs_k = (tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, G.filters)
    split = tl.program_id(1)
    slope = load_slope(slope_ptr, offs_k, mask_k, ACC, SLOPES)
    acc = tl.zeros([BLOCK_K, BLOCK_P], dtype=ACC)
    start = split.to(OFFSET) * values_per_split
    for step in range(quotient_up(values_per_split, BLOCK_P)):
        offs_p = start + step * BLOCK_P + tl.arange(0, BLOCK_P)
        mask_p = (offs_p < num_values) & (offs_p < start + values_per_split)
        n, d, h, w = split_index(offs_p, conv_d, conv_h, conv_w, G)
        grad = conv_gradient(
            grad_ptr, grad_ptr, grad_ptr,
            n[None, :], d[None, :], h[None, :], w[None, :], mask_p[None, :],
            offs_k[:, None], mask_k[:, None], conv_d, conv_h, conv_w, out_d, out_h, out_w,
            stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
            stride_gn, stride_gk, stride_gd, stride_gh, stride_gw, G, ACC,
        )  # fmt: skip  [BLOCK_K, BLOCK_P]
        grad = widen(grad, ACC)
        mask = mask_k[:, None] & mask_p[None, :]
        at = n * stride_en + offset_of(d, h, w, stride_ed, stride_eh, stride_ew, G)
        at = (offs_k * stride_ek)[:, None] + at[None, :]
        z = widen(load_operand(saved_ptr, at, mask, ACC), ACC)
        if NEEDS_Z:
            at = n * stride_zn + offset_of(d, h, w, stride_zd, stride_zh, stride_zw, G)
            at = (offs_k * stride_zk)[:, None] + at[None, :]
            dz = grad * A.slope(z, slope[:, None], A)
            tl.store(dz_ptr + at, round_to(dz, dz_ptr.dtype.element_ty), mask=mask)
        if NEEDS_SLOPE:
            acc += A.by_slope(z, grad, A)
    if NEEDS_SLOPE:
        at = offs_k.to(tl.int64) * tl.num_programs(1) + split
        tl.store(workspace_ptr + at, summed(acc, 1), mask=mask_k)


@kernel
def conv_act_pool_slope_reduce_kernel(workspace_ptr, dslope_ptr, length, BLOCK: tl.constexpr):
    # One program: one slope, the sum of its `length` elements of the workspace, BLOCK at a time.
    total = tl.zeros([BLOCK], dtype=workspace_ptr.dtype.element_ty)
    start = tl.program_id(0).to(tl.int64) * length
    for step in range(quotient_up(length, BLOCK)):
        offs = step * BLOCK + tl.arange(0, BLOCK)
        total += tl.load(workspace_ptr + start + offs, mask=offs < length, other=0.0)
    tl.store(dslope_ptr + tl.program_id(0), round_to(summed(total, 0), dslope_ptr.dtype.element_ty))


@dataclass(frozen=True)
class SlopeTile:
    """BLOCK_K filters x BLOCK_P values at a time, the values shared out among `splits` programs."""

    block_k: int
    block_p: int
    splits: int
    warps: int = 4


def slope_tile(filters: int, num_values: int, saved: Tensor) -> SlopeTile:
    """The tile of a pass over memory, and as many programs as the device runs at a time."""
    tile = pass_tile(filters, num_values, saved.stride(1) == 1, mode_of(saved.device).target)
    wanted = triton.cdiv(programs_in_flight(saved.device), triton.cdiv(filters, tile.block_k))
    return SlopeTile(tile.block_k, tile.block_p, min(wanted, triton.cdiv(num_values, tile.block_p)), tile.warps)


def conv_act_pool_slope(
    grad: Tensor,
    saved: Tensor,
    slope: Tensor,
    dz: Tensor | None,
    dslope: Tensor | None,
    activation: Activation,
    geometry: Geometry,
    shapes: Shapes,
    tile: SlopeTile | None = None,
) -> None:
    """Launch the gradient at `saved` (N, K, *size) into `dz`, in any strides, and that of `slope`, of 1 or K elements,
    into `dslope`, dense; either may be None: not wanted, not computed.

    grad (N, K, *output) in any strides; `geometry` and `shapes` those of what lies between `saved` and it.
    """
    if saved.numel() == 0:
        if dslope is not None:
            dslope.zero_()
        return
    tile = tile or slope_tile(geometry.filters, shapes.conv_pixels, saved)
    needs = (dz is not None, dslope is not None)
    launched = _prepare(
        activation, geometry, shapes, grad.dtype, tile, slope.numel(), needs, layout_of(grad), layout_of(saved),
        None if dz is None else layout_of(dz),
    )  # fmt: skip
    workspace = empty_workspace(grad, geometry.filters * tile.splits) if dslope is not None else None
    launch_prepared(
        conv_act_pool_slope_kernel, launched,
        grad, saved, slope.contiguous(), grad if dz is None else dz, grad if workspace is None else workspace,
    )  # fmt: skip
    if dslope is not None:
        reduce = _prepare_reduce(dslope.numel(), geometry.filters * tile.splits)
        launch_prepared(conv_act_pool_slope_reduce_kernel, reduce, workspace, dslope)


@functools.lru_cache(maxsize=4096)
def _prepare(
    activation: Activation,
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: SlopeTile,
    slopes: int,
    needs: tuple[bool, bool],
    grad: Layout,
    saved: Layout,
    dz: Layout | None,
) -> Prepared:
    scalars = (
        shapes.conv_pixels, triton.cdiv(shapes.conv_pixels, tile.splits), *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(saved), *five_strides(dz or saved),
    )  # fmt: skip
    keywords = {
        "G": geometry, "A": activation, "ACC": accumulator(dtype), "OFFSET": offset_type(grad, saved, dz),
        "SLOPES": slopes, "NEEDS_Z": needs[0], "NEEDS_SLOPE": needs[1],
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "num_warps": tile.warps,
    }  # fmt: skip
    return Prepared((triton.cdiv(geometry.filters, tile.block_k), tile.splits), scalars, keywords)


@functools.lru_cache(maxsize=4096)
def _prepare_reduce(slopes: int, elements: int) -> Prepared:
    length = elements // slopes
    block = min(triton.next_power_of_2(length), _REDUCE_BLOCK)
    return Prepared((slopes,), (length,), {"BLOCK": block})
