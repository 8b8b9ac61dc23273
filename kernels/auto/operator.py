"""`backend="auto"`: the operators that run a layer as a `LayerPlan` says.

    conv_act_pool_auto              decides, then is either eager PyTorch or the next one; takes no part in a graph
    conv_act_pool_planned           y; saves nothing
    conv_act_pool_planned_forward   y and what backward needs
    conv_act_pool_planned_slope     of an activation with a learned slope: gradients at the values that were kept or are
                                    computed again (`layer.learned_slope`), and of the slope
    conv_act_pool_planned_backward  the gradients that are asked for, empty where not

`conv_act_pool_auto` is a composite: torch.compile traces through it, so that a layer that runs eagerly is fused by
Inductor like any other code, and a planned one is a node of the graph with its plan as a constant. Sizes that are
symbolic there, forward mode and `torch.func` transforms run eagerly.
"""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from tidepool.kernels.activations import Activation
from tidepool.kernels.auto.layer import PlannedLayer, planned_layer
from tidepool.kernels.auto.plan import LayerPlan, decide, is_given, plan_from_text
from tidepool.kernels.auto.table import generation
from tidepool.kernels.dispatch.differentiate import (
    apply,
    asked_for,
    copied_bias,
    edges_to,
    last_asked_for,
    may_record,
    record_backward,
    recorded_outside,
)
from tidepool.kernels.dispatch.register import register, register_composite
from tidepool.kernels.layer.formats import empty_in_format, output_format
from tidepool.kernels.layer.learned_slope import behind_slope
from tidepool.kernels.layer.pooling import AvgPool, MaxPool, Pool
from tidepool.kernels.layer.settings import Layer, layer_from_text
from tidepool.kernels.operators import conv_implementations as implementations
from tidepool.kernels.operators.call import LayerCall, layer_call
from tidepool.kernels.operators.conv_autograd import OP
from tidepool.kernels.operators.conv_implementations import may_skip_dispatcher, or_nothing
from tidepool.kernels.operators.flops import conv_flops, planned_backward_flops
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.runtime.launch import operand_kind
from tidepool.kernels.runtime.mode import is_interpreted

ops = torch.ops.tidepool


def is_planned(x: Any) -> bool:
    """Whether "auto" decides for this tensor, or is eager PyTorch: where kernels are compiled, on a GPU; where they are
    interpreted, on a CPU and by a plan given by hand only."""
    if getattr(x, "is_cuda", False):
        return not is_interpreted(x.device) or is_given()
    return is_given() and is_interpreted(x.device)


# --- Deciding --------------------------------------------------------------------------------------------------------


class _Ready(NamedTuple):
    """A decision with all that a call on plain tensors needs of it."""

    plan: LayerPlan
    text: str
    layer: PlannedLayer


def call_planned_directly(
    x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall, slope: Tensor | None = None
) -> Tensor:
    """What `ops.conv_act_pool_auto` would do with plain tensors outside of every mode."""
    has_bias = bias is not None
    if is_given():
        ready = _ready(call, has_bias)
    else:
        ready = _ready_by_tables(call, has_bias, operand_kind(x.dtype, call.y.device), generation())
    if not _is_recorded(x, weight, bias, slope):
        if ready.plan.inference.way == "eager":
            return _eager(x, weight, bias, call.layer, slope)
        return ready.layer.infer(x, weight, bias, slope)
    if _step(ready.plan, x) == "eager":
        return _eager(x, weight, bias, call.layer, slope)
    given = () if slope is None else (slope,)
    return _record(x, weight, bias, call.layer, ready.text, ready.layer, *given)


def _ready(call: LayerCall, has_bias: bool) -> _Ready:
    plan = decide(call, has_bias, call.y.dtype).plan
    return _Ready(plan, plan.text(), planned_layer(call, plan))


@functools.lru_cache(maxsize=4096)
def _ready_by_tables(call: LayerCall, has_bias: bool, operands: str, generation: int) -> _Ready:
    """Keyed by identity and words: hashing a plan at every call would cost more than looking it up."""
    return _ready(call, has_bias)


def _auto(x: Tensor, weight: Tensor, bias: Tensor | None, text: str, slope: Tensor | None = None) -> Tensor:
    layer = layer_from_text(text)
    sizes = (*x.shape, *weight.shape, *x.stride(), *weight.stride())
    if (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or any(isinstance(size, torch.SymInt) for size in sizes)
    ):
        return _eager(x, weight, bias, layer, slope)
    plan = decide(layer_call(x, weight, layer), bias is not None, _dtype(x)).plan
    recorded = _is_recorded(x, weight, bias, slope)
    if (_step(plan, x) if recorded else plan.inference.way) == "eager":
        return _eager(x, weight, bias, layer, slope)
    return ops.conv_act_pool_planned(x, weight, bias, text, plan.text(), slope)


def _is_recorded(x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad
        or weight.requires_grad
        or (bias is not None and bias.requires_grad)
        or (slope is not None and slope.requires_grad)
    )


def _step(plan: LayerPlan, x: Tensor) -> str:
    return plan.train if x.requires_grad else plan.train_without_dx


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype the layer will run in."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def _eager(x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer, slope: Tensor | None) -> Tensor:
    settings = _settings(layer)
    if slope is not None:
        settings = {**settings, "activation": Activation(settings["activation"].name, slope)}
    return conv_act_pool_reference(x, weight, bias, **settings)


@functools.cache
def _settings(layer: Layer) -> dict[str, Any]:
    """A layer's settings as `conv_act_pool_reference` takes them."""
    rank = len(layer.stride)
    low, high = layer.padding[:rank], layer.padding[rank:]
    return {
        "stride": layer.stride,
        "padding": low if low == high else "same",  # the only padding with unequal sides
        "dilation": layer.dilation,
        "groups": layer.groups,
        "activation": layer.activation,
        "pool": _pool(layer),
    }


def _pool(settings: Layer) -> Pool:
    window, stride, padding = settings.window, settings.pool_stride, settings.pool_padding
    if settings.pool == "max":
        return MaxPool(window, stride, padding, settings.pool_dilation, settings.ceil_mode)
    if settings.pool == "avg":
        return AvgPool(window, stride, padding, settings.ceil_mode, settings.count_include_pad)
    return None


# --- Autograd --------------------------------------------------------------------------------------------------------


class PlannedConvActPool(_SingleLevelFunction):
    """Saves what the fused operator saves. `direct`: the layer of plain tensors, called without the dispatcher."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layer: Layer,
        plan: str,
        direct: PlannedLayer | None,
        slope: Tensor | None = None,
    ) -> Tensor:
        code: Tensor | None
        winner: Tensor | None
        if direct is not None:
            y, code, winner = direct.forward(x, weight, bias, slope)
        else:
            with recorded_outside():
                y, code, winner = ops.conv_act_pool_planned_forward(x, weight, bias, layer.text(), plan, slope)
            ctx.channels_last = output_format(x)
        again = layer.smooth_average
        x_needed = ctx.needs_input_grad[1] or again
        kept_bias = copied_bias(bias) if again else None
        ctx.save_for_backward(x if x_needed else None, weight, kept_bias, code, winner, slope)
        ctx.set_materialize_grads(False)
        ctx.x_size, ctx.layer, ctx.plan, ctx.direct = x.shape, layer, plan, direct
        ctx.edges = edges_to(None if x_needed else x, bias) if layer.activation.needs_value else None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return (None,) * 7
        recording = torch.is_grad_enabled()
        if recording and ctx.edges is not None and may_record():
            return record_backward(PlannedConvActPool.backward, ctx, grad, OP)
        x, weight, bias, code, saved, slope = ctx.saved_tensors
        needs, layer, direct, dslope = asked_for(ctx), ctx.layer, ctx.direct, None
        directly = direct is not None and not recording and may_skip_dispatcher(grad)
        if slope is not None:
            wanted = (any(needs), last_asked_for(ctx, 6))
            grad, dslope = _through_slope_of(ctx, grad, saved, x, weight, bias, slope, wanted, directly)
            if not any(needs):
                return *(None,) * 6, dslope
            layer, direct, saved = behind_slope(layer), None if direct is None else direct.behind_slope, None
        if directly:
            return *direct.backward(grad, code, saved, x, weight, bias, needs), None, None, None, dslope
        gradients = ops.conv_act_pool_planned_backward(
            grad,
            or_nothing(code, grad),
            or_nothing(saved, grad),
            x,
            weight,
            bias,
            ctx.x_size,
            direct.call.x_channels_last if direct is not None else ctx.channels_last,
            *needs,
            layer.text(),
            ctx.plan,
        )
        return *(t if needed else None for t, needed in zip(gradients, needs, strict=True)), None, None, None, dslope


def _through_slope_of(
    ctx: Any,
    grad: Tensor,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    slope: Tensor,
    wanted: tuple[bool, bool],
    directly: bool,
) -> tuple[Any, Tensor | None]:
    """The gradients that are wanted of `PlannedLayer.through_slope`."""
    if directly:
        return ctx.direct.through_slope(grad, saved, x, weight, bias, slope, wanted)
    channels_last = ctx.direct.call.x_channels_last if ctx.direct is not None else ctx.channels_last
    dz, dslope = ops.conv_act_pool_planned_slope(
        grad, or_nothing(saved, grad), x, weight, bias, slope, ctx.x_size, channels_last, *wanted, ctx.layer.text(),
        ctx.plan,
    )  # fmt: skip
    return dz, dslope if wanted[1] else None


_record: Any = PlannedConvActPool.apply  # type: ignore[attr-defined]


def _planned(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str, slope: Tensor | None = None
) -> Tensor:
    return apply(PlannedConvActPool, x, weight, bias, layer_from_text(layer), plan, None, slope, op=OP)


# --- Implementations -------------------------------------------------------------------------------------------------


def _layer(x: Tensor, weight: Tensor, layer: str, plan: str) -> PlannedLayer:
    return planned_layer(layer_call(x, weight, layer_from_text(layer)), plan_from_text(plan))


def _infer(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str, slope: Tensor | None = None
) -> Tensor:
    return _layer(x, weight, layer, plan).infer(x, weight, bias, slope)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str, slope: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    y, code, winner = _layer(x, weight, layer, plan).forward(x, weight, bias, slope)
    return y, or_nothing(code, x), or_nothing(winner, x)


def _through_slope(
    grad: Tensor,
    saved: Tensor,
    x: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    slope: Tensor,
    x_size: list[int],
    channels_last: bool,
    needs_z: bool,
    needs_slope: bool,
    layer: str,
    plan: str,
) -> tuple[Tensor, Tensor]:
    like = x if x is not None else empty_in_format(x_size, grad, channels_last)
    planned, needs = _layer(like, weight, layer, plan), (needs_z, needs_slope)
    dz, dslope = planned.through_slope(grad, saved, x, weight, bias, slope, needs)
    return or_nothing(dz, grad), or_nothing(dslope, grad)


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


def _fake_infer(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str, slope: Tensor | None = None
) -> Tensor:
    return implementations.fake_infer(x, weight, bias, layer, slope)


def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, plan: str, slope: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    return implementations.fake_forward(x, weight, bias, layer, slope)


def _fake_through_slope(
    grad: Tensor,
    saved: Tensor,
    x: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    slope: Tensor,
    x_size: list[int],
    channels_last: bool,
    needs_z: bool,
    needs_slope: bool,
    layer: str,
    plan: str,
) -> tuple[Tensor, Tensor]:
    if saved.dim() < 2:  # the convolution is computed again
        like = x if x is not None else empty_in_format(tuple(x_size), grad, channels_last)
        saved = implementations.fake_infer(like, weight, bias, behind_slope(layer_from_text(layer)).text())
    return implementations.fake_through_slope(grad, saved, slope, needs_z, needs_slope, layer)


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


register_composite(
    "conv_act_pool_auto(Tensor x, Tensor weight, Tensor? bias, str layer, Tensor? slope=None) -> Tensor", _auto
)
register(
    "conv_act_pool_planned(Tensor x, Tensor weight, Tensor? bias, str layer, str plan, Tensor? slope=None) -> Tensor",
    op=OP, real=_infer, fake=_fake_infer, record=_planned, lowered=(0, 1, 2, 5), flops=conv_flops,
)  # fmt: skip
register(
    "conv_act_pool_planned_forward(Tensor x, Tensor weight, Tensor? bias, str layer, str plan, Tensor? slope=None) "
    "-> (Tensor, Tensor, Tensor)",
    op=OP, real=_forward, fake=_fake_forward, flops=conv_flops,
)  # fmt: skip
register(
    "conv_act_pool_planned_slope(Tensor grad, Tensor saved, Tensor? x, Tensor weight, Tensor? bias, Tensor slope, "
    "SymInt[] x_size, bool channels_last, bool needs_z, bool needs_slope, str layer, str plan) -> (Tensor, Tensor)",
    op=OP, real=_through_slope, fake=_fake_through_slope,
)  # fmt: skip
register(
    "conv_act_pool_planned_backward(Tensor grad, Tensor code, Tensor saved, Tensor? x, Tensor weight, Tensor? bias, "
    "SymInt[] x_size, bool channels_last, bool needs_x, bool needs_weight, bool needs_bias, str layer, str plan) "
    "-> (Tensor, Tensor, Tensor)",
    op=OP, real=_backward, fake=_fake_backward, flops=planned_backward_flops,
)  # fmt: skip
