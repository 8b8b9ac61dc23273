"""`squeeze_excite`: every channel of every image times the sigmoid of its gate, and its backward.

    y = x * s        dx = grad * s        dgate = s (1 - s) sum over pixels of grad * x        s = 1 / (1 + e^-gate)

Forward is one pass. Backward is one pass over grad and x that writes dx and each program's sums, and a small kernel
that adds the sums up in a fixed order.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction

from tidepool.kernels.device.arithmetic import (
    load_operand,
    offset_of,
    quotient_up,
    round_to,
    split_index,
    summed,
    widen,
)
from tidepool.kernels.device.norm import load_row
from tidepool.kernels.dispatch.differentiate import apply, recorded_outside, will_run
from tidepool.kernels.dispatch.register import register
from tidepool.kernels.layer.arguments import check_backend
from tidepool.kernels.layer.dtypes import TAKEN
from tidepool.kernels.operators.conv_implementations import check_device, or_nothing
from tidepool.kernels.ops.images import (
    empty_sums,
    image_grid,
    image_keywords,
    image_rows,
    image_scalars,
    image_strides,
    image_tile,
    reduce_image_sums,
)
from tidepool.kernels.oracle.reference import squeeze_excite_reference
from tidepool.kernels.runtime.errors import ArgumentError
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import launch

_OP = "squeeze_excite"


@kernel
def squeeze_excite_kernel(
    x_ptr, gate_ptr, y_ptr,
    channels, pixels, pixels_per_split, size_d, size_h, size_w,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw, stride_sn, stride_sc,
    stride_yn, stride_yc, stride_yd, stride_yh, stride_yw,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: y of BLOCK_C channels of one image over one share of its pixels.
    n, offs_c, mask_c = image_rows(channels, BLOCK_C)
    offs_c = offs_c.to(OFFSET)
    gate = load_row(gate_ptr + n * stride_sn, offs_c * stride_sc, mask_c, ACC)
    factor = (1.0 / (1.0 + tl.exp(-gate)))[:, None]
    start = tl.program_id(1) * pixels_per_split
    for step in range(quotient_up(pixels_per_split, BLOCK_P)):
        offs_p = (start + step * BLOCK_P + tl.arange(0, BLOCK_P)).to(OFFSET)
        mask_p = (offs_p < pixels) & (offs_p < start + pixels_per_split)
        _, d, h, w = split_index(offs_p, size_d, size_h, size_w, G)
        mask = mask_c[:, None] & mask_p[None, :]
        at = offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G)[None, :] + (offs_c * stride_xc)[:, None]
        y = widen(load_operand(x_ptr + n * stride_xn, at, mask, ACC), ACC) * factor
        at = offset_of(d, h, w, stride_yd, stride_yh, stride_yw, G)[None, :] + (offs_c * stride_yc)[:, None]
        tl.store(y_ptr + n * stride_yn + at, round_to(y, y_ptr.dtype.element_ty), mask=mask)


@kernel
def squeeze_excite_backward_kernel(
    grad_ptr, x_ptr, gate_ptr, dx_ptr, workspace_ptr,
    channels, pixels, pixels_per_split, size_d, size_h, size_w, num_rows,
    stride_gn, stride_gc, stride_gd, stride_gh, stride_gw,
    stride_xn, stride_xc, stride_xd, stride_xh, stride_xw, stride_sn, stride_sc,
    stride_yn, stride_yc, stride_yd, stride_yh, stride_yw,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # One program: dx (strides y) and the sum of grad * x of BLOCK_C channels of one image over one share of its pixels.
    n, offs_c, mask_c = image_rows(channels, BLOCK_C)
    offs_c = offs_c.to(OFFSET)
    gate = load_row(gate_ptr + n * stride_sn, offs_c * stride_sc, mask_c, ACC)
    factor = (1.0 / (1.0 + tl.exp(-gate)))[:, None]
    row = n * channels + offs_c
    total = tl.zeros([BLOCK_C, BLOCK_P], dtype=ACC)
    start = tl.program_id(1) * pixels_per_split
    for step in range(quotient_up(pixels_per_split, BLOCK_P)):
        offs_p = (start + step * BLOCK_P + tl.arange(0, BLOCK_P)).to(OFFSET)
        mask_p = (offs_p < pixels) & (offs_p < start + pixels_per_split)
        _, d, h, w = split_index(offs_p, size_d, size_h, size_w, G)
        mask = mask_c[:, None] & mask_p[None, :]
        at = offset_of(d, h, w, stride_gd, stride_gh, stride_gw, G)[None, :] + (offs_c * stride_gc)[:, None]
        grad = widen(load_operand(grad_ptr + n * stride_gn, at, mask, ACC), ACC)
        if dx_ptr is not None:
            at = offset_of(d, h, w, stride_yd, stride_yh, stride_yw, G)[None, :] + (offs_c * stride_yc)[:, None]
            dx = round_to(grad * factor, dx_ptr.dtype.element_ty)
            tl.store(dx_ptr + n * stride_yn + at, dx, mask=mask)
        if workspace_ptr is not None:
            at = offset_of(d, h, w, stride_xd, stride_xh, stride_xw, G)[None, :] + (offs_c * stride_xc)[:, None]
            total += grad * widen(load_operand(x_ptr + n * stride_xn, at, mask, ACC), ACC)
    if workspace_ptr is not None:
        tl.store(workspace_ptr + tl.program_id(1) * num_rows + row, summed(total, 1), mask=mask_c)


def _forward(x: Tensor, gate: Tensor) -> Tensor:
    check_device(x)
    return excite(x, gate)


def excite(x: Tensor, gate: Tensor) -> Tensor:
    """Launch forward: y, in x's memory format."""
    y = _fake_forward(x, gate)
    if y.numel() == 0:
        return y
    tile = image_tile(x)
    launch(
        squeeze_excite_kernel, image_grid(x, tile),
        x, gate, y, *image_scalars(x, tile), *image_strides(x), *gate.stride()[:2], *image_strides(y),
        **image_keywords(x, tile, y, gate),
    )  # fmt: skip
    return y


def _fake_forward(x: Tensor, gate: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.promote_types(x.dtype, gate.dtype))


def _backward(grad: Tensor, x: Tensor, gate: Tensor, needs_x: bool, needs_gate: bool) -> tuple[Tensor, Tensor]:
    check_device(grad)
    return excite_backward(grad, x, gate, needs_x, needs_gate)


def excite_backward(grad: Tensor, x: Tensor, gate: Tensor, needs_x: bool, needs_gate: bool) -> tuple[Tensor, Tensor]:
    """Launch backward: dx in x's memory format and dgate, each empty where it is not needed."""
    dx, dgate = _empty_gradients(x, gate, needs_x, needs_gate)
    if x.numel() == 0:
        return or_nothing(dx, grad), or_nothing(None if dgate is None else dgate.zero_(), grad)
    tile = image_tile(x)
    sums = empty_sums(x, tile, grad.dtype == torch.float64) if needs_gate else None
    like = x if dx is None else dx
    launch(
        squeeze_excite_backward_kernel, image_grid(x, tile),
        grad, x, gate, dx, sums, *image_scalars(x, tile), x.shape[0] * x.shape[1],
        *image_strides(grad), *image_strides(x), *gate.stride()[:2], *image_strides(like),
        **image_keywords(grad, tile, x, like, gate),
    )  # fmt: skip
    if sums is not None and dgate is not None:
        reduce_image_sums(dgate, sums, 1, gate)
    return or_nothing(dx, grad), or_nothing(dgate, grad)


def _empty_gradients(x: Tensor, gate: Tensor, needs_x: bool, needs_gate: bool) -> tuple[Tensor | None, Tensor | None]:
    dx = torch.empty_like(x) if needs_x else None
    return dx, gate.new_empty(gate.shape) if needs_gate else None


def _fake_backward(grad: Tensor, x: Tensor, gate: Tensor, needs_x: bool, needs_gate: bool) -> tuple[Tensor, Tensor]:
    dx, dgate = _empty_gradients(x, gate, needs_x, needs_gate)
    return or_nothing(dx, grad), or_nothing(dgate, grad)


class _SqueezeExcite(_SingleLevelFunction):
    """Saves x where the gate needs a gradient, and the gate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate)
        ctx.set_materialize_grads(False)
        with recorded_outside():
            return ops.squeeze_excite(x, gate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None
        edges = zip(ctx.needs_input_grad, ctx.next_functions, strict=False)
        asked = [needs and will_run(node) for needs, (node, _) in edges] + [False] * 2
        dx, dgate = ops.squeeze_excite_backward(grad, *ctx.saved_tensors, asked[0], asked[1])
        return dx if asked[0] else None, dgate if asked[1] else None


register(
    "squeeze_excite(Tensor x, Tensor gate) -> Tensor",
    op=_OP, real=_forward, fake=_fake_forward, record=lambda x, gate: apply(_SqueezeExcite, x, gate, op=_OP),
)  # fmt: skip
register(
    "squeeze_excite_backward(Tensor grad, Tensor x, Tensor gate, bool needs_x, bool needs_gate) -> (Tensor, Tensor)",
    op=_OP, real=_backward, fake=_fake_backward,
)  # fmt: skip
ops = torch.ops.tidepool


def squeeze_excite(x: Tensor, gate: Tensor, *, backend: str = "auto") -> Tensor:
    """y = x * sigmoid(gate): x (N, C, *spatial), gate (N, C, 1, ...) the logits; y as x, dtypes promoted.

    One to three spatial dimensions. `backend` as for `conv_norm_act`. Raises ArgumentError that names the argument.
    """
    check_backend(backend)
    _check(x, gate)
    if backend == "triton":
        with recorded_outside():
            return ops.squeeze_excite(x, gate)
    return (_compiled_reference() if backend == "compile" else squeeze_excite_reference)(x, gate)


def _check(x: Tensor, gate: Tensor) -> None:
    for name, value in (("x", x), ("gate", gate)):
        if not isinstance(value, Tensor):
            raise TypeError(f"expected {name} to be a Tensor, but got {type(value).__name__}")
        if value.dtype not in TAKEN or value.layout != torch.strided:
            raise ArgumentError(
                f"expected {name} to be a dense tensor of float16, bfloat16, float32 or float64, but got {value.dtype} "
                f"of layout {value.layout}"
            )
    if x.dim() not in (3, 4, 5):
        raise ArgumentError(f"expected x to be (N, C, *spatial) with 3, 4 or 5 dimensions, but got {list(x.shape)}")
    expected = [*x.shape[:2], *[1] * (x.dim() - 2)]
    if list(gate.shape) != expected:
        raise ArgumentError(
            f"expected gate to have size {expected} for x of size {list(x.shape)}, but got {list(gate.shape)}"
        )
    if gate.device != x.device:
        raise ArgumentError(
            f"expected x and gate to be on the same device, but x is on {x.device} and gate on {gate.device}"
        )


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(squeeze_excite_reference)
