"""Backward of norm + residual + activation + pool: from the gradient at y to those at z, residual, weight and bias.

    g  = gradient before the activation, through pool and activation          x̂ = (z - mean) * inverse
    dbias = sum g      dweight = sum g x̂      dresidual = g
    dz = weight * inverse * (g - dbias / M - x̂ dweight / M)      with the batch's statistics
    dz = weight * inverse * g                                    with given ones

sums over the M = N * pixels of a channel. One kernel sums, each program its share of the pixels into its own slice of a
workspace; a small one adds the slices in order; a third writes dz and dresidual. g is rebuilt in registers both times:
it is never written but where a residual asks for it. A sign or slope that no code stands for is taken from z again, by
forward's own formula.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import (
    channel_mask,
    load_operand,
    of_side,
    offset_of,
    quotient,
    quotient_up,
    remainder,
    round_to,
    split_index,
    summed,
    widen,
)
from tidepool.kernels.device.norm import activation_gradient, load_row, normalised
from tidepool.kernels.device.windows import conv_gradient
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry
from tidepool.kernels.layer.norm_epilogue import without_activation
from tidepool.kernels.norm.forward import NormedLayer, saves_code
from tidepool.kernels.norm.statistics import statistics_dtype
from tidepool.kernels.runtime.interpreting import device_function, kernel
from tidepool.kernels.runtime.launch import (
    Layout,
    Prepared,
    accumulator,
    launch_prepared,
    offset_type,
    programs_in_flight,
)
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.tiles.norm import MERGE_CHANNELS, MERGE_PARTS, NormTile, norm_tile, power_of_two


@device_function
def _gradient_and_distance(
    grad_ptr, code_ptr, z_ptr, residual_ptr, mean, scale, shift,
    n, d, h, w, mask_p, k, mask_k, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_zn, stride_zk, stride_zd, stride_zh, stride_zw,
    stride_rn, stride_rk, stride_rd, stride_rh, stride_rw,
    G: tl.constexpr, READ: tl.constexpr, Y_DTYPE: tl.constexpr, ACC: tl.constexpr, NEEDS_Z: tl.constexpr,
):  # fmt: skip
    """g of channels k [rows, 1] at pixels (n, d, h, w) [1, columns], and z - mean there (0 unless NEEDS_Z).

    READ says how g is read back through pool and code; an activation that G has and READ has not is done here.
    """
    mask = mask_k & mask_p
    if READ.pool == "none":  # as `conv_gradient` has it, in wider loads
        at = n * stride_gn + offset_of(d, h, w, stride_gd, stride_gh, stride_gw, G) + k * stride_gk
        grad = widen(load_operand(grad_ptr, at, mask, ACC), ACC)
        if READ.activation.needs_side:
            at = n * stride_en + offset_of(d, h, w, stride_ed, stride_eh, stride_ew, G) + k * stride_ek
            A: tl.constexpr = G.activation
            grad = of_side(grad, tl.load(code_ptr + at, mask=mask, other=G.code_off) != 0, ACC, A)
    else:
        grad = conv_gradient(
            grad_ptr, code_ptr, grad_ptr, n, d, h, w, mask_p, k, mask_k, conv_d, conv_h, conv_w, out_d, out_h, out_w,
            stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
            stride_en, stride_ek, stride_ed, stride_eh, stride_ew, READ, ACC,
        )  # fmt: skip
        grad = widen(grad, ACC)
    distance = tl.zeros(mask.shape, dtype=ACC)
    if NEEDS_Z or G.activation != READ.activation:
        at = n * stride_zn + offset_of(d, h, w, stride_zd, stride_zh, stride_zw, G) + k * stride_zk
        z = widen(load_operand(z_ptr, at, mask, ACC), ACC)
        distance = tl.where(mask, z - mean, 0.0)
        if G.activation != READ.activation:
            u = normalised(z, mean, scale, shift)
            if residual_ptr is not None:
                at = n * stride_rn + offset_of(d, h, w, stride_rd, stride_rh, stride_rw, G) + k * stride_rk
                u += widen(load_operand(residual_ptr, at, mask, ACC), ACC)
            grad = activation_gradient(grad, widen(round_to(u, Y_DTYPE), ACC), G)
    return tl.where(mask, grad, 0.0), distance


@kernel
def conv_norm_act_reduce_kernel(
    grad_ptr, code_ptr, z_ptr, residual_ptr, coefficients_ptr, workspace_ptr,
    num_pixels, pixels_per_split, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_zn, stride_zk, stride_zd, stride_zh, stride_zw,
    stride_rn, stride_rk, stride_rd, stride_rh, stride_rw,
    G: tl.constexpr, READ: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: sums over one split's pixels for BLOCK_K channels.
    offs_k = (tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, G.filters)
    split = tl.program_id(1).to(OFFSET)
    mean = load_row(coefficients_ptr, offs_k, mask_k, ACC)[:, None]
    scale = load_row(coefficients_ptr + 2 * G.filters, offs_k, mask_k, ACC)[:, None]
    shift = load_row(coefficients_ptr + 3 * G.filters, offs_k, mask_k, ACC)[:, None]
    total = tl.zeros([BLOCK_K, BLOCK_P], dtype=ACC)
    projected = tl.zeros([BLOCK_K, BLOCK_P], dtype=ACC)
    start = split * pixels_per_split
    for step in range(quotient_up(pixels_per_split, BLOCK_P)):
        offs_p = start + step * BLOCK_P + tl.arange(0, BLOCK_P)
        mask_p = (offs_p < num_pixels) & (offs_p < start + pixels_per_split)
        n, d, h, w = split_index(offs_p, conv_d, conv_h, conv_w, G)
        grad, distance = _gradient_and_distance(
            grad_ptr, code_ptr, z_ptr, residual_ptr, mean, scale, shift,
            n[None, :], d[None, :], h[None, :], w[None, :], mask_p[None, :], offs_k[:, None], mask_k[:, None],
            conv_d, conv_h, conv_w, out_d, out_h, out_w,
            stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
            stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
            stride_zn, stride_zk, stride_zd, stride_zh, stride_zw,
            stride_rn, stride_rk, stride_rd, stride_rh, stride_rw, G, READ, grad_ptr.dtype.element_ty, ACC, True,
        )  # fmt: skip  [BLOCK_K, BLOCK_P]
        total += grad
        projected += grad * distance
    at = workspace_ptr + split.to(tl.int64) * 2 * G.filters + offs_k
    tl.store(at, summed(total, 1), mask=mask_k)
    tl.store(at + G.filters, summed(projected, 1), mask=mask_k)


@kernel
def conv_norm_act_reduce_splits_kernel(
    workspace_ptr, coefficients_ptr, means_ptr, dweight_ptr, dbias_ptr,
    splits, num_pixels, channels,
    ACC: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K channels' sums over all splits, in a fixed order, and what follows from them.
    offs_k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask_k = offs_k < channels
    total = tl.zeros([BLOCK_S, BLOCK_K], dtype=ACC)
    projected = tl.zeros([BLOCK_S, BLOCK_K], dtype=ACC)
    for step in range(quotient_up(splits, BLOCK_S)):
        split = step * BLOCK_S + tl.arange(0, BLOCK_S)
        mask = (split < splits)[:, None] & mask_k[None, :]
        at = (split.to(tl.int64) * 2 * channels)[:, None] + offs_k[None, :]
        total += tl.load(workspace_ptr + at, mask=mask, other=0.0)
        projected += tl.load(workspace_ptr + channels + at, mask=mask, other=0.0)
    inverse = load_row(coefficients_ptr + channels, offs_k, mask_k, ACC)
    dbias = summed(total, 0)
    dweight = summed(projected, 0) * inverse
    # The gradient's mean, and the factor of z - mean that takes out what is parallel to x̂.
    tl.store(means_ptr + offs_k, dbias / num_pixels, mask=mask_k)
    tl.store(means_ptr + channels + offs_k, dweight * inverse / num_pixels, mask=mask_k)
    if dweight_ptr is not None:
        tl.store(dweight_ptr + offs_k, round_to(dweight, dweight_ptr.dtype.element_ty), mask=mask_k)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + offs_k, round_to(dbias, dbias_ptr.dtype.element_ty), mask=mask_k)


@kernel
def conv_norm_act_dnorm_kernel(
    grad_ptr, code_ptr, z_ptr, residual_ptr, coefficients_ptr, means_ptr, dz_ptr, dresidual_ptr,
    num_pixels, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_zn, stride_zk, stride_zd, stride_zh, stride_zw,
    stride_rn, stride_rk, stride_rd, stride_rh, stride_rw,
    stride_tn, stride_tk, stride_td, stride_th, stride_tw,
    stride_sn, stride_sk, stride_sd, stride_sh, stride_sw,
    G: tl.constexpr, READ: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: dz (strides t) and dresidual (strides s) of BLOCK_K channels at BLOCK_P of z's pixels.
    NUM_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    offs_k = (remainder(tl.program_id(0), NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, G.filters)
    offs_p = quotient(tl.program_id(0), NUM_K).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_p = offs_p < num_pixels
    n, d, h, w = split_index(offs_p, conv_d, conv_h, conv_w, G)
    mean = load_row(coefficients_ptr, offs_k, mask_k, ACC)[:, None]
    scale = load_row(coefficients_ptr + 2 * G.filters, offs_k, mask_k, ACC)[:, None]
    shift = load_row(coefficients_ptr + 3 * G.filters, offs_k, mask_k, ACC)[:, None]
    grad, distance = _gradient_and_distance(
        grad_ptr, code_ptr, z_ptr, residual_ptr, mean, scale, shift,
        n[None, :], d[None, :], h[None, :], w[None, :], mask_p[None, :], offs_k[:, None], mask_k[:, None],
        conv_d, conv_h, conv_w, out_d, out_h, out_w,
        stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
        stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
        stride_zn, stride_zk, stride_zd, stride_zh, stride_zw,
        stride_rn, stride_rk, stride_rd, stride_rh, stride_rw, G, READ, grad_ptr.dtype.element_ty, ACC,
        means_ptr is not None,
    )  # fmt: skip  [BLOCK_K, BLOCK_P]
    mask = mask_k[:, None] & mask_p[None, :]
    if dresidual_ptr is not None:
        at = (n * stride_sn + offset_of(d, h, w, stride_sd, stride_sh, stride_sw, G))[None, :]
        at = at + (offs_k * stride_sk)[:, None]
        tl.store(dresidual_ptr + at, round_to(grad, dresidual_ptr.dtype.element_ty), mask=mask)
    if dz_ptr is not None:
        if means_ptr is not None:
            grad -= load_row(means_ptr, offs_k, mask_k, ACC)[:, None]
            grad -= distance * load_row(means_ptr + G.filters, offs_k, mask_k, ACC)[:, None]
        at = (n * stride_tn + offset_of(d, h, w, stride_td, stride_th, stride_tw, G))[None, :]
        at = at + (offs_k * stride_tk)[:, None]
        tl.store(dz_ptr + at, round_to(scale * grad, dz_ptr.dtype.element_ty), mask=mask)


@dataclass(frozen=True)
class Saved:
    """What forward left for the norm's backward; None where `saves_code` and `saves_residual` say so."""

    z: Tensor
    code: Tensor | None
    coefficients: Tensor
    residual: Tensor | None


def read_geometry(norm: Geometry, has_residual: bool) -> Geometry:
    """How g is read back: with the activation where a code holds its side, else without it."""
    has_side = norm.activation.needs_side and saves_code(norm, has_residual)
    return norm if has_side else without_activation(norm)


def bind_reduce(
    grad: Tensor,
    saved: Saved,
    layer: NormedLayer,
    has_residual: bool,
    tile: NormTile | None = None,
) -> Callable[..., Tensor]:
    """The sums over pixels made ready for tensors of these layouts and dtypes: a function of (grad, saved, dweight,
    dbias) that launches them into dweight and dbias (K,), which are None where not wanted, and returns the means (2, K)
    that dz takes out."""
    channels, pixels = saved.z.shape[1], layer.norm_shapes.conv_pixels
    wanted, mode = programs_in_flight(grad.device), mode_of(grad.device)
    tile = tile or norm_tile(channels, pixels, saved.z.stride(1) == 1, mode.target, wanted)
    dtype, splits = statistics_dtype(saved.z.dtype), tile.splits
    sums = _prepare_reduce(layer, grad.dtype, saved.z.dtype, has_residual, tile, *_layouts(grad, saved))
    block_k = power_of_two(channels, 1, 1024) if mode.interpreted else MERGE_CHANNELS
    blocks = {"ACC": accumulator(dtype), "BLOCK_S": MERGE_PARTS, "BLOCK_K": block_k}
    added = Prepared((triton.cdiv(channels, block_k),), (splits, pixels, channels), blocks)

    def launch_reduce(grad: Tensor, saved: Saved, dweight: Tensor | None, dbias: Tensor | None) -> Tensor:
        workspace = torch.empty((splits, 2, channels), dtype=dtype, device=grad.device)
        means = torch.empty((2, channels), dtype=dtype, device=grad.device)
        launch_prepared(
            conv_norm_act_reduce_kernel, sums,
            grad, grad if saved.code is None else saved.code, saved.z, saved.residual, saved.coefficients, workspace,
        )  # fmt: skip
        launch_prepared(
            conv_norm_act_reduce_splits_kernel, added, workspace, saved.coefficients, means, dweight, dbias
        )  # fmt: skip
        return means

    return launch_reduce


def bind_dnorm(
    grad: Tensor,
    saved: Saved,
    dz: Tensor | None,
    dresidual: Tensor | None,
    layer: NormedLayer,
    has_residual: bool,
    tile: NormTile | None = None,
) -> Callable[..., None]:
    """The gradients at z and at the residual (None: not wanted), made ready for tensors of these layouts and dtypes: a
    function of (grad, saved, means, dz, dresidual); `means` None: statistics were given ones."""
    channels, pixels, target = saved.z.shape[1], layer.norm_shapes.conv_pixels, mode_of(grad.device).target
    tile = tile or norm_tile(channels, pixels, saved.z.stride(1) == 1, target)
    prepared = _prepare_dnorm(
        layer, grad.dtype, saved.z.dtype, has_residual, tile, *_layouts(grad, saved),
        None if dz is None else layout_of(dz), None if dresidual is None else layout_of(dresidual),
    )  # fmt: skip

    def launch_dnorm(
        grad: Tensor, saved: Saved, means: Tensor | None, dz: Tensor | None, dresidual: Tensor | None
    ) -> None:
        launch_prepared(
            conv_norm_act_dnorm_kernel, prepared,
            grad, grad if saved.code is None else saved.code, saved.z, saved.residual, saved.coefficients, means,
            dz, dresidual,
        )  # fmt: skip

    return launch_dnorm


def _layouts(grad: Tensor, saved: Saved) -> tuple[Layout, Layout, Layout | None, Layout | None]:
    """Of grad, z, code and residual."""
    code = None if saved.code is None else layout_of(saved.code)
    return layout_of(grad), layout_of(saved.z), code, None if saved.residual is None else layout_of(saved.residual)


@functools.lru_cache(maxsize=4096)
def _prepare_reduce(
    layer: NormedLayer,
    dtype: torch.dtype,
    z_dtype: torch.dtype,
    has_residual: bool,
    tile: NormTile,
    grad: Layout,
    z: Layout,
    code: Layout | None,
    residual: Layout | None,
) -> Prepared:
    shapes = layer.norm_shapes
    scalars = (
        shapes.conv_pixels, triton.cdiv(shapes.conv_pixels, tile.splits), *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(code or grad), *five_strides(z), *five_strides(residual or z),
    )  # fmt: skip
    keywords = _keywords(layer, z_dtype, has_residual, tile, offset_type(grad, z, code, residual))
    return Prepared((triton.cdiv(layer.norm.filters, tile.block_k), tile.splits), scalars, keywords)


@functools.lru_cache(maxsize=4096)
def _prepare_dnorm(
    layer: NormedLayer,
    dtype: torch.dtype,
    z_dtype: torch.dtype,
    has_residual: bool,
    tile: NormTile,
    grad: Layout,
    z: Layout,
    code: Layout | None,
    residual: Layout | None,
    dz: Layout | None,
    dresidual: Layout | None,
) -> Prepared:
    shapes = layer.norm_shapes
    scalars = (
        shapes.conv_pixels, *shapes.conv, *shapes.output,
        *five_strides(grad), *five_strides(code or grad), *five_strides(z), *five_strides(residual or z),
        *five_strides(dz or z), *five_strides(dresidual or z),
    )  # fmt: skip
    tiles = triton.cdiv(layer.norm.filters, tile.block_k) * triton.cdiv(shapes.conv_pixels, tile.block_p)
    offsets = offset_type(grad, z, code, residual, dz, dresidual)
    return Prepared((tiles,), scalars, _keywords(layer, z_dtype, has_residual, tile, offsets))


def _keywords(
    layer: NormedLayer, z_dtype: torch.dtype, has_residual: bool, tile: NormTile, offsets: tl.dtype
) -> dict[str, object]:
    return {
        "G": layer.norm, "READ": read_geometry(layer.norm, has_residual), "ACC": accumulator(z_dtype),
        "OFFSET": offsets, "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "num_warps": tile.warps,
    }  # fmt: skip
