"""How an operator of ours is recorded for differentiation, and the answer to what has no derivative.

One level of reverse mode has kernels. Forward mode and second derivatives, by `torch.func` or without it, are answered
by NotImplementedError in one line that names the backend that has them. What is private to PyTorch here: the classes
and flags by which it runs an autograd function inside `torch.func`, which `autograd.Function` itself only offers for
functions of whole batches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction


def refuse_forward_mode(*tensors: Tensor | None, op: str) -> None:
    """NotImplementedError, naming `op`, if any of the tensors carries a tangent."""
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{op} with backend='triton' has no forward-mode derivative: use backend='cudnn' for jvp"
            )


def is_differentiated(*tensors: Tensor | None, op: str) -> bool:
    """Whether a result computed from these tensors has to be recorded. Refuses forward mode."""
    if forward_ad._current_level >= 0:
        refuse_forward_mode(*tensors, op=op)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def apply(function: Any, *arguments: Any, op: str) -> Any:
    """`function.apply`, allowed inside torch.func too: by the time an operator's Autograd key is reached, the transform
    has chosen its level, and the function stays on it. Its forward calls operators under `recorded_outside`."""
    if not torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    if any(i.key() == TransformType.Jvp for i in get_interpreter_stack() or ()):
        raise NotImplementedError(
            f"{op} with backend='triton' is differentiated by one torch.func transform at a time: "
            "use backend='cudnn' for jvp"
        )
    with enable_single_level_autograd_function():
        return function.apply(*arguments)


@contextmanager
def recorded_outside() -> Iterator[None]:
    """Within a function's forward: what is called is recorded by the levels of torch.func outside the function's own,
    and by plain autograd, where those differentiate its arguments as well (`vmap(grad(loss))` of parameters that
    require gradients). Their derivative of an internal operator is then an error, where it would be lost in silence."""
    if not torch._C._are_functorch_transforms_active():
        yield
        return
    with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():
        yield


def copied_bias(bias: Tensor | None) -> Tensor | None:
    """The bias for backward, K numbers: PyTorch's backward does without it, so that it may be edited after forward."""
    if bias is None:
        return None
    with recorded_outside():
        return bias.clone()


def asked_for(ctx: Any) -> tuple[bool, bool, bool]:
    """Which of x, weight and bias need a gradient of this backward: `autograd.grad` may ask for some only."""
    edges = zip(ctx.needs_input_grad, ctx.next_functions, strict=False)
    asked = [needs and will_run(node) for needs, (node, _) in edges]
    return asked[0], asked[1], len(asked) > 2 and asked[2]


def last_asked_for(ctx: Any, position: int) -> bool:
    """Whether the input at `position`, the last of those that are tensors, needs a gradient of this backward."""
    return ctx.needs_input_grad[position] and will_run(ctx.next_functions[-1][0])


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
        with recorded_outside():
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
    """Whether no torch.func transform is on: within those all that a layer saves is recorded (`recorded_outside`)."""
    return not torch._C._are_functorch_transforms_active()


def record_backward(backward: Any, ctx: Any, grad: Tensor, op: str) -> Any:
    """`backward(ctx, grad)` under create_graph: its results depend on all inputs of the layer, also through tensors
    that the graph does not know (coefficients, the output before the activation), and differentiating them by any of
    those is answered. The edges lead to what was saved, to `ctx.edges` and to leaves."""
    refuse_forward_mode(grad, op=op)
    leaf_node = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]
    leaves = [node.variable for node, _ in ctx.next_functions if isinstance(node, leaf_node)]
    return apply(
        NotDifferentiable, lambda *_: backward(ctx, grad), op, grad, *ctx.saved_tensors, *ctx.edges, *leaves, op=op
    )
