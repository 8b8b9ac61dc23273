"""`backend="auto"`: the operators that run a layer as a `LayerPlan` says.

    conv_relu_pool_auto              decides, then is either eager PyTorch or the next one; takes no part in a graph
    conv_relu_pool_planned           y; saves nothing
    conv_relu_pool_planned_forward   y and what backward needs
    conv_relu_pool_planned_backward  the gradients that are asked for, empty where not

`conv_relu_pool_auto` is a composite: torch.compile traces through it, so that a layer that runs eagerly is fused by
Inductor like any other code, and a planned one is a node of the graph with its plan as a constant. Sizes that are
symbolic there, forward mode and `torch.func` transforms run eagerly.
"""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from kernels import operator_implementations as implementations
from kernels.arguments import Layer, layer_from_text
from kernels.launch import operand_kind
from kernels.layer_call import LayerCall, layer_call
from kernels.memory_format import empty_in_format, output_format
from kernels.operator_autograd import (
    apply,
    asked_for,
    autograd_internal,
    edges_to,
    is_differentiated,
    is_smooth,
    may_record,
    record_backward,
)
from kernels.operator_implementations import may_skip_dispatcher, or_nothing
from kernels.plan import LayerPlan, decide, is_given, plan_from_text
from kernels.plan_table import generation
from kernels.planned_layer import PlannedLayer, planned_layer
from kernels.pooling import AvgPool, MaxPool, Pool
from kernels.reference import conv_relu_pool_reference
from kernels.runtime import INTERPRETED

_LIBRARY = torch.library.Library("tidepool", "FRAGMENT")
_LIBRARY.define("conv_relu_pool_auto(Tensor x, Tensor weight, Tensor? bias, str layer) -> Tensor")
_LIBRARY.define("conv_relu_pool_planned(Tensor x, Tensor weight, Tensor? bias, str layer, str plan) -> Tensor")
_LIBRARY.define(
    "conv_relu_pool_planned_forward(Tensor x, Tensor weight, Tensor? bias, str layer, str plan) "
    "-> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "conv_relu_pool_planned_backward(Tensor grad, Tensor code, Tensor saved, Tensor? x, Tensor weight, Tensor? bias, "
    "SymInt[] x_size, bool channels_last, bool needs_x, bool needs_weight, bool needs_bias, str layer, str plan) "
    "-> (Tensor, Tensor, Tensor)"
)
ops = torch.ops.tidepool


def is_planned(x: Any) -> bool:
    """Whether "auto" decides for this tensor, or is eager PyTorch: where kernels are compiled, on a GPU; where they are
    interpreted, on a CPU and by a plan given by hand only."""
    on_gpu = getattr(x, "is_cuda", False)
    return is_given() and not on_gpu if INTERPRETED else on_gpu


# --- Deciding --------------------------------------------------------------------------------------------------------


class _Ready(NamedTuple):
    """A decision with all that a call on plain tensors needs of it."""

    plan: LayerPlan
    text: str
    layer: PlannedLayer


def call_planned_directly(x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall) -> Tensor:
    """What `ops.conv_relu_pool_auto` would do with plain tensors outside of every mode."""
    has_bias = bias is not None
    if is_given():
        ready = _ready(call, has_bias)
    else:
        ready = _ready_by_tables(call, has_bias, operand_kind(x.dtype), generation())
    if not _is_recorded(x, weight, bias):
        if ready.plan.inference.way == "eager":
            return _eager(x, weight, bias, call.layer)
        return ready.layer.infer(x, weight, bias)
    if _step(ready.plan, x) == "eager":
        return _eager(x, weight, bias, call.layer)
    return _record(x, weight, bias, call.layer, ready.text, ready.layer)


def _ready(call: LayerCall, has_bias: bool) -> _Ready:
    plan = decide(call, has_bias, call.y.dtype).plan
    return _Ready(plan, plan.text(), planned_layer(call, plan))


@functools.lru_cache(maxsize=4096)
def _ready_by_tables(call: LayerCall, has_bias: bool, operands: str, generation: int) -> _Ready:
    """Keyed by identity and words: hashing a plan at every call would cost more than looking it up."""
    return _ready(call, has_bias)


def _auto(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    sizes = (*x.shape, *weight.shape, *x.stride(), *weight.stride())
    if (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or any(isinstance(size, torch.SymInt) for size in sizes)
    ):
        return _eager(x, weight, bias, layer)
    plan = decide(layer_call(x, weight, layer), bias is not None, _dtype(x)).plan
    recorded = _is_recorded(x, weight, bias)
    if (_step(plan, x) if recorded else plan.inference.way) == "eager":
        return _eager(x, weight, bias, layer)
    return ops.conv_relu_pool_planned(x, weight, bias, layer, plan.text())


def _is_recorded(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )


def _step(plan: LayerPlan, x: Tensor) -> str:
    return plan.train if x.requires_grad else plan.train_without_dx


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype the layer will run in."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def _eager(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    return conv_relu_pool_reference(x, weight, bias, **_settings(layer))


@functools.cache
def _settings(layer: str) -> dict[str, Any]:
    """A layer's settings as `conv_relu_pool_reference` takes them."""
    settings = layer_from_text(layer)
    rank = len(settings.stride)
    low, high = settings.padding[:rank], settings.padding[rank:]
    return {
        "stride": settings.stride,
        "padding": low if low == high else "same",  # the only padding with unequal sides
        "dilation": settings.dilation,
        "groups": settings.groups,
        "activation": None if settings.activation == "none" else settings.activation,
        "pool": _pool(settings),
    }


def _pool(settings: Layer) -> Pool:
    window, stride, padding = settings.window, settings.pool_stride, settings.pool_padding
    if settings.pool == "max":
        return MaxPool(window, stride, padding, settings.pool_dilation, settings.ceil_mode)
    if settings.pool == "avg":
        return AvgPool(window, stride, padding, settings.ceil_mode, settings.count_include_pad)
    return None


# --- Autograd --------------------------------------------------------------------------------------------------------


class PlannedConvReLUPool(_SingleLevelFunction):
    """Saves what the fused operator saves. `direct`: the layer of plain tensors, called without the dispatcher."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str, direct: PlannedLayer | None
    ) -> Tensor:
        code: Tensor | None
        winner: Tensor | None
        if direct is not None:
            y, code, winner = direct.forward(x, weight, bias)
            smooth, again = direct.call.geometry.smooth, direct.call.smooth_average
        else:
            y, code, winner = ops.conv_relu_pool_planned_forward(x, weight, bias, layer, plan)
            smooth = is_smooth(layer)
            again = smooth and layer_from_text(layer).pool == "avg"
            ctx.channels_last = output_format(x)
        x_needed = ctx.needs_input_grad[1] or again
        kept_bias = bias.detach().clone() if again and bias is not None else None  # bias may be edited after forward
        ctx.save_for_backward(x if x_needed else None, weight, kept_bias, code, winner)
        ctx.set_materialize_grads(False)
        ctx.x_size, ctx.layer, ctx.plan, ctx.direct = x.shape, layer, plan, direct
        ctx.edges = edges_to(None if x_needed else x, bias) if smooth else None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None, None, None, None, None
        recording = torch.is_grad_enabled()
        if recording and ctx.edges is not None and may_record():
            return record_backward(PlannedConvReLUPool.backward, ctx, grad)
        x, weight, bias, code, saved = ctx.saved_tensors
        needs, direct = asked_for(ctx), ctx.direct
        if direct is not None and not recording and may_skip_dispatcher(grad):
            return *direct.backward(grad, code, saved, x, weight, bias, needs), None, None, None
        channels_last = direct.call.x_channels_last if direct is not None else ctx.channels_last
        gradients = ops.conv_relu_pool_planned_backward(
            grad,
            or_nothing(code, grad),
            or_nothing(saved, grad),
            x,
            weight,
            bias,
            ctx.x_size,
            channels_last,
            *needs,
            ctx.layer,
            ctx.plan,
        )
        return *(t if needed else None for t, needed in zip(gradients, needs, strict=True)), None, None, None


_record: Any = PlannedConvReLUPool.apply  # type: ignore[attr-defined]


def _autograd(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str) -> Tensor:
    if is_differentiated(x, weight, bias):
        return apply(PlannedConvReLUPool, x, weight, bias, layer, plan, None)
    with torch._C._AutoDispatchBelowAutograd():
        return ops.conv_relu_pool_planned(x, weight, bias, layer, plan)


def _autocast(device_type: str) -> Any:
    def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
            return tensor
        return tensor.to(dtype)

    def autocast(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str) -> Tensor:
        dtype = torch.get_autocast_dtype(device_type)
        with torch.autocast(device_type, enabled=False):
            return ops.conv_relu_pool_planned(cast(x, dtype), cast(weight, dtype), cast(bias, dtype), layer, plan)

    return autocast


# --- Implementations -------------------------------------------------------------------------------------------------


def _layer(x: Tensor, weight: Tensor, layer: str, plan: str) -> PlannedLayer:
    return planned_layer(layer_call(x, weight, layer), plan_from_text(plan))


def _infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str) -> Tensor:
    return _layer(x, weight, layer, plan).infer(x, weight, bias)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str) -> tuple[Tensor, Tensor, Tensor]:
    y, code, winner = _layer(x, weight, layer, plan).forward(x, weight, bias)
    return y, or_nothing(code, x), or_nothing(winner, x)


def _backward(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    x_size: list[int],
    channels_last: bool,
    needs_x: bool,
    needs_weight: bool,
    needs_bias: bool,
    layer: str,
    plan: str,
) -> tuple[Tensor, Tensor, Tensor]:
    like = x if x is not None else empty_in_format(x_size, grad, channels_last)
    given = [t if t.dim() > 1 else None for t in (code, saved)]
    planned, needs = _layer(like, weight, layer, plan), (needs_x, needs_weight, needs_bias)
    dx, dweight, dbias = planned.backward(grad, given[0], given[1], x, weight, bias, needs)
    return or_nothing(dx, grad), or_nothing(dweight, grad), or_nothing(dbias, grad)


def _fake_infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str) -> Tensor:
    return implementations.fake_infer(x, weight, bias, layer)


def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str
) -> tuple[Tensor, Tensor, Tensor]:
    return implementations.fake_forward(x, weight, bias, layer)


def _fake_backward(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    x_size: list[int],
    channels_last: bool,
    needs_x: bool,
    needs_weight: bool,
    needs_bias: bool,
    layer: str,
    plan: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = empty_in_format(tuple(x_size), grad, channels_last) if needs_x else None
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    return or_nothing(dx, grad), or_nothing(dweight, grad), or_nothing(dbias, grad)


_LIBRARY.impl("conv_relu_pool_auto", _auto, "CompositeImplicitAutograd")
for _name, _real, _fake in (
    ("conv_relu_pool_planned", _infer, _fake_infer),
    ("conv_relu_pool_planned_forward", _forward, _fake_forward),
    ("conv_relu_pool_planned_backward", _backward, _fake_backward),
):
    _LIBRARY.impl(_name, _real, "CPU")
    _LIBRARY.impl(_name, _real, "CUDA")
    torch.library.register_fake(f"tidepool::{_name}", _fake, lib=_LIBRARY)
    if _name != "conv_relu_pool_planned":
        _LIBRARY.impl(_name, autograd_internal(getattr(ops, _name).default), "Autograd")
_LIBRARY.impl("conv_relu_pool_planned", _autograd, "Autograd")
_LIBRARY.impl("conv_relu_pool_planned", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("conv_relu_pool_planned", _autocast("cuda"), "AutocastCUDA")
