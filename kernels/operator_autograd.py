"""Derivatives of `tidepool::conv_relu_pool`: the autograd function; and, for every operator, refusals of what has none.

One level of reverse mode has kernels. Forward mode, second derivatives and nested `torch.func` transforms are answered
by NotImplementedError in one line that names the backend that has them.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, get_unwrapped, is_functorch_wrapped_tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from kernels.arguments import Layer, layer_from_text
from kernels.layer_call import LayerCall
from kernels.memory_format import output_format
from kernels.operator_implementations import (
    input_gradient,
    may_skip_dispatcher,
    or_nothing,
    run_forward,
    weight_gradient,
)

ops = torch.ops.tidepool


def refuse_forward_mode(*tensors: Tensor | None, op: str = "conv_relu_pool") -> None:
    """NotImplementedError, naming `op`, if any of the tensors carries a tangent."""
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{op} with backend='triton' has no forward-mode derivative: use backend='cudnn' for jvp"
            )


def is_differentiated(*tensors: Tensor | None, op: str = "conv_relu_pool") -> bool:
    """Whether a result computed from these tensors has to be recorded. Refuses forward mode."""
    if forward_ad._current_level >= 0:
        refuse_forward_mode(*tensors, op=op)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def apply(function: Any, *arguments: Any, op: str = "conv_relu_pool") -> Any:
    """`function.apply`, allowed inside torch.func too: by the time an operator's Autograd key is reached, the transform
    has chosen its level, and the function stays on it. What an outer level would differentiate as well is refused."""
    if not torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    forward_mode = any(i.key() == TransformType.Jvp for i in get_interpreter_stack() or ())
    if forward_mode or any(_requires_grad_outside(a) for a in arguments if isinstance(a, Tensor)):
        raise NotImplementedError(
            f"{op} with backend='triton' is differentiated by one torch.func transform at a time: "
            "use backend='cudnn' for nested ones and for jvp"
        )
    with enable_single_level_autograd_function():
        return function.apply(*arguments)


def _requires_grad_outside(tensor: Tensor) -> bool:
    """Whether a level of torch.func outside the innermost, or plain autograd, records operations on this tensor."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
        if tensor.requires_grad:
            return True
    return False


class ConvReLUPool(_SingleLevelFunction):
    """Saves x, weight and what `Geometry` says of the outputs; computes the gradients that are asked for.

    `direct`: the LayerCall of plain tensors, whose kernels are called without the dispatcher; None to dispatch.
    `ctx.edges`: None where every gradient depends on nothing but what its operator is given, as with relu, whose codes
    have no derivative.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, direct: LayerCall | None
    ) -> Tensor:
        code: Tensor | None
        winner: Tensor | None
        if direct is not None:
            y, code, winner = run_forward(x, weight, bias, direct)
            smooth, smooth_average = direct.geometry.smooth, direct.smooth_average
        else:
            y, code, winner = ops.conv_relu_pool_forward(x, weight, bias, layer)
            smooth, smooth_average = is_smooth(layer), _smooth_average(layer)
            ctx.channels_last = ctx.needs_input_grad[0] and output_format(x)
        x_needed = ctx.needs_input_grad[1] or smooth_average
        # A copy of the bias, K numbers: PyTorch's backward does without it, so that it may be edited after forward.
        kept_bias = bias.detach().clone() if smooth_average and bias is not None else None
        ctx.save_for_backward(x if x_needed else None, weight, kept_bias, code, winner)
        ctx.set_materialize_grads(False)
        ctx.x_size, ctx.layer, ctx.direct, ctx.smooth_average = x.shape, layer, direct, smooth_average
        ctx.edges = edges_to(None if x_needed else x, bias) if smooth else None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None, None, None, None
        recording = torch.is_grad_enabled()
        if recording and ctx.edges is not None and may_record():
            return record_backward(ConvReLUPool.backward, ctx, grad)
        x, weight, bias, code, saved = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = asked_for(ctx)
        if ctx.smooth_average:
            # The convolution once more, without activation and pool: cheaper to redo than to keep. In the dtype that
            # forward ran in, also where backward runs under autocast.
            with torch._C._DisableAutocast():
                saved = ops.conv_relu_pool(x, weight, bias, _without_activation_and_pool(ctx.layer))
        dx = dweight = dbias = None
        direct = ctx.direct
        if direct is not None and not recording and may_skip_dispatcher(grad):
            if needs_x:
                dx = input_gradient(grad, code, saved, weight, direct)
            if needs_weight or needs_bias:
                x = _size_only(grad, ctx.x_size) if x is None else x
                dweight, dbias = weight_gradient(grad, code, saved, x, weight, needs_weight, needs_bias, direct)
            return dx, dweight, dbias, None, None
        code, saved = or_nothing(code, grad), or_nothing(saved, grad)
        if needs_x:
            channels_last = direct.x_channels_last if direct is not None else ctx.channels_last
            dx = ops.conv_relu_pool_dgrad(grad, code, saved, weight, ctx.x_size, channels_last, ctx.layer)
        if needs_weight or needs_bias:
            x = _size_only(grad, ctx.x_size) if x is None else x
            wanted = (needs_weight, needs_bias)
            dweight, dbias = ops.conv_relu_pool_wgrad(grad, code, saved, x, weight, *wanted, ctx.layer)
        return dx, dweight if needs_weight else None, dbias if needs_bias else None, None, None


def _size_only(grad: Tensor, size: torch.Size) -> Tensor:
    """Stands for an x that was not saved: without dweight, x is only looked at for its size."""
    return grad.new_empty(1).expand(size)


def asked_for(ctx: Any) -> tuple[bool, bool, bool]:
    """Which of x, weight and bias need a gradient of this backward: `autograd.grad` may ask for some only."""
    edges = zip(ctx.needs_input_grad, ctx.next_functions, strict=False)
    asked = [needs and will_run(node) for needs, (node, _) in edges]
    return asked[0], asked[1], len(asked) > 2 and asked[2]


def will_run(node: Any) -> bool:
    """Whether the backward that is under way runs this node of the graph."""
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf whose gradient `autograd.grad` returns, or no engine runs: torch.compile traces
        return True


class NotDifferentiable(_SingleLevelFunction):
    """An internal operator's results, recorded so that differentiating them is answered, not silently wrong."""

    @staticmethod
    def forward(ctx: Any, operator: Any, op: str, *arguments: Any) -> Any:
        ctx.op = op
        return operator(*arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            f"{ctx.op} with backend='triton' has no second derivative: use backend='cudnn' for double backward"
        )


def edges_to(*inputs: Tensor | None) -> tuple[Tensor, ...]:
    """Empty tensors that depend on the given inputs of a layer, for `record_backward`: an edge of the graph to each,
    and none of its memory. A leaf needs none: the graph itself leads to it."""
    recorded = [t for t in inputs if t is not None and not t.is_leaf]
    if not recorded or not may_record():
        return ()
    with torch.enable_grad():
        return tuple(t[:0].clone() for t in recorded)


def may_record() -> bool:
    """Whether no torch.func transform is on: what those would differentiate twice, `apply` refuses beforehand."""
    return not torch._C._are_functorch_transforms_active()


def record_backward(backward: Any, ctx: Any, grad: Tensor, op: str = "conv_relu_pool") -> Any:
    """`backward(ctx, grad)` under create_graph: its results depend on all inputs of the layer, also through tensors
    that the graph does not know (coefficients, the output before the activation), and differentiating them by any of
    those is answered. The edges lead to what was saved, to `ctx.edges` and to leaves."""
    refuse_forward_mode(grad, op=op)
    leaf_node = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]
    leaves = [node.variable for node, _ in ctx.next_functions if isinstance(node, leaf_node)]
    return apply(
        NotDifferentiable, lambda *_: backward(ctx, grad), op, grad, *ctx.saved_tensors, *ctx.edges, *leaves, op=op
    )


@functools.cache
def is_smooth(layer: str) -> bool:
    """Whether the activation's slope depends on more than a sign."""
    return layer_from_text(layer).activation in ("silu", "gelu")


@functools.cache
def _smooth_average(layer: str) -> bool:
    return layer_from_text(layer).pool == "avg" and is_smooth(layer)


@functools.cache
def _without_activation_and_pool(layer: str) -> str:
    settings = layer_from_text(layer)
    rank = len(settings.stride)
    ones, zeros = (1,) * rank, (0,) * rank
    convolution = (settings.stride, settings.padding, settings.dilation, settings.groups)
    return Layer(*convolution, "none", "none", ones, ones, zeros, ones, False, True).text()


def autograd(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    """`tidepool::conv_relu_pool` at the Autograd key."""
    if is_differentiated(x, weight, bias):
        return apply(ConvReLUPool, x, weight, bias, layer, None)
    with torch._C._AutoDispatchBelowAutograd():
        return ops.conv_relu_pool(x, weight, bias, layer)


def autograd_internal(operator: Any, op: str = "conv_relu_pool") -> Any:
    """An internal operator of `op` at the Autograd key: its results cannot be differentiated further."""

    def implementation(*arguments: Any) -> Any:
        if is_differentiated(*(a for a in arguments if isinstance(a, Tensor)), op=op):
            return apply(NotDifferentiable, operator, op, *arguments, op=op)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return implementation
