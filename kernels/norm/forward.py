"""Forward: conv (+ pool) with the batch's statistics, then norm + residual + activation (+ pool) in one pass.

    training or saving for backward:   conv kernel -> z, statistics; coefficients; normalise kernel -> y, code
    inference:                         conv kernel with the norm in its epilogue -> y

z, the convolution's output, is rounded to its dtype before anything looks at it, so that statistics, ties and ReLU's
sign are PyTorch's, and the same whichever way is taken.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.activations import Activation
from tidepool.kernels.conv.choose import bind_forward, bind_forward_with_norm
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
from tidepool.kernels.device.norm import load_row, normalised
from tidepool.kernels.device.windows import fold, start_fold, window_pixel, write_outputs
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.norm_epilogue import normalise_operand, statistics_operand, without_activation
from tidepool.kernels.runtime.errors import ArgumentError
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import (
    Layout,
    Prepared,
    accumulator,
    launch_nothing,
    launch_prepared,
    offset_type,
    operand_kind,
)
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.tiles.dense import FEW_REGISTERS, DepthwiseTile, ForwardTile, depthwise_tile, forward_tile
from tidepool.kernels.tiles.norm import NormTile, norm_tile


@kernel
def conv_norm_act_normalise_kernel(
    z_ptr, coefficients_ptr, y_ptr, code_ptr, residual_ptr,
    num_outputs, conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_zn, stride_zk, stride_zd, stride_zh, stride_zw,
    stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    stride_rn, stride_rk, stride_rd, stride_rh, stride_rw,
    G: tl.constexpr, WRITTEN: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K channels at BLOCK_P pooled outputs.
    NUM_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    Y_DTYPE: tl.constexpr = y_ptr.dtype.element_ty
    offs_k = (remainder(tl.program_id(0), NUM_K) * BLOCK_K + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = channel_mask(offs_k, BLOCK_K, G.filters)
    offs_p = quotient(tl.program_id(0), NUM_K).to(OFFSET) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_p = offs_p < num_outputs
    n, od, oh, ow = split_index(offs_p, out_d, out_h, out_w, G)
    mean = load_row(coefficients_ptr, offs_k, mask_k, ACC)[:, None]
    scale = load_row(coefficients_ptr + 2 * G.filters, offs_k, mask_k, ACC)[:, None]
    shift = load_row(coefficients_ptr + 3 * G.filters, offs_k, mask_k, ACC)[:, None]
    from_k = (offs_k * stride_zk)[:, None]
    best, code, winner = start_fold(BLOCK_K, BLOCK_P, ACC, G)
    for element in range(G.window):
        pd, ph, pw = window_pixel(od, oh, ow, element, G)
        exists = mask_p
        if G.partial_windows:
            exists = exists & inside(pd, ph, pw, conv_d, conv_h, conv_w, G)
        mask = mask_k[:, None] & exists[None, :]
        at = n * stride_zn + offset_of(pd, ph, pw, stride_zd, stride_zh, stride_zw, G)
        z = widen(load_operand(z_ptr, from_k + at[None, :], mask, ACC), ACC)
        u = normalised(z, mean, scale, shift)
        if residual_ptr is not None:
            at = n * stride_rn + offset_of(pd, ph, pw, stride_rd, stride_rh, stride_rw, G)
            at = at[None, :] + (offs_k * stride_rk)[:, None]
            u += widen(load_operand(residual_ptr, at, mask, ACC), ACC)
        u = widen(round_to(u, Y_DTYPE), ACC)  # [BLOCK_K, BLOCK_P]
        best, code, winner = fold(best, code, winner, u, element, exists, None, Y_DTYPE, G)
    write_outputs(
        y_ptr, code_ptr, code_ptr, best, code, winner,
        offs_k, mask_k, n, od, oh, ow, mask_p, conv_d, conv_h, conv_w,
        stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
        stride_en, stride_ek, stride_ed, stride_eh, stride_ew, WRITTEN, SAVE,
    )  # fmt: skip


@dataclass(frozen=True)
class NormedLayer:
    """A layer's two stages: the convolution up to z, and the norm from z (a 1-wide convolution's geometry) to y."""

    conv: Geometry
    conv_shapes: Shapes
    norm: Geometry
    norm_shapes: Shapes

    @property
    def written(self) -> Geometry:
        """What the normalise kernel writes outputs by: z is kept whole, and no winner's pre-activation besides."""
        return without_activation(self.norm) if self.norm.activation.needs_value else self.norm


def saves_code(norm: Geometry, has_residual: bool) -> bool:
    """Whether backward needs a code per output: a window's winner, or the side of a sum that z alone does not give."""
    return norm.pool == "max" or (norm.pool == "none" and norm.activation.needs_side and has_residual)


def saves_residual(activation: Activation, pool: str) -> bool:
    """Whether backward needs the residual again, for an activation's slope that no code stands for."""
    return activation.needs_value or (activation.needs_side and pool == "avg")


def convolution_tile(
    geometry: Geometry, shapes: Shapes, dtype: torch.dtype, device: torch.device
) -> ForwardTile | DepthwiseTile:
    """The tile of a convolution with a norm in its epilogue: `conv_relu_pool`'s, with a shorter step on GPUs where the
    rows of the norm do not fit the registers beside it (8 to 16 bytes of spills on sm_80 and sm_86)."""
    kind, target = operand_kind(dtype, device), mode_of(device).target
    if geometry.depthwise:
        return depthwise_tile(geometry, geometry.rows, shapes.num_outputs, target)
    tile = forward_tile(geometry, shapes.num_outputs, target, kind)
    if target in FEW_REGISTERS and kind == "half" and tile.block_k * tile.block_p * tile.joint >= 64 * 64:
        return replace(tile, block_c=16)
    return tile


@dataclass(frozen=True)
class Parts:
    """How many parts of z's pixels the convolution writes statistics of, and the pixels of each but the last."""

    count: int
    pixels: int


def statistics_parts(dtype: torch.dtype, device: torch.device, layer: NormedLayer) -> Parts:
    """The parts that the convolution of such tensors is made in."""
    tile = convolution_tile(layer.conv, layer.conv_shapes, dtype, device)
    return Parts(triton.cdiv(layer.conv_shapes.num_outputs, tile.block_p), tile.block_p)


def bind_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor,
    code: Tensor | None,
    parts: Tensor | None,
    layer: NormedLayer,
) -> Callable[..., None]:
    """The convolution (+ pool) into z, and its winners' codes into `code`, made ready for tensors of these layouts and
    dtypes: a function of (x, weight, bias, z, code, parts). `parts` (parts, 2, K) takes statistics of z; None: no
    statistics."""
    geometry, shapes = layer.conv, layer.conv_shapes
    if parts is None:
        launch_alone = bind_forward(x, weight, bias, z, code, None, geometry, shapes)
        return lambda x, weight, bias, z, code, _: launch_alone(x, weight, bias, z, code, None, None)
    tile = convolution_tile(geometry, shapes, x.dtype, x.device)
    launch = bind_forward_with_norm(x, weight, bias, z, code, geometry, shapes, tile, statistics_operand(parts))
    return lambda x, weight, bias, z, code, parts: launch(x, weight, bias, z, code, (parts,))


def bind_normalise(
    z: Tensor,
    residual: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    layer: NormedLayer,
    tile: NormTile | None = None,
) -> Callable[..., None]:
    """Norm + residual + activation + pool of z (N, K, *spatial) into y and `code` (None: not saved), made ready for
    tensors of these layouts and dtypes: a function of (z, coefficients, residual, y, code)."""
    if y.numel() == 0:
        return launch_nothing
    tile = tile or norm_tile(z.shape[1], layer.norm_shapes.num_outputs, z.stride(1) == 1, mode_of(z.device).target)
    prepared = _prepare(
        layer, z.dtype, tile, layout_of(z), layout_of(y), None if code is None else layout_of(code),
        None if residual is None else layout_of(residual),
    )  # fmt: skip

    def launch_normalise(
        z: Tensor, coefficients: Tensor, residual: Tensor | None, y: Tensor, code: Tensor | None
    ) -> None:
        given = (z, coefficients, y, y if code is None else code, residual)
        launch_prepared(conv_norm_act_normalise_kernel, prepared, *given)

    return launch_normalise


@functools.lru_cache(maxsize=4096)
def _prepare(
    layer: NormedLayer,
    dtype: torch.dtype,
    tile: NormTile,
    z: Layout,
    y: Layout,
    code: Layout | None,
    residual: Layout | None,
) -> Prepared:
    shapes = layer.norm_shapes
    tiles = triton.cdiv(layer.norm.filters, tile.block_k) * triton.cdiv(shapes.num_outputs, tile.block_p)
    scalars = (
        shapes.num_outputs, *shapes.conv, *shapes.output,
        *five_strides(z), *five_strides(y), *five_strides(code or y), *five_strides(residual or z),
    )  # fmt: skip
    keywords = {
        "G": layer.norm, "WRITTEN": layer.written, "ACC": accumulator(dtype),
        "OFFSET": offset_type(z, y, code, residual), "SAVE": code is not None,
        "BLOCK_K": tile.block_k, "BLOCK_P": tile.block_p, "num_warps": tile.warps,
    }  # fmt: skip
    return Prepared((tiles,), scalars, keywords)


def bind_inference(
    x: Tensor,
    weight: Tensor,
    conv_bias: Tensor | None,
    norm: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    residual: Tensor | None,
    y: Tensor,
    layer: NormedLayer,
    eps: float,
) -> Callable[..., None]:
    """The whole layer into y with running statistics, in one kernel, where y is of x's dtype, made ready for tensors of
    these layouts and dtypes: a function of (x, weight, conv_bias, norm, residual, y).

    `norm`: weight, bias, running mean and running variance (K,). Raises ArgumentError without the last two.
    """
    norm_weight, norm_bias, mean, variance = norm
    if mean is None or variance is None:
        raise ArgumentError("running_mean and running_var must be defined in evaluation mode, but got None")
    first = layer.conv.pool != "none"
    geometry, shapes = (layer.conv, layer.conv_shapes) if first else _joined(layer)
    operand = normalise_operand(mean, variance, norm_weight, norm_bias, residual, eps, layer.norm if first else None)
    strides = operand.operands[5:]
    tile = convolution_tile(geometry, shapes, x.dtype, x.device)
    launch = bind_forward_with_norm(x, weight, conv_bias, y, None, geometry, shapes, tile, operand)

    def launch_inference(
        x: Tensor,
        weight: Tensor,
        conv_bias: Tensor | None,
        norm: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
        residual: Tensor | None,
        y: Tensor,
    ) -> None:
        norm_weight, norm_bias, mean, variance = (None if t is None else t.contiguous() for t in norm)
        launch(x, weight, conv_bias, y, None, (mean, variance, norm_weight, norm_bias, residual, *strides))

    return launch_inference


@functools.lru_cache(maxsize=4096)
def _joined(layer: NormedLayer) -> tuple[Geometry, Shapes]:
    """The convolution with the norm's activation and pool behind it, as one layer."""
    names = [f.name for f in fields(Geometry) if f.name.startswith(("window", "pool_"))]
    names += ["activation", "pool", "partial_windows", "count_include_pad"]
    window = {name: getattr(layer.norm, name) for name in names}
    shapes = layer.conv_shapes
    joined = Shapes(shapes.batch, shapes.input, shapes.conv, layer.norm_shapes.output)
    return replace(layer.conv, **window), joined
