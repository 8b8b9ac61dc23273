"""Derivatives of `tidepool::conv_norm_act` and `tidepool::conv_norm_act_training`: one function for both.

Backward goes y -> z with the norm's kernels, then z -> x, weight and conv_bias with the convolution's own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction

from tidepool.kernels.dispatch.differentiate import (
    apply,
    edges_to,
    may_record,
    record_backward,
    recorded_outside,
    will_run,
)
from tidepool.kernels.layer.formats import output_format
from tidepool.kernels.layer.norm_settings import NormSettings, norm_settings_from_text
from tidepool.kernels.operators import norm_operators as operators
from tidepool.kernels.operators.conv_implementations import (
    PLAIN_KEYS,
    dispatch_keys,
    input_gradient,
    may_skip_dispatcher,
    no_mode_is_on,
    or_nothing,
    weight_gradient,
)
from tidepool.kernels.operators.norm_call import NormCall, norm_call
from tidepool.kernels.operators.norm_implementations import backward, forward, infer, residual_for_backward

OP = "conv_norm_act"
ops = torch.ops.tidepool


class ConvNormAct(_SingleLevelFunction):
    """Saves x, weight, z, the coefficients and what of codes and residual backward needs.

    `momentum` None: with the running statistics, which stay; else with the batch's, and they are updated. `direct`: the
    NormCall of plain tensors that no mode wants to see operators of, whose kernels are called without the dispatcher;
    None to dispatch.
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
        settings: NormSettings,
        direct: NormCall | None,
    ) -> Tensor:
        tensors = operators.Tensors(
            x, weight, norm_weight, norm_bias, running_mean, running_var, conv_bias, residual
        )  # fmt: skip
        conv_code: Tensor | None
        code: Tensor | None
        if direct is not None:
            if momentum is None:
                normed = forward(*tensors.operands, tensors.norm, None, eps, direct)
            else:
                normed = operators.train(tensors, momentum, eps, direct)
            y, z, conv_code, coefficients, code = normed.y, normed.z, normed.conv_code, normed.coefficients, normed.code
        else:
            with recorded_outside():
                if momentum is None:
                    results = ops.conv_norm_act_forward(*tensors, eps, settings.text())
                else:
                    results = ops.conv_norm_act_forward_training(*tensors, momentum, eps, settings.text())
            y, z, conv_code, coefficients, code = results
        needed_again = residual_for_backward(residual, settings)
        x_needed = ctx.needs_input_grad[1]
        ctx.save_for_backward(x if x_needed else None, weight, z, conv_code, coefficients, code, needed_again)
        ctx.set_materialize_grads(False)
        ctx.x_size, ctx.settings, ctx.training, ctx.direct = x.shape, settings, momentum is not None, direct
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
        needs = (needs_x or needs_weight or needs_conv_bias, needs_residual, needs_norm_weight, needs_norm_bias)
        direct, dx, dweight, dconv_bias = ctx.direct, None, None, None
        if direct is not None and not recording and may_skip_dispatcher(grad):
            dz, dresidual, dnorm_weight, dnorm_bias = backward(
                grad, z, code, coefficients, residual, ctx.norm_dtype, ctx.residual_dtype, ctx.training, needs, direct
            )
            if dz is not None and needs_x:
                dx = input_gradient(dz, conv_code, None, weight, direct.convolution)
            if dz is not None and (needs_weight or needs_conv_bias):
                x = dz.new_empty(1).expand(ctx.x_size) if x is None else x
                dweight, dconv_bias = weight_gradient(
                    dz, conv_code, None, x, weight, needs_weight, needs_conv_bias, direct.convolution
                )
        else:
            dz, dresidual, dnorm_weight, dnorm_bias = ops.conv_norm_act_backward(
                grad, z, or_nothing(code, z), coefficients, residual, ctx.norm_dtype, ctx.residual_dtype, ctx.training,
                needs, ctx.x_size, weight.shape, ctx.settings.text(),
            )  # fmt: skip
            convolution, nothing = ctx.settings.convolution.text(), dz.new_empty(0)
            conv_code = or_nothing(conv_code, dz)
            if needs_x:
                dx = ops.conv_act_pool_dgrad(dz, conv_code, nothing, weight, ctx.x_size, ctx.channels_last, convolution)
            if needs_weight or needs_conv_bias:
                x = dz.new_empty(1).expand(ctx.x_size) if x is None else x
                wanted = (needs_weight, needs_conv_bias)
                dweight, dconv_bias = ops.conv_act_pool_wgrad(dz, conv_code, nothing, x, weight, *wanted, convolution)
        gradients = (dx, dweight, dnorm_weight, dnorm_bias, dconv_bias, dresidual)
        asked_for = [gradient if wants else None for gradient, wants in zip(gradients, asked, strict=True)]
        return (*asked_for, *unasked[6:])


def _asked_for(ctx: Any) -> list[bool]:
    """Which of the six differentiable inputs need a gradient of this backward."""
    nodes = iter(ctx.next_functions)  # of those inputs that are tensors
    edges = zip(ctx.needs_input_grad, [next(nodes)[0] if given else None for given in ctx.given], strict=False)
    return [needs and will_run(node) for needs, node in edges]


def record(*arguments: Any) -> Tensor:
    """`tidepool::conv_norm_act` where it has to be differentiated."""
    *given, eps, layer = arguments
    return _recorded(operators.Tensors(*given), None, eps, layer)


def record_training(*arguments: Any) -> Tensor:
    """`tidepool::conv_norm_act_training` where it has to be differentiated."""
    *given, momentum, eps, layer = arguments
    return _recorded(operators.Tensors(*given), momentum, eps, layer)


def _recorded(tensors: operators.Tensors, momentum: float | None, eps: float, layer: str) -> Tensor:
    statistics = (tensors.running_mean, tensors.running_var)
    settings = norm_settings_from_text(layer)
    return apply(ConvNormAct, *tensors.differentiated, *statistics, momentum, eps, settings, None, op=OP)


def call(
    tensors: tuple[Tensor | None, ...],
    momentum: float | None,
    eps: float,
    settings: NormSettings,
    known: NormCall | None = None,
) -> Tensor:
    """The operator on checked tensors, in the order of its schema; `momentum` None: with the running statistics.

    Directly where nothing stands between the call and the kernels: no mode, transform, trace or autocast. `known`: the
    tensors' NormCall, where it is known that they are plain.
    """
    if torch.compiler.is_compiling() or not (known is not None or _are_plain(tensors)) or not _no_one_looks(tensors):
        rest = (eps, settings.text()) if momentum is None else (momentum, eps, settings.text())
        return (ops.conv_norm_act if momentum is None else ops.conv_norm_act_training)(*tensors, *rest)
    given = operators.Tensors(*tensors)  # type: ignore[arg-type]
    if known is None:
        operators.check_device(given.x)
        known = norm_call(given.x, given.weight, given.residual, settings)
    differentiated = given.differentiated
    if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in differentiated]):
        statistics = (given.running_mean, given.running_var)
        return _record(*differentiated, *statistics, momentum, eps, settings, known)
    if momentum is None:
        return infer(*given.operands, given.norm, eps, known)
    return operators.train(given, momentum, eps, known).y


_record: Any = ConvNormAct.apply  # type: ignore[attr-defined]


def _are_plain(tensors: tuple[Tensor | None, ...]) -> bool:
    return all([t is None or dispatch_keys(t) in PLAIN_KEYS for t in tensors])


def _no_one_looks(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether no mode, transform, trace or autocast wants to see the operator."""
    x = tensors[0]
    return no_mode_is_on() and x is not None and not torch.is_autocast_enabled(x.device.type)
