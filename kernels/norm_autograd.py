"""Derivatives of `tidepool::conv_norm_act` and `tidepool::conv_norm_act_training`: one function for both.

Backward goes y -> z with the norm's kernels, then z -> x, weight and conv_bias with the convolution's own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction

from kernels import norm_operators as operators
from kernels import operator_implementations
from kernels.memory_format import output_format
from kernels.norm_arguments import split_layer
from kernels.norm_implementations import residual_for_backward
from kernels.operator_autograd import apply, edges_to, is_differentiated, may_record, record_backward, will_run
from kernels.operator_implementations import PLAIN_KEYS, dispatch_keys, may_skip_dispatcher, no_mode_is_on

OP = "conv_norm_act"
ops = torch.ops.tidepool


class ConvNormAct(_SingleLevelFunction):
    """Saves x, weight, z, the coefficients and what of codes and residual backward needs.

    `momentum` None: with the running statistics, which stay; else with the batch's, and they are updated. `direct`:
    the tensors are plain and no mode wants to see operators, so that what they would call is called without them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        conv_bias: Tensor | None,
        residual: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float | None,
        eps: float,
        layer: str,
        direct: bool,
    ) -> Tensor:
        tensors = (x, weight, norm_weight, norm_bias, running_mean, running_var, conv_bias, residual)
        if momentum is None:
            forward = operators.forward if direct else ops.conv_norm_act_forward
            y, z, conv_code, coefficients, code = forward(*tensors, eps, layer)
        else:
            forward = operators.forward_training if direct else ops.conv_norm_act_forward_training
            y, z, conv_code, coefficients, code = forward(*tensors, momentum, eps, layer)
        needed_again = residual_for_backward(residual, layer)
        x_needed = ctx.needs_input_grad[1]
        ctx.save_for_backward(x if x_needed else None, weight, z, conv_code, coefficients, code, needed_again)
        ctx.set_materialize_grads(False)
        ctx.x_size, ctx.layer, ctx.training, ctx.direct = x.shape, layer, momentum is not None, direct
        ctx.channels_last = output_format(x)
        ctx.given = [t is not None for t in (x, weight, norm_weight, norm_bias, conv_bias, residual)]
        affine = norm_weight if norm_weight is not None else norm_bias
        ctx.norm_dtype = z.dtype if affine is None else affine.dtype
        ctx.residual_dtype = None if residual is None else residual.dtype
        # A residual that is not saved moves no gradient: relu's codes have no derivative.
        ctx.edges = edges_to(None if x_needed else x, norm_weight, norm_bias, conv_bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        unasked = (None,) * 12
        if grad is None:
            return unasked
        recording = torch.is_grad_enabled()
        if recording and may_record():
            return record_backward(ConvNormAct.backward, ctx, grad, OP)
        x, weight, z, conv_code, coefficients, code, residual = ctx.saved_tensors
        asked = _asked_for(ctx)
        needs_x, needs_weight, needs_norm_weight, needs_norm_bias, needs_conv_bias, needs_residual = asked
        needs = [needs_x or needs_weight or needs_conv_bias, needs_residual, needs_norm_weight, needs_norm_bias]
        backward: Any
        dgrad: Any
        wgrad: Any
        backward, dgrad, wgrad = ops.conv_norm_act_backward, ops.conv_relu_pool_dgrad, ops.conv_relu_pool_wgrad
        if ctx.direct and not recording and may_skip_dispatcher(grad):
            backward, dgrad, wgrad = operators.backward, operator_implementations.dgrad, operator_implementations.wgrad
        dz, dresidual, dnorm_weight, dnorm_bias = backward(
            grad, z, code, coefficients, residual, ctx.norm_dtype, ctx.residual_dtype, ctx.training, needs,
            ctx.x_size, weight.shape, ctx.layer,
        )  # fmt: skip
        dx = dweight = dconv_bias = None
        convolution, _ = split_layer(ctx.layer)
        nothing = dz.new_empty(0)
        if needs_x:
            dx = dgrad(dz, conv_code, nothing, weight, ctx.x_size, ctx.channels_last, convolution)
        if needs_weight or needs_conv_bias:
            x = dz.new_empty(1).expand(ctx.x_size) if x is None else x
            wanted = (needs_weight, needs_conv_bias)
            dweight, dconv_bias = wgrad(dz, conv_code, nothing, x, weight, *wanted, convolution)
        gradients = (dx, dweight, dnorm_weight, dnorm_bias, dconv_bias, dresidual)
        asked_for = [gradient if wants else None for gradient, wants in zip(gradients, asked, strict=True)]
        return (*asked_for, *unasked[6:])


def _asked_for(ctx: Any) -> list[bool]:
    """Which of the six differentiable inputs need a gradient of this backward."""
    nodes = iter(ctx.next_functions)  # of those inputs that are tensors
    edges = zip(ctx.needs_input_grad, [next(nodes)[0] if given else None for given in ctx.given], strict=False)
    return [needs and will_run(node) for needs, node in edges]


def _autograd(
    operator: Any, norm: tuple[Tensor | None, ...], tensors: tuple[Tensor | None, ...], settings: tuple[Any, ...]
) -> Tensor:
    """`operator` on x, weight, conv_bias and residual (`tensors`), recorded where it has to be."""
    x, weight, conv_bias, residual = tensors
    norm_weight, norm_bias, running_mean, running_var = norm
    differentiated = (x, weight, norm_weight, norm_bias, conv_bias, residual)
    if is_differentiated(*differentiated, op=OP):
        recorded = settings if len(settings) == 3 else (None, *settings)
        return apply(ConvNormAct, *differentiated, running_mean, running_var, *recorded, False, op=OP)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(x, weight, *norm, conv_bias, residual, *settings)


def autograd(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    layer: str,
) -> Tensor:
    """`tidepool::conv_norm_act` at the Autograd key."""
    norm = (norm_weight, norm_bias, running_mean, running_var)
    return _autograd(ops.conv_norm_act, norm, (x, weight, conv_bias, residual), (eps, layer))


def autograd_training(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    momentum: float,
    eps: float,
    layer: str,
) -> Tensor:
    """`tidepool::conv_norm_act_training` at the Autograd key."""
    norm = (norm_weight, norm_bias, running_mean, running_var)
    return _autograd(ops.conv_norm_act_training, norm, (x, weight, conv_bias, residual), (momentum, eps, layer))


def call(tensors: tuple[Tensor | None, ...], momentum: float | None, eps: float, layer: str) -> Tensor:
    """The operator on checked tensors, in the order of its schema; `momentum` None: with the running statistics.

    Directly where nothing stands between the call and the kernels: no mode, transform, trace or autocast.
    """
    settings = (eps, layer) if momentum is None else (momentum, eps, layer)
    if torch.compiler.is_compiling() or not _may_call_directly(tensors):
        return (ops.conv_norm_act if momentum is None else ops.conv_norm_act_training)(*tensors, *settings)
    x, weight, norm_weight, norm_bias, running_mean, running_var, conv_bias, residual = tensors
    differentiated = (x, weight, norm_weight, norm_bias, conv_bias, residual)
    if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in differentiated]):
        return _record(*differentiated, running_mean, running_var, momentum, eps, layer, True)
    return (operators.infer if momentum is None else operators.infer_training)(*tensors, *settings)


_record: Any = ConvNormAct.apply  # type: ignore[attr-defined]


def _may_call_directly(tensors: tuple[Tensor | None, ...]) -> bool:
    given = [t for t in tensors if t is not None]
    if any([dispatch_keys(t) not in PLAIN_KEYS for t in given]):
        return False
    return no_mode_is_on() and not torch.is_autocast_enabled(given[0].device.type)
