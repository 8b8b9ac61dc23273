"""Derivatives of `tidepool::conv_act_pool`: its autograd function."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction

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
from tidepool.kernels.layer.formats import output_format
from tidepool.kernels.layer.learned_slope import behind_slope
from tidepool.kernels.layer.settings import Layer, layer_from_text, without_activation_and_pool
from tidepool.kernels.operators.call import LayerCall
from tidepool.kernels.operators.conv_implementations import (
    input_gradient,
    may_skip_dispatcher,
    or_nothing,
    run_forward,
    slope_gradient,
    weight_gradient,
)

OP = "conv_act_pool"
ops = torch.ops.tidepool


class ConvActPool(_SingleLevelFunction):
    """Saves x, weight and what `Geometry` says of the outputs; computes the gradients that are asked for.

    `direct`: the LayerCall of plain tensors, whose kernels are called without the dispatcher; None to dispatch.
    `slope`: the activation's learned one, if it has one. `ctx.edges`: None where every gradient depends on nothing but
    what its operator is given, as with relu, whose codes have no derivative.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layer: Layer,
        direct: LayerCall | None,
        slope: Tensor | None = None,
    ) -> Tensor:
        code: Tensor | None
        winner: Tensor | None
        if direct is not None:
            y, code, winner = run_forward(x, weight, bias, direct, slope)
        else:
            with recorded_outside():
                y, code, winner = ops.conv_act_pool_forward(x, weight, bias, layer.text(), slope)
            ctx.channels_last = ctx.needs_input_grad[0] and output_format(x)
        smooth_average = layer.smooth_average
        x_needed = ctx.needs_input_grad[1] or smooth_average
        kept_bias = copied_bias(bias) if smooth_average else None
        ctx.save_for_backward(x if x_needed else None, weight, kept_bias, code, winner, slope)
        ctx.set_materialize_grads(False)
        ctx.x_size, ctx.layer, ctx.direct = x.shape, layer, direct
        ctx.edges = edges_to(None if x_needed else x, bias) if layer.activation.needs_value else None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None, None, None, None, None
        recording = torch.is_grad_enabled()
        if recording and ctx.edges is not None and may_record():
            return record_backward(ConvActPool.backward, ctx, grad, OP)
        x, weight, bias, code, saved, slope = ctx.saved_tensors
        (needs_x, needs_weight, needs_bias), layer = asked_for(ctx), ctx.layer
        if layer.smooth_average:
            # The convolution once more, without activation and pool: cheaper to redo than to keep. In the dtype that
            # forward ran in, also where backward runs under autocast.
            with torch._C._DisableAutocast():
                saved = ops.conv_act_pool(x, weight, bias, without_activation_and_pool(layer).text())
        dx = dweight = dbias = dslope = None
        direct = ctx.direct
        directly = direct is not None and not recording and may_skip_dispatcher(grad)
        if slope is not None:
            needs = (needs_x or needs_weight or needs_bias, last_asked_for(ctx, 5))
            dz: Any
            if directly:
                dz, dslope = slope_gradient(grad, saved, slope, *needs, layer)
            else:
                dz, dslope = ops.conv_act_pool_slope(grad, saved, slope, *needs, layer.text())
            grad, dslope = dz if needs[0] else grad, dslope if needs[1] else None
            layer, direct, saved = behind_slope(layer), None if direct is None else direct.behind_slope, None
        if directly:
            if needs_x:
                dx = input_gradient(grad, code, saved, weight, direct)
            if needs_weight or needs_bias:
                x = _size_only(grad, ctx.x_size) if x is None else x
                dweight, dbias = weight_gradient(grad, code, saved, x, weight, needs_weight, needs_bias, direct)
            return dx, dweight, dbias, None, None, dslope
        code, saved, text = or_nothing(code, grad), or_nothing(saved, grad), layer.text()
        if needs_x:
            channels_last = direct.x_channels_last if direct is not None else ctx.channels_last
            dx = ops.conv_act_pool_dgrad(grad, code, saved, weight, ctx.x_size, channels_last, text)
        if needs_weight or needs_bias:
            x = _size_only(grad, ctx.x_size) if x is None else x
            wanted = (needs_weight, needs_bias)
            dweight, dbias = ops.conv_act_pool_wgrad(grad, code, saved, x, weight, *wanted, text)
        return dx, dweight if needs_weight else None, dbias if needs_bias else None, None, None, dslope


def _size_only(grad: Tensor, size: torch.Size) -> Tensor:
    """Stands for an x that was not saved: without dweight, x is only looked at for its size."""
    return grad.new_empty(1).expand(size)


def record(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, slope: Tensor | None = None) -> Tensor:
    """`tidepool::conv_act_pool` where it has to be differentiated."""
    return apply(ConvActPool, x, weight, bias, layer_from_text(layer), None, slope, op=OP)
