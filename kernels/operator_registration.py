"""The registered operators `tidepool::conv_relu_pool*`: real, fake, autograd and autocast implementations.

    conv_relu_pool          what users call; saves nothing
    conv_relu_pool_forward  the same, with what backward needs: (y, codes or bits, winners), empty where there is none
    conv_relu_pool_dgrad    gradient with respect to x
    conv_relu_pool_wgrad    gradients with respect to weight and bias

They are defined through the low-level `torch.library.Library` with an `autograd.Function` at the Autograd key: half the
host time of `torch.library.custom_op`. A layer's settings travel as one string, `arguments.Layer.text()`: a dispatch
costs by the argument, and unlike a number into a table a string means the same in another process (compiled graphs are
cached on disk).

On plain tensors outside every mode and transform, `call` and backward skip the dispatcher, which would find nothing to
do on the way to the same functions.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, get_unwrapped, is_functorch_wrapped_tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from kernels.arguments import (
    ArgumentError,
    Layer,
    build_geometry,
    check_channels,
    check_tensors,
    layer_from_text,
    spatial_sizes,
)
from kernels.conv_relu_pool_dgrad import conv_relu_pool_dgrad
from kernels.conv_relu_pool_forward import conv_relu_pool_forward, empty_saved
from kernels.conv_relu_pool_wgrad import conv_relu_pool_wgrad
from kernels.geometry import Geometry, Shapes
from kernels.memory_format import empty_in_format, output_format
from kernels.runtime import INTERPRETED

_LIBRARY = torch.library.Library("tidepool", "DEF")
_LIBRARY.define("conv_relu_pool(Tensor x, Tensor weight, Tensor? bias, str layer) -> Tensor")
_LIBRARY.define("conv_relu_pool_forward(Tensor x, Tensor weight, Tensor? bias, str layer) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(
    "conv_relu_pool_dgrad(Tensor grad, Tensor code, Tensor saved, Tensor weight, SymInt[] x_size, bool channels_last, "
    "str layer) -> Tensor"
)
_LIBRARY.define(
    "conv_relu_pool_wgrad(Tensor grad, Tensor code, Tensor saved, Tensor x, Tensor weight, bool needs_weight, "
    "bool needs_bias, str layer) -> (Tensor, Tensor)"
)
ops = torch.ops.tidepool


@functools.lru_cache(maxsize=4096)
def _geometry(x_size: torch.Size, weight_size: torch.Size, layer: str) -> tuple[Geometry, Shapes]:
    """Geometry of a call, worked out once per shape and settings."""
    return build_geometry(x_size, weight_size, layer_from_text(layer))


# --- Real implementations --------------------------------------------------------------------------------------------


def _check_device(x: Tensor) -> None:
    if INTERPRETED:
        if x.device.type != "cpu":
            raise ArgumentError(f"backend='triton' is interpreted here and takes CPU tensors, but x is on {x.device}")
    elif not x.is_cuda:
        raise ArgumentError(
            f"backend='triton' takes CUDA tensors, but x is on {x.device}: move it, or set TRITON_INTERPRET=1 before "
            "importing kernels to run the kernels in the interpreter"
        )


def _given(tensor: Tensor) -> Tensor | None:
    """None for the empty stand-in of a tensor that was not saved."""
    return tensor if tensor.dim() > 1 else None


def _or_nothing(tensor: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if tensor is None else tensor


def _empty_result(x: Tensor, weight: Tensor, geometry: Geometry, shapes: Shapes) -> Tensor:
    size = (shapes.batch, weight.shape[0], *shapes.output[3 - geometry.rank :])
    return empty_in_format(size, x, output_format(x, weight))


def _infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    _check_device(x)
    geometry, shapes = _geometry(x.shape, weight.shape, layer)
    y = _empty_result(x, weight, geometry, shapes)
    conv_relu_pool_forward(x, weight, bias, y, None, None, geometry, shapes)
    return y


def _save(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    _check_device(x)
    geometry, shapes = _geometry(x.shape, weight.shape, layer)
    y = _empty_result(x, weight, geometry, shapes)
    code, winner = empty_saved(y, geometry, shapes)
    conv_relu_pool_forward(x, weight, bias, y, code, winner, geometry, shapes)
    return y, code, winner


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    y, code, winner = _save(x, weight, bias, layer)
    return y, _or_nothing(code, x), _or_nothing(winner, x)


def _input_gradient(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    weight: Tensor,
    x_size: torch.Size,
    channels_last: bool,
    layer: str,
) -> Tensor:
    geometry, shapes = _geometry(x_size, weight.shape, layer)
    dx = empty_in_format(x_size, grad, channels_last)
    conv_relu_pool_dgrad(grad, code, saved, weight, dx, geometry, shapes)
    return dx


def _weight_gradient(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    layer: str,
) -> tuple[Tensor | None, Tensor | None]:
    geometry, shapes = _geometry(x.shape, weight.shape, layer)
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    conv_relu_pool_wgrad(grad, code, saved, x, dweight, dbias, geometry, shapes)
    return dweight, dbias


def _dgrad(
    grad: Tensor, code: Tensor, saved: Tensor, weight: Tensor, x_size: list[int], channels_last: bool, layer: str
) -> Tensor:
    _check_device(grad)
    return _input_gradient(grad, _given(code), _given(saved), weight, torch.Size(x_size), channels_last, layer)


def _wgrad(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    layer: str,
) -> tuple[Tensor, Tensor]:
    _check_device(grad)
    dweight, dbias = _weight_gradient(grad, _given(code), _given(saved), x, weight, needs_weight, needs_bias, layer)
    return _or_nothing(dweight, grad), _or_nothing(dbias, grad)


# --- Fake implementations: shapes, dtypes and formats, sizes possibly symbolic ---------------------------------------


def _fake_infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    settings = layer_from_text(layer)
    check_tensors(x, weight, bias)
    check_channels(x, weight, bias, settings.groups)
    _, output = spatial_sizes(tuple(x.shape[2:]), tuple(weight.shape[2:]), settings)
    return empty_in_format((x.shape[0], weight.shape[0], *output), x, output_format(x, weight))


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    y = _fake_infer(x, weight, bias, layer)
    geometry, shapes = build_geometry(x.shape, weight.shape, layer_from_text(layer))
    code, winner = empty_saved(y, geometry, shapes)
    return y, _or_nothing(code, x), _or_nothing(winner, x)


def _fake_dgrad(
    grad: Tensor, code: Tensor, saved: Tensor, weight: Tensor, x_size: list[int], channels_last: bool, layer: str
) -> Tensor:
    return empty_in_format(tuple(x_size), grad, channels_last)


def _fake_wgrad(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    layer: str,
) -> tuple[Tensor, Tensor]:
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    return _or_nothing(dweight, grad), _or_nothing(dbias, grad)


# --- Autograd --------------------------------------------------------------------------------------------------------


def _refuse_forward_mode(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                "conv_relu_pool with backend='triton' has no forward-mode derivative: use backend='cudnn' for jvp"
            )


def _is_differentiated(*tensors: Tensor | None) -> bool:
    """Whether a result computed from these tensors has to be recorded. Refuses forward mode."""
    if forward_ad._current_level >= 0:
        _refuse_forward_mode(*tensors)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _apply(function: Any, *arguments: Any) -> Any:
    """`function.apply`, allowed inside torch.func too: by the time an operator's Autograd key is reached, the transform
    has chosen its level, and the function stays on it. What an outer level would differentiate as well is refused."""
    if not torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    forward_mode = any(i.key() == TransformType.Jvp for i in get_interpreter_stack() or ())
    if forward_mode or any(_requires_grad_outside(a) for a in arguments if isinstance(a, Tensor)):
        raise NotImplementedError(
            "conv_relu_pool with backend='triton' is differentiated by one torch.func transform at a time: "
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


class _ConvReLUPool(_SingleLevelFunction):
    """Saves x, weight and what `Geometry` says of the outputs; computes the gradients that are asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, direct: bool) -> Tensor:
        code: Tensor | None
        winner: Tensor | None
        if direct:
            y, code, winner = _save(x, weight, bias, layer)
        else:
            y, code, winner = ops.conv_relu_pool_forward(x, weight, bias, layer)
        settings = layer_from_text(layer)
        ctx.smooth_average = settings.pool == "avg" and settings.activation in ("silu", "gelu")
        x_needed = ctx.needs_input_grad[1] or ctx.smooth_average
        ctx.save_for_backward(x if x_needed else None, weight, bias if ctx.smooth_average else None, code, winner)
        ctx.set_materialize_grads(False)
        ctx.x_size, ctx.layer, ctx.direct = x.shape, layer, direct
        ctx.channels_last = ctx.needs_input_grad[0] and output_format(x)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None, None, None, None
        x, weight, bias, code, saved = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = _asked_for(ctx)
        if ctx.smooth_average:
            # The convolution once more, without activation and pool: cheaper to redo than to keep.
            saved = call(x, weight, bias, _without_activation_and_pool(ctx.layer))
        # Without dweight x is only looked at for its size.
        like = x if x is not None or not needs_bias else grad.new_empty(1).expand(ctx.x_size)
        dx = dweight = dbias = None
        if ctx.direct and not torch.is_grad_enabled() and _is_direct(grad):
            if needs_x:
                dx = _input_gradient(grad, code, saved, weight, ctx.x_size, ctx.channels_last, ctx.layer)
            if needs_weight or needs_bias:
                dweight, dbias = _weight_gradient(grad, code, saved, like, weight, needs_weight, needs_bias, ctx.layer)
            return dx, dweight, dbias, None, None
        code, saved = _or_nothing(code, grad), _or_nothing(saved, grad)
        if needs_x:
            dx = ops.conv_relu_pool_dgrad(grad, code, saved, weight, ctx.x_size, ctx.channels_last, ctx.layer)
        if needs_weight or needs_bias:
            wanted = (needs_weight, needs_bias)
            dweight, dbias = ops.conv_relu_pool_wgrad(grad, code, saved, like, weight, *wanted, ctx.layer)
        return dx, dweight if needs_weight else None, dbias if needs_bias else None, None, None


def _asked_for(ctx: Any) -> tuple[bool, bool, bool]:
    """Which of x, weight and bias need a gradient of this backward: `autograd.grad` may ask for some only."""
    edges = zip(ctx.needs_input_grad, ctx.next_functions, strict=False)
    asked = [needs and _will_run(node) for needs, (node, _) in edges]
    return asked[0], asked[1], len(asked) > 2 and asked[2]


def _will_run(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf whose gradient `autograd.grad` returns, or no engine runs: torch.compile traces
        return True


class _NotDifferentiable(_SingleLevelFunction):
    """An internal operator's results, recorded so that differentiating them is answered, not silently wrong."""

    @staticmethod
    def forward(ctx: Any, operator: Any, *arguments: Any) -> Any:
        return operator(*arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            "conv_relu_pool with backend='triton' has no second derivative: use backend='cudnn' for double backward"
        )


@functools.cache
def _without_activation_and_pool(layer: str) -> str:
    settings = layer_from_text(layer)
    rank = len(settings.stride)
    ones, zeros = (1,) * rank, (0,) * rank
    convolution = (settings.stride, settings.padding, settings.dilation, settings.groups)
    return Layer(*convolution, "none", "none", ones, ones, zeros, ones, False, True).text()


def _autograd(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    if _is_differentiated(x, weight, bias):
        return _apply(_ConvReLUPool, x, weight, bias, layer, False)
    with torch._C._AutoDispatchBelowAutograd():
        return ops.conv_relu_pool(x, weight, bias, layer)


def _autograd_internal(operator: Any) -> Any:
    def autograd(*arguments: Any) -> Any:
        if _is_differentiated(*(a for a in arguments if isinstance(a, Tensor))):
            return _apply(_NotDifferentiable, operator, *arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return autograd


# --- Autocast, and the way around the dispatcher ---------------------------------------------------------------------


def _autocast(device_type: str) -> Any:
    def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
            return tensor
        return tensor.to(dtype)

    def autocast(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
        dtype = torch.get_autocast_dtype(device_type)
        with torch.autocast(device_type, enabled=False):
            return ops.conv_relu_pool(cast(x, dtype), cast(weight, dtype), cast(bias, dtype), layer)

    return autocast


def _keys(tensor: Tensor) -> int:
    return torch._C._dispatch_keys(tensor).raw_repr()


def _plain_keys() -> set[int]:
    if INTERPRETED:
        return {_keys(torch.empty(0))}
    return {_keys(torch.empty(0, device="cuda"))} if torch.cuda.is_available() else set()


_PLAIN_KEYS = _plain_keys()
"""Dispatch keys of an ordinary tensor where the kernels run: no subclass, wrapper, lazy conjugate or other layout."""


def _is_direct(*tensors: Tensor) -> bool:
    """Whether the dispatcher would only pass these tensors on to the kernels: no mode, transform or trace is on."""
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    if forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None:
        return False
    return all([_keys(t) in _PLAIN_KEYS for t in tensors])  # a list: this runs at every call, and is half as dear


def call(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    """`tidepool::conv_relu_pool`, directly where nothing stands between."""
    if (
        torch.compiler.is_compiling()
        or not _is_direct(*((x, weight) if bias is None else (x, weight, bias)))  # before autocast, which meta lacks
        or torch.is_autocast_enabled(x.device.type)
    ):
        return ops.conv_relu_pool(x, weight, bias, layer)
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _apply(_ConvReLUPool, x, weight, bias, layer, True)
    return _infer(x, weight, bias, layer)


for _name, _real, _fake in (
    ("conv_relu_pool", _infer, _fake_infer),
    ("conv_relu_pool_forward", _forward, _fake_forward),
    ("conv_relu_pool_dgrad", _dgrad, _fake_dgrad),
    ("conv_relu_pool_wgrad", _wgrad, _fake_wgrad),
):
    _LIBRARY.impl(_name, _real, "CPU")
    _LIBRARY.impl(_name, _real, "CUDA")
    torch.library.register_fake(f"tidepool::{_name}", _fake, lib=_LIBRARY)
    if _name != "conv_relu_pool":
        _LIBRARY.impl(_name, _autograd_internal(getattr(ops, _name).default), "Autograd")
_LIBRARY.impl("conv_relu_pool", _autograd, "Autograd")
_LIBRARY.impl("conv_relu_pool", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("conv_relu_pool", _autocast("cuda"), "AutocastCUDA")
